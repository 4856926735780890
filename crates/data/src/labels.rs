//! The names of the classes and their numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};
use unicode_normalization_alignments::UnicodeNormalization;

use crate::columns::{Columns, likely_label};
use crate::error::DataError;
use crate::examples::{Example, Examples};
use crate::label::{Label, looks_parted};
use crate::notice::Notice;
use crate::table::Table;
use crate::tags::{SchemeSearch, TagScheme, tag_parts};
use crate::wording::{count, excerpt, nearest};

/// The classes of a task. A label is a string from the file to the prediction; its number lives only between
/// the two, and the map travels with the model.
///
/// It is stored as the list of names, whose order is the numbers'.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<String>", try_from = "Vec<String>")]
pub struct LabelMap {
    names: Vec<String>,
    indices: HashMap<String, usize>,
}

impl LabelMap {
    /// The map in which `names` are numbered as they come.
    ///
    /// # Errors
    /// A name comes twice, or there are none.
    pub fn new(names: Vec<String>) -> Result<Self, DataError> {
        if names.is_empty() {
            return Err(DataError::new("expected the names of the labels, got none"));
        }
        let mut indices = HashMap::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            if let Some(first) = indices.insert(name.clone(), index) {
                return Err(DataError::new(format!(
                    "expected different names of labels, got `{name}` for {first} and {index}"
                )));
            }
        }
        Ok(LabelMap { names, indices })
    }

    /// The map of a head that gives a number: one output, called what transformers calls it.
    pub fn of_number() -> Self {
        let name = "LABEL_0".to_owned();
        LabelMap { names: vec![name.clone()], indices: HashMap::from([(name, 0)]) }
    }

    /// The map of a head that says where an answer begins and ends: two outputs.
    pub fn of_answers() -> Self {
        let names = ["start", "end"].map(str::to_owned).to_vec();
        let indices = names.iter().cloned().zip(0..).collect();
        LabelMap { names, indices }
    }

    /// The tags that a model learns for `examples`: `O`, and for each type of entity all that their scheme has, by bytes.
    ///
    /// # Errors
    /// There is no entity in any row.
    pub fn of_tags(examples: &Examples, path: &Path) -> Result<Self, DataError> {
        let (mut kinds, mut scheme) = (BTreeSet::new(), TagScheme::Iob2);
        for example in examples.iter() {
            let Some(Label::Words(words)) = example?.label else { continue };
            for (prefix, kind) in words.iter().filter_map(|word| tag_parts(word.tag.as_deref()?)) {
                if matches!(prefix, 'E' | 'S') {
                    scheme = TagScheme::Bioes;
                }
                if matches!(prefix, 'B' | 'I' | 'E' | 'S') && !kinds.contains(kind) {
                    kinds.insert(kind.to_owned());
                }
            }
        }
        if kinds.is_empty() {
            let rows = count(examples.len(), "row");
            return Err(DataError::new(format!(
                "expected entities, got none in all {rows}: add rows that have some, or name another column with \
                 --label-column"
            ))
            .in_file(path));
        }
        let tag = |prefix: char, kind: &str| {
            if kind.is_empty() { prefix.to_string() } else { format!("{prefix}-{kind}") }
        };
        let all = scheme.letters().chars().flat_map(|prefix| kinds.iter().map(move |kind| tag(prefix, kind)));
        let mut names: Vec<String> = std::iter::once("O".to_owned()).chain(all).collect();
        names.sort_unstable();
        LabelMap::new(names)
    }

    /// The scheme of these tags; none where one is no tag, or they are of several.
    pub fn tag_scheme(&self) -> Option<TagScheme> {
        let tags: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let mut search = SchemeSearch::default();
        let all = tags.iter().all(|tag| tag_parts(tag).is_some()) && search.add(&tags).is_ok();
        all.then(|| search.found(None))
    }

    /// The map of a head that tells the next token: what its outputs mean is the vocabulary's matter, and there is one kind
    /// of them.
    pub fn of_text() -> Self {
        let names = vec!["text".to_owned()];
        let indices = names.iter().cloned().zip(0..).collect();
        LabelMap { names, indices }
    }

    /// The labels of `examples`, which are training's, in their order: by number where all are integers, else
    /// by bytes. That of numbers is [`LabelMap::of_number`], and that of answers [`LabelMap::of_answers`].
    ///
    /// `table` and `columns` are where the examples come from; an error names a better column where there is
    /// one.
    ///
    /// # Errors
    /// An example without a label; only one class; no label in any row; more labels than half the rows (from three
    /// on), which means that the column holds an identifier, numbers or free text.
    pub fn from_examples(examples: &Examples, table: &Table, columns: &Columns) -> Result<Self, DataError> {
        let mut rows: BTreeMap<String, usize> = BTreeMap::new();
        let mut count_name = |name: &str| match rows.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(rows.insert(name.to_owned(), 1)),
        };
        let mut several = false;
        for example in examples.iter() {
            let example = example?;
            match label_of(&example, examples, table.path())? {
                Label::Number(_) => return Ok(LabelMap::of_number()),
                Label::Words(_) => return LabelMap::of_tags(examples, table.path()),
                Label::Answers(_) => return Ok(LabelMap::of_answers()),
                Label::Lesson(_) => return Ok(LabelMap::of_text()),
                Label::Class(name) => count_name(name),
                Label::Labels(names) => {
                    several = true;
                    names.iter().for_each(|name| count_name(name));
                }
            }
        }
        let given: usize = rows.values().sum();
        let mut names: Vec<&str> = rows.keys().map(String::as_str).collect();
        let integers: Option<Vec<i128>> = names.iter().map(|name| name.parse().ok()).collect();
        if let Some(integers) = integers {
            // `7` and `007` are two names of one number: the bytes decide between them, so the order is one.
            let mut numbered: Vec<(i128, &str)> = integers.into_iter().zip(names).collect();
            numbered.sort_unstable();
            names = numbered.into_iter().map(|(_, name)| name).collect();
        }
        let column = columns.label.as_ref().map_or("label", |choice| choice.name.as_str());
        let problem = match names.as_slice() {
            [] if several => format!(
                "expected labels in column `{column}`, got none in all {}: add rows that have some{}",
                count(examples.len(), "row"),
                other_column(table, columns)?
            ),
            [] => "expected examples with labels, got none".to_owned(),
            [only] if !several => format!(
                "expected at least two classes in column `{column}`, got only `{}` in all {}: add rows of \
                 another class{}",
                excerpt(only, 40),
                count(examples.len(), "row"),
                other_column(table, columns)?
            ),
            many if many.len() > 2 && 2 * many.len() > given => format!(
                "expected labels that repeat in column `{column}`, got {} in {}: {}{}",
                count(many.len(), "different one"),
                count(examples.len(), "row"),
                nature(many),
                match parted(table, columns)? {
                    Some(parted) => parted,
                    None => other_column(table, columns)?,
                }
            ),
            _ => return LabelMap::new(names.into_iter().map(str::to_owned).collect()),
        };
        Err(DataError::new(problem).in_file(table.path()))
    }

    /// The number of `name`, if training saw it.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.indices.get(name).copied()
    }

    /// The name of class `index`.
    pub fn name(&self, index: usize) -> Option<&str> {
        self.names.get(index).map(String::as_str)
    }

    /// All names in the order of their numbers.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many classes there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Never so: a map has at least one class.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The examples' classes as numbers; `path` is the file they come from, for the error.
    ///
    /// # Errors
    /// A label that training never saw: its name, first line, number of rows and the nearest known label are
    /// named. A label that is no class.
    pub fn encode(&self, examples: &Examples, path: &Path) -> Result<Vec<u32>, DataError> {
        let mut classes = Vec::with_capacity(examples.len());
        let mut unseen = Unseen::default();
        for example in examples.iter() {
            let example = example?;
            let Label::Class(name) = label_of(&example, examples, path)? else {
                return Err(other_form(&example, examples, path, "one class"));
            };
            classes.extend(self.known(name, &example, &mut unseen));
        }
        self.refuse(&unseen, examples, path)?;
        Ok(classes)
    }

    /// The numbers of each example's labels, in rising order.
    ///
    /// # Errors
    /// As [`LabelMap::encode`].
    pub fn encode_many(&self, examples: &Examples, path: &Path) -> Result<Vec<Vec<usize>>, DataError> {
        let mut rows = Vec::with_capacity(examples.len());
        let mut unseen = Unseen::default();
        for example in examples.iter() {
            let example = example?;
            let Label::Labels(names) = label_of(&example, examples, path)? else {
                return Err(other_form(&example, examples, path, "a list of labels"));
            };
            let known = names.iter().filter_map(|name| self.known(name, &example, &mut unseen));
            let mut row: Vec<usize> = known.map(|class| class as usize).collect();
            row.sort_unstable();
            rows.push(row);
        }
        self.refuse(&unseen, examples, path)?;
        Ok(rows)
    }

    fn known(&self, name: &str, example: &Example, unseen: &mut Unseen) -> Option<u32> {
        let index = self.index(name);
        if index.is_none() {
            unseen.note(name, example);
        }
        index.and_then(|index| u32::try_from(index).ok())
    }

    fn refuse(&self, unseen: &Unseen, examples: &Examples, path: &Path) -> Result<(), DataError> {
        match &unseen.first {
            None => Ok(()),
            Some(first) => Err(examples.error_at(first, path, self.unseen_words(&unseen.labels, examples))),
        }
    }

    /// Groups of labels that differ only by case, white space or Unicode's form, and so may be one class by intent.
    pub fn alike(&self) -> Vec<Vec<&str>> {
        let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for name in &self.names {
            alike.entry(plain(name)).or_default().push(name);
        }
        alike.into_values().filter(|group| group.len() > 1).collect()
    }

    /// Sentences about [`LabelMap::alike`].
    pub fn notices(&self) -> Vec<Notice> {
        let sentence = |group: Vec<&str>| {
            let names: Vec<String> = group.iter().map(|name| format!("`{name}`")).collect();
            Notice::new(format!(
                "the labels {} differ only by case, white space or Unicode's form and are different classes: write them \
                 alike if they mean the same",
                names.join(" and ")
            ))
        };
        self.alike().into_iter().map(sentence).collect()
    }

    fn unseen_words(&self, unseen: &[(String, (u64, u64), usize)], examples: &Examples) -> String {
        const LISTED: usize = 3;
        let listed: Vec<String> = unseen
            .iter()
            .take(LISTED)
            .map(|(name, (row, line), rows)| {
                let near = nearest(name, self.names.iter().map(String::as_str));
                let near = near.map(|near| format!(", nearest known `{near}`")).unwrap_or_default();
                let place = examples.place_words(*row, *line);
                format!("`{}` ({}, first on {place}{near})", excerpt(name, 40), count(*rows, "row"))
            })
            .collect();
        let more = unseen.len().saturating_sub(LISTED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        format!(
            "expected one of training's {}, got {}{more}: correct the label, or train with rows that have it",
            count(self.len(), "label"),
            listed.join(", ")
        )
    }
}

