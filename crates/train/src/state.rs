use std::collections::BTreeSet;

use retune_tensor::Parameters;
use serde::{Deserialize, Serialize};

use crate::{Evaluated, Optimiser, RecentLosses, number};

/// Where a training stands between two steps: with the weights and the moments, all that the steps to come depend on.
///
/// There is no state of a random generator in it: every draw is a function of the seed, the epoch and what it is for
/// (see [`retune_tensor::random`]), so the settings and `epoch` are enough. The learning rate is a function of `step`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done, those whose update was dropped included: the place in the schedule.
    pub step: u64,
    /// The epoch of the latest step, counted from 0.
    pub epoch: u64,
    /// Steps done in it.
    pub index: u64,
    /// Updates that the moments have seen.
    pub updates: u64,
    /// Tokens of all steps, all of them real.
    pub tokens: u64,
    /// All steps' time; evaluations and checkpoints are no part of it.
    pub seconds: f64,
    /// The mean loss of the latest step's rows.
    pub last_loss: f64,
    /// The rows of the latest step.
    pub rows: Vec<usize>,
    /// The step after which the latest evaluation was.
    pub evaluated_at: Option<u64>,
    /// The best score so far.
    #[serde(with = "number::option")]
    pub best: Option<f64>,
    /// The evaluation that will be that of the result.
    pub kept: Option<Kept>,
    /// Evaluations since the best.
    pub since_best: u64,
    /// What a loss is compared with.
    pub recent: RecentLosses,
    /// Trained parameters whose gradient has been 0 since the epoch began.
    pub silent: BTreeSet<String>,
    /// The checkpoint that a rewind goes back to.
    pub rewind_to: Option<u64>,
}

impl State {
    /// Whether a training of so many steps can have been there, whatever somebody wrote down.
    pub(crate) fn is_within(&self, total_steps: u64) -> bool {
        let counts = [self.epoch, self.updates, self.since_best];
        let places = [self.evaluated_at, self.rewind_to, self.kept.as_ref().map(|kept| kept.step)];
        let mut numbers = counts.into_iter().chain(places.into_iter().flatten());
        self.step <= total_steps && numbers.all(|number| number <= self.step)
    }
}

/// An evaluation, and the step after which it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The step.
    pub step: u64,
    /// What was found.
    pub evaluated: Evaluated,
}

/// All that a checkpoint holds.
#[derive(Debug, Clone, Copy)]
pub struct Checkpoint<'a> {
    /// Where the training stands.
    pub state: &'a State,
    /// All parameters, of which those that are trained differ from the pretrained ones.
    pub parameters: &'a Parameters,
    /// The moments of the trained ones.
    pub optimiser: &'a Optimiser,
}
