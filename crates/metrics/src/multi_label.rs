//! The scores of rows that have any number of labels.
//!
//! They equal scikit-learn's with `zero_division=0`: a macro average is over all labels, those that never occur
//! included, and a row without a label, gold or predicted, has an F1 of 0.

use serde::Serialize;

use crate::ratio::ratio;
use crate::{Bootstrap, ClassScore, Intervals, MetricError};

/// What came of each label that a row has or was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiLabelCounts {
    labels: usize,
    /// Of all rows, one row's after the other's: eight bytes each. A label that a row rightly lacks has none.
    outcomes: Vec<Outcome>,
    /// Where the outcomes of each row end.
    ends: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    label: u32,
    is: Is,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Right,
    Wrong,
    Missed,
}

/// Of one label, of one row, or of all decisions together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    right: u64,
    wrong: u64,
    missed: u64,
}

/// The scores over a set of rows, as they are reported and saved; all are in 0..=1, and of all but the Hamming loss
/// the higher is the better.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MultiLabelReport {
    /// F1 of all decisions pooled.
    pub f1_micro: f64,
    /// The mean F1, each label counting the same.
    pub f1_macro: f64,
    /// The mean F1, each label counting as many times as it has rows.
    pub f1_weighted: f64,
    /// The mean over the rows of each row's F1.
    pub f1_samples: f64,
    /// Precision of all decisions pooled.
    pub precision_micro: f64,
    /// Recall of all decisions pooled.
    pub recall_micro: f64,
    /// The share of rows whose labels are all right.
    pub subset_accuracy: f64,
    /// The share of wrong decisions, a decision being one label of one row.
    pub hamming_loss: f64,
    /// Rows the scores are over.
    pub rows: u64,
}

impl MultiLabelCounts {
    /// Nothing counted yet, for `labels` labels.
    pub fn new(labels: usize) -> Self {
        MultiLabelCounts { labels, outcomes: Vec::new(), ends: Vec::new() }
    }

    /// Counts one row: whether it has each label, and whether it was predicted to.
    ///
    /// # Errors
    /// If either is not one decision a label; the row is then not counted.
    pub fn record(&mut self, gold: &[bool], predicted: &[bool]) -> Result<(), MetricError> {
        for decisions in [gold.len(), predicted.len()] {
            if decisions != self.labels {
                return Err(MetricError::ClassesDiffer { expected: self.labels, actual: decisions });
            }
        }
        for (label, decision) in (0..).zip(gold.iter().zip(predicted)) {
            let is = match decision {
                (true, true) => Is::Right,
                (false, true) => Is::Wrong,
                (true, false) => Is::Missed,
                (false, false) => continue,
            };
            self.outcomes.push(Outcome { label, is });
        }
        self.ends.push(self.outcomes.len());
        Ok(())
    }

    /// The number of rows recorded.
    pub fn rows(&self) -> u64 {
        self.ends.len() as u64
    }

    /// The scores of each label: `[labels]`.
    pub fn per_label(&self) -> Vec<ClassScore> {
        let mut labels = vec![Counts::default(); self.labels];
        self.outcomes.iter().for_each(|outcome| labels[outcome.label as usize].add(outcome.is));
        labels.iter().map(Counts::score).collect()
    }

    /// All the scores.
    pub fn report(&self) -> MultiLabelReport {
        self.report_of(0..self.ends.len())
    }

    /// The intervals of micro, macro and samples F1 and of subset accuracy.
    ///
    /// # Errors
    /// As [`Bootstrap::over_rows`].
    pub fn intervals(&self, bootstrap: &Bootstrap) -> Result<Intervals, MetricError> {
        let names = ["f1_micro", "f1_macro", "f1_samples", "subset_accuracy"];
        let ends = bootstrap.over_rows(self.ends.len(), |drawn| {
            let report = self.report_of(drawn.iter().copied());
            [report.f1_micro, report.f1_macro, report.f1_samples, report.subset_accuracy]
        })?;
        Ok(bootstrap.named(names, ends))
    }

    /// The scores of some rows, of which one may come several times.
    fn report_of(&self, drawn: impl ExactSizeIterator<Item = usize>) -> MultiLabelReport {
        let rows = drawn.len();
        let mut labels = vec![Counts::default(); self.labels];
        let (mut pooled, mut exact, mut samples) = (Counts::default(), 0_u64, 0.0);
        for row in drawn {
            let mut counts = Counts::default();
            for outcome in self.row(row) {
                labels[outcome.label as usize].add(outcome.is);
                counts.add(outcome.is);
                pooled.add(outcome.is);
            }
            exact += u64::from(counts.wrong + counts.missed == 0);
            samples += counts.score().f1;
        }
        let (all, of_labels) = (pooled.score(), || labels.iter().map(Counts::score));
        let weighted: f64 = of_labels().map(|score| score.f1 * score.support as f64).sum();
        let decisions = rows as f64 * self.labels as f64;
        MultiLabelReport {
            f1_micro: all.f1,
            f1_macro: ratio(of_labels().map(|score| score.f1).sum(), self.labels as f64),
            f1_weighted: ratio(weighted, all.support as f64),
            f1_samples: ratio(samples, rows as f64),
            precision_micro: all.precision,
            recall_micro: all.recall,
            subset_accuracy: ratio(exact as f64, rows as f64),
            hamming_loss: ratio((pooled.wrong + pooled.missed) as f64, decisions),
            rows: rows as u64,
        }
    }