/// A name without what the eye does not see: case, white space, characters of no width, and which of several forms of one
/// character is written (Unicode's NFKC: `é` as one or two, `Ａ` in full width).
pub fn plain(name: &str) -> String {
    let no_width = |c: &char| matches!(c, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}');
    let composed: String = name.nfkc().map(|(c, _)| c).filter(|c| !no_width(c)).collect();
    composed.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

impl TryFrom<Vec<String>> for LabelMap {
    type Error = DataError;

    fn try_from(names: Vec<String>) -> Result<Self, DataError> {
        LabelMap::new(names)
    }
}

impl From<LabelMap> for Vec<String> {
    fn from(map: LabelMap) -> Self {
        map.names
    }
}

/// Labels that training never saw.
#[derive(Default)]
struct Unseen {
    /// Name, the first row and its line, and how many rows, in the order of the file.
    labels: Vec<(String, (u64, u64), usize)>,
    places: HashMap<String, usize>,
    first: Option<Example>,
}

impl Unseen {
    fn note(&mut self, name: &str, example: &Example) {
        self.first.get_or_insert_with(|| example.clone());
        match self.places.get(name).and_then(|place| self.labels.get_mut(*place)) {
            Some((_, _, rows)) => *rows += 1,
            None => {
                self.places.insert(name.to_owned(), self.labels.len());
                self.labels.push((name.to_owned(), (example.row, example.line), 1));
            }
        }
    }
}

fn label_of<'e>(example: &'e Example, examples: &Examples, path: &Path) -> Result<&'e Label, DataError> {
    example.label.as_ref().ok_or_else(|| {
        examples.error_at(example, path, "expected a label, got none: fill it in or delete the row")
    })
}

