//! Rows that a task can learn from or predict.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use crate::columns::Columns;
use crate::error::DataError;
use crate::label::{Label, LabelReading};
use crate::places::Gaps;
use crate::table::{Row, Table};

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

    /// What makes two examples the same to a reader: their texts, and what is learnt behind them, but for case and white
    /// space.
    pub fn key(&self) -> (String, String) {
        let words = |text: &str| text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ");
        let second = match &self.label {
            Some(Label::Lesson(lesson)) => words(&lesson.learnt()),
            _ => self.pair.as_deref().map(words).unwrap_or_default(),
        };
        (words(&self.text), second)
    }
}

/// The rows of `table` with their labels, read as `reading` says, for training and evaluation.
///
/// # Errors
/// As [`Examples::labelled`].
pub fn labelled_examples(
    table: &Table,
    columns: &Columns,
    reading: &LabelReading,
) -> Result<Vec<Example>, DataError> {
    let mut examples = Vec::with_capacity(table.len());
    check_labelled(table, columns, reading, |example| examples.push(example))?;
    Ok(examples)
}

/// The rows of `table` without labels, for prediction: one example a row, in order, empty texts included.
///
/// # Errors
/// The system cannot read the rows again.
pub fn unlabelled_examples(table: &Table, columns: &Columns) -> Result<Vec<Example>, DataError> {
    table.rows().map(|row| Ok(unlabelled(&row?, columns))).collect()
}

fn unlabelled(row: &Row<'_>, columns: &Columns) -> Example {
    let value = |column: usize| row.get(column).unwrap_or_default().to_owned();
    Example {
        row: row.index() as u64,
        line: row.line(),
        text: value(columns.text.index),
        pair: columns.pair.as_ref().map(|pair| value(pair.index)),
        label: None,
    }
}

/// Shows each row with its label to `take`; errors as [`Examples::labelled`].
fn check_labelled(
    table: &Table,
    columns: &Columns,
    reading: &LabelReading,
    mut take: impl FnMut(Example),
) -> Result<(), DataError> {
    let label_column = columns.require_label(table)?;
    let names = [Some(label_column), Some(&columns.text), columns.pair.as_ref()];
    let mut gaps = Gaps::of(names.into_iter().flatten().map(|choice| choice.name.as_str()));
    for row in table.rows() {
        let row = row?;
        let mut example = unlabelled(&row, columns);
        let label = row.get(label_column.index).unwrap_or_default().trim();
        let no_label = label.is_empty() && !reading.takes_empty();
        let pair_missing = example.pair.as_ref().is_some_and(|pair| pair.trim().is_empty());
        gaps.note(&row, [no_label, example.text.trim().is_empty(), pair_missing]);
        if !no_label {
            let read = reading.read(label);
            example.label = Some(read.map_err(|message| {
                table.error_at(row.index(), row.line(), format!("column `{}`: {message}", label_column.name))
            })?);
        }
        take(example);
    }
    gaps.check(table, "a text and a label")
}

/// Rows as a task sees them, as many as there may be: those of a table are not in memory, but made of its rows where they
/// are asked for. Whoever has made them already gives a `Vec` of them.
#[derive(Debug, Clone)]
pub struct Examples {
    source: Source,
    /// Which of the source's rows they are, in rising order; all without it.
    chosen: Option<Arc<[u32]>>,
}

#[derive(Debug, Clone)]
enum Source {
    Memory(Arc<[Example]>),
    Table(Arc<TableRows>),
}

#[derive(Debug)]
struct TableRows {
    table: Arc<Table>,
    reading: Box<dyn ReadRow>,
}

/// How a row becomes an example.
pub(crate) trait ReadRow: Debug + Send + Sync {
    /// Errors with what is wrong, and no place.
    fn read(&self, row: &Row<'_>) -> Result<Example, String>;
}

/// Columns, and how their labels are read, where there are any.
#[derive(Debug)]
struct ColumnRows(Columns, Option<LabelReading>);

impl ReadRow for ColumnRows {
    fn read(&self, row: &Row<'_>) -> Result<Example, String> {
        let ColumnRows(columns, reading) = self;
        let mut example = unlabelled(row, columns);
        if let (Some(reading), Some(column)) = (reading, &columns.label) {
            example.label = Some(reading.read(row.get(column.index).unwrap_or_default())?);
        }
        Ok(example)
    }
}

impl From<Vec<Example>> for Examples {
    fn from(examples: Vec<Example>) -> Self {
        Examples { source: Source::Memory(examples.into()), chosen: None }
    }
}

impl Examples {
    /// The rows of `table` with their labels, read as `reading` says, for training and evaluation.
    ///
    /// # Errors
    /// There is no label column, or rows have no label, no text or no second text (their lines are named), or a label is
    /// not what it should be, such as a word among numbers.
    pub fn labelled(table: Arc<Table>, columns: &Columns, reading: &LabelReading) -> Result<Self, DataError> {
        check_labelled(&table, columns, reading, drop)?;
        Ok(Self::of_rows(table, ColumnRows(columns.clone(), Some(reading.clone()))))
    }

