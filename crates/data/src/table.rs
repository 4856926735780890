//! A file as rows and named columns.

use std::path::{Path, PathBuf};

use crate::format::Format;
use crate::notice::Notice;

/// A file's rows and columns; at least one of each. Every field is text.
///
/// All fields lie in one string, so that a million rows do not cost a million allocations.
#[derive(Debug, Clone)]
pub struct Table {
    pub(crate) path: PathBuf,
    format: Format,
    columns: Vec<String>,
    pub(crate) notices: Vec<Notice>,
    text: String,
    /// The fields of all rows, one after the other; a missing value has none.
    fields: Vec<Field>,
    ends: Vec<RowEnd>,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    column: u32,
    /// It stands as JSON has it: a number, a boolean, a list or an object, and no text.
    json: bool,
    /// Where its text ends; it begins where the field before ended.
    end: usize,
}

#[derive(Debug, Clone, Copy)]
struct RowEnd {
    line: u64,
    /// How many fields there are up to here; the row begins where the one before ended.
    fields: usize,
}

/// One row of a [`Table`].
#[derive(Debug, Clone, Copy)]
pub struct Row<'t> {
    table: &'t Table,
    index: usize,
    line: u64,
    first: usize,
    end: usize,
}

impl Table {
    pub(crate) fn new(format: Format, columns: Vec<String>) -> Self {
        Table {
            path: PathBuf::new(),
            format,
            columns,
            notices: Vec::new(),
            text: String::new(),
            fields: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Adds a column, which the rows so far lack, and returns its index.
    pub(crate) fn add_column(&mut self, name: String) -> usize {
        self.columns.push(name);
        self.columns.len() - 1
    }

    /// Adds a field to the row under way.
    pub(crate) fn push_field(&mut self, column: usize, value: &str) {
        self.push(column, value, false);
    }

    /// Adds a field that stands as JSON has it.
    pub(crate) fn push_json(&mut self, column: usize, value: &str) {
        self.push(column, value, true);
    }

    fn push(&mut self, column: usize, value: &str, json: bool) {
        self.text.push_str(value);
        // More columns than that would have taken more memory than there is.
        let column = u32::try_from(column).unwrap_or(u32::MAX);
        self.fields.push(Field { column, json, end: self.text.len() });
    }

    /// Ends the row under way, which began on `line`.
    pub(crate) fn end_row(&mut self, line: u64) {
        self.ends.push(RowEnd { line, fields: self.fields.len() });
    }

    /// The file that the table was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's format, as found or asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The columns' names: a header's in its order, JSON keys in the order they are first met.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What looked odd while reading.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no rows; never so for a table that was read from a file.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The row at `index`, counted from 0.
    pub fn row(&self, index: usize) -> Option<Row<'_>> {
        let RowEnd { line, fields: end } = *self.ends.get(index)?;
        let first = index.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |row| row.fields);
        Some(Row { table: self, index, line, first, end })
    }

    /// All rows in the file's order.
    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.len()).filter_map(|index| self.row(index))
    }
}

impl<'t> Row<'t> {
    /// The row's place in the file, counted from 0: its stable identity.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The line where the row starts, counted from 1; fields with line breaks make this more than the index.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The value in `column`, none where it is missing. An empty CSV field is an empty value, not a missing
    /// one.
    pub fn get(&self, column: usize) -> Option<&'t str> {
        let (place, Field { end, .. }) = self.find(column)?;
        let before = (self.first + place).checked_sub(1).and_then(|before| self.table.fields.get(before));
        self.table.text.get(before.map_or(0, |field| field.end)..end)
    }

    /// Whether the value in `column` is a number, a boolean, a list or an object of JSON, as it was written there.
    pub fn is_json(&self, column: usize) -> bool {
        self.find(column).is_some_and(|(_, field)| field.json)
    }

    fn find(&self, column: usize) -> Option<(usize, Field)> {
        let fields = self.table.fields.get(self.first..self.end)?;
        let is = |field: &Field| field.column as usize == column;
        // In all but odd JSON the fields stand in the columns' order, so the first look finds it.
        let place = match fields.get(column) {
            Some(field) if is(field) => column,
            _ => fields.iter().position(is)?,
        };
        Some((place, *fields.get(place)?))
    }

    /// The values of all columns in their order.
    pub fn values(&self) -> impl Iterator<Item = Option<&'t str>> + use<'t> {
        let row = *self;
        (0..row.table.columns.len()).map(move |column| row.get(column))
    }
}
