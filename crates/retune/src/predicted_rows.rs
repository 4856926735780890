//! The rows of a file with what was predicted for them: its columns as they are, and the prediction's behind them.

use std::io::{Result, Write};

use retune_adapt::tasks::Cell;
use retune_data::{Row, Table};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::predict::Prediction;

pub(crate) struct PredictedRows<'a> {
    table: &'a Table,
    predictions: &'a [Prediction],
    /// The columns of the prediction, as they are called beside the file's.
    added: Vec<String>,
}

impl<'a> PredictedRows<'a> {
    /// `predictions` are those of all rows of `table`, in their order.
    pub fn new(table: &'a Table, predictions: &'a [Prediction]) -> Self {
        let names = predictions.first().map(cells).unwrap_or_default();
        let added = names.into_iter().map(|(name, _)| free_name(table, name)).collect();
        PredictedRows { table, predictions, added }
    }

    /// Which of the prediction's columns are called otherwise, since the file has one of that name.
    pub fn said(&self) -> Option<String> {
        let names = self.predictions.first().map(cells).unwrap_or_default();
        let other = names.iter().zip(&self.added).filter(|((name, _), added)| name != added);
        let other: Vec<String> = other.map(|((name, _), added)| format!("`{added}`, not `{name}`")).collect();
        let other = (!other.is_empty()).then(|| other.join(", "));
        other.map(|other| format!("the prediction is in {other}: the file has such a column"))
    }

    /// One JSON object a row. A missing value stays one, and what was no text is none.
    pub fn write_jsonl(&self, writer: &mut dyn Write) -> Result<()> {
        for (row, prediction) in self.table.rows().zip(self.predictions) {
            serde_json::to_writer(&mut *writer, &JsonRow { rows: self, row, prediction })?;
            writer.write_all(b"\n")?;
        }
        Ok(())
    }

    /// A header and a record a row; a list is JSON.
    pub fn write_csv(&self, writer: &mut dyn Write, delimiter: u8) -> Result<()> {
        let mut csv = csv::WriterBuilder::new().delimiter(delimiter).from_writer(writer);
        csv.write_record(self.table.columns().iter().chain(&self.added))?;
        for (row, prediction) in self.table.rows().zip(self.predictions) {
            for value in row.values() {
                csv.write_field(value.unwrap_or_default())?;
            }
            csv.write_record(cells(prediction).iter().map(|(_, cell)| cell.text()))?;
        }
        csv.flush()
    }
}

/// The columns of a prediction, by name.
fn cells(prediction: &Prediction) -> Vec<(&'static str, Cell)> {
    let mut cells = prediction.answer.cells();
    cells.extend(prediction.logits.as_ref().map(|logits| ("logits", Cell::json(logits))));
    cells
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
    prediction: &'a Prediction,
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
        for (name, (_, cell)) in self.rows.added.iter().zip(cells(self.prediction)) {
            match &cell {
                Cell::Text(text) => map.serialize_entry(name, text)?,
                Cell::Json(json) => map.serialize_entry(name, raw(json)?)?,
            }
        }
        map.end()
    }
}
