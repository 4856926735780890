//! Texts whose words have tags: which columns they stand in, and what the words and tags are.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::columns::{Choice, Named, Wanted, by_name, choice, named};
use crate::error::DataError;
use crate::examples::{Example, Examples, ReadRow};
use crate::format::Format;
use crate::label::Label;
use crate::notice::Notice;
use crate::spans::{SpanLosses, tag_spans, written_spans};
use crate::table::{Row, Table};
use crate::tags::{MixedTags, SchemeSearch, TagScheme, tag_parts};
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
#[derive(Debug, Clone)]
pub struct Sentences {
    /// The label is [`Label::Words`]; a text that nobody has parted and that has no spans has none.
    pub examples: Examples,
    /// The scheme of the file's tags, or of those that its spans become.
    pub scheme: TagScheme,
    /// What stands between a prefix and a type in its tags.
    pub separator: char,
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
    /// A row has no text, or one that is none, or a list of words that is none; the line is named.
    pub fn untagged(&self, table: Arc<Table>) -> Result<Examples, DataError> {
        for row in table.rows() {
            let row = row?;
            self.text(&row).map_err(|message| wrong(&table, &row, message))?;
        }
        Ok(Examples::of_rows(table, SentenceRows { columns: self.clone(), schemes: None }))
    }

    /// The sentences of all rows with their tags. `asked` says the scheme of the file's tags, or the one that its spans become, where
    /// somebody did; else it is found, and is `trained`, that of a model, where it may be. The examples have the tags that are learnt: where
    /// somebody asked, those of the model, and else the file's, since whether they are another's or broken is not known.
    ///
    /// # Errors
    /// There is no column for tags or spans, a row has none or as many as it has no words, a tag or a span is none, or the tags
    /// are not of one scheme, or not of the one that was asked for; the line is named.
    pub fn tagged(
        &self,
        table: Arc<Table>,
        asked: Option<TagScheme>,
        trained: Option<TagScheme>,
    ) -> Result<Sentences, DataError> {
        let Some(label) = &self.label else {
            return Err(DataError::new(format!(
                "no column stands out as the tags or entities: give --label-column with one of {}",
                list(table.columns(), 20)
            ))
            .in_file(table.path()));
        };
        let (schemes, separator, notices) = if self.tokens {
            let (found, separator) = self.check_tags(&table, label, (asked, trained))?;
            let learnt = asked.and(trained).unwrap_or(found).learnt();
            (Schemes { written: found, learnt }, separator, Vec::new())
        } else {
            let written = asked.or(trained).unwrap_or(TagScheme::Iob2);
            let notices = self.check_spans(&table, label)?;
            (Schemes { written, learnt: trained.unwrap_or(written).learnt() }, '-', notices)
        };
        let rows = SentenceRows { columns: self.clone(), schemes: Some(schemes) };
        let examples = Examples::of_rows(table, rows);
        Ok(Sentences { examples, scheme: schemes.written, separator, notices })
    }

    /// The scheme of the tags of all rows, and what stands in them behind a prefix.
    fn check_tags(
        &self,
        table: &Table,
        label: &Choice,
        (asked, trained): (Option<TagScheme>, Option<TagScheme>),
    ) -> Result<(TagScheme, char), DataError> {
        let (mut search, mut separator) = (SchemeSearch::default(), None);
        for row in table.rows() {
            let row = row?;
            let (text, words) = self.text(&row).map_err(|message| wrong(table, &row, message))?;
            let tags = tags_of(&row, label, words.len()).map_err(|message| wrong(table, &row, message))?;
            let prefix = |tag: &String| tag_parts(tag).map(|(prefix, _)| prefix);
            let word = |place: usize| {
                let word = words.get(place).and_then(|word| text.get(word.range()));
                format!("the word `{}`", excerpt(word.unwrap_or_default(), 40))
            };
            // In CoNLL's form each word has its line.
            let wrong_word = |place: usize, message: String| {
                let message = format!("column `{}`: {message}", label.name);
                Err(table.error_at_word((row.index(), row.line()), place, message))
            };
            if let Some(place) = tags.iter().position(|tag| prefix(tag).is_none()) {
                let message = format!(
                    "expected O or a tag such as B-person, got `{}` for {}: correct it, or name another column with \
                     --label-column",
                    excerpt(&tags[place], 40),
                    word(place)
                );
                return wrong_word(place, message);
            }
            let of_scheme = |scheme: TagScheme, tag| prefix(tag).is_some_and(|prefix| scheme.has(prefix));
            if let Some(scheme) = asked
                && let Some(place) = tags.iter().position(|tag| !of_scheme(scheme, tag))
            {
                let message = format!(
                    "expected tags of {scheme}, as --tag-scheme says, whose prefixes are O and {}, got `{}` for {}: correct it, \
                     or leave --tag-scheme out",
                    scheme.letters(),
                    excerpt(&tags[place], 40),
                    word(place)
                );
                return wrong_word(place, message);
            }
            if asked.is_none()
                && let Err(MixedTags { prefixes: [first, second], word: place }) = search.add(&texts(&tags))
            {
                let message = format!(
                    "expected tags of one scheme, got the prefixes `{first}`, `{second}`, the second first for {}, and no scheme \
                     has both: correct them",
                    word(place)
                );
                return wrong_word(place, message);
            }
            separator = separator.or_else(|| tags.iter().find_map(|tag| tag.chars().nth(1)));
        }
        Ok((asked.unwrap_or_else(|| search.found(trained)), separator.unwrap_or('-')))
    }

