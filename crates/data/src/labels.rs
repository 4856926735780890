//! The names of the classes and their numbers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::columns::{Columns, likely_label};
use crate::error::DataError;
use crate::examples::Example;
use crate::notice::Notice;
use crate::table::Table;
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

    /// The labels of `examples`, which are training's, in their order: by number where all are integers, else
    /// by bytes.
    ///
    /// `table` and `columns` are where the examples come from; an error names a better column where there is
    /// one.
    ///
    /// # Errors
    /// An example without a label; only one class; more classes than half the rows (from three classes on),
    /// which means that the column holds an identifier, numbers or free text.
    pub fn from_examples(examples: &[Example], table: &Table, columns: &Columns) -> Result<Self, DataError> {
        let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
        for example in examples {
            *rows.entry(label_of(example, table.path())?).or_default() += 1;
        }
        let mut names: Vec<&str> = rows.keys().copied().collect();
        let integers: Option<Vec<i128>> = names.iter().map(|name| name.parse().ok()).collect();
        if let Some(integers) = integers {
            // `7` and `007` are two names of one number: the bytes decide between them, so the order is one.
            let mut numbered: Vec<(i128, &str)> = integers.into_iter().zip(names).collect();
            numbered.sort_unstable();
            names = numbered.into_iter().map(|(_, name)| name).collect();
        }
        let column = columns.label.as_ref().map_or("label", |choice| choice.name.as_str());
        match names.as_slice() {
            [] => Err(DataError::new("expected examples with labels, got none").in_file(table.path())),
            [only] => Err(DataError::new(format!(
                "expected at least two classes in column `{column}`, got only `{}` in all {}: add rows of \
                 another class{}",
                excerpt(only, 40),
                count(examples.len(), "row"),
                other_column(table, columns)
            ))
            .in_file(table.path())),
            many if many.len() > 2 && 2 * many.len() > examples.len() => Err(DataError::new(format!(
                "expected labels that repeat in column `{column}`, got {} in {}: {}{}",
                count(many.len(), "different one"),
                count(examples.len(), "row"),
                nature(many),
                other_column(table, columns)
            ))
            .in_file(table.path())),
            _ => LabelMap::new(names.into_iter().map(str::to_owned).collect()),
        }
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

    /// The examples' labels as numbers; `path` is the file they come from, for the error.
    ///
    /// # Errors
    /// A label that training never saw: its name, first line, number of rows and the nearest known label are
    /// named.
    pub fn encode(&self, examples: &[Example], path: &Path) -> Result<Vec<usize>, DataError> {
        let mut classes = Vec::with_capacity(examples.len());
        // Name, first line and rows, in the order of the file.
        let mut unseen: Vec<(&str, u64, usize)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for example in examples {
            let name = label_of(example, path)?;
            match self.index(name) {
                Some(index) => classes.push(index),
                None => {
                    let place = *places.entry(name).or_insert(unseen.len());
                    match unseen.get_mut(place) {
                        Some((_, _, rows)) => *rows += 1,
                        None => unseen.push((name, example.line, 1)),
                    }
                }
            }
        }
        match unseen.first() {
            None => Ok(classes),
            Some((_, first_line, _)) => Err(self.unseen_error(&unseen).at_line(*first_line).in_file(path)),
        }
    }

    /// Sentences about labels that differ only by case or white space, and so may be one class by intent.
    pub fn notices(&self) -> Vec<Notice> {
        let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for name in &self.names {
            let plain = name.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
            alike.entry(plain).or_default().push(name);
        }
        let groups = alike.into_values().filter(|group| group.len() > 1);
        let sentence = |group: Vec<&str>| {
            let names: Vec<String> = group.iter().map(|name| format!("`{name}`")).collect();
            Notice::new(format!(
                "the labels {} differ only by case or white space and are different classes: write them \
                 alike if they mean the same",
                names.join(" and ")
            ))
        };
        groups.map(sentence).collect()
    }

    fn unseen_error(&self, unseen: &[(&str, u64, usize)]) -> DataError {
        const LISTED: usize = 3;
        let listed: Vec<String> = unseen
            .iter()
            .take(LISTED)
            .map(|(name, line, rows)| {
                let near = nearest(name, self.names.iter().map(String::as_str));
                let near = near.map(|near| format!(", nearest known `{near}`")).unwrap_or_default();
                format!("`{}` ({}, first on line {line}{near})", excerpt(name, 40), count(*rows, "row"))
            })
            .collect();
        let more = unseen.len().saturating_sub(LISTED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        DataError::new(format!(
            "expected one of training's {}, got {}{more}: correct the label, or train with rows that have it",
            count(self.len(), "label"),
            listed.join(", ")
        ))
    }
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

fn label_of<'e>(example: &'e Example, path: &Path) -> Result<&'e str, DataError> {
    example.label.as_deref().ok_or_else(|| {
        DataError::new("expected a label, got none: fill it in or delete the row")
            .at_line(example.line)
            .in_file(path)
    })
}

/// What a column of seldom repeated values seems to be.
fn nature(names: &[&str]) -> &'static str {
    if names.iter().all(|name| name.parse::<f64>().is_ok()) {
        return "the column looks like numbers or an identifier";
    }
    let sentences = names.iter().filter(|name| name.split_whitespace().count() > 3).count();
    if 2 * sentences > names.len() {
        "the column looks like free text"
    } else {
        "the column looks like an identifier"
    }
}

fn other_column(table: &Table, columns: &Columns) -> String {
    let used = [Some(&columns.text), columns.pair.as_ref(), columns.label.as_ref()];
    let used: Vec<usize> = used.into_iter().flatten().map(|choice| choice.index).collect();
    match likely_label(table, &used) {
        Some(other) => format!(", or give `--label-column {}`", other.name),
        None => ", or give another column with `--label-column`".to_owned(),
    }
}
