//! Which column is the text, which the label.

use std::collections::HashSet;

use crate::error::DataError;
use crate::label::{as_number, looks_like_list};
use crate::table::Table;
use crate::wording::{count, did_you_mean, excerpt, list};

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
pub fn choose_columns(
    table: &Table,
    text: Option<&str>,
    label: Option<&str>,
    pair: Option<&str>,
) -> Result<Columns, DataError> {
    let label = label.map(|name| named(table, "label", name)).transpose()?;
    let pair = pair.map(|name| named(table, "pair", name)).transpose()?;
    let mut taken: Vec<usize> = [&label, &pair].into_iter().flatten().map(|choice| choice.index).collect();
    let (text, pair) = match text {
        Some(name) => (named(table, "text", name)?, pair),
        None => found_text(table, &taken, pair)?,
    };
    taken.push(text.index);
    taken.extend(pair.as_ref().map(|choice| choice.index));
    let label = label.or_else(|| likely_label(table, &taken));
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
        self.label.as_ref().ok_or_else(|| undecided(table, "label"))
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

/// The column that is most like a label by its values, other than those `taken`.
pub(crate) fn likely_label(table: &Table, taken: &[usize]) -> Option<Choice> {
    by_name(table, "label", &LABEL_NAMES, taken).or_else(|| label_by_content(table, taken))
}

fn choice(table: &Table, role: &str, index: usize, reason: &str) -> Option<Choice> {
    let name = table.columns().get(index)?.clone();
    let why = format!("{role} column `{name}`: {reason}");
    Some(Choice { index, name, why })
}

fn named(table: &Table, role: &str, name: &str) -> Result<Choice, DataError> {
    let names = table.columns();
    let index = names.iter().position(|column| column == name);
    index.and_then(|index| choice(table, role, index, "as asked")).ok_or_else(|| {
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

fn by_name(table: &Table, role: &str, names: &[&str], taken: &[usize]) -> Option<Choice> {
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
    let text = by_name(table, "text", &TEXT_NAMES, taken).or_else(|| text_by_content(table, &no_text));
    Ok((text.ok_or_else(|| undecided(table, "text"))?, pair))
}

fn pair_by_name(table: &Table, taken: &[usize]) -> Option<(Choice, Choice)> {
    let (first, second) = PAIR_NAMES.iter().find_map(|(first, second)| {
        Some((position(table, first, taken)?, position(table, second, taken)?))
    })?;
    Some((choice(table, "text", first, "by its name")?, choice(table, "pair", second, "by its name")?))
}

fn undecided(table: &Table, role: &str) -> DataError {
    let shown: Vec<String> = table
        .columns()
        .iter()
        .enumerate()
        .take(20)
        .map(|(index, name)| {
            let sample = table.rows().filter_map(|row| row.get(index)).find(|value| !value.trim().is_empty());
            format!("`{name}` (such as: {})", excerpt(sample.unwrap_or("nothing"), 40))
        })
        .collect();
    let more = table.columns().len().saturating_sub(shown.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    DataError::new(format!(
        "no column stands out as the {role}: give `--{role}-column` with one of {}{more}",
        shown.join(", ")
    ))
    .in_file(table.path())
}

/// What a column's values are like.
struct Values {
    filled: usize,
    distinct: usize,
    mean_characters: f64,
    /// Every value is a number.
    numeric: bool,
    /// Some value is a number with decimals.
    decimal: bool,
    /// Every value is a list by its brackets.
    lists: bool,
    /// Most values have a space or letters beyond ASCII; an identifier has neither.
    prose: bool,
}

/// A file of this many rows shows its columns' nature; they are taken from all of it, since files are often
/// sorted.
const JUDGED_ROWS: usize = 5000;

impl Values {
    fn of(table: &Table, column: usize) -> Self {
        let step = table.len().div_ceil(JUDGED_ROWS).max(1);
        let mut distinct = HashSet::new();
        let (mut filled, mut characters, mut numbers, mut prose) = (0_usize, 0_usize, 0_usize, 0_usize);
        let (mut decimals, mut lists) = (0_usize, 0_usize);
        for row in table.rows().step_by(step) {
            let Some(value) = row.get(column).map(str::trim).filter(|value| !value.is_empty()) else {
                continue;
            };
            filled += 1;
            characters += value.chars().count();
            let number = as_number(value);
            numbers += usize::from(number.is_some());
            decimals += usize::from(number.is_some_and(|number| number.fract() != 0.0));
            lists += usize::from(looks_like_list(value));
            prose += usize::from(value.contains(' ') || !value.is_ascii());
            distinct.insert(value);
        }
        Values {
            filled,
            distinct: distinct.len(),
            mean_characters: characters as f64 / filled.max(1) as f64,
            numeric: numbers == filled,
            decimal: decimals > 0,
            lists: lists == filled,
            prose: 2 * prose > filled,
        }
    }

    /// How much like running text: long, and seldom the same.
    fn textness(&self) -> f64 {
        let different = self.distinct as f64 / self.filled.max(1) as f64;
        self.mean_characters * different * if self.prose { 1.0 } else { 0.25 }
    }

    /// Few values that repeat. The same bound as for label names: two classes may be in three rows.
    fn repeat(&self) -> bool {
        self.distinct >= 2
            && (self.distinct == 2 || 2 * self.distinct <= self.filled)
            && self.mean_characters < 60.0
    }
}

fn free_columns(table: &Table, taken: &[usize]) -> Vec<(usize, Values)> {
    let free = (0..table.columns().len()).filter(|column| !taken.contains(column));
    free.map(|column| (column, Values::of(table, column))).filter(|(_, values)| values.filled > 0).collect()
}

/// How many times more like text the best column must be than the next, for nobody to be surprised.
const CLEAR_LEAD: f64 = 1.5;

fn text_by_content(table: &Table, taken: &[usize]) -> Option<Choice> {
    let mut candidates = free_columns(table, taken);
    candidates.retain(|(_, values)| !values.numeric && !values.lists);
    candidates.sort_by(|(_, a), (_, b)| b.textness().total_cmp(&a.textness()));
    match candidates.as_slice() {
        [(only, _)] if table.columns().len() == 1 => choice(table, "text", *only, "the only one"),
        [(best, _)] => choice(table, "text", *best, "the only one that is not numbers"),
        [(best, values), (_, next), ..] if values.textness() > CLEAR_LEAD * next.textness() => {
            choice(table, "text", *best, "it has the longest values, and they differ most")
        }
        _ => None,
    }
}

fn label_by_content(table: &Table, taken: &[usize]) -> Option<Choice> {
    let free = free_columns(table, taken);
    // Nothing else is written as lists, so one such column is the labels', whatever else repeats.
    let mut lists = free.iter().filter(|(_, values)| values.lists);
    if let (Some((column, _)), None) = (lists.next(), lists.next()) {
        return choice(table, "label", *column, "it has lists");
    }
    let mut repeating = free.iter().filter(|(_, values)| values.repeat());
    match (repeating.next(), repeating.next()) {
        (Some((column, values)), None) => {
            let reason = format!("it has {}, which repeat", count(values.distinct, "value"));
            choice(table, "label", *column, &reason)
        }
        // Its one value will be named by the error for a single class, which says more than "no label
        // column".
        (None, _) => match free.as_slice() {
            [(column, values)] if values.numeric && values.decimal => {
                choice(table, "label", *column, "the only one left, and it has numbers")
            }
            [(column, values)] if values.distinct == 1 && values.filled > 1 => {
                choice(table, "label", *column, "the only one left")
            }
            _ => None,
        },
        _ => None,
    }
}
