//! Texts whose words have tags: which columns they stand in, and what the words and tags are.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::columns::{Choice, Named, Wanted, by_name, choice, named};
use crate::error::DataError;
use crate::examples::Example;
use crate::format::Format;
use crate::label::Label;
use crate::notice::Notice;
use crate::spans::{SpanLosses, tag_spans, written_spans};
use crate::table::{Row, Table};
use crate::tags::{TagScheme, tag_parts};
use crate::wording::{count, excerpt, list};
use crate::words::{Word, join_words};

const TOKENS_NAMES: [&str; 6] = ["tokens", "words", "token", "字", "词", "单词"];
const TAGS_NAMES: [&str; 9] = ["tags", "ner_tags", "ner", "bio", "labels", "label", "tag", "标签", "标注"];
const TEXT_NAMES: [&str; 6] = ["text", "sentence", "content", "raw", "文本", "句子"];
const SPANS_NAMES: [&str; 10] =
    ["entities", "spans", "ents", "annotations", "label", "labels", "entity", "ner", "实体", "标注"];

/// The columns of a table of sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentenceColumns {
    /// Lists of words, or texts.
    pub text: Choice,
    /// Lists of tags, or of spans; none where the file has no such column.
    pub label: Option<Choice>,
    /// Whether a text is a list of words.
    tokens: bool,
}

/// Sentences, and what is to be said of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Sentences {
    /// The label is [`Label::Words`]; a text that nobody has parted and that has no spans has none.
    pub examples: Vec<Example>,
    /// How the tags of the file are written; none where it has none.
    pub scheme: Option<TagScheme>,
    /// What was widened or left out.
    pub notices: Vec<Notice>,
}

impl SentenceColumns {
    /// Chooses the columns of `table`: as named (`wanted.text` has texts or lists of words, `label` tags or spans), else by
    /// usual names, and of CoNLL's form the first and the last.
    ///
    /// # Errors
    /// A named column is not there, or none is found for texts.
    pub fn choose(table: &Table, wanted: &Wanted<'_>) -> Result<Self, DataError> {
        let conll = table.format() == Format::Conll;
        let given =
            |role: &str, wanted: Option<Named<'_>>| wanted.map(|name| named(table, role, name)).transpose();
        let (text, label) = (given("text", wanted.text)?, given("label", wanted.label)?);
        let label_taken: Vec<usize> = label.iter().map(|label| label.index).collect();
        let text = text
            .or_else(|| if conll { choice(table, "word", 0, "the first of CoNLL's form") } else { None })
            .or_else(|| by_name(table, "word", &TOKENS_NAMES, &label_taken))
            .or_else(|| by_name(table, "text", &TEXT_NAMES, &label_taken));
        let Some(text) = text else {
            return Err(DataError::new(format!(
                "no column stands out as the words or the text: give --text-column with one of {}, or --format conll \
                 for a word a line",
                list(table.columns(), 20)
            ))
            .in_file(table.path()));
        };
        let tokens = holds_lists(table, text.index);
        let taken = [text.index];
        let last = table.columns().len() - 1;
        let label = label
            .or_else(|| {
                if conll && last > 0 { choice(table, "tag", last, "the last of CoNLL's form") } else { None }
            })
            .or_else(|| if tokens { by_name(table, "tag", &TAGS_NAMES, &taken) } else { None })
            .or_else(|| if tokens { None } else { by_name(table, "entity", &SPANS_NAMES, &taken) });
        Ok(SentenceColumns { text, label, tokens })
    }

    /// Whether the table looks like one of tagged sentences: lists of words and tags, or texts with lists of spans.
    pub fn recognises(table: &Table) -> bool {
        if table.format() == Format::Conll {
            return true;
        }
        let Ok(columns) = SentenceColumns::choose(table, &Wanted::default()) else { return false };
        let Some(label) = &columns.label else { return false };
        if columns.tokens {
            return holds_tags(table, label.index);
        }
        // Lists of labels are texts; those of spans are objects or lists with two numbers.
        let fields = first_values(table, label.index);
        let spans: Result<Vec<usize>, String> =
            fields.iter().map(|field| written_spans(field).map(|spans| spans.len())).collect();
        spans.is_ok_and(|spans| spans.iter().any(|count| *count > 0))
    }

    /// Whether rows are lists of words.
    pub fn has_tokens(&self) -> bool {
        self.tokens
    }

    /// The sentences of all rows, without their tags.
    ///
    /// # Errors
    /// A list of words is none; the line is named.
    pub fn untagged(&self, table: &Table) -> Result<Vec<Example>, DataError> {
        table.rows().map(|row| self.example(table, &row?)).collect()
    }

