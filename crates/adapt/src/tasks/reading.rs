//! A file of a task's rows: what is said of it, and what was found in it.

use std::io::{self, Write};

use retune_data::{DataError, Examples, LabelMap, Named, ProblemType, ReadOptions};
use serde::{Deserialize, Serialize};

use super::Answered;

/// The columns of a file that a task uses, and what else says how its labels are written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnNames {
    /// The text.
    pub text: String,
    /// The second text.
    pub pair: Option<String>,
    /// The label.
    pub label: Option<String>,
    /// What stands between the labels of a row.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label_separator: Option<String>,
    /// How the tags of words are written.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tag_scheme: Option<String>,
}

/// What is known of a file before it is read.
#[derive(Debug, Clone, Default)]
pub struct Reading<'a> {
    /// Its format and encoding.
    pub options: ReadOptions,
    /// The text column, as somebody named it.
    pub text: Option<&'a str>,
    /// The label column.
    pub label: Option<&'a str>,
    /// The column of the second text.
    pub pair: Option<&'a str>,
    /// What stands between the labels of a row.
    pub label_separator: Option<&'a str>,
    /// How the tags of words are written.
    pub tag_scheme: Option<&'a str>,
    /// What a model was trained on: its columns are taken where the file has them and nobody named others.
    pub trained: Option<&'a ColumnNames>,
    /// What a model's outputs are called, where there is one.
    pub labels: Option<&'a LabelMap>,
    /// What a label is.
    pub problem_type: WantedProblemType,
    /// Whether the labels are read: rows to predict may have none.
    pub labelled: bool,
}

/// What is known of the labels of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedProblemType {
    /// This is what they are.
    Known(ProblemType),
    /// They are what was `asked` for, else what their column looks like; `head` is what the model's own head says.
    Found {
        /// As somebody said.
        asked: Option<ProblemType>,
        /// Of the model that training goes on from.
        head: Option<ProblemType>,
    },
}

impl Default for WantedProblemType {
    fn default() -> Self {
        WantedProblemType::Found { asked: None, head: None }
    }
}

impl<'a> Reading<'a> {
    /// A column: as it was named, else that of the training where `has` it.
    pub fn column(
        &self,
        given: Option<&'a str>,
        trained: impl FnOnce(&'a ColumnNames) -> Option<&'a String>,
        has: impl FnOnce(&str) -> bool,
    ) -> Option<Named<'a>> {
        let given = given.map(|name| Named { name, why: "as asked" });
        let trained = self.trained.and_then(trained).filter(|name| has(name));
        given.or(trained.map(|name| Named { name, why: "as the model was trained" }))
    }

    /// What stands between several labels: as given, else as a model was trained.
    pub fn separator(&self) -> Option<&'a str> {
        let trained = self.trained.and_then(|columns| columns.label_separator.as_deref());
        self.label_separator.or(trained)
    }
}

/// A file that was read.
#[derive(Debug)]
pub struct Corpus {
    /// Its rows.
    pub examples: Examples,
    /// Where in it they stand.
    pub columns: ColumnNames,
    /// What a label is, where a task has several kinds.
    pub problem_type: Option<ProblemType>,
    /// Sentences for the user: what was found, what was guessed, what looks odd.
    pub said: Vec<String>,
    /// The file itself.
    pub file: Box<dyn RowFile>,
}

/// A file of rows.
pub trait RowFile: std::fmt::Debug {
    /// The labels of `examples`, which were read from it, in the order of the logits. Errors if they are none to learn
    /// from.
    fn labels(&self, examples: &Examples) -> Result<LabelMap, DataError>;

    /// Its columns, where its form has such.
    fn columns(&self) -> &[String] {
        &[]
    }

    /// What stands in one of them, for each row in order, without white space around it; nothing where it is missing.
    fn column(&self, index: usize) -> Result<Vec<String>, DataError> {
        let _ = index;
        Ok(Vec::new())
    }

    /// What the user is to know of how predictions are written, given the first of them.
    fn said_of(&self, first: &Answered) -> Option<String>;

    /// How the names end that its rows can be written to, in the order that people are told them; a name without an ending says its
    /// own form.
    fn endings(&self) -> Vec<&'static str> {
        super::table_file::ENDINGS.to_vec()
    }

    /// Errors if predictions cannot be written in the form that `ending` says: asked before they are made.
    fn check(&self, ending: Option<&str>) -> Result<(), DataError> {
        let _ = ending;
        Ok(())
    }

    /// Writes its rows with their predictions, of all of them in their order, in the form that `ending` says or else its own.
    fn write(&self, predictions: &[Answered], ending: Option<&str>, writer: &mut dyn Write)
    -> io::Result<()>;
}
