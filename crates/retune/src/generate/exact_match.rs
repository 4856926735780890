//! How often what is found in a generated answer is what is found in the right one.

use std::path::PathBuf;

use fancy_regex::Regex;
use retune_metrics::Bootstrap;

use super::{Asking, GenerateSettings, Generator, Prompt, ROWS};
use crate::evaluate::Evaluation;
use crate::{Error, FileSettings, ModelSettings, Result, inputs};

const FLAG: &str = "exact-match";

/// Answers the rows of `data` and adds to `evaluation`, which is of the same rows, the metric `exact_match`: the share of rows where
/// the first place that `pattern` finds in the answer says what its first place in the right answer says, white space at the ends
/// aside. What counts of a place is the pattern's first group, or all of it without one.
///
/// Errors if `pattern` is none, a row has no right answer, or it is not found there.
pub fn exact_match(
    settings: &ModelSettings,
    data: &[PathBuf],
    file: &FileSettings,
    pattern: &str,
    answer: &GenerateSettings,
    evaluation: &mut Evaluation,
) -> Result<()> {
    let wrong = |message: String| Error::Setting { flag: FLAG, message };
    let regex = Regex::new(pattern).map_err(|error| {
        wrong(format!("expected a pattern, such as `#### (\\S+)`, got `{pattern}`: {error}"))
    })?;
    let found = |text: &str| -> Result<Option<String>> {
        let places = regex.captures(text).map_err(|error| wrong(error.to_string()))?;
        let place = places.and_then(|places| {
            places.get(1).or(places.get(0)).map(|place| place.as_str().trim().to_string())
        });
        Ok(place)
    };
    let generator = Generator::open(settings)?;
    let (asked, _) = generator.ask(&Prompt::Files(data, file), &Asking::default())?;
    let mut expected = Vec::new();
    for (row, asked) in asked.iter().enumerate() {
        let place = asked.answer.as_deref().map(found).transpose()?.flatten();
        expected.push(place.ok_or_else(|| {
            let got = asked.answer.as_deref().map_or("none".into(), |answer| format!("`{answer}`"));
            let message =
                format!("row {}: expected a right answer in which `{pattern}` is found, got {got}", row + 1);
            Error::place(&inputs::together(data), message)
        })?);
    }
    let (generations, took) = generator.generate(&asked, answer, ROWS, &mut |_, _| true)?;
    let mut right = Vec::new();
    for (generation, expected) in generations.iter().zip(&expected) {
        right.push(found(&generation.text)?.as_ref() == Some(expected));
    }
    let share = |rows: &mut dyn Iterator<Item = usize>| {
        let (count, hits) =
            rows.fold((0u64, 0u64), |(count, hits), row| (count + 1, hits + u64::from(right[row])));
        hits as f64 / count.max(1) as f64
    };
    let bootstrap = Bootstrap::default();
    let ends = bootstrap.over_rows(right.len(), |drawn| [share(&mut drawn.iter().copied())]);
    if let (Ok([interval]), Some(intervals)) = (ends, &mut evaluation.metrics.intervals) {
        intervals.scores.insert("exact_match", interval);
    }
    evaluation.metrics.values.insert("exact_match".into(), share(&mut (0..right.len())));
    evaluation.seconds += took.seconds;
    let without = generations.iter().filter(|one| !regex.is_match(&one.text).unwrap_or(false)).count();
    if without > 0 {
        evaluation
            .said
            .push(format!("in {without} of {} generated answers the pattern is not found", right.len()));
    }
    Ok(())
}
