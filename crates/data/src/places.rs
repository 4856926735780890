//! Where rows are that something is said of.

use std::path::Path;

use crate::error::DataError;
use crate::table::{Row, Table};
use crate::wording::count;

/// How many places a sentence lists.
pub(crate) const LISTED: usize = 5;

/// How many rows there are, and where the first are.
#[derive(Debug, Default)]
pub(crate) struct Places {
    total: usize,
    /// The rows of the table and their lines.
    first: Vec<(usize, u64)>,
    last: usize,
}

impl Places {
    /// Rows are noted in the table's order.
    pub fn note(&mut self, row: usize, line: u64) {
        self.total += 1;
        self.last = row;
        if self.first.len() < LISTED {
            self.first.push((row, line));
        }
    }

    /// `lines 2, 9 of b.csv and 5 more`; a file that is `known` is not named.
    pub fn words(&self, table: &Table, known: &Path) -> String {
        let path = |(row, _): &(usize, u64)| table.path_of(*row);
        let mut words = Vec::new();
        for places in self.first.chunk_by(|one, next| path(one) == path(next)) {
            let Some(first) = places.first() else { continue };
            let noun = table.unit(first.0);
            let plural = if places.len() == 1 { "" } else { "s" };
            let numbers: Vec<String> = places.iter().map(|(_, line)| line.to_string()).collect();
            let of =
                if path(first) == known { String::new() } else { format!(" of {}", path(first).display()) };
            words.push(format!("{noun}{plural} {}{of}", numbers.join(", ")));
        }
        let more = self.total - self.first.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        words.join(", ") + &more
    }
}

/// Rows that have nothing where something should be, by column.
pub(crate) struct Gaps<'n>(Vec<(&'n str, Places)>);

impl<'n> Gaps<'n> {
    /// Of columns with these names, nothing yet.
    pub fn of(columns: impl IntoIterator<Item = &'n str>) -> Self {
        Gaps(columns.into_iter().map(|name| (name, Places::default())).collect())
    }

    /// Notes `row` at each column that is `missing` in it.
    pub fn note(&mut self, row: &Row<'_>, missing: impl IntoIterator<Item = bool>) {
        for ((_, places), _) in self.0.iter_mut().zip(missing).filter(|(_, missing)| *missing) {
            places.note(row.index(), row.line());
        }
    }

    /// Errors if there are such rows: in their file, or in several that are named then.
    pub fn check(&self, table: &Table, expected: &str) -> Result<(), DataError> {
        let gaps = || self.0.iter().filter(|(_, places)| places.total > 0);
        let first = gaps().filter_map(|(_, places)| places.first.first()).map(|(row, _)| *row).min();
        let Some(first) = first else { return Ok(()) };
        let last = gaps().map(|(_, places)| places.last).max().unwrap_or(first);
        let one_file = table.path_of(first) == table.path_of(last);
        let file = if one_file { table.path_of(first) } else { table.path() };
        let found: Vec<String> = gaps()
            .map(|(name, places)| {
                let verb = if places.total == 1 { "has" } else { "have" };
                let rows = count(places.total, "row");
                format!("{rows} {verb} nothing in column `{name}` ({})", places.words(table, file))
            })
            .collect();
        Err(DataError::new(format!(
            "expected {expected} in every row, but {}: fill them in or delete the rows",
            found.join("; ")
        ))
        .in_file(file))
    }
}
