//! One JSON object a line.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{FileUnderWay, each_line};
use crate::error::DataError;
use crate::format::Format;

/// Reads one object a line; a key becomes a column where it is first met.
///
/// A string is its text, a number or boolean stands as it was written, `null` is a missing value, and an
/// array or object inside stays JSON text.
///
/// # Errors
/// No objects; a line that is no JSON (its column is named) or no object; a key twice in one object.
pub(super) fn read(file: &mut FileUnderWay<'_>) -> Result<(), DataError> {
    file.table.set_format(Format::Jsonl);
    let mut text = file.text()?;
    let mut objects = Objects::new(file);
    each_line(&mut text, |line, number| {
        if line.trim().is_empty() {
            return Ok(());
        }
        let fault = |error: DataError| error.at_line(number);
        let object = parse_object(line).map_err(fault)?;
        objects.add(object, number, |value, error| syntax(line, offset(value, line), error)).map_err(fault)
    })?;
    objects.end("one JSON object a line")?;
    file.end_of(&text);
    Ok(())
}

/// Objects that become rows of a table.
pub(super) struct Objects<'o, 'f> {
    file: &'o mut FileUnderWay<'f>,
    /// The table's columns by their keys.
    columns: HashMap<String, usize>,
    /// Which row last had each column: finds a key that comes twice without a set a row.
    last_row: Vec<usize>,
}

impl<'o, 'f> Objects<'o, 'f> {
    pub fn new(file: &'o mut FileUnderWay<'f>) -> Self {
        Objects { file, columns: HashMap::new(), last_row: Vec::new() }
    }

    /// Adds a row that begins on `line`; `syntax` says what is wrong with a value. Errors without the line.
    pub fn add(
        &mut self,
        Object(fields): Object<'_>,
        line: u64,
        syntax: impl Fn(&str, &serde_json::Error) -> DataError,
    ) -> Result<(), DataError> {
        let row = self.file.table.len() + 1;
        for (key, value) in fields {
            let column = match self.columns.get(&key) {
                Some(column) => *column,
                None => {
                    let column = self.file.column(&key);
                    self.columns.insert(key.clone(), column);
                    column
                }
            };
            if self.last_row.len() <= column {
                self.last_row.resize(column + 1, 0);
            }
            if std::mem::replace(&mut self.last_row[column], row) == row {
                return Err(DataError::new(format!(
                    "expected each key once in an object, got `{key}` twice: remove one"
                )));
            }
            match field(value, &syntax)? {
                Field::Text(text) => self.file.table.push_field(column, &text),
                Field::Json(raw) => self.file.table.push_json(column, &on_one_line(raw)),
                Field::Missing => {}
            }
        }
        self.file.table.end_row(line)
    }

    /// Errors if there were none, or only empty ones.
    pub fn end(self, expected: &str) -> Result<(), DataError> {
        if self.file.table.file_rows() == 0 {
            return Err(DataError::new(format!("the file is empty: expected {expected}")));
        }
        if self.columns.is_empty() {
            return Err(DataError::new(
                "expected objects with keys, which are the columns, got only empty ones",
            ));
        }
        Ok(())
    }
}

fn parse_object(line: &str) -> Result<Object<'_>, DataError> {
    if line.trim_start().starts_with('{') {
        return serde_json::from_str(line).map_err(|error| syntax(line, 0, &error));
    }
    Err(DataError::new(format!(
        "expected a JSON object such as {{\"text\": \"...\", \"label\": \"...\"}}, got {}: write one \
         object a line",
        kind(line)
    )))
}

/// What a text is that is no JSON object, in words.
pub(super) fn kind(text: &str) -> &'static str {
    match text.trim_start().chars().next() {
        Some('{') => "an object",
        Some('[') => "an array",
        Some('"') => "a string",
        Some('-' | '0'..='9') => "a number",
        _ => match text.trim() {
            "true" | "false" => "a boolean",
            "null" => "null",
            _ => "text that is not JSON",
        },
    }
}

/// Where a piece begins in the text that it is of: their addresses tell.
pub(super) fn offset(piece: &str, text: &str) -> usize {
    piece.as_ptr().addr().saturating_sub(text.as_ptr().addr())
}

/// JSON whose lines are broken somewhere, without that: the same value is the same text, however its file is laid out.
fn on_one_line(json: &str) -> Cow<'_, str> {
    if !json.contains(['\n', '\r']) {
        return Cow::Borrowed(json);
    }
    // A string has no line breaks, so each is between tokens, and so are the blanks around it.
    let mut lines =
        json.split(['\n', '\r']).map(|line| line.trim_matches([' ', '\t'])).filter(|line| !line.is_empty());
    let mut text = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        if text.ends_with(',') {
            text.push(' ');
        }
        text.push_str(line);
    }
    Cow::Owned(text)
}

/// A value as a field.
enum Field<'v> {
    Text(Cow<'v, str>),
    Json(&'v str),
    Missing,
}

/// Strings are only checked here, since the parser passes over values.
fn field<'v>(
    value: &'v RawValue,
    syntax: &impl Fn(&str, &serde_json::Error) -> DataError,
) -> Result<Field<'v>, DataError> {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') => text(raw).map(Field::Text).map_err(|error| syntax(raw, &error)),
        Some(b'n') => Ok(Field::Missing),
        _ => Ok(Field::Json(raw)),
    }
}

/// A string that needs no unescaping is itself.
fn text(raw: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
    serde_json::from_str(raw).map(|Text(text)| text)
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
pub(super) struct Object<'l>(pub Vec<(String, &'l RawValue)>);

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
