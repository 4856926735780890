//! Which column is the text, which the label.

use std::collections::HashSet;

use crate::column_values::{label_by_content, label_by_separator, text_by_content};
use crate::error::DataError;
use crate::label::looks_parted;
use crate::table::Table;
use crate::wording::{did_you_mean, excerpt, list};

/// The columns that a task uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The text.
    pub text: Choice,
    /// The second text, for a task on pairs.
    pub pair: Option<Choice>,
    /// The label; none where no column was named and none looks like one, as in a file to predict.
    pub label: Option<Choice>,
}

/// A column and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Its index among the table's columns.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// A sentence for the user: "text column `text`: by its name".
    pub why: String,
}

/// Usual names of a text, the likelier first.
const TEXT_NAMES: [&str; 26] = [
    "text",
    "sentence",
    "content",
    "message",
    "review",
    "utterance",
    "query",
    "question",
    "comment",
    "tweet",
    "post",
    "body",
    "document",
    "input",
    "description",
    "review_text",
    "review_body",
    "summary",
    "title",
    "subject",
    "文本",
    "内容",
    "句子",
    "评论",
    "消息",
    "标题",
];

/// Usual names of a label, the likelier first.
const LABEL_NAMES: [&str; 24] = [
    "label",
    "labels",
    "intent",
    "category",
    "class",
    "target",
    "sentiment",
    "topic",
    "tag",
    "emotion",
    "gold_label",
    "label_text",
    "label_name",
    "output",
    "rating",
    "stars",
    "score",
    "similarity_score",
    "similarity",
    "y",
    "标签",
    "类别",
    "分类",
    "意图",
];

/// Usual names of two texts that belong together. A question and its answer are not among them: such files are often
/// about the question alone.
const PAIR_NAMES: [(&str, &str); 13] = [
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("query", "document"),
    ("text", "text_pair"),
];

/// A column that somebody names, and in which words: "as asked".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'n> {
    /// Its name.
    pub name: &'n str,
    /// Why it is this one.
    pub why: &'n str,
}

impl<'n> From<&'n str> for Named<'n> {
    fn from(name: &'n str) -> Self {
        Named { name, why: "as asked" }
    }
}

/// What is known of a file's columns before it is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted<'n> {
    /// The text.
    pub text: Option<Named<'n>>,
    /// The label.
    pub label: Option<Named<'n>>,
    /// The second text.
    pub pair: Option<Named<'n>>,
    /// What stands between the labels of a row, where that is known: a label column is then one that has it.
    pub separator: Option<&'n str>,
}

/// [`choose_wanted_columns`], with the names that a user gave.
///
/// # Errors
/// As there.
pub fn choose_columns(
    table: &Table,
    text: Option<&str>,
    label: Option<&str>,
    pair: Option<&str>,
) -> Result<Columns, DataError> {
    let [text, label, pair] = [text, label, pair].map(|name| name.map(Named::from));
    choose_wanted_columns(table, &Wanted { text, label, pair, separator: None })
}

/// Chooses the columns of `table`: as named, else by usual names, else by content.
///
/// A text is what has the longest values, nearly all different; a label has a few values that repeat. Two
/// texts are only taken where one is named or the names say that they belong together (`premise`,
/// `hypothesis`).
///
/// # Errors
/// A named column is not there or named for two uses, or no column stands out as the text. That no column
/// stands out as the label is an error of [`labelled_examples`](crate::labelled_examples), since a file to
/// predict has none.
pub fn choose_wanted_columns(table: &Table, wanted: &Wanted<'_>) -> Result<Columns, DataError> {
    let Wanted { text, label, pair, separator } = *wanted;
    let label = label.map(|name| named(table, "label", name)).transpose()?;
    let pair = pair.map(|name| named(table, "pair", name)).transpose()?;
    let mut taken: Vec<usize> = [&label, &pair].into_iter().flatten().map(|choice| choice.index).collect();
    let (text, pair) = match text {
        Some(name) => (named(table, "text", name)?, pair),
        None => found_text(table, &taken, pair)?,
    };
    taken.push(text.index);
    taken.extend(pair.as_ref().map(|choice| choice.index));
    let label = match label {
        None => likely_label(table, &taken, separator)?,
        named => named,
    };
    let columns = Columns { text, pair, label };
    columns.check_different(table)?;
    Ok(columns)
}

impl Columns {
    /// The reasons for the choices, a sentence each.
    pub fn why(&self) -> impl Iterator<Item = &str> {
        self.choices().map(|choice| choice.why.as_str())
    }

    /// The label column.
    ///
    /// # Errors
    /// There is none; the error lists the columns with a value of each.
    pub(crate) fn require_label(&self, table: &Table) -> Result<&Choice, DataError> {
        match &self.label {
            Some(label) => Ok(label),
            None => Err(undecided(table, "label")?),
        }
    }

    fn choices(&self) -> impl Iterator<Item = &Choice> {
        [Some(&self.text), self.pair.as_ref(), self.label.as_ref()].into_iter().flatten()
    }

