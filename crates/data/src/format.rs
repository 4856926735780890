//! The kinds of file.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::wording::did_you_mean;

/// The kinds of file that hold a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A header row and records, separated by `,`, `;` or `|`.
    Csv,
    /// The same, separated by tabs.
    Tsv,
    /// One JSON object a line.
    Jsonl,
    /// Questions over texts, as SQuAD has them in JSON.
    Squad,
}

const NAMES: [(&str, Format); 4] =
    [("csv", Format::Csv), ("tsv", Format::Tsv), ("jsonl", Format::Jsonl), ("squad", Format::Squad)];

impl FromStr for Format {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        let lower = name.to_lowercase();
        NAMES.into_iter().find(|(known, _)| *known == lower).map(|(_, format)| format).ok_or_else(|| {
            let near = did_you_mean(&lower, NAMES.map(|(known, _)| known));
            DataError::new(format!("unknown format `{name}`{near}: expected csv, tsv, jsonl or squad"))
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Csv => "csv",
            Format::Tsv => "tsv",
            Format::Jsonl => "jsonl",
            Format::Squad => "squad",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_misspellings_answered() {
        assert_eq!("CSV".parse(), Ok(Format::Csv));
        assert_eq!(Format::Jsonl.to_string().parse(), Ok(Format::Jsonl));
        let error = "json".parse::<Format>().unwrap_err();
        assert_eq!(
            error.message,
            "unknown format `json` (did you mean `jsonl`?): expected csv, tsv, jsonl or squad"
        );
    }
}
