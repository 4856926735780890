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
    /// One JSON array of objects.
    Json,
    /// Questions over texts, as SQuAD has them in JSON.
    Squad,
    /// Columns in groups of rows.
    Parquet,
    /// A word and its tags a line, an empty line between sentences.
    Conll,
    /// Plain text, a file of which is one text.
    Text,
    /// A text a line.
    Lines,
}

const NAMES: [(&str, Format); 9] = [
    ("csv", Format::Csv),
    ("tsv", Format::Tsv),
    ("jsonl", Format::Jsonl),
    ("json", Format::Json),
    ("squad", Format::Squad),
    ("parquet", Format::Parquet),
    ("conll", Format::Conll),
    ("text", Format::Text),
    ("lines", Format::Lines),
];

impl FromStr for Format {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        let lower = name.to_lowercase();
        NAMES.into_iter().find(|(known, _)| *known == lower).map(|(_, format)| format).ok_or_else(|| {
            let near = did_you_mean(&lower, NAMES.map(|(known, _)| known));
            let names = NAMES.map(|(known, _)| known).join(", ");
            DataError::new(format!("unknown format `{name}`{near}: expected one of {names}"))
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(_, format)| format == self).map_or("", |(name, _)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_misspellings_answered() {
        assert_eq!("CSV".parse(), Ok(Format::Csv));
        assert_eq!(Format::Jsonl.to_string().parse(), Ok(Format::Jsonl));
        let error = "jsonlines".parse::<Format>().unwrap_err();
        assert_eq!(
            error.message,
            "unknown format `jsonlines` (did you mean `jsonl`?): expected one of csv, tsv, jsonl, json, squad, parquet, conll, text, lines"
        );
    }
}
