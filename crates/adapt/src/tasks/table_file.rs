//! A table that was read: what its columns hold, and its rows with what was predicted for them, the columns as they are
//! and the prediction's behind them.

use std::io::{Error, Result, Write};
use std::path::Path;
use std::sync::Arc;

use retune_data::{Columns, DataError, Examples, LabelMap, Row, Table};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::reading::RowFile;
use super::{Answered, Cell};

/// A table, and which of its columns are what.
#[derive(Debug)]
pub(super) struct TableFile {
    pub table: Arc<Table>,
    pub columns: Columns,
}

impl RowFile for TableFile {
    fn labels(&self, examples: &Examples) -> std::result::Result<LabelMap, DataError> {
        LabelMap::from_examples(examples, &self.table, &self.columns)
    }

    /// Which of the prediction's columns are called otherwise, since the file has one of that name.
    fn said_of(&self, first: &Answered) -> Option<String> {
        let names = first.cells().into_iter().map(|(name, _)| name);
        let renamed = names.map(|name| (name, free_name(&self.table, name)));
        let other = renamed.filter(|(name, added)| name != added);
        let other: Vec<String> = other.map(|(name, added)| format!("`{added}`, not `{name}`")).collect();
        let other = (!other.is_empty()).then(|| other.join(", "));
        other.map(|other| format!("the prediction is in {other}: the file has such a column"))
    }

    /// CSV or TSV if its name ends so, else JSONL.
    fn write(&self, predictions: &[Answered], output: &Path, writer: &mut dyn Write) -> Result<()> {
        let names = predictions.first().map(Answered::cells).unwrap_or_default();
        let added = names.into_iter().map(|(name, _)| free_name(&self.table, name)).collect();
        let rows = PredictedRows { table: &self.table, predictions, added };
        match output.extension().and_then(|extension| extension.to_str()) {
            Some(extension) if extension.eq_ignore_ascii_case("csv") => rows.write_csv(writer, b','),
            Some(extension) if extension.eq_ignore_ascii_case("tsv") => rows.write_csv(writer, b'\t'),
            _ => rows.write_jsonl(writer),
        }
    }
}

struct PredictedRows<'a> {
    table: &'a Table,
    predictions: &'a [Answered],
    /// The columns of the prediction, as they are called beside the file's.
    added: Vec<String>,
}

impl PredictedRows<'_> {
    /// One JSON object a row. A missing value stays one, and what was no text is none.
    fn write_jsonl(&self, writer: &mut dyn Write) -> Result<()> {
        for (row, prediction) in self.table.rows().zip(self.predictions) {
            let row = row.map_err(Error::other)?;
            serde_json::to_writer(&mut *writer, &JsonRow { rows: self, row, prediction })?;
            writer.write_all(b"\n")?;
        }
        Ok(())
    }

    /// A header and a record a row; a list is JSON.
    fn write_csv(&self, writer: &mut dyn Write, delimiter: u8) -> Result<()> {
        let mut csv = csv::WriterBuilder::new().delimiter(delimiter).from_writer(writer);
        csv.write_record(self.table.columns().iter().chain(&self.added))?;
        for (row, prediction) in self.table.rows().zip(self.predictions) {
            let row = row.map_err(Error::other)?;
            for value in row.values() {
                csv.write_field(value.unwrap_or_default())?;
            }
            csv.write_record(prediction.cells().iter().map(|(_, cell)| cell.text()))?;
        }
        csv.flush()
    }
}

/// `label`, or where the table has such a column `predicted_label`, `predicted_label_2` ...
fn free_name(table: &Table, name: &str) -> String {
    let others = (2..).map(|number| format!("predicted_{name}_{number}"));
    let mut names = [name.to_string(), format!("predicted_{name}")].into_iter().chain(others);
    names.find(|name| !table.columns().contains(name)).unwrap_or_default()
}

/// JSON as it was written.
fn raw<E: serde::ser::Error>(json: &str) -> std::result::Result<&RawValue, E> {
    serde_json::from_str(json).map_err(E::custom)
}

struct JsonRow<'a> {
    rows: &'a PredictedRows<'a>,
    row: Row<'a>,
    prediction: &'a Answered,
}

impl Serialize for JsonRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (column, name) in self.rows.table.columns().iter().enumerate() {
            match self.row.get(column) {
                Some(value) if self.row.is_json(column) => map.serialize_entry(name, raw(value)?)?,
                Some(value) => map.serialize_entry(name, value)?,
                None => {}
            }
        }
        for (name, (_, cell)) in self.rows.added.iter().zip(self.prediction.cells()) {
            match &cell {
                Cell::Text(text) => map.serialize_entry(name, text)?,
                Cell::Json(json) => map.serialize_entry(name, raw(json)?)?,
            }
        }
        map.end()
    }
}
