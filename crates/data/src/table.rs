//! Files as rows and named columns.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::format::Format;
use crate::notice::Notice;
use crate::store::{self, Store, put_varint, take_varint};
use crate::wording::count;

/// The rows of one file or of several, one after the other, and their columns; at least one of each. Every field is text.
///
/// Rows are not in memory but where they are few: see [`Table::rows`].
#[derive(Debug)]
pub struct Table {
    /// What stands for all files in words.
    path: PathBuf,
    files: Files,
    columns: Vec<String>,
    /// The columns by name.
    indices: HashMap<String, usize>,
    pub(crate) notices: Vec<Notice>,
    /// A row is its line and its fields; of a field its column, whether it stands as JSON has it, its length and its text.
    rows: Store,
    /// The fields of the row under way, and the row.
    fields: Vec<u8>,
    row: Vec<u8>,
}

/// The files that rows come from, in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files(Vec<TableFile>);

/// One of the files.
#[derive(Debug, Clone)]
struct TableFile {
    path: PathBuf,
    format: Format,
    first_row: usize,
    /// Whether blanks part its columns, and not tabs.
    blanks: bool,
}

/// One row of a [`Table`].
#[derive(Debug, Clone)]
pub struct Row<'t> {
    table: &'t Table,
    index: usize,
    line: u64,
    bytes: Cow<'t, [u8]>,
    /// Where its fields begin.
    fields: usize,
}

/// Where a row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'t> {
    /// Its file.
    pub path: &'t Path,
    /// The line where it starts, counted from 1; in a file without lines its number there.
    pub line: u64,
}

impl Table {
    pub(crate) fn new() -> Self {
        Table {
            path: PathBuf::new(),
            files: Files::default(),
            columns: Vec::new(),
            indices: HashMap::new(),
            notices: Vec::new(),
            rows: Store::default(),
            fields: Vec::new(),
            row: Vec::new(),
        }
    }

    /// The rows that are added from here on are those of `path`.
    pub(crate) fn begin_file(&mut self, path: &Path) {
        self.path = match self.files.0.first() {
            None => path.to_owned(),
            Some(first) => {
                let more = count(self.files.0.len(), "more file");
                PathBuf::from(format!("{} and {more}", first.path.display()))
            }
        };
        let path = path.to_owned();
        let file = TableFile { path, format: Format::Csv, first_row: self.len(), blanks: false };
        self.files.0.push(file);
    }

    pub(crate) fn set_format(&mut self, format: Format) {
        if let Some(file) = self.files.0.last_mut() {
            file.format = format;
        }
    }

    pub(crate) fn set_blanks(&mut self, blanks: bool) {
        if let Some(file) = self.files.0.last_mut() {
            file.blanks = blanks;
        }
    }

    /// How many rows the file under way has so far.
    pub(crate) fn file_rows(&self) -> usize {
        self.len() - self.first_row()
    }

    /// The first row of the file under way.
    pub(crate) fn first_row(&self) -> usize {
        self.files.0.last().map_or(0, |file| file.first_row)
    }

    /// The index of the column `name`, which the rows so far lack if it is new.
    pub(crate) fn column(&mut self, name: &str) -> usize {
        if let Some(index) = self.indices.get(name) {
            return *index;
        }
        self.columns.push(name.to_owned());
        self.indices.insert(name.to_owned(), self.columns.len() - 1);
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
        put_varint(&mut self.fields, 2 * column as u64 + u64::from(json));
        put_varint(&mut self.fields, value.len() as u64);
        self.fields.extend_from_slice(value.as_bytes());
    }

    /// Ends the row under way, which began on `line`. Errors if the system has no room for it.
    pub(crate) fn end_row(&mut self, line: u64) -> Result<(), DataError> {
        // Rows are counted in four bytes, wherever there is one number for each of them.
        if self.len() >= u32::MAX as usize {
            return Err(DataError::new(format!(
                "expected at most {} rows, got more: take a part of them",
                u32::MAX
            )));
        }
        self.row.clear();
        put_varint(&mut self.row, line);
        self.row.extend_from_slice(&self.fields);
        self.fields.clear();
        self.rows.push(&self.row)
    }

