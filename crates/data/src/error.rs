//! What is wrong with the data, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// A file, or a request about one, that cannot be used as it is.
///
/// One type for the whole crate, since every such error has one consequence: the user must change the file or
/// the request. The message says what was expected, what came and what to do; the place is kept apart so that
/// a program can point at it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", Place(self))]
pub struct DataError {
    /// The file, where the error is about one.
    pub path: Option<PathBuf>,
    /// The line in the file, counted from 1.
    pub line: Option<u64>,
    /// The character in the line, counted from 1.
    pub column: Option<u32>,
    /// The offset in the file in bytes, counted from 0.
    pub byte: Option<u64>,
    /// The group of rows in a Parquet file, counted from 0 as its tools do.
    pub row_group: Option<u32>,
    /// The row, counted from 1, in a file that has no lines.
    pub row: Option<u32>,
    /// Whether the system failed, and not the file or the request.
    pub system: bool,
    /// What was expected, what came, what to do.
    pub message: String,
}

impl DataError {
    /// An error that has no place yet.
    pub fn new(message: impl Into<String>) -> Self {
        DataError {
            path: None,
            line: None,
            column: None,
            byte: None,
            row_group: None,
            row: None,
            system: false,
            message: message.into(),
        }
    }

    /// What no other file or request would change.
    pub(crate) fn system(message: impl Into<String>) -> Self {
        DataError { system: true, ..DataError::new(message) }
    }

    /// An error about a row of a file that was read.
    pub fn about(path: &Path, line: u64, message: impl Into<String>) -> Self {
        DataError::new(message).at_line(line).in_file(path)
    }

    /// The same with its file.
    pub fn in_file(mut self, path: &Path) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// The same with its line, counted from 1.
    pub fn at_line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    pub(crate) fn at_column(mut self, column: u64) -> Self {
        // A line that is longer is named without.
        self.column = u32::try_from(column).ok();
        self
    }

    pub(crate) fn at_row(mut self, row: u64) -> Self {
        self.row = u32::try_from(row).ok();
        self
    }

    #[cfg(feature = "parquet")]
    pub(crate) fn in_row_group(mut self, group: usize) -> Self {
        self.row_group = u32::try_from(group).ok();
        self
    }

    pub(crate) fn at_byte(mut self, byte: usize) -> Self {
        self.byte = Some(byte as u64);
        self
    }
}

/// `train.csv: line 3, byte 57: `, with the parts that are known.
struct Place<'e>(&'e DataError);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DataError { path, line, column, byte, row_group, row, .. } = self.0;
        if let Some(path) = path {
            write!(f, "{}: ", path.display())?;
        }
        let [row_group, row, column] = [row_group, row, column].map(|number| number.map(u64::from));
        let places =
            [("row group", &row_group), ("row", &row), ("line", line), ("column", &column), ("byte", byte)];
        let parts: Vec<String> = places
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| format!("{name} {value}")))
            .collect();
        if parts.is_empty() { Ok(()) } else { write!(f, "{}: ", parts.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_comes_first_with_what_is_known() {
        let error = DataError::new("expected a, got b");
        assert_eq!(error.to_string(), "expected a, got b");
        let error = error.in_file(Path::new("x/ü.csv"));
        assert_eq!(error.to_string(), "x/ü.csv: expected a, got b");
        let error = error.at_line(3).at_byte(57);
        assert_eq!(error.to_string(), "x/ü.csv: line 3, byte 57: expected a, got b");
    }
}
