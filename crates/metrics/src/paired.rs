//! Whether two models differ on the same rows: a bootstrap interval of the difference, and approximate randomisation
//! (Noreen 1989; Yeh 2000), which asks how often models that do not differ would seem to.

use serde::Serialize;

use crate::bootstrap::{SplitMix64, central_interval};
use crate::{Bootstrap, Interval, MetricError};

/// What one row adds to a metric. The metric of any rows is a function of the sum of their tallies.
pub type Tally = [f64; 4];

/// Two models on the same rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Paired {
    /// The first one's metric.
    pub first: f64,
    /// The second one's.
    pub second: f64,
    /// First less second.
    pub difference: f64,
    /// Where the difference lies, over rows drawn anew.
    pub interval: Interval,
    /// How often rows that change models by a throw of a coin differ at least as much: small, if the models differ.
    pub p_value: f64,
    /// The share of resamples that the interval holds.
    pub confidence: f64,
    /// How many resamples and exchanges there were, each.
    pub resamples: usize,
}

/// Compares the `metric` of two models by their tallies of the same rows.
///
/// # Errors
/// If there are no rows or not as many of each, no resamples, or the confidence is not strictly between 0 and 1.
pub fn paired(
    first: &[Tally],
    second: &[Tally],
    metric: fn(&Tally) -> f64,
    bootstrap: &Bootstrap,
) -> Result<Paired, MetricError> {
    if first.len() != second.len() {
        return Err(MetricError::LengthMismatch { gold: first.len(), predicted: second.len() });
    }
    bootstrap.check(first.len() as u64)?;
    let rows = first.len();
    let mut random = SplitMix64(bootstrap.seed);
    let mut differences = Vec::with_capacity(bootstrap.resamples);
    for _ in 0..bootstrap.resamples {
        let mut sums = [Tally::default(); 2];
        for _ in 0..rows {
            let row = random.below(rows);
            add(&mut sums[0], &first[row]);
            add(&mut sums[1], &second[row]);
        }
        differences.push(metric(&sums[0]) - metric(&sums[1]));
    }
    let whole = |tallies: &[Tally]| {
        let mut sum = Tally::default();
        tallies.iter().for_each(|tally| add(&mut sum, tally));
        metric(&sum)
    };
    let (one, other) = (whole(first), whole(second));
    // Sums in another order differ in their last bits, and are no smaller for that.
    let least = (one - other).abs() * (1.0 - 1e-9) - 1e-12;
    let mut as_far = 0;
    for _ in 0..bootstrap.resamples {
        let mut sums = [Tally::default(); 2];
        let mut coins = 0;
        for (row, (one, other)) in first.iter().zip(second).enumerate() {
            coins = if row % 64 == 0 { random.next() } else { coins >> 1 };
            let exchanged = (coins & 1) as usize;
            add(&mut sums[exchanged], one);
            add(&mut sums[1 - exchanged], other);
        }
        as_far += usize::from((metric(&sums[0]) - metric(&sums[1])).abs() >= least);
    }
    Ok(Paired {
        first: one,
        second: other,
        difference: one - other,
        interval: central_interval(differences, bootstrap.confidence),
        p_value: (1 + as_far) as f64 / (1 + bootstrap.resamples) as f64,
        confidence: bootstrap.confidence,
        resamples: bootstrap.resamples,
    })
}

fn add(sum: &mut Tally, more: &Tally) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accuracy(sum: &Tally) -> f64 {
        sum[0] / sum[1]
    }

    fn right(rows: impl Iterator<Item = bool>) -> Vec<Tally> {
        rows.map(|right| [f64::from(u8::from(right)), 1.0, 0.0, 0.0]).collect()
    }

    #[test]
    fn equal_models_do_not_differ() {
        let rows = right((0..50).map(|row| row % 3 > 0));
        let same = paired(&rows, &rows, accuracy, &Bootstrap::default()).unwrap();
        assert_eq!(
            (same.difference, same.interval.low, same.interval.high, same.p_value),
            (0.0, 0.0, 0.0, 1.0)
        );
    }

    #[test]
    fn the_p_value_is_that_of_the_exact_test() {
        // Of 24 rows on which one is right alone, 6 are the second's: the exact binomial test (McNemar) has 0.0227.
        let first = right((0..200).map(|row| row < 118));
        let second = right((0..200).map(|row| row < 100 || (118..124).contains(&row)));
        let bootstrap = Bootstrap { resamples: 20_000, ..Bootstrap::default() };
        let found = paired(&first, &second, accuracy, &bootstrap).unwrap();
        assert!((found.difference - 0.06).abs() < 1e-12);
        assert!((found.p_value - 0.0227).abs() < 0.004, "{}", found.p_value);
        assert!(
            found.interval.low > 0.0 && found.interval.low < 0.03 && found.interval.high < 0.12,
            "{found:?}"
        );
        let back = paired(&second, &first, accuracy, &bootstrap).unwrap();
        assert!((back.difference + 0.06).abs() < 1e-12 && (back.p_value - found.p_value).abs() < 1e-12);
    }

    #[test]
    fn rows_must_be_the_same() {
        let rows = right((0..3).map(|_| true));
        assert!(paired(&rows, &rows[..2], accuracy, &Bootstrap::default()).is_err());
        assert_eq!(paired(&[], &[], accuracy, &Bootstrap::default()), Err(MetricError::NoRows));
    }
}
