//! Labels that do not depend on the texts: a model of word counts, tried on rows that it has not seen, finds nothing.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use retune_data::{Example, Examples};

use super::Finding;
use super::rows::found;
use crate::Result;

/// Fewer rows than this tell nothing.
const ENOUGH: usize = 100;

/// Rows that are looked at; more would tell no more.
const MOST: usize = 20_000;

/// Parts of the rows that take turns in being unseen.
const FOLDS: usize = 5;

pub(super) fn shuffled(train: &Examples, file: &str) -> Result<Vec<Finding>> {
    // What relates two texts is not in their words; and only one class a row is counted here. Rows are alike in that.
    let countable = |example: &Example| example.pair.is_none() && example.class().is_some();
    if train.len() < ENOUGH || !train.get(0)?.as_ref().is_some_and(countable) {
        return Ok(Vec::new());
    }
    // Every k-th row, so that a sorted file gives all its labels.
    let rows = train.iter().step_by(train.len().div_ceil(MOST));
    let rows = rows.collect::<std::result::Result<Vec<Example>, _>>()?;
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for example in &rows {
        let next = numbers.len();
        numbers.entry(example.class().unwrap_or_default()).or_insert(next);
    }
    let labels: Vec<usize> =
        rows.iter().map(|example| numbers[example.class().unwrap_or_default()]).collect();
    let mut counts = vec![0usize; numbers.len()];
    labels.iter().for_each(|label| counts[*label] += 1);
    let largest = counts.iter().max().copied().unwrap_or_default() as f64 / rows.len() as f64;
    let texts: Vec<Vec<String>> = rows.iter().map(|example| words(&example.text)).collect();
    let right =
        (0..FOLDS).into_par_iter().map(|fold| right(&texts, &labels, numbers.len(), fold)).sum::<usize>();
    // Who knows nothing does best by always saying the most frequent label.
    let (n, expected) = (rows.len() as f64, largest);
    let accuracy = right as f64 / n;
    if accuracy > expected + 3.0 * (expected * (1.0 - expected) / n).sqrt() {
        return Ok(Vec::new());
    }
    Ok(found(
        "shuffled-labels",
        format!(
            "the labels do not seem to depend on the texts: word counts are right on {:.1}% of unseen rows, and guessing \
             on {:.1}%",
            100.0 * accuracy,
            100.0 * expected
        ),
        file,
        Vec::new(),
        "a column that was sorted or joined wrongly looks like this; training would only learn rows by heart",
        "read a few rows: does each label fit its text? is it the right --label-column?".into(),
    ))
}

/// Words in lower case; letters that stand for words by themselves are words.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for run in text.to_lowercase().split(|c: char| !c.is_alphanumeric()) {
        let mut word = String::new();
        for letter in run.chars() {
            if ('\u{2E80}'..='\u{9FFF}').contains(&letter) || ('\u{AC00}'..='\u{D7AF}').contains(&letter) {
                words.push(letter.to_string());
            } else {
                word.push(letter);
            }
        }
        if !word.is_empty() {
            words.push(word);
        }
    }
    words
}

/// How many rows of a part multinomial naive Bayes gets right that has counted the words of the others.
fn right(texts: &[Vec<String>], labels: &[usize], classes: usize, fold: usize) -> usize {
    let unseen = |row: usize| row % FOLDS == fold;
    let mut counts: HashMap<&str, HashMap<usize, f64>> = HashMap::new();
    let mut totals = vec![0.0f64; classes];
    let mut rows = vec![0.0f64; classes];
    for (_, (text, label)) in texts.iter().zip(labels).enumerate().filter(|(row, _)| !unseen(*row)) {
        rows[*label] += 1.0;
        for word in text {
            *counts.entry(word).or_default().entry(*label).or_default() += 1.0;
            totals[*label] += 1.0;
        }
    }
    let vocabulary = counts.len() as f64 + 1.0;
    let unseen_word: Vec<f64> = totals.iter().map(|total| -(total + vocabulary).ln()).collect();
    let tested = texts.iter().zip(labels).enumerate().filter(|(row, _)| unseen(*row));
    tested
        .filter(|(_, (text, label))| {
            let mut scores: Vec<f64> = rows.iter().map(|rows| (rows + 1e-9).ln()).collect();
            scores.iter_mut().zip(&unseen_word).for_each(|(score, word)| *score += word * text.len() as f64);
            for by_class in text.iter().filter_map(|word| counts.get(word.as_str())) {
                by_class.iter().for_each(|(class, count)| scores[*class] += (count + 1.0).ln());
            }
            let best = (0..classes).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
            best == Some(**label)
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(label: impl Fn(usize) -> &'static str, count: usize) -> Examples {
        (0..count)
            .map(|row| Example {
                row: row as u64,
                line: row as u64 + 2,
                text: format!(
                    "my {} is {}",
                    ["card", "丢了", "money"][row % 3],
                    ["late", "here"][row / 7 % 2]
                ),
                pair: None,
                label: Some(retune_data::Label::Class(label(row).into())),
            })
            .collect::<Vec<_>>()
            .into()
    }

    #[test]
    fn labels_that_follow_the_words_are_no_finding() {
        assert!(shuffled(&rows(|row| ["a", "b", "c"][row % 3], 120), "file").unwrap().is_empty());
    }

    #[test]
    fn labels_that_do_not_are_one() {
        let found = shuffled(&rows(|row| ["a", "b", "c"][row * row / 5 % 7 % 3], 120), "file").unwrap();
        assert_eq!(found.len(), 1);
        // Too few rows to tell, or a matter of two texts.
        assert!(
            shuffled(&rows(|row| ["a", "b", "c"][row * row / 5 % 7 % 3], 90), "file").unwrap().is_empty()
        );
    }
}
