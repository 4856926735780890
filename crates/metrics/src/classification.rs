//! The confusion matrix, and every score of single-label classification that follows from it.
//!
//! The scores equal scikit-learn's with `zero_division=0`, to its rule of which classes a macro average is over:
//! those that occur in the gold or the predicted labels.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::MetricError;
use crate::ratio::ratio;

/// How often each gold class was predicted as each class.
///
/// Only cells that were met are kept, so memory is bounded by the rows as well as by classes², and a column of a
/// hundred thousand distinct labels taken for classes by mistake costs no more than its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    rows: u64,
    /// Keyed by (gold, predicted); ordered, so that sums and ties come out the same on every run.
    cells: BTreeMap<(usize, usize), u64>,
}

/// How well one class is found. Each score is 0 where it would divide by zero.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClassScore {
    /// Of the rows predicted to be of this class, the share that are.
    pub precision: f64,
    /// Of the rows of this class, the share predicted to be.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
    /// Rows whose gold label is this class.
    pub support: u64,
}

/// The scores of a classifier over a set of rows, as they are reported and saved. All but `matthews` are in 0..=1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassificationReport {
    /// See [`ConfusionMatrix::accuracy`].
    pub accuracy: f64,
    /// See [`ConfusionMatrix::f1_macro`].
    pub f1_macro: f64,
    /// See [`ConfusionMatrix::f1_micro`].
    pub f1_micro: f64,
    /// See [`ConfusionMatrix::f1_weighted`].
    pub f1_weighted: f64,
    /// See [`ConfusionMatrix::precision_macro`].
    pub precision_macro: f64,
    /// See [`ConfusionMatrix::recall_macro`].
    pub recall_macro: f64,
    /// See [`ConfusionMatrix::matthews`].
    pub matthews: f64,
    /// Rows the scores are over.
    pub rows: u64,
}

impl ConfusionMatrix {
    /// An empty matrix over the classes `0..classes`.
    pub fn new(classes: usize) -> Self {
        Self { classes, rows: 0, cells: BTreeMap::new() }
    }

    /// The matrix of `gold: [rows]` against `predicted: [rows]`.
    ///
    /// # Errors
    /// If the two are not equally long, or a label is not below `classes`.
    pub fn from_pairs(gold: &[usize], predicted: &[usize], classes: usize) -> Result<Self, MetricError> {
        if gold.len() != predicted.len() {
            return Err(MetricError::LengthMismatch { gold: gold.len(), predicted: predicted.len() });
        }
        let mut matrix = Self::new(classes);
        for (&gold, &predicted) in gold.iter().zip(predicted) {
            matrix.record(gold, predicted)?;
        }
        Ok(matrix)
    }

    /// Counts one row.
    ///
    /// # Errors
    /// If either label is not below the number of classes; the row is then not counted.
    pub fn record(&mut self, gold: usize, predicted: usize) -> Result<(), MetricError> {
        for (label, class) in [("gold", gold), ("predicted", predicted)] {
            if class >= self.classes {
                return Err(MetricError::ClassOutOfRange {
                    label,
                    row: self.rows,
                    class,
                    classes: self.classes,
                });
            }
        }
        self.add(gold, predicted, 1);
        Ok(())
    }

    /// Adds the rows of another matrix, as if they had been recorded here.
    ///
    /// # Errors
    /// If the other one is over a different number of classes; nothing is then added.
    pub fn merge(&mut self, other: &Self) -> Result<(), MetricError> {
        if other.classes != self.classes {
            return Err(MetricError::ClassesDiffer { expected: self.classes, actual: other.classes });
        }
        for (gold, predicted, count) in other.cells() {
            self.add(gold, predicted, count);
        }
        Ok(())
    }

    fn add(&mut self, gold: usize, predicted: usize, count: u64) {
        *self.cells.entry((gold, predicted)).or_insert(0) += count;
        self.rows += count;
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The number of rows recorded.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The cells that were met, as (gold, predicted, count), ordered by gold and then predicted class.
    pub fn cells(&self) -> impl Iterator<Item = (usize, usize, u64)> + '_ {
        self.cells.iter().map(|(&(gold, predicted), &count)| (gold, predicted, count))
    }

    /// The whole table, `[classes, classes]` with a row for each gold class: allocates classes² counts, where
    /// [`cells`](Self::cells) allocates nothing.
    pub fn counts(&self) -> Vec<Vec<u64>> {
        let mut table = vec![vec![0; self.classes]; self.classes];
        for (gold, predicted, count) in self.cells() {
            table[gold][predicted] = count;
        }
        table
    }

