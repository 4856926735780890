//! SQuAD's JSON, versions 1.1 and 2.0: articles of paragraphs of questions.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::FileUnderWay;
use super::json_text::JsonText;
use crate::error::DataError;
use crate::format::Format;
use crate::input::Text;
use crate::table::Table;

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
/// `is_impossible`, the last two as JSON has them. Other keys are passed over. Of the document an article is in memory at a
/// time.
///
/// # Errors
/// Another form, or no questions; line and column are named.
pub(super) fn read(file: &mut FileUnderWay<'_>) -> Result<(), DataError> {
    let columns = COLUMNS.map(|name| file.column(name));
    file.table.set_format(Format::Squad);
    let mut document = JsonText::new(file.text()?);
    match read_document(&mut document, file.table, columns) {
        Ok(true) => {}
        Err(error) if error.system => return Err(error),
        Ok(false) | Err(_) => return Err(fault(file.text()?)),
    }
    file.end_of(&document.text);
    if file.table.file_rows() == 0 {
        return Err(DataError::new("expected questions in `data`, `paragraphs`, `qas`, got none of them"));
    }
    Ok(())
}

/// Reads the document; false where it has another form.
fn read_document(
    document: &mut JsonText<'_>,
    table: &mut Table,
    columns: [usize; 6],
) -> Result<bool, DataError> {
    let (mut more, mut articles) = (document.take('{')?, 0);
    while more {
        let Some(length) = document.value()? else { return Ok(false) };
        let Ok(key) = serde_json::from_str::<String>(&document.text.text()[..length]) else {
            return Ok(false);
        };
        document.pass(length);
        if !document.take(':')? {
            return Ok(false);
        }
        document.peek()?;
        if key == "data" {
            articles += 1;
            if !read_articles(document, table, columns)? {
                return Ok(false);
            }
        } else {
            let Some(length) = document.value()? else { return Ok(false) };
            document.pass(length);
        }
        more = document.take(',')?;
        document.peek()?;
    }
    Ok(articles == 1 && document.take('}')? && document.peek()?.is_none())
}

fn read_articles(
    document: &mut JsonText<'_>,
    table: &mut Table,
    [id, title, context, question, answers, impossible]: [usize; 6],
) -> Result<bool, DataError> {
    if !document.take('[')? {
        return Ok(false);
    }
    let mut more = document.peek()? != Some(']');
    while more {
        document.peek()?;
        let Some(length) = document.value()? else { return Ok(false) };
        let text = &document.text.text()[..length];
        let Ok(article) = serde_json::from_str::<Article<'_>>(text) else { return Ok(false) };
        let lines = &mut Lines { text, passed: 0, line: document.text.line() };
        each_question(&article, lines, |of, asked, line| {
            match &asked.id {
                serde_json::Value::String(name) => table.push_field(id, name),
                number => table.push_json(id, &number.to_string()),
            }
            if let Some(name) = &article.title {
                table.push_field(title, name);
            }
            table.push_field(context, &of.context);
            table.push_field(question, &asked.question);
            if let Some(value) = asked.answers {
                // On one line, however the file breaks its own.
                table.push_json(answers, &serde_json::Value::Array(value).to_string());
            }
            if let Some(value) = asked.is_impossible {
                table.push_json(impossible, if value { "true" } else { "false" });
            }
            table.end_row(line)
        })?;
        document.pass(length);
        more = document.take(',')?;
    }
    document.take(']')
}

/// Shows each question of an article to `take`, with the paragraph that it is about and its line. Errors as that does, and
/// with one that is none.
fn each_question(
    article: &Article<'_>,
    lines: &mut Lines<'_>,
    mut take: impl FnMut(&Paragraph<'_>, Question, u64) -> Result<(), DataError>,
) -> Result<(), DataError> {
    for paragraph in &article.paragraphs {
        for raw in &paragraph.qas {
            // The value is a piece of the text, so their addresses give its place.
            let start = raw.get().as_ptr().addr() - lines.text.as_ptr().addr();
            let question: Question =
                serde_json::from_str(raw.get()).map_err(|error| misplaced(lines.text, start, &error))?;
            let line = lines.of(start);
            if !matches!(question.id, serde_json::Value::String(_) | serde_json::Value::Number(_)) {
                return Err(DataError::new(format!(
                    "`id`: expected a string, got {}: give each question one of its own",
                    kind(&question.id)
                ))
                .at_line(line));
            }
            take(paragraph, question, line)?;
        }
    }
    Ok(())
}

/// The error that the whole document gives: parts do not know their places in it. Only a file that fails pays for it.
fn fault(mut text: Text<'_>) -> DataError {
    while !text.is_whole() {
        if let Err(error) = text.more() {
            return error;
        }
    }
    let text = text.text();
    let document: File<'_> = match serde_json::from_str(text) {
        Ok(document) => document,
        Err(error) => return misplaced(text, 0, &error),
    };
    let mut lines = Lines { text, passed: 0, line: 1 };
    let first = document.data.iter().find_map(|one| each_question(one, &mut lines, |_, _, _| Ok(())).err());
    first.unwrap_or_else(|| DataError::new("the file has changed while it was read: try again"))
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
