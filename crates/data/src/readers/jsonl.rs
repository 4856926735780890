//! One JSON object a line.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::DataError;
use crate::format::Format;
use crate::table::Table;

/// Reads one object a line; a key becomes a column where it is first met.
///
/// A string is its text, a number or boolean stands as it was written, `null` is a missing value, and an
/// array or object inside stays JSON text.
///
/// # Errors
/// No objects; a line that is no JSON (its column is named) or no object; a key twice in one object.
pub(super) fn read(text: &str) -> Result<Table, DataError> {
    let mut table = Table::new(Format::Jsonl, Vec::new());
    let mut columns: HashMap<String, usize> = HashMap::new();
    // Which line last had each column: finds a key that comes twice without a set a row.
    let mut last_line: Vec<u64> = Vec::new();
    for (line, number) in text.split('\n').zip(1_u64..) {
        if line.trim().is_empty() {
            continue;
        }
        for (key, value) in parse_object(line).map_err(|error| error.at_line(number))? {
            let column = match columns.get(&key) {
                Some(column) => *column,
                None => {
                    let column = table.add_column(key.clone());
                    columns.insert(key.clone(), column);
                    last_line.push(0);
                    column
                }
            };
            if let Some(last) = last_line.get_mut(column) {
                if *last == number {
                    return Err(DataError::new(format!(
                        "expected each key once in an object, got `{key}` twice: remove one"
                    ))
                    .at_line(number));
                }
                *last = number;
            }
            match field(value, line).map_err(|error| error.at_line(number))? {
                Field::Text(text) => table.push_field(column, &text),
                Field::Json(raw) => table.push_json(column, raw),
                Field::Missing => {}
            }
        }
        table.end_row(number);
    }
    if table.is_empty() {
        return Err(DataError::new("the file is empty: expected one JSON object a line"));
    }
    if table.columns().is_empty() {
        return Err(DataError::new("expected objects with keys, which are the columns, got only empty ones"));
    }
    Ok(table)
}

fn parse_object(line: &str) -> Result<Vec<(String, &RawValue)>, DataError> {
    let found = match line.trim_start().chars().next() {
        Some('{') => {
            return serde_json::from_str(line)
                .map(|Object(fields)| fields)
                .map_err(|error| syntax(line, 0, &error));
        }
        Some('[') => "an array",
        Some('"') => "a string",
        Some('-' | '0'..='9') => "a number",
        _ => match line.trim() {
            "true" | "false" => "a boolean",
            "null" => "null",
            _ => "text that is not JSON",
        },
    };
    Err(DataError::new(format!(
        "expected a JSON object such as {{\"text\": \"...\", \"label\": \"...\"}}, got {found}: write one \
         object a line"
    )))
}

/// A value as a field.
enum Field<'v> {
    Text(String),
    Json(&'v str),
    Missing,
}

/// Strings are only checked here, since the parser passes over values.
fn field<'v>(value: &'v RawValue, line: &str) -> Result<Field<'v>, DataError> {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map(Field::Text).map_err(|error| {
            // The value is a piece of the line, so their addresses give its place.
            syntax(line, raw.as_ptr().addr() - line.as_ptr().addr(), &error)
        }),
        Some(b'n') => Ok(Field::Missing),
        _ => Ok(Field::Json(raw)),
    }
}

/// The parser's message at its column; `offset` is where in the line the parsed piece begins.
fn syntax(line: &str, offset: usize, error: &serde_json::Error) -> DataError {
    let message = error.to_string();
    let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    let advice = if error.is_eof() {
        "an object must begin and end on one line"
    } else {
        "correct the line (keys and strings in double quotes, a comma between fields, nothing after the \
         object)"
    };
    // The parser counts bytes; people count characters.
    let bytes = offset + error.column().saturating_sub(1);
    let column = line.char_indices().take_while(|(place, _)| *place < bytes).count() as u64 + 1;
    DataError::new(format!("expected a JSON object on this line, got an error: {what}: {advice}"))
        .at_column(column)
}

/// An object's fields in order. A map type would hide a key that comes twice.
struct Object<'l>(Vec<(String, &'l RawValue)>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}
