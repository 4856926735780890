//! A field of the label column as what it says.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::answers::GoldAnswer;
use crate::error::DataError;
use crate::lessons::Lesson;
use crate::problem_type::ProblemType;
use crate::table::Table;
use crate::wording::excerpt;
use crate::words::Word;

/// What a row is labelled with.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// The name of its class, without white space around it.
    Class(String),
    /// The names of its labels, each once, ordered by bytes; there may be none.
    Labels(Vec<String>),
    /// Its number, finite in f32 too.
    Number(f64),
    /// The words of its text, each with its tag.
    Words(Vec<Word>),
    /// What is right for a question; there may be nothing.
    Answers(Vec<GoldAnswer>),
    /// What is to be learnt of its text, or behind it.
    Lesson(Lesson),
}

impl Label {
    /// The names that it gives: of one class, of several labels; none for anything else.
    pub fn names(&self) -> &[String] {
        match self {
            Label::Class(name) => std::slice::from_ref(name),
            Label::Labels(names) => names,
            Label::Number(_) | Label::Words(_) | Label::Answers(_) | Label::Lesson(_) => &[],
        }
    }
}

/// How the label column of a file is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelReading {
    /// What a label is.
    pub problem_type: ProblemType,
    /// What stands between the labels of a row, where they are no JSON list.
    pub separator: Option<String>,
}

impl LabelReading {
    /// Whether an empty field says something: that a row has no label, where there is no `[]` to say so.
    pub(crate) fn takes_empty(&self) -> bool {
        self.problem_type == ProblemType::MultiLabel && self.separator.is_some()
    }

    /// The label that `field` says. Errors with what was expected, what came and what to do.
    pub(crate) fn read(&self, field: &str) -> Result<Label, String> {
        let field = field.trim();
        match (self.problem_type, self.separator.as_deref()) {
            (ProblemType::SingleLabel, _) => match nested(field) {
                None => Ok(Label::Class(field.to_owned())),
                Some(what) => Err(format!(
                    "expected the name of a class, got {what}: `{}`; write the name itself, give --problem-type \
                     multi-label if a row has lists of labels, or name another column with --label-column",
                    excerpt(field, 40)
                )),
            },
            (ProblemType::Regression, _) => {
                match as_number(field).filter(|number| (*number as f32).is_finite()) {
                    Some(number) => Ok(Label::Number(number)),
                    None if has_decimal_comma(field) => Err(format!(
                        "expected a number such as 3.5, got `{field}`: write its decimals behind a point",
                    )),
                    None => Err(format!(
                        "expected a number such as 3.5, got `{}`: correct it, or give --problem-type single-label \
                     if the labels are classes",
                        excerpt(field, 40)
                    )),
                }
            }
            (ProblemType::MultiLabel, Some(separator)) if !looks_like_list(field) => {
                let names = field.split(separator).map(str::trim).filter(|name| !name.is_empty());
                Ok(labels(names.map(str::to_owned)))
            }
            (ProblemType::MultiLabel, _) => list(field),
        }
    }
}

/// Whether a field is a list by its brackets; whether it is a good one, reading it will say.
pub(crate) fn looks_like_list(field: &str) -> bool {
    field.starts_with('[') && field.ends_with(']')
}

/// What a field is that is JSON with other values in it.
fn nested(field: &str) -> Option<&'static str> {
    let what = match (field.as_bytes().first()?, field.as_bytes().last()?) {
        (b'{', b'}') => "a JSON object",
        (b'[', b']') => "a JSON list",
        _ => return None,
    };
    serde_json::from_str::<&RawValue>(field).is_ok().then_some(what)
}

/// Whether the field is a number with its decimals behind a comma, such as `0,5`; it may be one of thousands too.
pub(crate) fn has_decimal_comma(field: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = field.strip_prefix(['-', '+']).unwrap_or(field);
    number.split_once(',').is_some_and(|(whole, decimals)| digits(whole) && digits(decimals))
}

/// What stands between the labels of a row, if a column looks as if it had several of them: its values are made of fewer
/// names than there are values.
pub(crate) fn looks_parted(table: &Table, column: usize) -> Result<Option<&'static str>, DataError> {
    const SEPARATORS: [&str; 3] = [";", "|", ","];
    // Longer parts are sentences.
    const LONGEST: usize = 40;
    // A column that is parted has fewer parts than values, so more of these than that are no labels.
    const MOST: usize = 100_000;
    let (mut whole, mut candidates) = (HashSet::new(), SEPARATORS.map(|_| Some(HashSet::new())));
    table.each_value(column, |value| {
        if value.is_empty() || candidates.iter().all(Option::is_none) || whole.contains(value) {
            return;
        }
        whole.insert(value.to_owned());
        for (separator, candidate) in SEPARATORS.iter().zip(&mut candidates) {
            let Some(parts) = candidate else { continue };
            for part in value.split(separator).map(str::trim) {
                if part.is_empty() || part.len() > LONGEST || as_number(part).is_some() || parts.len() > MOST
                {
                    *candidate = None;
                    break;
                }
                if !parts.contains(part) {
                    parts.insert(part.to_owned());
                }
            }
        }
    })?;
    let is_parted = |parts: &HashSet<String>| parts.len() > 1 && parts.len() < whole.len();
    let candidates = SEPARATORS.into_iter().zip(&candidates);
    Ok(candidates
        .into_iter()
        .find(|(_, parts)| parts.as_ref().is_some_and(is_parted))
        .map(|(separator, _)| separator))
}

