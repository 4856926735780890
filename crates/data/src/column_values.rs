//! Which column is the text, which the label, by what stands in them.

use std::collections::HashSet;

use crate::columns::{Choice, choice};
use crate::error::DataError;
use crate::label::{as_number, looks_like_list};
use crate::table::Table;
use crate::wording::count;

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
    fn of(table: &Table, column: usize) -> Result<Self, DataError> {
        let step = table.len().div_ceil(JUDGED_ROWS).max(1);
        let mut distinct = HashSet::new();
        let (mut filled, mut characters, mut numbers, mut prose) = (0_usize, 0_usize, 0_usize, 0_usize);
        let (mut decimals, mut lists) = (0_usize, 0_usize);
        for row in table.rows().step_by(step) {
            let row = row?;
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
            if !distinct.contains(value) {
                distinct.insert(value.to_owned());
            }
        }
        Ok(Values {
            filled,
            distinct: distinct.len(),
            mean_characters: characters as f64 / filled.max(1) as f64,
            numeric: numbers == filled,
            decimal: decimals > 0,
            lists: lists == filled,
            prose: 2 * prose > filled,
        })
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

fn free_columns(table: &Table, taken: &[usize]) -> Result<Vec<(usize, Values)>, DataError> {
    let free = (0..table.columns().len()).filter(|column| !taken.contains(column));
    let values = free.map(|column| Ok((column, Values::of(table, column)?)));
    let mut columns = values.collect::<Result<Vec<_>, DataError>>()?;
    columns.retain(|(_, values)| values.filled > 0);
    Ok(columns)
}

/// How many times more like text the best column must be than the next, for nobody to be surprised.
const CLEAR_LEAD: f64 = 1.5;

pub(crate) fn text_by_content(table: &Table, taken: &[usize]) -> Result<Option<Choice>, DataError> {
    let mut candidates = free_columns(table, taken)?;
    candidates.retain(|(_, values)| !values.numeric && !values.lists);
    candidates.sort_by(|(_, a), (_, b)| b.textness().total_cmp(&a.textness()));
    Ok(match candidates.as_slice() {
        [(only, _)] if table.columns().len() == 1 => choice(table, "text", *only, "the only one"),
        [(best, _)] => choice(table, "text", *best, "the only one that is not numbers"),
        [(best, values), (_, next), ..] if values.textness() > CLEAR_LEAD * next.textness() => {
            choice(table, "text", *best, "it has the longest values, and they differ most")
        }
        _ => None,
    })
}

/// The one column that has the separator of several labels.
pub(crate) fn label_by_separator(
    table: &Table,
    taken: &[usize],
    separator: &str,
) -> Result<Option<Choice>, DataError> {
    let mut parted = Vec::new();
    for column in (0..table.columns().len()).filter(|column| !taken.contains(column)) {
        let mut has = false;
        table.each_value(column, |value| has |= value.contains(separator))?;
        parted.extend(has.then_some(column));
    }
    let reason = format!("the only one with `{separator}`, as --label-separator says");
    Ok(match parted.as_slice() {
        [column] => choice(table, "label", *column, &reason),
        _ => None,
    })
}

pub(crate) fn label_by_content(table: &Table, taken: &[usize]) -> Result<Option<Choice>, DataError> {
    let free = free_columns(table, taken)?;
    // Nothing else is written as lists, so one such column is the labels', whatever else repeats.
    let mut lists = free.iter().filter(|(_, values)| values.lists);
    if let (Some((column, _)), None) = (lists.next(), lists.next()) {
        return Ok(choice(table, "label", *column, "it has lists"));
    }
    let mut repeating = free.iter().filter(|(_, values)| values.repeat());
    Ok(match (repeating.next(), repeating.next()) {
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
    })
}
