use retune_tensor::{Gradients, Parameters, Result, Tape, Tensor, Var};

use super::Adapter;

/// A step of the training that is done.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// Its number, from 1.
    pub step: u64,
    /// The gradients that it used, where the method reads them,
    pub gradients: &'a Gradients,
    /// multiplied with this (clipping).
    pub gradient_scale: f32,
}

/// What a method does while it is trained, beside having parameters. The trainer calls it and does not ask what it is.
pub trait DuringTraining {
    /// The share of the learning rate that the parameter `name` gets.
    fn rate(&self, _name: &str) -> f64 {
        1.0
    }

    /// What is added to the mean loss of each step: a scalar.
    fn penalty(&self, _tape: &Tape, _parameters: &Parameters) -> Result<Option<Var>> {
        Ok(None)
    }

    /// Changes the trained parameters after an update.
    fn after_update(&mut self, _parameters: &mut Parameters, _update: Update<'_>) -> Result<()> {
        Ok(())
    }

    /// Whether [`DuringTraining::after_update`] reads the gradients; they are not kept for it where it does not.
    fn reads_gradients(&self) -> bool {
        false
    }

    /// What it has to remember from step to step, by name: checkpoints hold it, and bring it back.
    fn state(&mut self) -> Vec<(&str, &mut Tensor)> {
        Vec::new()
    }

    /// Writes into the finished adapter's configuration what it did.
    fn finish(&self, _adapter: &mut Adapter) {}
}
