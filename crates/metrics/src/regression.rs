//! The scores of predicted numbers.

use serde::Serialize;

use crate::ratio::ratio;
use crate::{Bootstrap, Intervals, MetricError};

/// Right numbers beside predicted ones. They are kept, sixteen bytes a row: ranks need them all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RegressionPairs {
    gold: Vec<f64>,
    predicted: Vec<f64>,
}

/// The scores over a set of rows, as they are reported and saved. Where no correlation is defined, since all right or
/// all predicted numbers are equal, it is 0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegressionReport {
    /// Pearson's correlation, in -1..=1.
    pub pearson: f64,
    /// Spearman's rank correlation, in -1..=1; equal numbers share the mean of their ranks.
    pub spearman: f64,
    /// The mean squared error.
    pub mse: f64,
    /// The mean absolute error.
    pub mae: f64,
    /// The share of the right numbers' variance that is predicted: at most 1, and below 0 where their mean would do
    /// better. Where the right numbers are all equal it is 1 if each is met and else 0, as scikit-learn has it.
    pub r2: f64,
    /// Rows the scores are over.
    pub rows: u64,
}

impl RegressionPairs {
    /// Adds one row. A number that is none makes every score one that is none.
    pub fn record(&mut self, gold: f64, predicted: f64) {
        self.gold.push(gold);
        self.predicted.push(predicted);
    }

    /// The number of rows recorded.
    pub fn rows(&self) -> u64 {
        self.gold.len() as u64
    }

    /// All the scores.
    pub fn report(&self) -> RegressionReport {
        let rows = self.gold.len() as f64;
        let errors = || self.gold.iter().zip(&self.predicted).map(|(gold, predicted)| predicted - gold);
        let squares: f64 = errors().map(|error| error * error).sum();
        let deviation = squared_deviation(&self.gold);
        // The rounding of a mean gives equal numbers a deviation of about nothing.
        let r2 = match deviation > 0.0 && !constant(&self.gold) {
            true => 1.0 - squares / deviation,
            false => f64::from(u8::from(squares <= 0.0 && rows > 0.0)),
        };
        RegressionReport {
            pearson: correlation(&self.gold, &self.predicted),
            spearman: correlation(&ranks(&self.gold), &ranks(&self.predicted)),
            mse: ratio(squares, rows),
            mae: ratio(errors().map(f64::abs).sum(), rows),
            r2,
            rows: self.rows(),
        }
    }

    /// The intervals of all the scores.
    ///
    /// # Errors
    /// As [`Bootstrap::over_rows`].
    pub fn intervals(&self, bootstrap: &Bootstrap) -> Result<Intervals, MetricError> {
        let names = ["pearson", "spearman", "mse", "mae", "r2"];
        let mut pairs = RegressionPairs::default();
        let ends = bootstrap.over_rows(self.gold.len(), |drawn| {
            let take = |to: &mut Vec<f64>, from: &[f64]| {
                to.clear();
                to.extend(drawn.iter().map(|row| from[*row]));
            };
            take(&mut pairs.gold, &self.gold);
            take(&mut pairs.predicted, &self.predicted);
            let RegressionReport { pearson, spearman, mse, mae, r2, .. } = pairs.report();
            [pearson, spearman, mse, mae, r2]
        })?;
        Ok(bootstrap.named(names, ends))
    }
}

fn mean(values: &[f64]) -> f64 {
    ratio(values.iter().sum(), values.len() as f64)
}

fn squared_deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|value| (value - mean) * (value - mean)).sum()
}

/// Pearson's, in two passes: the mean is taken away before anything is squared, so that large numbers with small
/// differences keep their digits.
fn correlation(left: &[f64], right: &[f64]) -> f64 {
    let (left_mean, right_mean) = (mean(left), mean(right));
    let product: f64 = left.iter().zip(right).map(|(a, b)| (a - left_mean) * (b - right_mean)).sum();
    let norms = squared_deviation(left).sqrt() * squared_deviation(right).sqrt();
    if norms.is_nan() || product.is_nan() {
        return f64::NAN;
    }
    // Numbers that differ by nothing but the rounding of their mean are equal.
    if constant(left) || constant(right) {
        return 0.0;
    }
    ratio(product, norms).clamp(-1.0, 1.0)
}

fn constant(values: &[f64]) -> bool {
    values.windows(2).all(|pair| pair.first() == pair.last())
}

/// From 1 on; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<(f64, usize)> = values.iter().copied().zip(0..).collect();
    order.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    // In this order no more is equal; and not by bits, as 0 and -0 are one number.
    for equal in order.chunk_by(|(a, _), (b, _)| b <= a) {
        let rank = before as f64 + (equal.len() + 1) as f64 / 2.0;
        for (_, row) in equal {
            if let Some(place) = ranks.get_mut(*row) {
                *place = rank;
            }
        }
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the expected values are exact in binary")]
mod tests {
    use super::*;

    fn report(pairs: &[(f64, f64)]) -> RegressionReport {
        let mut all = RegressionPairs::default();
        pairs.iter().for_each(|(gold, predicted)| all.record(*gold, *predicted));
        all.report()
    }

    #[test]
    fn what_is_not_defined_is_zero() {
        for pairs in [
            &[][..],
            &[(1.0, 2.0)],
            &[(0.1, 1.0), (0.1, 2.0), (0.1, 5.0)],
            &[(1.0, 0.1), (2.0, 0.1), (3.0, 0.1)],
        ] {
            let report = report(pairs);
            assert_eq!((report.pearson, report.spearman), (0.0, 0.0), "{pairs:?}");
            assert!(report.r2.is_finite() && report.mse.is_finite() && report.mae.is_finite());
        }
        assert_eq!(report(&[(0.1, 1.0), (0.1, 2.0), (0.1, 5.0)]).r2, 0.0);
        assert_eq!(report(&[(2.0, 2.0), (2.0, 2.0)]).r2, 1.0);
        assert_eq!(report(&[(2.0, 2.0), (2.0, 2.5)]).r2, 0.0);
    }

    #[test]
    fn ties_share_their_ranks() {
        assert_eq!(ranks(&[3.0, -1.0, 3.0, 0.0, -0.0, 3.0]), [5.0, 1.0, 5.0, 2.5, 2.5, 5.0]);
    }

    #[test]
    fn what_is_no_number_is_not_hidden() {
        let report = report(&[(1.0, f64::NAN), (2.0, 3.0)]);
        assert!(report.mse.is_nan() && report.pearson.is_nan());
    }
}