    /// The file that the table was read from; where there are several, the first, and how many more.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that the table was read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.0.iter().map(|file| file.path.as_path())
    }

    /// The first file's format, as found or asked for.
    pub fn format(&self) -> Format {
        self.files.0.first().map_or(Format::Csv, |file| file.format)
    }

    /// What parts the columns of the first file, where it is in CoNLL's form: a tab, or a blank for any white space.
    pub fn conll_separator(&self) -> char {
        if self.files.0.first().is_some_and(|file| file.blanks) { ' ' } else { '\t' }
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
        self.rows.len()
    }

    /// Whether there are no rows; never so for a table that was read from a file.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 0
    }

    /// The row at `index`, counted from 0. Errors if the system cannot read it again.
    pub fn row(&self, index: usize) -> Result<Option<Row<'_>>, DataError> {
        self.rows.get(index)?.map(|bytes| self.row_of(index, bytes)).transpose()
    }

    /// All rows in the order of the files. Each may be an error of the system, where there are so many that they are not
    /// in memory but in a file.
    pub fn rows(&self) -> Rows<'_> {
        Rows { table: self, next: 0, bytes: self.rows.iter() }
    }

    /// Shows all values in `column` to `look`, without white space around them. Errors if the system cannot read them again.
    pub fn each_value(&self, column: usize, mut look: impl FnMut(&str)) -> Result<(), DataError> {
        for row in self.rows() {
            if let Some(value) = row?.get(column) {
                look(value.trim());
            }
        }
        Ok(())
    }

    fn row_of<'t>(&'t self, index: usize, bytes: Cow<'t, [u8]>) -> Result<Row<'t>, DataError> {
        let mut fields = 0;
        let line = take_varint(&bytes, &mut fields).ok_or_else(store::damaged)?;
        Ok(Row { table: self, index, line, bytes, fields })
    }

    /// The file that the row at `index` is in.
    pub fn path_of(&self, index: usize) -> &Path {
        self.files.of_row(index).map_or(&self.path, |file| &file.path)
    }

    /// Where the row at `index` is, which begins on `line`: `line 3`, and of which file where there are several.
    pub(crate) fn place_words(&self, index: usize, line: u64) -> String {
        self.files.place_words(index, line)
    }

    /// What is counted in the file of the row at `index`: lines, or rows where it has none.
    pub(crate) fn unit(&self, index: usize) -> &'static str {
        self.files.unit(index)
    }

    /// Where rows come from.
    pub(crate) fn places(&self) -> &Files {
        &self.files
    }

    /// An error about the row at `index`, which begins on `line`.
    pub(crate) fn error_at(&self, index: usize, line: u64, message: impl Into<String>) -> DataError {
        self.files.error_at(index, line, &self.path, message)
    }

    /// The same about one word of a row that is a list of words: in CoNLL's form each has its line.
    pub(crate) fn error_at_word(
        &self,
        (index, line): (usize, u64),
        word: usize,
        message: impl Into<String>,
    ) -> DataError {
        let is_conll = self.files.of_row(index).is_some_and(|file| file.format == Format::Conll);
        self.error_at(index, line + if is_conll { word as u64 } else { 0 }, message)
    }
}

impl Files {
    fn of_row(&self, index: usize) -> Option<&TableFile> {
        let behind = self.0.partition_point(|file| file.first_row <= index);
        self.0.get(behind.checked_sub(1)?)
    }

    /// What is counted in the file of the row at `index`: lines, or rows where it has none.
    fn unit(&self, index: usize) -> &'static str {
        match self.of_row(index).map(|file| file.format) {
            Some(Format::Parquet) => "row",
            _ => "line",
        }
    }

    /// Where the row at `index` is, which begins on `line`: `line 3`, and of which file where there are several.
    pub(crate) fn place_words(&self, index: usize, line: u64) -> String {
        let of = self.one_of_several(index).map(|file| format!(" of {}", file.display()));
        format!("{} {line}{}", self.unit(index), of.unwrap_or_default())
    }

    /// The file of the row at `index`, where there are several and it must be said which.
    pub(crate) fn one_of_several(&self, index: usize) -> Option<&Path> {
        let file = if self.0.len() > 1 { self.of_row(index) } else { None };
        file.map(|file| file.path.as_path())
    }

    /// An error about the row at `index`, which begins on `line`; from `path` where its file is not known.
    pub(crate) fn error_at(
        &self,
        index: usize,
        line: u64,
        path: &Path,
        message: impl Into<String>,
    ) -> DataError {
        let file = self.of_row(index);
        let error = DataError::new(message).in_file(file.map_or(path, |file| &file.path));
        match file.map(|file| file.format) {
            Some(Format::Parquet) => error.at_row(line),
            _ => error.at_line(line),
        }
    }
}

impl<'t> Row<'t> {
    /// The row's place in the table, counted from 0: its stable identity.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The line of its file where the row starts, counted from 1; fields with line breaks make this more than the index. In
    /// a file without lines it is the row's number there.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Where the row comes from.
    pub fn place(&self) -> Place<'t> {
        Place { path: self.table.path_of(self.index), line: self.line }
    }

    /// The value in `column`, none where it is missing. An empty CSV field is an empty value, not a missing
    /// one.
    pub fn get(&self, column: usize) -> Option<&str> {
        self.find(column).map(|field| field.text)
    }

    /// Whether the value in `column` is a number, a boolean, a list or an object of JSON, as it was written there.
    pub fn is_json(&self, column: usize) -> bool {
        self.find(column).is_some_and(|field| field.json)
    }

    fn find(&self, column: usize) -> Option<Field<'_>> {
        self.fields().find(|field| field.column == column)
    }

    /// The values that are there, in the order of the file.
    fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        let (bytes, mut at) = (&*self.bytes, self.fields);
        std::iter::from_fn(move || {
            let head = usize::try_from(take_varint(bytes, &mut at)?).ok()?;
            let length = usize::try_from(take_varint(bytes, &mut at)?).ok()?;
            let from = at;
            at = at.checked_add(length)?;
            let text = std::str::from_utf8(bytes.get(from..at)?).ok()?;
            Some(Field { column: head / 2, json: head % 2 == 1, text })
        })
    }

    /// The values of all columns in their order.
    pub fn values(&self) -> impl Iterator<Item = Option<&str>> {
        let mut values = vec![None; self.table.columns.len()];
        for field in self.fields() {
            if let Some(value) = values.get_mut(field.column) {
                *value = Some(field.text);
            }
        }
        values.into_iter()
    }
}

/// All rows of a [`Table`].
#[derive(Debug)]
pub struct Rows<'t> {
    table: &'t Table,
    next: usize,
    bytes: store::Iter<'t>,
}

impl<'t> Iterator for Rows<'t> {
    type Item = Result<Row<'t>, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.nth(0)
    }

    /// Rows that are passed are not read where they are far apart.
    fn nth(&mut self, count: usize) -> Option<Self::Item> {
        let index = self.next + count;
        self.next = index + 1;
        let bytes = self.bytes.nth(count)?;
        Some(bytes.and_then(|bytes| self.table.row_of(index, bytes)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.bytes.size_hint()
    }
}

struct Field<'r> {
    column: usize,
    json: bool,
    text: &'r str,
}