    fn row(&self, row: usize) -> &[Outcome] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.outcomes[start..self.ends[row]]
    }
}

impl Counts {
    fn add(&mut self, outcome: Is) {
        match outcome {
            Is::Right => self.right += 1,
            Is::Wrong => self.wrong += 1,
            Is::Missed => self.missed += 1,
        }
    }

    fn score(&self) -> ClassScore {
        let Counts { right, wrong, missed } = *self;
        ClassScore {
            precision: ratio(right as f64, (right + wrong) as f64),
            recall: ratio(right as f64, (right + missed) as f64),
            f1: ratio(2.0 * right as f64, (2 * right + wrong + missed) as f64),
            support: right + missed,
        }
    }
}

/// The threshold at which a label's F1 over these rows is highest, and that F1: a row whose score is at least the
/// threshold is given the label. Between two scores that part the rows alike, the threshold lies halfway; of several
/// thresholds with the same F1 it is the one nearest to 0.5. Scores are in 0..=1 and finite.
///
/// `scores: [rows]`, `gold: [rows]`; without a row that has the label every F1 is 0, and the threshold 0.5.
pub fn best_threshold(scores: &[f32], gold: &[bool]) -> (f32, f64) {
    let mut order: Vec<(f32, bool)> = scores.iter().copied().zip(gold.iter().copied()).collect();
    order.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let support = gold.iter().filter(|gold| **gold).count();
    let (mut best, mut best_f1) = (0.5_f32, 0.0_f64);
    let mut right = 0_usize;
    for (place, (score, gold)) in order.iter().enumerate() {
        right += usize::from(*gold);
        let next = order.get(place + 1).map_or(0.0, |(next, _)| *next);
        // Equal scores are given the label together or not at all.
        if next >= *score && place + 1 < order.len() {
            continue;
        }
        let f1 = ratio(2.0 * right as f64, (place + 1 + support) as f64);
        // 0.5 itself where it parts the rows so; else halfway, and never rounded onto the score below.
        let middle = f32::midpoint(*score, next);
        let threshold = match () {
            () if next < 0.5 && 0.5 <= *score => 0.5,
            () if middle > next => middle,
            () => *score,
        };
        if f1 > best_f1 || (f1 >= best_f1 && f1 > 0.0 && (threshold - 0.5).abs() < (best - 0.5).abs()) {
            (best, best_f1) = (threshold, f1);
        }
    }
    (best, best_f1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_scores_zero() {
        for labels in [0, 3] {
            let report = MultiLabelCounts::new(labels).report();
            let scores = [report.f1_micro, report.f1_macro, report.f1_samples, report.subset_accuracy];
            assert!(scores.iter().all(|score| score.to_bits() == 0), "{report:?}");
        }
        assert!(MultiLabelCounts::new(2).record(&[true], &[true, false]).is_err());
        assert!(MultiLabelCounts::new(2).intervals(&Bootstrap::default()).is_err());
    }

    #[test]
    fn a_threshold_parts_the_rows_as_the_best_f1_does() {
        let (threshold, f1) = best_threshold(&[0.9, 0.2, 0.3, 0.1], &[true, false, true, false]);
        assert!((threshold - 0.25).abs() < 1e-6 && (f1 - 1.0).abs() < 1e-12, "{threshold} {f1}");
        // 0.5 parts them as well as any other does.
        assert_eq!(best_threshold(&[0.9, 0.45, 0.1], &[true, false, false]).0.to_bits(), 0.5_f32.to_bits());
        // Equal scores stay together.
        let (threshold, f1) = best_threshold(&[0.3, 0.3, 0.3], &[true, false, false]);
        assert!(threshold <= 0.3 && (f1 - 0.5).abs() < 1e-12);
        // No row has it, no row at all.
        for (scores, gold) in [(&[0.7_f32, 0.2][..], &[false, false][..]), (&[], &[])] {
            assert_eq!(best_threshold(scores, gold), (0.5, 0.0));
        }
        // Neighbours that no number lies between.
        let close = [0.3, f32::from_bits(0.3_f32.to_bits() + 1)];
        let (threshold, f1) = best_threshold(&close, &[false, true]);
        assert!(threshold > close[0] && threshold <= close[1] && (f1 - 1.0).abs() < 1e-12);
        // All rows have it.
        let (threshold, f1) = best_threshold(&[0.0, 0.1], &[true, true]);
        assert!(threshold.to_bits() == 0 && (f1 - 1.0).abs() < 1e-12);
    }
}
