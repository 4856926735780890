//! How far a score may be trusted: percentile bootstrap intervals (Efron 1979) over the rows.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::classification::Margins;
use crate::{ConfusionMatrix, MetricError};

/// The settings of a bootstrap. The same settings on the same matrix give the same bits on every machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// How many times the rows are drawn anew. With 1000, an end of a 95%
    /// interval has a standard error of about a fortieth of the interval's width.
    pub resamples: usize,
    /// The share of resamples the interval holds, strictly between 0 and 1.
    pub confidence: f64,
    /// Which draws are made.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 1000 resamples, 95%, seed 0.
    fn default() -> Self {
        Self { resamples: 1000, confidence: 0.95, seed: 0 }
    }
}

/// The ends of a confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The intervals of some scores, with the settings that made them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Intervals {
    /// The share of resamples each interval holds.
    pub confidence: f64,
    /// How many resamples there were.
    pub resamples: usize,
    /// By the score's name.
    #[serde(flatten)]
    pub scores: BTreeMap<&'static str, Interval>,
}

impl Bootstrap {
    /// The intervals of the matrix's `accuracy` and `f1_macro`; for the latter a resample averages over the classes
    /// that occur in it.
    ///
    /// A row matters only by its cell, so a table of each row's cell, 4 bytes a row, is drawn from: one random number,
    /// one read and one count a draw. A multinomial draw over the cells would take fewer, but needs a binomial
    /// sampler, whose logarithms differ from one platform to the next.
    ///
    /// # Errors
    /// If there are no rows, no resamples, or the confidence is not strictly between 0 and 1.
    pub fn intervals(&self, matrix: &ConfusionMatrix) -> Result<Intervals, MetricError> {
        self.check(matrix.rows())?;
        let cells: Vec<_> = matrix.cells().collect();
        let cell_of_row: Vec<u32> =
            (0_u32..).zip(&cells).flat_map(|(cell, &(_, _, count))| (0..count).map(move |_| cell)).collect();

        let mut random = SplitMix64(self.seed);
        let mut drawn = vec![0_u64; cells.len()];
        let mut margins = Margins::new(matrix.classes());
        let (mut accuracies, mut f1_macros) = (Vec::new(), Vec::new());
        for _ in 0..self.resamples {
            drawn.fill(0);
            for _ in 0..cell_of_row.len() {
                drawn[cell_of_row[random.below(cell_of_row.len())] as usize] += 1;
            }
            margins.clear();
            for (&(gold, predicted, _), &count) in cells.iter().zip(&drawn) {
                margins.add(gold, predicted, count);
            }
            accuracies.push(margins.accuracy());
            f1_macros.push(margins.f1_macro());
        }
        let ends = [accuracies, f1_macros].map(|scores| central_interval(scores, self.confidence));
        Ok(self.named(["accuracy", "f1_macro"], ends))
    }

    /// The intervals of any scores of `rows` rows: `scores` makes them of the drawn rows' numbers, some of which come
    /// more than once.
    ///
    /// # Errors
    /// If there are no rows, no resamples, or the confidence is not strictly between 0 and 1.
    pub fn over_rows<const N: usize>(
        &self,
        rows: usize,
        mut scores: impl FnMut(&[usize]) -> [f64; N],
    ) -> Result<[Interval; N], MetricError> {
        self.check(rows as u64)?;
        let mut random = SplitMix64(self.seed);
        let mut drawn = vec![0; rows];
        let mut all = [const { Vec::new() }; N];
        for _ in 0..self.resamples {
            drawn.fill_with(|| random.below(rows));
            for (all, score) in all.iter_mut().zip(scores(&drawn)) {
                all.push(score);
            }
        }
        Ok(all.map(|scores| central_interval(scores, self.confidence)))
    }

    pub(crate) fn named<const N: usize>(&self, names: [&'static str; N], ends: [Interval; N]) -> Intervals {
        let scores = names.into_iter().zip(ends).collect();
        Intervals { confidence: self.confidence, resamples: self.resamples, scores }
    }

    pub(crate) fn check(&self, rows: u64) -> Result<(), MetricError> {
        if rows == 0 {
            return Err(MetricError::NoRows);
        }
        if self.resamples == 0 {
            return Err(MetricError::NoResamples);
        }
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            return Err(MetricError::Confidence(self.confidence));
        }
        Ok(())
    }
}

/// The interval that leaves out as many of the values below as above; there must be at least one.
pub(crate) fn central_interval(mut values: Vec<f64>, confidence: f64) -> Interval {
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - confidence) / 2.0;
    Interval { low: quantile(&values, tail), high: quantile(&values, 1.0 - tail) }
}

/// Interpolated linearly between the sorted values, as numpy's default.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

/// Counter-based generator (Steele, Lea and Flood 2014): the state steps by a constant, so the n-th number is a
/// function of the seed and n alone. Enough for resampling, and not worth a dependency.
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound` to within `bound / 2^64`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the expected values are exact in binary")]
mod tests {
    use super::*;

    fn matrix() -> ConfusionMatrix {
        ConfusionMatrix::from_pairs(&[0, 0, 1, 1, 2, 2, 2], &[0, 1, 1, 1, 2, 0, 2], 4).unwrap()
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The published reference implementation, seed 1234567.
        let mut random = SplitMix64(1_234_567);
        let first = [random.next(), random.next(), random.next()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        assert!((0..1000).all(|_| random.below(3) < 3));
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.25), 1.5);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 1.0), 4.0);
        assert_eq!(quantile(&[7.0], 0.975), 7.0);
    }

    #[test]
    fn the_seed_decides() {
        let with_seed =
            |seed| Bootstrap { resamples: 77, seed, ..Default::default() }.intervals(&matrix()).unwrap();
        assert_eq!(with_seed(3), with_seed(3));
        // The ends of seven rows' scores are coarse, so two seeds may agree by chance; several do not.
        assert!((1..20).any(|seed| with_seed(seed) != with_seed(0)));
    }

    #[test]
    fn no_doubt_no_width() {
        let sure = ConfusionMatrix::from_pairs(&[1], &[1], 3).unwrap();
        let intervals = Bootstrap::default().intervals(&sure).unwrap();
        assert_eq!(intervals.scores["accuracy"], Interval { low: 1.0, high: 1.0 });
        assert_eq!(intervals.scores["f1_macro"], Interval { low: 1.0, high: 1.0 });
    }

    #[test]
    fn impossible_settings_are_errors() {
        let refused = |bootstrap: Bootstrap| bootstrap.intervals(&matrix()).unwrap_err();
        assert_eq!(refused(Bootstrap { resamples: 0, ..Default::default() }), MetricError::NoResamples);
        for confidence in [0.0, 1.0, -0.5, 95.0] {
            let bootstrap = Bootstrap { confidence, ..Default::default() };
            assert_eq!(refused(bootstrap), MetricError::Confidence(confidence));
        }
        assert!(Bootstrap { confidence: f64::NAN, ..Default::default() }.intervals(&matrix()).is_err());
        assert_eq!(Bootstrap::default().intervals(&ConfusionMatrix::new(3)), Err(MetricError::NoRows));
    }
}
