//! Methods whose layer has another weight, made anew in each pass: what is added to it has no low rank that a branch
//! could use. Each layer's weight then exists twice while it is needed.

use std::sync::Arc;

use retune_model::layers::Linear;
use retune_model::{Forward, LinearHook, Merged};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{Parameters, Result, Tape, Var, ops};

/// What makes the weight.
pub(super) trait Reweight: Send + Sync {
    /// `[out_features, in_features]`
    fn weight(&self, tape: &Tape, parameters: &Parameters, base: &Linear) -> Result<Var>;
}

/// The hook of such a method.
pub(super) struct Reweighted<R>(pub(super) R);

impl<R: Reweight> LinearHook for Reweighted<R> {
    fn linear(
        &self,
        forward: &Forward<'_>,
        base: &Linear,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> Result<Var> {
        let weight = &self.0.weight(forward.tape, forward.parameters, base)?;
        let bias = base.bias.map(|bias| forward.parameter(bias));
        let linear = ops::Linear { activation, ..ops::Linear::plain(weight, bias.as_ref()) };
        ops::linear(forward.tape, x, layout, linear)
    }

    fn merged(&self, parameters: &Parameters, base: &Linear) -> Result<Option<Merged>> {
        let weight = self.0.weight(&Tape::inference(), parameters, base)?;
        Ok(Some(Merged { weight: weight.value().clone(), bias: None }))
    }
}
