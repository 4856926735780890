//! What a label is: one of several classes, any number of labels, or a number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::columns::{Choice, Columns};
use crate::error::DataError;
use crate::label::{as_number, has_decimal_comma, looks_like_list, looks_parted};
use crate::table::Table;
use crate::wording::{count, did_you_mean};

/// What the label of a row is. In files it is called what transformers calls it in a `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ProblemType {
    /// One of several classes.
    #[default]
    #[serde(rename = "single_label_classification")]
    SingleLabel,
    /// Any number of labels, none included.
    #[serde(rename = "multi_label_classification")]
    MultiLabel,
    /// A number.
    #[serde(rename = "regression")]
    Regression,
}

/// A problem type and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundProblemType {
    /// What the labels are.
    pub problem_type: ProblemType,
    /// A sentence for the user; none for the usual case, one class a row.
    pub why: Option<String>,
}

impl ProblemType {
    /// Every one of them.
    pub const ALL: [ProblemType; 3] =
        [ProblemType::SingleLabel, ProblemType::MultiLabel, ProblemType::Regression];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            ProblemType::SingleLabel => "single-label",
            ProblemType::MultiLabel => "multi-label",
            ProblemType::Regression => "regression",
        }
    }

    /// Its name in a `config.json`.
    pub fn transformers_name(self) -> &'static str {
        match self {
            ProblemType::SingleLabel => "single_label_classification",
            ProblemType::MultiLabel => "multi_label_classification",
            ProblemType::Regression => "regression",
        }
    }

    /// What the label column of `table` holds, by its values.
    ///
    /// * Lists, or a `separator` that was named: several labels a row.
    /// * Numbers, of which some have decimals (`3.5`): a number. One in twenty may be none, so that a typing error is
    ///   named by its line, and does not turn all numbers into classes.
    /// * Whole numbers (`1` to `5`, `1.0` too) are classes where each comes twice or more on average, and a number
    ///   where they hardly repeat. All of them different is an identifier, which the classes' own error says.
    /// * Anything else: one class a row.
    ///
    /// # Errors
    /// There is no label column, or its numbers have a decimal comma.
    pub fn of_column(
        table: &Table,
        columns: &Columns,
        separator: Option<&str>,
    ) -> Result<FoundProblemType, DataError> {
        let column = columns.require_label(table)?;
        let found = |problem_type: ProblemType, reason: String| FoundProblemType {
            problem_type,
            why: Some(format!(
                "column `{}` {reason}: problem type {problem_type}; --problem-type decides otherwise",
                column.name
            )),
        };
        if let Some(separator) = separator {
            let reason = format!("is split at `{separator}`, as --label-separator says");
            return Ok(found(ProblemType::MultiLabel, reason));
        }
        let (mut rows, mut lists, mut commas, mut numbers) = (0_usize, 0_usize, 0_usize, Vec::new());
        table.each_value(column.index, |value| {
            rows += usize::from(!value.is_empty());
            lists += usize::from(looks_like_list(value));
            commas += usize::from(has_decimal_comma(value));
            numbers.extend(as_number(value));
        })?;
        if 2 * lists > rows {
            return Ok(found(ProblemType::MultiLabel, "holds lists of labels".to_owned()));
        }
        let decimals = numbers.iter().any(|number| number.fract() != 0.0);
        let (number_rows, mut distinct) = (numbers.len(), numbers);
        distinct.sort_by(f64::total_cmp);
        distinct.dedup();
        let mostly = |count: usize| rows > 0 && 20 * count >= 19 * rows;
        let mostly_numbers = mostly(number_rows);
        if !mostly_numbers && mostly(number_rows + commas) {
            return Err(decimal_comma(table, column)?);
        }
        if mostly_numbers && decimals {
            let reason = format!("holds numbers with decimals, {} of them different", distinct.len());
            return Ok(found(ProblemType::Regression, reason));
        }
        if number_rows == rows && distinct.len() > 2 && 2 * distinct.len() > rows && distinct.len() < rows {
            let reason =
                format!("holds {} in {}", count(distinct.len(), "different number"), count(rows, "row"));
            return Ok(found(ProblemType::Regression, reason));
        }
        if let Some(separator) = looks_parted(table, column.index)? {
            let why = format!(
                "column `{}` looks like several labels a row and is taken for one class a row; --label-separator \
                 \"{separator}\" takes them for several",
                column.name
            );
            return Ok(FoundProblemType { problem_type: ProblemType::SingleLabel, why: Some(why) });
        }
        let why = (number_rows == rows && distinct.len() > 2).then(|| {
            format!(
                "column `{}` holds {}, which are taken for classes; --problem-type regression takes them \
                 for amounts",
                column.name,
                count(distinct.len(), "different whole number")
            )
        });
        Ok(FoundProblemType { problem_type: ProblemType::SingleLabel, why })
    }
}

/// They would be classes otherwise, a class each.
fn decimal_comma(table: &Table, column: &Choice) -> Result<DataError, DataError> {
    for row in table.rows() {
        let row = row?;
        let Some(value) = row.get(column.index).map(str::trim).filter(|value| has_decimal_comma(value))
        else {
            continue;
        };
        return Ok(table.error_at(row.index(), row.line(), format!(
            "column `{}`: expected numbers with a point such as 0.5, got `{value}`: write the decimals behind a point; give \
             --problem-type single-label if they are names of classes, or --label-separator \",\" if they are several labels",
            column.name
        )));
    }
    Ok(DataError::new("expected numbers with a point such as 0.5").in_file(table.path()))
}

impl fmt::Display for ProblemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ProblemType {
    type Err = DataError;

    /// By its name here or in transformers.
    fn from_str(name: &str) -> Result<Self, DataError> {
        let known =
            ProblemType::ALL.into_iter().find(|one| name == one.name() || name == one.transformers_name());
        known.ok_or_else(|| {
            let names = ProblemType::ALL.map(ProblemType::name);
            DataError::new(format!(
                "expected {}, got `{name}`{}",
                names.join(", "),
                did_you_mean(name, names)
            ))
        })
    }
}
