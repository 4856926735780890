//! A table that was read: what its columns hold, and its rows with what was predicted for them, the columns as they are
//! and the prediction's behind them.

use std::io::{Error, Result, Write};
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

    fn said_of(&self, first: &Answered) -> Option<String> {
        renamed(&self.table, first)
    }

    fn columns(&self) -> &[String] {
        self.table.columns()
    }

    fn column(&self, index: usize) -> std::result::Result<Vec<String>, DataError> {
        let rows = self.table.rows();
        rows.map(|row| Ok(row?.get(index).unwrap_or_default().trim().to_string())).collect()
    }

    fn write(&self, predictions: &[Answered], ending: Option<&str>, writer: &mut dyn Write) -> Result<()> {
        write(&self.table, predictions, ending, writer)
    }
}

/// Which of the prediction's columns are called otherwise, since the file has one of that name.
pub(super) fn renamed(table: &Table, first: &Answered) -> Option<String> {
    let names = first.cells().into_iter().map(|(name, _)| name);
    let renamed = names.map(|name| (name, free_name(table, name)));
    let other = renamed.filter(|(name, added)| name != added);
    let other: Vec<String> = other.map(|(name, added)| format!("`{added}`, not `{name}`")).collect();
    let other = (!other.is_empty()).then(|| other.join(", "));
    other.map(|other| format!("the prediction is in {other}: the file has such a column"))
}

/// How the names of tables end.
pub(super) const ENDINGS: [&str; 5] = ["csv", "tsv", "jsonl", "ndjson", "json"];

/// CSV, TSV or a JSON array if the output's name ends so, else JSONL.
pub(super) fn write(
    table: &Table,
    predictions: &[Answered],
    ending: Option<&str>,
    writer: &mut dyn Write,
) -> Result<()> {
    // Rows may be answered by different models, and then not all have the same columns.
    let mut added: Vec<(&'static str, String)> = Vec::new();
    for (name, _) in predictions.iter().flat_map(Answered::cells) {
        if !added.iter().any(|(known, _)| *known == name) {
            added.push((name, free_name(table, name)));
        }
    }
    let rows = PredictedRows { table, predictions, added };
    match ending {
        Some("csv") => rows.write_csv(writer, b','),
        Some("tsv") => rows.write_csv(writer, b'\t'),
        Some("json") => {
            writer.write_all(b"[\n")?;
            rows.write_json(writer, ",\n")?;
            writer.write_all(b"\n]\n")
        }
        _ => {
            rows.write_json(writer, "\n")?;
            writer.write_all(b"\n")
        }
    }
}

struct PredictedRows<'a> {
    table: &'a Table,
    predictions: &'a [Answered],
    /// The columns of the predictions, and how they are called beside the file's: rows of different adapters may have
    /// different ones.
    added: Vec<(&'static str, String)>,
}

impl PredictedRows<'_> {
    /// One JSON object a row, and `between` two. A missing value stays one, and what was no text is none.
    fn write_json(&self, writer: &mut dyn Write, between: &str) -> Result<()> {
        for (place, (row, prediction)) in self.table.rows().zip(self.predictions).enumerate() {
            if place > 0 {
                writer.write_all(between.as_bytes())?;
            }
            let row = row.map_err(Error::other)?;
            serde_json::to_writer(&mut *writer, &JsonRow { rows: self, row, prediction })?;
        }
        Ok(())
    }

    /// A header and a record a row; a list is JSON.
    fn write_csv(&self, writer: &mut dyn Write, delimiter: u8) -> Result<()> {
        let mut csv = csv::WriterBuilder::new().delimiter(delimiter).from_writer(writer);
        csv.write_record(self.table.columns().iter().chain(self.added.iter().map(|(_, added)| added)))?;
        for (row, prediction) in self.table.rows().zip(self.predictions) {
            let row = row.map_err(Error::other)?;
            for value in row.values() {
                csv.write_field(value.unwrap_or_default())?;
            }
            let cells = prediction.cells();
            let cell =
                |name| cells.iter().find(|(known, _)| *known == name).map_or("", |(_, cell)| cell.text());
            csv.write_record(self.added.iter().map(|(name, _)| cell(*name)))?;
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
        for (name, cell) in self.prediction.cells() {
            let Some((_, name)) = self.rows.added.iter().find(|(known, _)| *known == name) else { continue };
            match &cell {
                Cell::Text(text) => map.serialize_entry(name, text)?,
                Cell::Json(json) => map.serialize_entry(name, raw(json)?)?,
            }
        }
        map.end()
    }
}