/// The field as a number. What is infinite or none is no number to learn.
pub(crate) fn as_number(field: &str) -> Option<f64> {
    field.parse().ok().filter(|number: &f64| number.is_finite())
}

fn labels(names: impl Iterator<Item = String>) -> Label {
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names.dedup();
    Label::Labels(names)
}

/// A JSON list of texts; a number or boolean in it is a name as it is written.
fn list(field: &str) -> Result<Label, String> {
    let wrong = |got: String| {
        format!(
            "expected a JSON list of labels such as [\"a\", \"b\"], got {got}: correct it, or name what stands \
             between the labels with --label-separator"
        )
    };
    let items: Vec<&RawValue> = serde_json::from_str(field).map_err(|_| {
        let python = looks_like_list(field) && field.contains('\'');
        let hint = if python { ", which is Python's way of writing a list and not JSON's" } else { "" };
        wrong(format!("`{}`{hint}", excerpt(field, 40)))
    })?;
    let name = |item: &&RawValue| match item.get().as_bytes().first() {
        Some(b'"') => {
            serde_json::from_str::<Cow<'_, str>>(item.get()).ok().map(|name| name.trim().to_owned())
        }
        Some(b'n' | b'[' | b'{') | None => None,
        Some(_) => Some(item.get().to_owned()),
    };
    let named = |item: &&RawValue| {
        name(item)
            .filter(|name| !name.is_empty())
            .ok_or_else(|| wrong(format!("`{}` in it", excerpt(item.get(), 40))))
    };
    let names: Vec<String> = items.iter().map(named).collect::<Result<_, _>>()?;
    Ok(labels(names.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(problem_type: ProblemType, separator: Option<&str>, field: &str) -> Result<Label, String> {
        LabelReading { problem_type, separator: separator.map(str::to_owned) }.read(field)
    }

    fn names(names: &[&str]) -> Result<Label, String> {
        Ok(Label::Labels(names.iter().map(|name| (*name).to_owned()).collect()))
    }

    #[test]
    fn lists_are_json_or_split() {
        let multi = |separator, field| read(ProblemType::MultiLabel, separator, field);
        assert_eq!(multi(None, r#" ["é", "a b" ,"é"] "#), names(&["a b", "é"]));
        assert_eq!(multi(None, "[]"), names(&[]));
        assert_eq!(multi(None, r#"[3, true, "\u00e9\n"]"#), names(&["3", "true", "é"]));
        assert_eq!(multi(Some(";"), "b; a;;b ;"), names(&["a", "b"]));
        assert_eq!(multi(Some(" | "), ""), names(&[]));
        // A list in a file that is split elsewhere is a list still.
        assert_eq!(multi(Some(";"), r#"["x;y"]"#), names(&["x;y"]));
        for field in ["a", "['a']", r#"["a""#, r#"["a", null]"#, r#"[["a"]]"#, r#"[""]"#, r#"{"a": 1}"#, ""] {
            let error = multi(None, field).unwrap_err();
            assert!(error.starts_with("expected a JSON list of labels"), "{field}: {error}");
        }
        assert!(multi(None, "['a']").unwrap_err().contains("Python"));
    }

    #[test]
    fn numbers_are_finite() {
        let number = |field| read(ProblemType::Regression, None, field);
        assert_eq!(number(" -1.5e2 "), Ok(Label::Number(-150.0)));
        for field in ["nan", "inf", "1e39", "1,5", "3 stars", ""] {
            assert!(number(field).unwrap_err().contains(&format!("got `{field}`")), "{field}");
        }
        assert!(number("-1,50").unwrap_err().ends_with("write its decimals behind a point"));
    }

    #[test]
    fn a_class_is_no_nested_json() {
        let class = |field| read(ProblemType::SingleLabel, None, field);
        for field in ["{x}", "[1", "a, b", "{", "[a]", "\"q\"", "null"] {
            assert_eq!(class(field), Ok(Label::Class(field.to_owned())));
        }
        for (field, what) in [(r#"{"é": [1]}"#, "a JSON object: `{"), ("[[1], 2]", "a JSON list: `[[1], 2]`")]
        {
            assert!(class(field).unwrap_err().contains(&format!("got {what}")), "{field}");
        }
    }
}