    /// The sentences of all rows with their tags. `scheme` says how these are written, where somebody did; else it is found.
    ///
    /// # Errors
    /// There is no column for tags, a row has none or as many as it has no words, a tag or a span is none, or the tags are of
    /// several schemes; the line is named.
    pub fn tagged(&self, table: &Table, scheme: Option<TagScheme>) -> Result<Sentences, DataError> {
        let Some(label) = &self.label else {
            return Err(DataError::new(format!(
                "no column stands out as the tags or entities: give --label-column with one of {}",
                list(table.columns(), 20)
            ))
            .in_file(table.path()));
        };
        let mut examples = self.untagged(table)?;
        let wrong = |row: &Row<'_>, message: String| {
            let name = &label.name;
            table.error_at(row.index(), row.line(), format!("column `{name}`: {message}"))
        };
        if !self.tokens {
            let mut losses = SpanLosses::default();
            for (example, row) in examples.iter_mut().zip(table.rows()) {
                let row = row?;
                let spans = written_spans(row.get(label.index).unwrap_or("[]"))
                    .and_then(|spans| tag_spans(&example.text, spans, example.line, &mut losses));
                example.label = Some(Label::Words(spans.map_err(|message| wrong(&row, message))?));
            }
            let notices = losses.notices();
            return Ok(Sentences { examples, scheme: Some(TagScheme::Iob2), notices });
        }
        let mut all: Vec<Vec<String>> = Vec::with_capacity(examples.len());
        for (example, row) in examples.iter().zip(table.rows()) {
            let row = row?;
            let field = row.get(label.index);
            let field = field.ok_or_else(|| wrong(&row, "expected a list of tags, got nothing".into()))?;
            let tags = strings(field, "tags").map_err(|message| wrong(&row, message))?;
            let words = words_of(example).len();
            if tags.len() != words {
                let message =
                    format!("expected a tag for each of {}, got {}", count(words, "word"), tags.len());
                return Err(wrong(&row, message));
            }
            if let Some(place) = tags.iter().position(|tag| tag_parts(tag).is_none()) {
                let message = format!(
                    "expected O or a tag such as B-person, got `{}` for the word `{}`: correct it, or name another column \
                     with --label-column",
                    excerpt(&tags[place], 40),
                    excerpt(&example.text[words_of(example)[place].range()], 40)
                );
                let message = wrong(&row, message);
                // In CoNLL's form each word has its line.
                let line = row.line() + if table.format() == Format::Conll { place as u64 } else { 0 };
                return Err(message.at_line(line));
            }
            all.push(tags);
        }
        let found = match scheme {
            Some(scheme) => scheme,
            None => TagScheme::of(all.iter().map(|tags| tags.iter().map(String::as_str).collect()))
                .map_err(|letters| mixed(&letters, label, table))?,
        };
        let mut names: HashMap<String, Arc<str>> = HashMap::new();
        for (example, tags) in examples.iter_mut().zip(&all) {
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            let Some(Label::Words(words)) = &mut example.label else { continue };
            for (word, tag) in words.iter_mut().zip(found.to_learnt(&tags)) {
                let tag = names.entry(tag).or_insert_with_key(|tag| Arc::from(tag.as_str()));
                word.tag = Some(Arc::clone(tag));
            }
        }
        Ok(Sentences { examples, scheme: Some(found), notices: Vec::new() })
    }

    fn example(&self, table: &Table, row: &Row<'_>) -> Result<Example, DataError> {
        let field = row.get(self.text.index);
        let (text, label) = if self.tokens {
            let words = strings(field.unwrap_or_default(), "words").map_err(|message| {
                let message = format!("column `{}`: {message}", self.text.name);
                table.error_at(row.index(), row.line(), message)
            })?;
            let (text, words) = join_words(&words);
            (text, Some(Label::Words(words)))
        } else {
            (field.unwrap_or_default().to_owned(), None)
        };
        Ok(Example { row: row.index() as u64, line: row.line(), text, pair: None, label })
    }
}

/// The words that a file gives for an example.
fn words_of(example: &Example) -> &[Word] {
    match &example.label {
        Some(Label::Words(words)) => words,
        _ => &[],
    }
}

fn mixed(letters: &str, label: &Choice, table: &Table) -> DataError {
    let letters: Vec<String> = letters.chars().map(|letter| letter.to_string()).collect();
    DataError::new(format!(
        "column `{}`: expected tags of one scheme, got the prefixes {}, which are of several: correct them, or say which \
         with --tag-scheme",
        label.name,
        list(&letters, 10)
    ))
    .in_file(table.path())
}

/// A JSON list of texts; `what` it is of is for the error.
fn strings(field: &str, what: &str) -> Result<Vec<String>, String> {
    let wrong = |got: String| format!("expected a JSON list of {what}, got {got}");
    let values: Vec<Value> =
        serde_json::from_str(field).map_err(|_| wrong(format!("`{}`", excerpt(field, 40))))?;
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        other => Err(wrong(format!("`{}` in it: write each as a text", excerpt(&other.to_string(), 40)))),
    };
    values.into_iter().map(text).collect()
}

/// Whether the first values of a column are JSON lists.
fn holds_lists(table: &Table, column: usize) -> bool {
    let values = first_values(table, column);
    // Of whatever: a list in a list is one of words that is written wrong.
    values.first().is_some_and(|value| serde_json::from_str::<Vec<Value>>(value).is_ok())
        && values.iter().all(|value| value.trim_start().starts_with('['))
}

/// Whether they are lists of tags.
fn holds_tags(table: &Table, column: usize) -> bool {
    let lists: Result<Vec<Vec<String>>, String> =
        first_values(table, column).iter().map(|value| strings(value, "")).collect();
    lists.is_ok_and(|lists| {
        lists.iter().flatten().all(|tag| tag_parts(tag).is_some())
            && lists.iter().any(|tags| !tags.is_empty())
    })
}

/// The first values of a column that there are.
fn first_values(table: &Table, column: usize) -> Vec<String> {
    let rows = table.rows().take(100).filter_map(Result::ok);
    let values = rows.filter_map(|row| row.get(column).map(str::to_owned));
    values.filter(|value| !value.trim().is_empty()).collect()
}
