use std::collections::BTreeMap;

use retune_tensor::random::Key;
use retune_tensor::{Gradients, Parameters, Tape, Var};
use serde::{Deserialize, Serialize};

use crate::{Checkpoint, Optimiser, State, number};

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// The mean loss.
    #[serde(with = "number::one")]
    pub loss: f64,
    /// What decides which weights are best: higher is better.
    #[serde(with = "number::one")]
    pub score: f64,
    /// All that is said of it.
    #[serde(with = "number::map")]
    pub metrics: BTreeMap<String, f64>,
}

/// An error of a part that the trainer does not know.
pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// What is trained, and where its best weights and its checkpoints are kept: all that the trainer is told of a task, a
/// method or a disk.
pub trait Workshop {
    /// What the sum of the rows' losses is divided by: their number, or the sum of their weights.
    fn denominator(&self, rows: &[usize]) -> f32;

    /// How many tokens these rows have.
    fn tokens(&self, rows: &[usize]) -> usize;

    /// The loss of `rows`, divided by `denominator`; `dropout` keys the draws of this epoch.
    fn loss(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        rows: &[usize],
        denominator: f32,
        dropout: Key,
    ) -> retune_tensor::Result<Var>;

    /// Evaluates; `None` where there is nothing to evaluate on.
    fn evaluate(&mut self, parameters: &Parameters) -> Result<Option<Evaluated>, AnyError>;

    /// Keeps the trained parameters as the best so far.
    fn keep(&mut self, parameters: &Parameters) -> Result<(), AnyError>;

    /// Brings back what was kept.
    fn restore(&mut self, parameters: &mut Parameters) -> Result<(), AnyError>;

    /// The share of the learning rate that the parameter `name` gets: below 1 for deep layers, for example.
    fn rate(&self, _name: &str) -> f64 {
        1.0
    }

    /// Told after each update, which was the one of `step`, counted from 1: its gradients were multiplied with
    /// `gradient_scale`. A method that changes what it trains does it here.
    fn after_update(
        &mut self,
        _parameters: &mut Parameters,
        _gradients: &Gradients,
        _gradient_scale: f32,
        _step: u64,
    ) -> Result<(), AnyError> {
        Ok(())
    }

    /// Whether [`Workshop::after_update`] reads the gradients. Where it does not, none are kept for it if the updates can
    /// be made in the backward pass (see [`Settings::updates_in_backward`](crate::Settings::updates_in_backward)).
    fn reads_gradients(&self) -> bool {
        true
    }

    /// The part of the model that the parameter `name` belongs to. Of each, some parameter must have a gradient in the
    /// first step; that single ones have none is the way of some methods.
    fn group<'n>(&self, name: &'n str) -> &'n str {
        name.rsplit_once('.').map_or(name, |(group, _)| group)
    }

    /// Writes a checkpoint: from it a training goes on as if it had never stopped. What was kept as the best belongs to
    /// it. Where this does nothing, the training cannot be resumed.
    fn save(&mut self, _checkpoint: &Checkpoint<'_>) -> Result<(), AnyError> {
        Ok(())
    }

    /// Brings back the checkpoint of step `step`, or the newest that is whole: weights, moments, and where the training
    /// stood. `None` where there is none, and the training starts at its beginning.
    fn load(
        &mut self,
        _step: Option<u64>,
        _parameters: &mut Parameters,
        _optimiser: &mut Optimiser,
    ) -> Result<Option<State>, AnyError> {
        Ok(None)
    }
}