    /// The `n` most frequent mistakes, as (gold, predicted, count), most frequent first and ties in class order.
    pub fn most_confused(&self, n: usize) -> Vec<(usize, usize, u64)> {
        let mut mistakes: Vec<_> = self.cells().filter(|(gold, predicted, _)| gold != predicted).collect();
        mistakes.sort_by_key(|&(gold, predicted, count)| (std::cmp::Reverse(count), gold, predicted));
        mistakes.truncate(n);
        mistakes
    }

    /// The share of rows predicted right.
    pub fn accuracy(&self) -> f64 {
        self.margins().accuracy()
    }

    /// The scores of each class: `[classes]`.
    pub fn per_class(&self) -> Vec<ClassScore> {
        self.margins().scores().collect()
    }

    /// The mean F1 over the classes that occur, each counting the same.
    pub fn f1_macro(&self) -> f64 {
        self.margins().mean_over_occurring(|score| score.f1)
    }

    /// F1 of all decisions pooled. Where each row has one gold and one predicted label, every wrong row is one
    /// false positive and one false negative, so this is the accuracy; it is named for those who look for it.
    pub fn f1_micro(&self) -> f64 {
        self.accuracy()
    }

    /// The mean F1, each class counting as many times as it has rows.
    pub fn f1_weighted(&self) -> f64 {
        let weighted = self.margins().scores().map(|score| score.f1 * score.support as f64).sum();
        ratio(weighted, self.rows as f64)
    }

    /// The mean precision over the classes that occur.
    pub fn precision_macro(&self) -> f64 {
        self.margins().mean_over_occurring(|score| score.precision)
    }

    /// The mean recall over the classes that occur.
    pub fn recall_macro(&self) -> f64 {
        self.margins().mean_over_occurring(|score| score.recall)
    }

    /// Matthews correlation coefficient in its multi-class form R_K (Gorodkin 2004), in -1..=1; 0 where either
    /// the gold or the predicted labels are all one class.
    pub fn matthews(&self) -> f64 {
        let margins = self.margins();
        // Integers, because the differences of such squares are where floats would lose their digits.
        let dot = |a: &[u64], b: &[u64]| -> i128 {
            a.iter().zip(b).map(|(&a, &b)| i128::from(a) * i128::from(b)).sum()
        };
        let rows = i128::from(self.rows);
        let correct = i128::from(margins.correct.iter().sum::<u64>());
        let covariance = correct * rows - dot(&margins.gold, &margins.predicted);
        let gold_variance = rows * rows - dot(&margins.gold, &margins.gold);
        let predicted_variance = rows * rows - dot(&margins.predicted, &margins.predicted);
        // The product of two rounded roots may be a little too small.
        ratio(covariance as f64, (gold_variance as f64).sqrt() * (predicted_variance as f64).sqrt())
            .clamp(-1.0, 1.0)
    }

    /// All the scores; [`crate::Bootstrap`] makes their intervals.
    pub fn report(&self) -> ClassificationReport {
        ClassificationReport {
            accuracy: self.accuracy(),
            f1_macro: self.f1_macro(),
            f1_micro: self.f1_micro(),
            f1_weighted: self.f1_weighted(),
            precision_macro: self.precision_macro(),
            recall_macro: self.recall_macro(),
            matthews: self.matthews(),
            rows: self.rows,
        }
    }

    fn margins(&self) -> Margins {
        let mut margins = Margins::new(self.classes);
        for (gold, predicted, count) in self.cells() {
            margins.add(gold, predicted, count);
        }
        margins
    }
}

/// A confusion matrix's row sums, column sums and diagonal, each `[classes]`: all that the scores are made of. The
/// bootstrap fills one for each resample, so that both compute a score by the same lines.
pub(crate) struct Margins {
    gold: Vec<u64>,
    predicted: Vec<u64>,
    correct: Vec<u64>,
}

impl Margins {
    pub(crate) fn new(classes: usize) -> Self {
        Self { gold: vec![0; classes], predicted: vec![0; classes], correct: vec![0; classes] }
    }