    /// The rows of `table` without labels, for prediction: one example a row, in order, empty texts included.
    pub fn unlabelled(table: Arc<Table>, columns: &Columns) -> Self {
        Self::of_rows(table, ColumnRows(columns.clone(), None))
    }

    /// The rows of `table` as `reading` reads them, which were checked.
    pub(crate) fn of_rows(table: Arc<Table>, reading: impl ReadRow + 'static) -> Self {
        let rows = TableRows { table, reading: Box::new(reading) };
        Examples { source: Source::Table(Arc::new(rows)), chosen: None }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match (&self.chosen, &self.source) {
            (Some(chosen), _) => chosen.len(),
            (None, Source::Memory(memory)) => memory.len(),
            (None, Source::Table(rows)) => rows.table.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The example at `index`; none beyond the last. Errors if the system cannot read it again.
    pub fn get(&self, index: usize) -> Result<Option<Example>, DataError> {
        let place = match &self.chosen {
            None => index,
            Some(chosen) => match chosen.get(index) {
                Some(place) => *place as usize,
                None => return Ok(None),
            },
        };
        match &self.source {
            Source::Memory(memory) => Ok(memory.get(place).cloned()),
            Source::Table(rows) => rows.table.row(place)?.map(|row| rows.example(&row)).transpose(),
        }
    }

    /// The example at `index`, which is one of these. Errors as [`Examples::get`], and if there is none.
    pub fn at(&self, index: usize) -> Result<Example, DataError> {
        self.get(index)?
            .ok_or_else(|| DataError::new(format!("expected {} examples, got none at {index}", self.len())))
    }

    /// All of them, in order. Each may be an error of the system.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Result<Example, DataError>> + Send + '_> {
        match (&self.source, &self.chosen) {
            (Source::Memory(memory), None) => Box::new(memory.iter().cloned().map(Ok)),
            (Source::Memory(memory), Some(chosen)) => {
                Box::new(chosen.iter().filter_map(|place| memory.get(*place as usize).cloned()).map(Ok))
            }
            (Source::Table(rows), None) => Box::new(rows.table.rows().map(|row| rows.example(&row?))),
            (Source::Table(rows), Some(chosen)) => {
                let (mut all, mut next) = (rows.table.rows(), 0);
                Box::new(chosen.iter().filter_map(move |place| {
                    let gap = (*place as usize).saturating_sub(next);
                    next = *place as usize + 1;
                    all.nth(gap).map(|row| rows.example(&row?))
                }))
            }
        }
    }

    /// All of them in order, so many at a time.
    pub(crate) fn chunks(&self, size: usize) -> impl Iterator<Item = Result<Vec<Example>, DataError>> {
        let mut rest = self.iter();
        std::iter::from_fn(move || {
            let chunk = rest.by_ref().take(size).collect::<Result<Vec<_>, _>>();
            chunk.map(|chunk| (!chunk.is_empty()).then_some(chunk)).transpose()
        })
    }

    /// Those at the places `chosen`, which rise.
    pub fn pick(&self, chosen: &[u32]) -> Self {
        let place = |index: &u32| match &self.chosen {
            None => Some(*index),
            Some(chosen) => chosen.get(*index as usize).copied(),
        };
        Examples { source: self.source.clone(), chosen: Some(chosen.iter().filter_map(place).collect()) }
    }

    /// The table that they are made of; none where they are in memory.
    pub(crate) fn table(&self) -> Option<&Table> {
        match &self.source {
            Source::Table(rows) => Some(&rows.table),
            Source::Memory(_) => None,
        }
    }

    /// Where a row is, which begins on `line`: `line 3`, and of which file where they are of several.
    pub fn place_words(&self, row: u64, line: u64) -> String {
        match self.table() {
            Some(table) => table.place_words(usize::try_from(row).unwrap_or_default(), line),
            None => format!("line {line}"),
        }
    }

    /// The file that `example` is in, which is one of these, where they are of several.
    pub fn file_of(&self, example: &Example) -> Option<&Path> {
        self.table()?.places().one_of_several(usize::try_from(example.row).ok()?)
    }

    /// An error about `example`, which is one of these, from the file that it is in; from `path` where that is not known.
    pub fn error_at(&self, example: &Example, path: &Path, message: impl Into<String>) -> DataError {
        match self.table() {
            Some(table) => {
                table.error_at(usize::try_from(example.row).unwrap_or_default(), example.line, message)
            }
            None => DataError::new(message).in_file(path).at_line(example.line),
        }
    }
}

impl TableRows {
    fn example(&self, row: &Row<'_>) -> Result<Example, DataError> {
        // It was read before, when all were checked.
        self.reading.read(row).map_err(|message| self.table.error_at(row.index(), row.line(), message))
    }
}
