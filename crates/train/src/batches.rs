use retune_tensor::random::Key;
use serde::Serialize;

use crate::TrainError;

/// How rows are gathered into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Batching {
    /// This many rows each.
    Rows(usize),
    /// As many rows as have at most this many tokens together, and at least one.
    Tokens(usize),
}

impl Batching {
    /// Gathers rows in their order; `length` tells how many tokens one has.
    pub fn gather(
        self,
        order: impl IntoIterator<Item = usize>,
        length: impl Fn(usize) -> usize,
    ) -> Vec<Vec<usize>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut tokens = 0;
        for row in order {
            let full = match (self, batches.last()) {
                (_, None) => true,
                (Batching::Rows(size), Some(batch)) => batch.len() >= size,
                (Batching::Tokens(size), Some(_)) => tokens + length(row) > size,
            };
            if full {
                batches.push(Vec::new());
                tokens = 0;
            }
            tokens += length(row);
            if let Some(batch) = batches.last_mut() {
                batch.push(row);
            }
        }
        batches
    }
}

/// One update of the weights: its batches, whose gradients are added up.
pub type Step = Vec<Vec<usize>>;

/// Which rows are seen when: a function of the settings and the rows' lengths alone.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of each row; rows are counted in four bytes.
    lengths: Vec<u32>,
    batching: Batching,
    accumulation: usize,
    shuffle: Option<Key>,
}

impl Plan {
    /// For rows of `lengths` tokens; a step is `accumulation` batches. `shuffle` orders each epoch anew; without it the
    /// order is that of the file. Errors if a batch or step would be empty.
    pub fn new(
        lengths: impl IntoIterator<Item = usize>,
        batching: Batching,
        accumulation: usize,
        shuffle: Option<Key>,
    ) -> Result<Self, TrainError> {
        let size = match batching {
            Batching::Rows(size) | Batching::Tokens(size) => size,
        };
        if size == 0 || accumulation == 0 {
            return Err(TrainError::Settings("a batch needs at least one row, and a step one batch".into()));
        }
        let lengths: Vec<u32> =
            lengths.into_iter().map(|length| u32::try_from(length).unwrap_or(u32::MAX)).collect();
        if lengths.is_empty() {
            return Err(TrainError::Settings("there are no rows to train on".into()));
        }
        Ok(Plan { lengths, batching, accumulation, shuffle })
    }

    /// The same rows in the same order, gathered otherwise. Errors if a batch would be empty.
    pub fn with_batching(&self, batching: Batching) -> Result<Self, TrainError> {
        Plan::new(
            self.lengths.iter().map(|length| *length as usize),
            batching,
            self.accumulation,
            self.shuffle,
        )
    }

    /// The steps of `epoch`, counted from 0.
    pub fn epoch(&self, epoch: u64) -> Vec<Step> {
        let mut order: Vec<u32> = (0..u32::try_from(self.lengths.len()).unwrap_or(u32::MAX)).collect();
        if let Some(key) = self.shuffle {
            key.with(epoch).stream().shuffle(&mut order);
        }
        let order = order.into_iter().map(|row| row as usize);
        let mut batches = self.batching.gather(order, |row| self.lengths[row] as usize).into_iter();
        let mut step = || batches.by_ref().take(self.accumulation).collect::<Step>();
        std::iter::from_fn(|| Some(step()).filter(|step| !step.is_empty())).collect()
    }

    /// The steps of all epochs, one after the other, without end.
    pub fn steps(&self) -> impl Iterator<Item = Step> + '_ {
        (0..).flat_map(|epoch| self.epoch(epoch))
    }

    /// How many steps the first `epochs` have; the last may be a part, such as 0.5 of one.
    pub fn total_steps(&self, epochs: f64) -> u64 {
        let whole = epochs.floor() as u64;
        let steps: u64 = match self.batching {
            // The number of batches is the same in every order.
            Batching::Rows(_) => self.epoch(0).len() as u64 * whole,
            Batching::Tokens(_) => (0..whole).map(|epoch| self.epoch(epoch).len() as u64).sum(),
        };
        let part = epochs - epochs.floor();
        let last = if part > 0.0 { (self.epoch(whole).len() as f64 * part).ceil() as u64 } else { 0 };
        steps + last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(batching: Batching, accumulation: usize) -> Plan {
        let lengths = vec![3, 9, 1, 4, 4, 20, 2, 7, 5, 6, 1];
        Plan::new(lengths, batching, accumulation, Some(Key::new(4))).unwrap()
    }

    #[test]
    fn every_row_is_seen_once_an_epoch() {
        for batching in [Batching::Rows(4), Batching::Tokens(10)] {
            let plan = plan(batching, 2);
            for epoch in 0..3 {
                let mut rows: Vec<_> = plan.epoch(epoch).into_iter().flatten().flatten().collect();
                rows.sort_unstable();
                assert_eq!(rows, (0..11).collect::<Vec<_>>());
            }
            assert_ne!(plan.epoch(0), plan.epoch(1));
            assert_eq!(plan.epoch(1), plan.epoch(1));
        }
    }

    #[test]
    fn batches_hold_what_they_may() {
        let rows = plan(Batching::Rows(4), 1).epoch(0);
        assert_eq!(rows.iter().map(|step| step[0].len()).collect::<Vec<_>>(), [4, 4, 3]);
        let by_tokens = plan(Batching::Tokens(10), 1);
        for batch in by_tokens.epoch(0).into_iter().flatten() {
            let tokens: u32 = batch.iter().map(|row| by_tokens.lengths[*row]).sum();
            assert!(tokens <= 10 || batch.len() == 1, "{batch:?} has {tokens} tokens");
        }
    }

    #[test]
    fn parts_of_an_epoch_are_counted() {
        let plan = plan(Batching::Rows(4), 1);
        assert_eq!([0.5, 1.0, 2.5, 3.0].map(|epochs| plan.total_steps(epochs)), [2, 3, 8, 9]);
    }
}