    /// Both labels must be below the number of classes, as those of a matrix's cells are.
    pub(crate) fn add(&mut self, gold: usize, predicted: usize, count: u64) {
        self.gold[gold] += count;
        self.predicted[predicted] += count;
        if gold == predicted {
            self.correct[gold] += count;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.gold.fill(0);
        self.predicted.fill(0);
        self.correct.fill(0);
    }

    pub(crate) fn accuracy(&self) -> f64 {
        ratio(self.correct.iter().sum::<u64>() as f64, self.gold.iter().sum::<u64>() as f64)
    }

    pub(crate) fn f1_macro(&self) -> f64 {
        self.mean_over_occurring(|score| score.f1)
    }

    fn scores(&self) -> impl Iterator<Item = ClassScore> + '_ {
        self.gold.iter().zip(&self.predicted).zip(&self.correct).map(|((&gold, &predicted), &correct)| {
            ClassScore {
                precision: ratio(correct as f64, predicted as f64),
                recall: ratio(correct as f64, gold as f64),
                // From the counts, not from the two ratios: defined wherever the class occurs at all.
                f1: ratio(2.0 * correct as f64, (gold + predicted) as f64),
                support: gold,
            }
        })
    }

    fn mean_over_occurring(&self, score: impl Fn(&ClassScore) -> f64) -> f64 {
        let (mut sum, mut occurring) = (0.0, 0_u32);
        for (class, &predicted) in self.scores().zip(&self.predicted) {
            if class.support + predicted > 0 {
                sum += score(&class);
                occurring += 1;
            }
        }
        ratio(sum, f64::from(occurring))
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the expected values are exact in binary")]
mod tests {
    use super::*;

    #[test]
    fn degenerate_input_scores_zero() {
        for classes in [0, 1, 5] {
            let report = ConfusionMatrix::new(classes).report();
            let scores =
                [report.accuracy, report.f1_macro, report.f1_micro, report.f1_weighted, report.matthews];
            assert_eq!(scores, [0.0; 5]);
            assert_eq!(report.rows, 0);
        }
    }

    #[test]
    fn a_refused_row_is_not_counted() {
        let mut matrix = ConfusionMatrix::new(3);
        matrix.record(2, 0).unwrap();
        let error = matrix.record(1, 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "confusion matrix: predicted class 3 of row 1 (from 0) is not below 3, the number of classes"
        );
        assert!(matrix.record(usize::MAX, 0).unwrap_err().to_string().contains("gold class"));
        assert_eq!((matrix.rows(), matrix.counts()), (1, vec![vec![0; 3], vec![0; 3], vec![1, 0, 0]]));
        assert!(ConfusionMatrix::from_pairs(&[0, 1], &[0], 2).is_err());
    }

    #[test]
    fn merged_parts_equal_the_whole() {
        let gold = [0, 1, 2, 2, 1, 0, 3];
        let predicted = [0, 2, 2, 1, 1, 3, 3];
        let whole = ConfusionMatrix::from_pairs(&gold, &predicted, 4).unwrap();
        let mut parts = ConfusionMatrix::from_pairs(&gold[..3], &predicted[..3], 4).unwrap();
        parts.merge(&ConfusionMatrix::from_pairs(&gold[3..], &predicted[3..], 4).unwrap()).unwrap();
        assert_eq!(parts, whole);
        assert!(parts.merge(&ConfusionMatrix::new(5)).is_err());
        assert_eq!(parts, whole);
    }

    #[test]
    fn most_confused_orders_by_count_then_class() {
        let matrix = ConfusionMatrix::from_pairs(&[2, 0, 2, 1, 0, 1, 1], &[1, 2, 1, 1, 1, 1, 1], 3).unwrap();
        assert_eq!(matrix.most_confused(2), [(2, 1, 2), (0, 1, 1)]);
        assert_eq!(matrix.most_confused(9), [(2, 1, 2), (0, 1, 1), (0, 2, 1)]);
        assert!(matrix.most_confused(0).is_empty());
    }

    #[test]
    fn many_classes_cost_only_their_rows() {
        let mut matrix = ConfusionMatrix::new(1_000_000);
        matrix.record(999_999, 0).unwrap();
        matrix.record(7, 7).unwrap();
        assert_eq!(matrix.f1_macro(), 1.0 / 3.0);
    }

    #[test]
    fn matthews_keeps_its_digits_on_huge_counts() {
        let mut matrix = ConfusionMatrix::from_pairs(&[0, 0, 0, 1], &[0, 0, 1, 1], 2).unwrap();
        let small = matrix.matthews();
        for _ in 0..50 {
            let copy = matrix.clone();
            matrix.merge(&copy).unwrap();
        }
        assert!((matrix.matthews() - small).abs() < 1e-15, "{} {small}", matrix.matthews());
    }
}
