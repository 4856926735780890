//! Rows that a task can learn from or predict.

use crate::columns::Columns;
use crate::error::DataError;
use crate::label::{Label, LabelReading};
use crate::table::Table;
use crate::wording::{count, lines};

/// One row as a task sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The row's place in its file, counted from 0: what random numbers and predictions are keyed by.
    pub row: u64,
    /// The line in the file where the row starts, counted from 1.
    pub line: u64,
    /// The text, as it stands in the file.
    pub text: String,
    /// The second text, for a task on pairs.
    pub pair: Option<String>,
    /// What it is labelled with; none for prediction.
    pub label: Option<Label>,
}

impl Example {
    /// The name of its one class; none where it has none, several labels or a number.
    pub fn class(&self) -> Option<&str> {
        match &self.label {
            Some(Label::Class(name)) => Some(name),
            _ => None,
        }
    }

    /// The names that its label gives.
    pub fn names(&self) -> &[String] {
        self.label.as_ref().map_or(&[], Label::names)
    }

    /// What makes two examples the same to a reader: their texts, but for case and white space.
    pub fn key(&self) -> (String, String) {
        let words = |text: &str| text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ");
        (words(&self.text), self.pair.as_deref().map(words).unwrap_or_default())
    }
}

/// How many lines an error lists.
const LISTED_LINES: usize = 5;

/// The rows of `table` with their labels, read as `reading` says, for training and evaluation.
///
/// # Errors
/// There is no label column, or rows have no label, no text or no second text (their lines are named), or a label is
/// not what it should be, such as a word among numbers.
pub fn labelled_examples(
    table: &Table,
    columns: &Columns,
    reading: &LabelReading,
) -> Result<Vec<Example>, DataError> {
    let label_column = columns.require_label(table)?;
    let mut examples = unlabelled_examples(table, columns)?;
    let mut gaps: Vec<(&str, Gaps)> = vec![
        (label_column.name.as_str(), Gaps::default()),
        (columns.text.name.as_str(), Gaps::default()),
        (columns.pair.as_ref().map_or("", |pair| pair.name.as_str()), Gaps::default()),
    ];
    for (example, row) in examples.iter_mut().zip(table.rows()) {
        let row = row?;
        let label = row.get(label_column.index).unwrap_or_default().trim();
        let no_label = label.is_empty() && !reading.takes_empty();
        let pair_missing = example.pair.as_ref().is_some_and(|pair| pair.trim().is_empty());
        let missing = [no_label, example.text.trim().is_empty(), pair_missing];
        for ((_, gaps), _) in gaps.iter_mut().zip(missing).filter(|(_, missing)| *missing) {
            gaps.note(example.line);
        }
        if !no_label {
            let read = reading.read(label);
            example.label = Some(read.map_err(|message| {
                table.error_at(row.index(), row.line(), format!("column `{}`: {message}", label_column.name))
            })?);
        }
    }
    let found: Vec<String> = gaps
        .iter()
        .filter(|(_, gaps)| gaps.total > 0)
        .map(|(name, gaps)| {
            let verb = if gaps.total == 1 { "has" } else { "have" };
            let rows = count(gaps.total, "row");
            format!("{rows} {verb} nothing in column `{name}` ({})", lines(&gaps.first, gaps.total))
        })
        .collect();
    if found.is_empty() {
        return Ok(examples);
    }
    Err(DataError::new(format!(
        "expected a text and a label in every row, but {}: fill them in or delete the rows",
        found.join("; ")
    ))
    .in_file(table.path()))
}

/// The rows of `table` without labels, for prediction: one example a row, in order, empty texts included.
///
/// # Errors
/// The system cannot read the rows again.
pub fn unlabelled_examples(table: &Table, columns: &Columns) -> Result<Vec<Example>, DataError> {
    let mut examples = Vec::with_capacity(table.len());
    for row in table.rows() {
        let row = row?;
        let value = |column: usize| row.get(column).unwrap_or_default().to_owned();
        examples.push(Example {
            row: row.index() as u64,
            line: row.line(),
            text: value(columns.text.index),
            pair: columns.pair.as_ref().map(|pair| value(pair.index)),
            label: None,
        });
    }
    Ok(examples)
}

#[derive(Default)]
struct Gaps {
    first: Vec<u64>,
    total: usize,
}

impl Gaps {
    fn note(&mut self, line: u64) {
        if self.first.len() < LISTED_LINES {
            self.first.push(line);
        }
        self.total += 1;
    }
}