    fn check_different(&self, table: &Table) -> Result<(), DataError> {
        let mut used = HashSet::new();
        match self.choices().find(|choice| !used.insert(choice.index)) {
            None => Ok(()),
            Some(twice) => Err(DataError::new(format!(
                "expected different columns for text, pair and label, got `{}` twice: the columns are {}",
                twice.name,
                list(table.columns(), 20)
            ))
            .in_file(table.path())),
        }
    }
}

/// The column that is most like a label by its name and its values, other than those `taken`.
pub(crate) fn likely_label(
    table: &Table,
    taken: &[usize],
    separator: Option<&str>,
) -> Result<Option<Choice>, DataError> {
    if let Some(named) = by_name(table, "label", &LABEL_NAMES, taken) {
        return Ok(Some(named));
    }
    let parted = separator.map(|separator| label_by_separator(table, taken, separator)).transpose()?;
    match parted.flatten() {
        None => label_by_content(table, taken),
        parted => Ok(parted),
    }
}

pub(crate) fn choice(table: &Table, role: &str, index: usize, reason: &str) -> Option<Choice> {
    let name = table.columns().get(index)?.clone();
    let why = format!("{role} column `{name}`: {reason}");
    Some(Choice { index, name, why })
}

pub(crate) fn named(table: &Table, role: &str, Named { name, why }: Named<'_>) -> Result<Choice, DataError> {
    let names = table.columns();
    let index = names.iter().position(|column| column == name);
    index.and_then(|index| choice(table, role, index, why)).ok_or_else(|| {
        DataError::new(format!(
            "no column `{name}` for the {role}{}: the columns are {}",
            did_you_mean(name, names.iter().map(String::as_str)),
            list(names, 20)
        ))
        .in_file(table.path())
    })
}

fn position(table: &Table, name: &str, taken: &[usize]) -> Option<usize> {
    let index = table.columns().iter().position(|column| column.to_lowercase() == name)?;
    (!taken.contains(&index)).then_some(index)
}

pub(crate) fn by_name(table: &Table, role: &str, names: &[&str], taken: &[usize]) -> Option<Choice> {
    let index = names.iter().find_map(|name| position(table, name, taken))?;
    choice(table, role, index, "by its name")
}

/// The text where none is named, and with it the pair where none is named either.
fn found_text(
    table: &Table,
    taken: &[usize],
    pair: Option<Choice>,
) -> Result<(Choice, Option<Choice>), DataError> {
    if let Some((first, second)) = pair_by_name(table, taken).filter(|_| pair.is_none()) {
        return Ok((first, Some(second)));
    }
    // What is called a label is no text, however long it is; but a file of one column is all text.
    let mut no_text = taken.to_vec();
    if table.columns().len() > 1 {
        no_text.extend(by_name(table, "label", &LABEL_NAMES, taken).map(|label| label.index));
    }
    let text = match by_name(table, "text", &TEXT_NAMES, taken) {
        None => text_by_content(table, &no_text)?,
        named => named,
    };
    match text {
        Some(text) => Ok((text, pair)),
        None => Err(undecided(table, "text")?),
    }
}

fn pair_by_name(table: &Table, taken: &[usize]) -> Option<(Choice, Choice)> {
    let (first, second) = PAIR_NAMES.iter().find_map(|(first, second)| {
        Some((position(table, first, taken)?, position(table, second, taken)?))
    })?;
    Some((choice(table, "text", first, "by its name")?, choice(table, "pair", second, "by its name")?))
}

/// The error that no column stands out; itself an error if the rows cannot be read again.
fn undecided(table: &Table, role: &str) -> Result<DataError, DataError> {
    let mut samples: Vec<Option<String>> = vec![None; table.columns().len().min(20)];
    for row in table.rows() {
        let row = row?;
        for (column, sample) in samples.iter_mut().enumerate().filter(|(_, sample)| sample.is_none()) {
            *sample =
                row.get(column).filter(|value| !value.trim().is_empty()).map(|value| excerpt(value, 40));
        }
        if samples.iter().all(Option::is_some) {
            break;
        }
    }
    let shown = table.columns().iter().zip(&samples);
    let shown: Vec<String> = shown
        .map(|(name, sample)| format!("`{name}` (such as: {})", sample.as_deref().unwrap_or("nothing")))
        .collect();
    let more = table.columns().len().saturating_sub(shown.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let mut parted = String::new();
    for (column, name) in table.columns().iter().enumerate().filter(|_| role == "label") {
        if let Some(separator) = looks_parted(table, column)? {
            parted = format!(
                "; `{name}` looks like several labels a row: `--label-separator \"{separator}\"` takes it for such"
            );
            break;
        }
    }
    Ok(DataError::new(format!(
        "no column stands out as the {role}: give `--{role}-column` with one of {}{more}{parted}",
        shown.join(", ")
    ))
    .in_file(table.path()))
}
