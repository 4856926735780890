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
    /// `[out_features]`, if it has one.
    pub bias: Option<ParamId>,
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
        Linear::load_with(checkpoint, name, in_features, out_features, true)
    }

    /// The same, with `NAME.bias` only if there is to be a `bias`.
    pub fn load_with(
        checkpoint: &mut Checkpoint,
        name: impl Into<String>,
        in_features: usize,
        out_features: usize,
        bias: bool,
    ) -> std::result::Result<Self, ModelError> {
        let name = name.into();
        let weight = checkpoint.tensor(&format!("{name}.weight"), &[out_features, in_features])?;
        let bias = bias.then(|| checkpoint.tensor(&format!("{name}.bias"), &[out_features])).transpose()?;
        Ok(Linear { name, weight, bias, in_features, out_features })
    }

    /// Like [`Linear::load`], drawn anew where the checkpoint has none: weights as `init` says, bias 0.
    pub fn load_or_init(
        checkpoint: &mut Checkpoint,
        name: &str,
        in_features: usize,
        out_features: usize,
        init: Init,
    ) -> std::result::Result<Self, ModelError> {
        Linear::load_or_init_with(checkpoint, name, in_features, out_features, init, true)
    }

    /// The same, with `NAME.bias` only if there is to be a `bias`.
    pub fn load_or_init_with(
        checkpoint: &mut Checkpoint,
        name: &str,
        in_features: usize,
        out_features: usize,
        init: Init,
        bias: bool,
    ) -> std::result::Result<Self, ModelError> {
        let mut take = |part: &str, shape: &[usize], init| {
            checkpoint.tensor_or_init(&format!("{name}.{part}"), shape, init)
        };
        Ok(Linear {
            weight: take("weight", &[out_features, in_features], init)?,
            bias: bias.then(|| take("bias", &[out_features], Init::Zeros)).transpose()?,
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
            bias: Some(checkpoint.init(&format!("{name}.bias"), &[out_features], Init::Zeros)?),
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
        if forward.differs(self.parameters(), |hooks| hooks.linear(&self.name).is_some()) {
            return forward.apart(&[x], [layout, layout], |_, forward, inputs, layout| {
                self.forward(forward, &inputs[0], layout, activation)
            });
        }
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
        let weight = &forward.parameter(self.weight);
        let bias = self.bias.map(|bias| forward.parameter(bias));
        let linear = ops::Linear { weight, bias: bias.as_ref(), low_rank, activation };
        ops::linear(forward.tape, x, layout, linear)
    }

    /// Weight and bias.
    pub fn parameters(&self) -> impl Iterator<Item = ParamId> {
        [Some(self.weight), self.bias].into_iter().flatten()
    }
}
