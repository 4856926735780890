//! Where in a model folder the weights are: one file, or shards with an index.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::header::Unique;
use crate::ModelError;
use crate::error::quoted;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Endings of the files that run code when loaded.
const PICKLES: [&str; 6] = [".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".pkl"];

/// Which files hold the weights.
pub(in crate::formats) enum Location {
    Single(PathBuf),
    Sharded(Index),
}

/// A checkpoint's index: which tensor lies in which file beside it.
pub(in crate::formats) struct Index {
    pub(in crate::formats) path: PathBuf,
    /// Tensor to file name.
    pub(in crate::formats) weight_map: BTreeMap<String, String>,
}

/// Finds the weights in a folder, or takes the file that was named.
pub(in crate::formats) fn locate(path: &Path) -> Result<Location, ModelError> {
    let kind = fs::metadata(path).map_err(|e| ModelError::io(path, "open", e))?;
    if !kind.is_dir() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        return if is_pickle(&name) {
            Err(refuse_pickle(path, path.parent().unwrap_or(Path::new("."))))
        } else if name.ends_with(".index.json") {
            Index::read(path).map(Location::Sharded)
        } else {
            Ok(Location::Single(path.to_path_buf()))
        };
    }
    if path.join(SINGLE).exists() {
        return Ok(Location::Single(path.join(SINGLE)));
    }
    if path.join(INDEX).exists() {
        return Index::read(&path.join(INDEX)).map(Location::Sharded);
    }
    let names = names_in(path)?;
    if let Some(pickle) = names.iter().find(|name| name.starts_with("pytorch_model") && is_pickle(name)) {
        return Err(refuse_pickle(&path.join(pickle), path));
    }
    let there = match names.len() {
        0 => "nothing".to_string(),
        _ => listed(&names),
    };
    Err(ModelError::Unsupported {
        path: path.to_path_buf(),
        message: format!("no weights here: expected {SINGLE} or {INDEX}, the folder holds {there}"),
    })
}

/// Names of the folder's entries, sorted.
fn names_in(folder: &Path) -> Result<Vec<String>, ModelError> {
    let unreadable = |e| ModelError::io(folder, "list", e);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        names.push(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The first few names, for a message.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let first = names.iter().take(SHOWN).map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{first} and {} more", names.len() - SHOWN) } else { first }
}

fn is_pickle(name: &str) -> bool {
    PICKLES.iter().any(|ending| name.ends_with(ending))
}

fn refuse_pickle(path: &Path, folder: &Path) -> ModelError {
    let class = architecture(folder).unwrap_or_else(|| "AutoModel".to_string());
    let folder = folder.display();
    ModelError::Unsupported {
        path: path.to_path_buf(),
        message: format!(
            "a pickle, which can run any code when it is loaded, and so is never loaded here. If you trust where \
             it came from, convert it once with Python:\n    from transformers import {class}\n    \
             {class}.from_pretrained(r\"{folder}\").save_pretrained(r\"{folder}\", safe_serialization=True)"
        ),
    }
}

/// The class that keeps every weight on conversion, heads included; `AutoModel` would drop them.
pub(crate) fn architecture(folder: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Architectures {
        architectures: Vec<String>,
    }
    let text = fs::read_to_string(folder.join("config.json")).ok()?;
    let class = serde_json::from_str::<Architectures>(&text).ok()?.architectures.into_iter().next()?;
    // The name goes into code that is shown for pasting: let nothing else through.
    let is_name = !class.is_empty() && class.len() < 100 && class.chars().all(|c| c.is_ascii_alphanumeric());
    is_name.then_some(class)
}

/// The names of the shards that an index tells of, whether they are there or not. Errors if one leads elsewhere or is a
/// pickle.
pub(crate) fn shard_names(index: &Path) -> Result<Vec<String>, ModelError> {
    Ok(Index::parse(index)?.shards().into_iter().map(str::to_string).collect())
}

impl Index {
    /// Reads the index, and holds that every shard is there.
    fn read(path: &Path) -> Result<Self, ModelError> {
        let index = Self::parse(path)?;
        index.check_there()?;
        Ok(index)
    }

    fn parse(path: &Path) -> Result<Self, ModelError> {
        #[derive(Deserialize)]
        struct File {
            weight_map: Unique<String>,
        }
        let text = fs::read(path).map_err(|e| ModelError::io(path, "read", e))?;
        let file: File = serde_json::from_slice(&text).map_err(|e| ModelError::Format {
            path: path.to_path_buf(),
            place: format!("line {}, column {}", e.line(), e.column()),
            expected: "an object with `weight_map`, from tensor to file name".into(),
            got: e.to_string(),
        })?;
        let index = Self { path: path.to_path_buf(), weight_map: file.weight_map.0 };
        index.check_names()?;
        Ok(index)
    }

    /// The shards' names, each once, in order.
    pub(in crate::formats) fn shards(&self) -> Vec<&str> {
        let mut shards: Vec<&str> = self.weight_map.values().map(String::as_str).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// A name beside the index only: an index that came from elsewhere must not choose files elsewhere.
    fn check_names(&self) -> Result<(), ModelError> {
        let wrong = |place: String, expected: String, got: String| {
            Err(ModelError::Format { path: self.path.clone(), place, expected, got })
        };
        let folder = self.path.parent().unwrap_or(Path::new("."));
        for shard in self.shards() {
            let plain =
                Path::new(shard).file_name() == Some(OsStr::new(shard)) && !shard.contains(['/', '\\']);
            if !plain {
                let expected = "the name of a file in the same folder".to_string();
                return wrong("weight_map".into(), expected, quoted(shard));
            }
            if is_pickle(shard) {
                return Err(refuse_pickle(&folder.join(shard), folder));
            }
        }
        Ok(())
    }

    fn check_there(&self) -> Result<(), ModelError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let missing: Vec<String> = self
            .shards()
            .into_iter()
            .filter(|shard| !folder.join(shard).is_file())
            .map(str::to_string)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(ModelError::Format {
            path: self.path.clone(),
            place: "weight_map".into(),
            expected: "every shard to be there".into(),
            got: format!("no file {}", listed(&missing)),
        })
    }
}
