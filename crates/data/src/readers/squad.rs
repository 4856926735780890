//! SQuAD's JSON, versions 1.1 and 2.0: articles of paragraphs of questions.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::FileUnderWay;
use crate::error::DataError;
use crate::format::Format;

/// The columns of the table: a row is a question.
const COLUMNS: [&str; 6] = ["id", "title", "context", "question", "answers", "is_impossible"];

#[derive(Deserialize)]
struct File<'t> {
    #[serde(borrow)]
    data: Vec<Article<'t>>,
}

#[derive(Deserialize)]
struct Article<'t> {
    title: Option<String>,
    #[serde(borrow)]
    paragraphs: Vec<Paragraph<'t>>,
}

#[derive(Deserialize)]
struct Paragraph<'t> {
    context: String,
    #[serde(borrow)]
    qas: Vec<&'t RawValue>,
}

#[derive(Deserialize)]
struct Question {
    id: serde_json::Value,
    question: String,
    answers: Option<Vec<serde_json::Value>>,
    is_impossible: Option<bool>,
}

/// Whether a text that begins so is of this form, and not a JSON object a line.
pub(crate) fn is_squad(beginning: &str) -> bool {
    beginning.trim_start().starts_with('{')
        && ["\"data\"", "\"paragraphs\""].into_iter().all(|key| beginning.contains(key))
}

/// Reads all questions, in their order: the columns are `id`, `title`, `context`, `question`, `answers` and
/// `is_impossible`, the last two as JSON has them. Other keys are passed over.
///
/// # Errors
/// Another form, or no questions; line and column are named.
pub(super) fn read(file: &mut FileUnderWay<'_>) -> Result<(), DataError> {
    let mut text = file.text()?;
    // A document's parts mean nothing without the others around them.
    while !text.is_whole() {
        text.more()?;
    }
    file.end_of(&text);
    let text = text.text();
    let document: File<'_> = serde_json::from_str(text).map_err(|error| misplaced(text, 0, &error))?;
    let [id, title, context, question, answers, impossible] = COLUMNS.map(|name| file.column(name));
    let table = &mut *file.table;
    table.set_format(Format::Squad);
    let mut lines = Lines { text, passed: 0, line: 1 };
    for article in document.data {
        for paragraph in article.paragraphs {
            for raw in paragraph.qas {
                // The value is a piece of the text, so their addresses give its place.
                let start = raw.get().as_ptr().addr() - text.as_ptr().addr();
                let read: Question =
                    serde_json::from_str(raw.get()).map_err(|error| misplaced(text, start, &error))?;
                let line = lines.of(start);
                match read.id {
                    serde_json::Value::String(name) => table.push_field(id, &name),
                    number @ serde_json::Value::Number(_) => table.push_json(id, &number.to_string()),
                    other => {
                        return Err(DataError::new(format!(
                            "`id`: expected a string, got {}: give each question one of its own",
                            kind(&other)
                        ))
                        .at_line(line));
                    }
                }
                if let Some(name) = &article.title {
                    table.push_field(title, name);
                }
                table.push_field(context, &paragraph.context);
                table.push_field(question, &read.question);
                if let Some(value) = read.answers {
                    // On one line, however the file breaks its own.
                    table.push_json(answers, &serde_json::Value::Array(value).to_string());
                }
                if let Some(value) = read.is_impossible {
                    table.push_json(impossible, if value { "true" } else { "false" });
                }
                table.end_row(line)?;
            }
        }
    }
    if table.file_rows() == 0 {
        return Err(DataError::new("expected questions in `data`, `paragraphs`, `qas`, got none of them"));
    }
    Ok(())
}

fn kind(value: &serde_json::Value) -> &'static str {
    match value {
        serde_json::Value::Null => "null",
        serde_json::Value::Bool(_) => "a boolean",
        serde_json::Value::Number(_) => "a number",
        serde_json::Value::String(_) => "a string",
        serde_json::Value::Array(_) => "an array",
        serde_json::Value::Object(_) => "an object",
    }
}

/// The lines of places that only go up.
struct Lines<'t> {
    text: &'t str,
    passed: usize,
    line: u64,
}

impl Lines<'_> {
    fn of(&mut self, place: usize) -> u64 {
        let passed = self.text.get(self.passed..place).unwrap_or_default();
        self.line += passed.bytes().filter(|byte| *byte == b'\n').count() as u64;
        self.passed = place;
        self.line
    }
}

/// The parser's message at its place; `start` is where in the text the parsed piece begins.
fn misplaced(text: &str, start: usize, error: &serde_json::Error) -> DataError {
    let message = error.to_string();
    let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    let advice = if error.is_eof() {
        "the file ends before its JSON does: bring the whole file"
    } else if error.is_data() {
        "SQuAD's form is {\"data\": [{\"title\": ..., \"paragraphs\": [{\"context\": ..., \"qas\": [{\"id\": ..., \
         \"question\": ..., \"answers\": [{\"text\": ..., \"answer_start\": ...}]}]}]}]}"
    } else {
        "correct it (keys and strings in double quotes, a comma between fields)"
    };
    // The parser counts lines, and bytes in them; people count characters.
    let piece = text.get(start..).unwrap_or_default();
    let lines_before = error.line().saturating_sub(1);
    let in_piece: usize = piece.split_inclusive('\n').take(lines_before).map(str::len).sum();
    let mut end = (start + in_piece + error.column().saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = text.get(..end).unwrap_or_default();
    let line = before.bytes().filter(|byte| *byte == b'\n').count() as u64 + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
    DataError::new(format!("expected SQuAD's JSON, got an error: {what}: {advice}"))
        .at_line(line)
        .at_column(column)
}
