//! One JSON array of objects.

use super::FileUnderWay;
use super::json_text::JsonText;
use super::jsonl::{Object, Objects, kind, offset};
use crate::error::DataError;
use crate::format::Format;
use crate::input::encoding::line_breaks;

/// Reads an array of objects, each a row as [`jsonl`](super::jsonl) has it, however the lines are broken.
///
/// # Errors
/// No array; an element that is no object, or no JSON; an array that does not end, or text behind it. Line and column
/// are named.
pub(super) fn read(file: &mut FileUnderWay<'_>) -> Result<(), DataError> {
    file.table.set_format(Format::Json);
    let mut elements = Elements(JsonText::new(file.text()?));
    elements.begin()?;
    let mut objects = Objects::new(file);
    let mut first = true;
    while elements.next_is_there(first)? {
        first = false;
        elements.object(&mut objects)?;
    }
    elements.end()?;
    objects.end("an array of JSON objects")?;
    file.end_of(&elements.0.text);
    Ok(())
}

/// The elements of an array, one after the other.
struct Elements<'i>(JsonText<'i>);

impl Elements<'_> {
    fn begin(&mut self) -> Result<(), DataError> {
        match self.0.peek()? {
            Some('[') => {
                self.0.pass(1);
                Ok(())
            }
            None => Err(DataError::new("the file is empty: expected an array of JSON objects")),
            Some(_) => {
                let got = kind(self.0.text.text());
                Err(self.here(format!(
                    "expected an array of objects such as [{{\"text\": \"...\", \"label\": \"...\"}}], got {got}: give \
                     --format jsonl if each line is an object, or write the rows as one array"
                )))
            }
        }
    }

    /// Whether there is another element, whose comma is passed.
    fn next_is_there(&mut self, first: bool) -> Result<bool, DataError> {
        match self.0.peek()? {
            Some(']') => {
                self.0.pass(1);
                Ok(false)
            }
            Some(',') if !first => {
                self.0.pass(1);
                match self.0.peek()? {
                    Some(']') => Err(self.here("expected an object after the comma, got the end of the array: remove the comma")),
                    None => Err(self.cut_short()),
                    Some(_) => Ok(true),
                }
            }
            Some(_) if first => Ok(true),
            Some(other) => Err(self.here(format!(
                "expected a comma or the end of the array (`]`) after an object, got `{other}`: correct it, or give \
                 --format jsonl if each line is an object"
            ))),
            None => Err(self.cut_short()),
        }
    }

    /// The object that begins here, which is read on until it ends.
    fn object(&mut self, objects: &mut Objects<'_, '_>) -> Result<(), DataError> {
        if self.0.peek()? != Some('{') {
            let got = kind(self.0.text.text().split([',', ']', '\n']).next().unwrap_or_default());
            return Err(self.here(format!(
                "expected an array of objects such as [{{\"text\": \"...\", \"label\": \"...\"}}], got {got} in it: write \
                 each row as an object"
            )));
        }
        loop {
            let here = self.0.text.text();
            let mut values = serde_json::Deserializer::from_str(here).into_iter::<Object<'_>>();
            let length = match values.next() {
                Some(Ok(object)) => {
                    let length = values.byte_offset();
                    let syntax = |value: &str, error: &serde_json::Error| {
                        self.syntax(here, offset(value, here), error)
                    };
                    let line = self.0.text.line();
                    objects.add(object, line, syntax).map_err(|error| match error.line {
                        None if !error.system => error.at_line(line),
                        _ => error,
                    })?;
                    length
                }
                Some(Err(error)) if error.is_eof() && !self.0.text.is_whole() => {
                    self.0.text.more()?;
                    continue;
                }
                Some(Err(error)) if error.is_eof() => return Err(self.cut_short()),
                Some(Err(error)) => return Err(self.syntax(here, 0, &error)),
                None => return Err(self.cut_short()),
            };
            self.0.pass(length);
            return Ok(());
        }
    }

    fn end(&mut self) -> Result<(), DataError> {
        match self.0.peek()? {
            None => Ok(()),
            Some(other) => Err(self.here(format!(
                "expected nothing behind the array, got `{other}`: join the arrays into one, or give one file each"
            ))),
        }
    }

    /// The parser's message at its place; `offset` is where in `here` the parsed piece begins.
    fn syntax(&self, here: &str, offset: usize, error: &serde_json::Error) -> DataError {
        let message = error.to_string();
        let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
        // The parser counts lines, and bytes in them; people count characters.
        let parsed = here.get(offset..).unwrap_or_default();
        let lines = parsed.split_inclusive('\n').take(error.line().saturating_sub(1));
        let start = offset + lines.map(str::len).sum::<usize>();
        let mut end = (start + error.column().saturating_sub(1)).min(here.len());
        while !here.is_char_boundary(end) {
            end -= 1;
        }
        let before = &here[..end];
        let in_line = before.rsplit(['\n', '\r']).next().unwrap_or_default().chars().count() as u64;
        let new_line = before.contains(['\n', '\r']);
        DataError::new(format!(
            "expected a JSON object, got an error: {what}: correct it (keys and strings in double quotes, a comma between \
             fields)"
        ))
        .at_line(self.0.text.line() + line_breaks(before.as_bytes()))
        .at_column(in_line + 1 + if new_line { 0 } else { self.0.column })
    }

    fn here(&self, message: impl Into<String>) -> DataError {
        DataError::new(message).at_line(self.0.text.line()).at_column(self.0.column + 1)
    }

    fn cut_short(&self) -> DataError {
        let line = self.0.text.line() + line_breaks(self.0.text.text().trim_end().as_bytes());
        DataError::new("expected the end of the array (`]`), got the end of the file: it was cut short; bring the whole file")
            .at_line(line)
    }
}
