use std::sync::Arc;

use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{ParamId, Result, Var, ops};

use crate::{Checkpoint, Forward, Init, ModelError};

/// A linear layer, and a site: a method's hook may stand in its place.
#[derive(Debug, Clone)]
pub struct Linear {
    /// The site, which is the checkpoint's key without `.weight`.
    pub name: String,
    /// `[out_features, in_features]`
    pub weight: ParamId,
    /// `[out_features]`
    pub bias: ParamId,
    /// Width of the input.
    pub in_features: usize,
    /// Width of the output.
    pub out_features: usize,
}

impl Linear {
    /// Takes `NAME.weight` and `NAME.bias`.
    pub fn load(
        checkpoint: &mut Checkpoint,
        name: impl Into<String>,
        in_features: usize,
        out_features: usize,
    ) -> std::result::Result<Self, ModelError> {
        let name = name.into();
        Ok(Linear {
            weight: checkpoint.tensor(&format!("{name}.weight"), &[out_features, in_features])?,
            bias: checkpoint.tensor(&format!("{name}.bias"), &[out_features])?,
            name,
            in_features,
            out_features,
        })
    }

    /// The same, drawn anew where the checkpoint has none: weights as `init` says, bias 0.
    pub fn load_or_init(
        checkpoint: &mut Checkpoint,
        name: &str,
        in_features: usize,
        out_features: usize,
        init: Init,
    ) -> std::result::Result<Self, ModelError> {
        Ok(Linear {
            weight: checkpoint.tensor_or_init(
                &format!("{name}.weight"),
                &[out_features, in_features],
                init,
            )?,
            bias: checkpoint.tensor_or_init(&format!("{name}.bias"), &[out_features], Init::Zeros)?,
            name: name.to_string(),
            in_features,
            out_features,
        })
    }

    /// The same, drawn anew whatever the checkpoint holds.
    pub fn init(
        checkpoint: &mut Checkpoint,
        name: &str,
        in_features: usize,
        out_features: usize,
        init: Init,
    ) -> std::result::Result<Self, ModelError> {
        Ok(Linear {
            weight: checkpoint.init(&format!("{name}.weight"), &[out_features, in_features], init)?,
            bias: checkpoint.init(&format!("{name}.bias"), &[out_features], Init::Zeros)?,
            name: name.to_string(),
            in_features,
            out_features,
        })
    }

    /// `activation(x weight^T + bias)`, or what a hook makes of it. `layout` counts the rows of `x`.
    pub fn forward(
        &self,
        forward: &Forward<'_>,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> Result<Var> {
        if let Some(hook) = forward.hooks.linear(&self.name) {
            return hook.linear(forward, self, x, layout, activation);
        }
        self.with_branch(forward, x, layout, None, activation)
    }

    /// The layer itself, with a low-rank branch beside its weight if there is one.
    pub fn with_branch(
        &self,
        forward: &Forward<'_>,
        x: &Var,
        layout: &Arc<Layout>,
        low_rank: Option<ops::LowRank<'_>>,
        activation: Activation,
    ) -> Result<Var> {
        let (weight, bias) = (&forward.parameter(self.weight), &forward.parameter(self.bias));
        let linear = ops::Linear { weight, bias: Some(bias), low_rank, activation };
        ops::linear(forward.tape, x, layout, linear)
    }
}