    /// What tags cannot say of the spans of all rows.
    fn check_spans(&self, table: &Table, label: &Choice) -> Result<Vec<Notice>, DataError> {
        // What is lost is told of each file.
        let mut losses: Vec<(Option<&Path>, SpanLosses)> = Vec::new();
        for row in table.rows() {
            let row = row?;
            let file = table.places().one_of_several(row.index());
            if losses.last().is_none_or(|(last, _)| *last != file) {
                losses.push((file, SpanLosses::default()));
            }
            let Some((_, losses)) = losses.last_mut() else { continue };
            let words = self.text(&row).and_then(|(text, _)| spans_of(&row, label, &text, losses));
            words.map_err(|message| wrong(table, &row, message))?;
        }
        Ok(losses.iter().flat_map(|(file, losses)| losses.notices(*file)).collect())
    }

    /// The text of a row, and its words where the file parts it. Errors with what is wrong, and no place.
    fn text(&self, row: &Row<'_>) -> Result<(String, Vec<Word>), String> {
        let wrong = |message: String| format!("column `{}`: {message}", self.text.name);
        let what = if self.tokens { "a list of words" } else { "a text" };
        let field = row
            .get(self.text.index)
            .ok_or_else(|| wrong(format!("expected {what}, got nothing: fill it in or delete the row")))?;
        if self.tokens {
            return Ok(join_words(&strings(field, "words").map_err(wrong)?));
        }
        if row.is_json(self.text.index) {
            return Err(wrong(format!(
                "expected {what}, got `{}`: write it as a string",
                excerpt(field, 40)
            )));
        }
        Ok((field.to_owned(), Vec::new()))
    }
}

/// How a row becomes a sentence, with its tags where `schemes` says how they are read.
#[derive(Debug)]
struct SentenceRows {
    columns: SentenceColumns,
    schemes: Option<Schemes>,
}

/// The scheme of a file's tags, or that its spans become, and the one that is learnt for it.
#[derive(Debug, Clone, Copy)]
struct Schemes {
    written: TagScheme,
    learnt: TagScheme,
}

impl ReadRow for SentenceRows {
    fn read(&self, row: &Row<'_>) -> Result<Example, String> {
        let SentenceRows { columns, schemes } = self;
        let (text, mut words) = columns.text(row)?;
        let mut known = columns.tokens;
        if let (Some(Schemes { written, learnt }), Some(label)) = (schemes, &columns.label) {
            let tags = if columns.tokens {
                let own = written.to_learnt(&texts(&tags_of(row, label, words.len())?));
                learnt.from_learnt(&texts(&own), written.learnt())
            } else {
                words = spans_of(row, label, &text, &mut SpanLosses::default())?;
                let own: Vec<&str> = words.iter().filter_map(|word| word.tag.as_deref()).collect();
                learnt.from_learnt(&own, TagScheme::Iob2)
            };
            words.iter_mut().zip(tags).for_each(|(word, tag)| word.tag = Some(tag.into()));
            known = true;
        }
        let label = known.then_some(Label::Words(words));
        Ok(Example { row: row.index() as u64, line: row.line(), text, pair: None, label })
    }
}

/// The tags of a row of so many words, as the file has them. Errors with what is wrong, and no place.
fn tags_of(row: &Row<'_>, label: &Choice, words: usize) -> Result<Vec<String>, String> {
    let field = row.get(label.index).ok_or_else(|| "expected a list of tags, got nothing".to_owned());
    let tags = field.and_then(|field| strings(field, "tags")).and_then(|tags| match tags.len() {
        len if len == words => Ok(tags),
        len => Err(format!("expected a tag for each of {}, got {len}", count(words, "word"))),
    });
    tags.map_err(|message| format!("column `{}`: {message}", label.name))
}

/// The words of a text with the tags that the spans of its row make, in IOB2. Errors with what is wrong, and no place.
fn spans_of(row: &Row<'_>, label: &Choice, text: &str, losses: &mut SpanLosses) -> Result<Vec<Word>, String> {
    let field = row.get(label.index).filter(|field| !field.trim().is_empty());
    let field = field
        .ok_or_else(|| "expected a list of entities, got nothing: write [] where there are none".to_owned());
    let words = field.and_then(written_spans).and_then(|spans| tag_spans(text, spans, row.line(), losses));
    words.map_err(|message| format!("column `{}`: {message}", label.name))
}

fn wrong(table: &Table, row: &Row<'_>, message: String) -> DataError {
    table.error_at(row.index(), row.line(), message)
}

fn texts(tags: &[String]) -> Vec<&str> {
    tags.iter().map(String::as_str).collect()
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