fn other_form(example: &Example, examples: &Examples, path: &Path, expected: &str) -> DataError {
    let got = match &example.label {
        Some(Label::Class(_)) => "one class",
        Some(Label::Labels(_)) => "a list of labels",
        Some(Label::Number(_)) => "a number",
        Some(Label::Words(_)) => "tags",
        Some(Label::Answers(_)) => "answers to a question",
        Some(Label::Lesson(_)) => "text to learn",
        None => "nothing",
    };
    examples.error_at(example, path, format!("expected {expected} as the label, got {got}"))
}

/// What a column of seldom repeated values seems to be.
fn nature(names: &[&str]) -> &'static str {
    if names.iter().all(|name| name.parse::<f64>().is_ok()) {
        return "the column looks like numbers or an identifier; if they are amounts, give `--problem-type \
                regression`";
    }
    let sentences = names.iter().filter(|name| name.split_whitespace().count() > 3).count();
    if 2 * sentences > names.len() {
        "the column looks like free text"
    } else {
        "the column looks like an identifier"
    }
}

fn parted(table: &Table, columns: &Columns) -> Result<Option<String>, DataError> {
    let Some(label) = &columns.label else { return Ok(None) };
    let separator = looks_parted(table, label.index)?;
    Ok(separator.map(|separator| {
        format!("; if they are several labels a row, give `--label-separator \"{separator}\"`")
    }))
}

fn other_column(table: &Table, columns: &Columns) -> Result<String, DataError> {
    let used = [Some(&columns.text), columns.pair.as_ref(), columns.label.as_ref()];
    let used: Vec<usize> = used.into_iter().flatten().map(|choice| choice.index).collect();
    Ok(match likely_label(table, &used, None)? {
        Some(other) => format!(", or give `--label-column {}`", other.name),
        None => ", or give another column with `--label-column`".to_owned(),
    })
}
