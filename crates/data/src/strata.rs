//! Which rows are alike in their labels, for splits and samples that keep the mixture.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::DataError;
use crate::examples::{Example, Examples};
use crate::label::Label;
use crate::labels::LabelMap;
use crate::tags::tag_parts;

/// A stratum for each row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strata {
    /// The stratum of each row.
    pub of_row: Vec<u32>,
    /// How many strata there are.
    pub count: usize,
    /// What makes rows alike, in words.
    pub by: &'static str,
}

/// Numbers are parted into this many strata of about as many rows.
const QUANTILES: usize = 10;

impl Strata {
    /// The strata of `examples`, which have labels and come from the file `path`.
    ///
    /// One class a row: the class. Several labels: the row's rarest label, since frequent ones spread by themselves,
    /// and one more for rows without any. A number: its tenth, equal numbers together. Tags: the row's rarest type of
    /// entity. Answers: whether there are any. Text to learn: all alike.
    ///
    /// # Errors
    /// A label that is not among `labels`.
    pub fn of(examples: &Examples, labels: &LabelMap, path: &Path) -> Result<Self, DataError> {
        let narrow = |stratum: usize| u32::try_from(stratum).unwrap_or(u32::MAX);
        match examples.get(0)?.and_then(|example| example.label) {
            Some(Label::Labels(_)) => {
                let rows = labels.encode_many(examples, path)?;
                let mut counts = vec![0_usize; labels.len()];
                rows.iter().flatten().for_each(|label| counts[*label] += 1);
                let rarest =
                    |row: &Vec<usize>| row.iter().copied().min_by_key(|label| (counts[*label], *label));
                let of_row = rows.iter().map(|row| narrow(rarest(row).unwrap_or(labels.len()))).collect();
                Ok(Strata { of_row, count: labels.len() + 1, by: "stratified by each row's rarest label" })
            }
            Some(Label::Number(_)) => {
                let mut order: Vec<(f64, u32)> = Vec::with_capacity(examples.len());
                for (example, row) in examples.iter().zip(0..) {
                    let Some(Label::Number(number)) = example?.label else { continue };
                    order.push((number, row));
                }
                order.sort_by(|(a, _), (b, _)| a.total_cmp(b));
                let mut of_row = vec![0; examples.len()];
                let mut before = 0;
                for equal in order.chunk_by(|(a, _), (b, _)| b <= a) {
                    let stratum = before * QUANTILES / examples.len().max(1);
                    equal.iter().for_each(|(_, row)| of_row[*row as usize] = narrow(stratum));
                    before += equal.len();
                }
                Ok(Strata { of_row, count: QUANTILES, by: "stratified by tenths of the numbers" })
            }
            Some(Label::Words(_)) => {
                let mut counts: BTreeMap<String, usize> = BTreeMap::new();
                for example in examples.iter() {
                    for kind in kinds(&example?) {
                        match counts.get_mut(kind) {
                            Some(count) => *count += 1,
                            None => drop(counts.insert(kind.to_owned(), 1)),
                        }
                    }
                }
                let number = |kind: &str| counts.keys().position(|known| known == kind);
                let rarest = |example: Example| {
                    let kinds = kinds(&example).into_iter();
                    let rarest = kinds.min_by_key(|kind| (counts.get(*kind), *kind)).and_then(number);
                    narrow(rarest.unwrap_or(counts.len()))
                };
                let of_row = examples.iter().map(|example| example.map(rarest)).collect::<Result<_, _>>()?;
                Ok(Strata { of_row, count: counts.len() + 1, by: "stratified by each row's rarest entity" })
            }
            Some(Label::Answers(_)) => {
                let unanswered = |example: Example| match &example.label {
                    Some(Label::Answers(answers)) => u32::from(answers.is_empty()),
                    _ => 0,
                };
                let of_row =
                    examples.iter().map(|example| example.map(unanswered)).collect::<Result<_, _>>()?;
                Ok(Strata { of_row, count: 2, by: "texts whole, stratified by whether there is an answer" })
            }
            Some(Label::Lesson(_)) => {
                Ok(Strata { of_row: vec![0; examples.len()], count: 1, by: "drawn evenly" })
            }
            _ => Ok(Strata {
                of_row: labels.encode(examples, path)?,
                count: labels.len(),
                by: "stratified by label",
            }),
        }
    }
}

/// The types of entities in a row.
fn kinds(example: &Example) -> Vec<&str> {
    let Some(Label::Words(words)) = &example.label else { return Vec::new() };
    let kinds = words.iter().filter_map(|word| tag_parts(word.tag.as_deref()?));
    kinds.filter(|(prefix, _)| *prefix != 'O').map(|(_, kind)| kind).collect()
}
