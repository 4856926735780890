use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The losses of the latest steps, and what a spike is among them.
///
/// A loss is a spike if it is above all three of
/// - the median of the last 50 losses and ten times their median distance from it,
/// - one and a half times the highest of them,
/// - half the loss of the first step: late in a training losses are near 0, and one hard row is many times that.
///
/// Before 20 losses nothing is one. A spike that is skipped or rewound is not counted among them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RecentLosses {
    first: Option<f64>,
    last: VecDeque<f64>,
}

impl RecentLosses {
    /// How many are looked back at.
    pub const MOST: usize = 50;
    /// Below this many nothing is a spike.
    pub const LEAST: usize = 20;

    /// The median of the recent losses if `loss` is a spike among them.
    pub fn spike(&self, loss: f64) -> Option<f64> {
        if self.last.len() < Self::LEAST {
            return None;
        }
        let usual = median(self.last.iter().copied());
        let distance = median(self.last.iter().map(|loss| (loss - usual).abs()));
        let highest = self.last.iter().copied().fold(0.0, f64::max);
        let bounds = [usual + 10.0 * distance, 1.5 * highest, 0.5 * self.first.unwrap_or_default()];
        bounds.iter().all(|bound| loss > *bound).then_some(usual)
    }

    pub(crate) fn push(&mut self, loss: f64) {
        self.first.get_or_insert(loss);
        if self.last.len() == Self::MOST {
            self.last.pop_front();
        }
        self.last.push_back(loss);
    }
}

/// The middle one, or the mean of both.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(losses: impl IntoIterator<Item = f64>) -> RecentLosses {
        let mut recent = RecentLosses::default();
        losses.into_iter().for_each(|loss| recent.push(loss));
        recent
    }

    #[test]
    fn a_spike_is_far_above_all_that_is_usual() {
        // Around 1, between 0.9 and 1.1: the median distance is 0.05.
        let usual = |n: usize| (0..n).map(|i| 0.9 + 0.05 * (i * 2 % 5) as f64);
        let recent = after(usual(25));
        assert!((recent.spike(1.7).unwrap() - 1.0).abs() < 1e-12);
        // Above the median and ten distances, but not above one and a half times the highest.
        assert_eq!(recent.spike(1.6), None);
        // Too early to tell.
        assert_eq!(after(usual(19)).spike(100.0), None);
        // What was, is forgotten after 50 steps.
        let settled = after((0..30).map(|_| 3.0).chain(usual(50)));
        assert!(settled.spike(1.7).is_some());
        assert_eq!(after((0..30).map(|_| 3.0).chain(usual(49))).spike(1.7), None);
    }

    #[test]
    fn one_hard_row_is_none_where_losses_are_near_zero() {
        let learnt = after((0..60).map(|step| 2.0 * 0.9f64.powi(step)));
        assert_eq!(learnt.spike(0.9), None);
        assert!(learnt.spike(3.1).is_some());
    }
}
