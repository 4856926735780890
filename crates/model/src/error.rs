//! What can go wrong between a model on disk and a model in memory.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate. Each names the file it is about; the text is complete on its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The operating system refused a file: missing, not readable, disk full ...
    #[error("{}: cannot {action}: {error}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done, as a verb: `open`, `write` ...
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// A file's content breaks the rules of its format.
    #[error("{}: {place}: expected {expected}, got {got}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where in the file: a line and column, a byte, a tensor, a key.
        place: String,
        /// What the format asks for.
        expected: String,
        /// What the file has.
        got: String,
    },
    /// A key of a model's configuration is missing, mistyped or out of range.
    #[error("{}: `{key}`: expected {expected}, got {got}", .path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What may stand there.
        expected: String,
        /// What stands there.
        got: String,
    },
    /// Tensors of a checkpoint do not fit what is asked of them; all of them are listed.
    #[error("{}: {} of the tensors {} not fit:{}", .path.display(), .problems.len(),
        if .problems.len() == 1 { "does" } else { "do" }, Lines(.problems))]
    Tensors {
        /// The file or folder of the checkpoint.
        path: PathBuf,
        /// One entry a tensor.
        problems: Vec<TensorProblem>,
    },
    /// The tokenizer could not be read, or could not encode.
    #[error("{}: {message}", .path.display())]
    Tokenizer {
        /// The tokenizer's file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// The engine could not hold or compute what was asked for.
    #[error(transparent)]
    Tensor(#[from] retune_tensor::Error),
    /// A model of the hub that cannot be had as it was asked for.
    #[error("{id}: {message}")]
    Hub {
        /// Its id, `owner/name`.
        id: String,
        /// Why and what to do.
        message: String,
    },
    /// The hub could not be reached, or did not give what it has.
    #[error("{id}: {message}")]
    Network {
        /// The id of the model, `owner/name`.
        id: String,
        /// What happened and what to do.
        message: String,
    },
    /// The file is sound but of a kind that is not, or must not be, read.
    #[error("{}: {message}", .path.display())]
    Unsupported {
        /// The file or folder.
        path: PathBuf,
        /// Why it is not read and what to do.
        message: String,
    },
}

impl ModelError {
    /// Wraps the system's error with the file it is about. `action` is a verb: `open`, `write` ...
    pub fn io(path: impl AsRef<Path>, action: &'static str, error: io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), action, error }
    }
}

/// One tensor that does not fit, for [`ModelError::Tensors`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorProblem {
    /// The model needs a tensor that the checkpoint lacks.
    Missing {
        /// The name that was asked for.
        name: String,
        /// The most similar name that the checkpoint has, if one is near.
        nearest: Option<String>,
    },
    /// The checkpoint holds a tensor that the model has no place for.
    Extra {
        /// Its name.
        name: String,
    },
    /// The sizes differ.
    Shape {
        /// The tensor's name.
        name: String,
        /// The shape that the model needs.
        expected: Vec<usize>,
        /// The shape in the checkpoint.
        got: Vec<usize>,
    },
    /// The elements are of a type that cannot be read as asked.
    Dtype {
        /// The tensor's name.
        name: String,
        /// Why, with the type's name.
        reason: String,
    },
}

impl fmt::Display for TensorProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, nearest: None } => write!(f, "{} is missing", quoted(name)),
            Self::Missing { name, nearest: Some(nearest) } => {
                write!(f, "{} is missing; the nearest name there is {}", quoted(name), quoted(nearest))
            }
            Self::Extra { name } => write!(f, "{} has no place in the model", quoted(name)),
            Self::Shape { name, expected, got } => {
                write!(f, "{} should have shape {expected:?}, has {got:?}", quoted(name))
            }
            Self::Dtype { name, reason } => write!(f, "{} {reason}", quoted(name)),
        }
    }
}

struct Lines<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// A name from a file, made fit to print: control characters escaped, and cut where a hostile file has megabytes.
pub(crate) fn quoted(name: &str) -> String {
    const LONGEST: usize = 120;
    let mut shown: String = name.chars().take(LONGEST).flat_map(escaped).collect();
    if name.chars().nth(LONGEST).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// Only what would garble a terminal is escaped: letters of any script and quotes stay as they are.
fn escaped(c: char) -> impl Iterator<Item = char> {
    let (plain, escape) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escape.into_iter().flatten())
}

/// The candidate most like `name`, if it is near enough to be what was meant.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    const NEAR_ENOUGH: f64 = 0.8;
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= NEAR_ENOUGH)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tensors_stand_in_one_message() {
        let error = ModelError::Tensors {
            path: "m.safetensors".into(),
            problems: vec![
                TensorProblem::Missing {
                    name: "pooler.weigth".into(),
                    nearest: Some("pooler.weight".into()),
                },
                TensorProblem::Shape { name: "b".into(), expected: vec![3, 5], got: vec![] },
            ],
        };
        assert_eq!(
            error.to_string(),
            "m.safetensors: 2 of the tensors do not fit:\n  `pooler.weigth` is missing; the nearest name there is \
             `pooler.weight`\n  `b` should have shape [3, 5], has []"
        );
    }

    #[test]
    fn hostile_names_are_cut_and_escaped() {
        assert_eq!(quoted("a\u{1b}[31m\nÄ中`"), "`a\\u{1b}[31m\\nÄ中``");
        assert_eq!(quoted(&"長".repeat(5000)).chars().count(), 120 + 3 + 2);
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["encoder.layer.0.output", "encoder.layer.1.output", "pooler.dense"];
        assert_eq!(nearest("pooler.denes", names).as_deref(), Some("pooler.dense"));
        assert_eq!(nearest("lm_head", names), None);
    }
}
