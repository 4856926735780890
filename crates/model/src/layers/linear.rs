use std::sync::Arc;

use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{DType, ParamId, Parameters, Result, Tape, Tensor, Var, ops};

use crate::families::Vocabulary;
use crate::{Checkpoint, Forward, Init, ModelError};

/// A linear layer, and a site: a method's hook may stand in its place.
#[derive(Debug, Clone)]
pub struct Linear {
    /// The site, which is the checkpoint's key without `.weight`.
    pub name: String,
    /// `[out_features, in_features]`; `[in_features, out_features]` where it is `transposed`.
    pub weight: ParamId,
    /// Whether the checkpoint keeps the weight the other way round, as GPT-2's (`Conv1D`) do.
    pub transposed: bool,
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
        Ok(Linear { name, weight, transposed: false, bias, in_features, out_features })
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
            transposed: false,
            bias: bias.then(|| take("bias", &[out_features], Init::Zeros)).transpose()?,
            name: name.to_string(),
            in_features,
            out_features,
        })
    }

    /// The same, drawn anew whatever the checkpoint holds.
    pub fn init_with(
        checkpoint: &mut Checkpoint,
        name: &str,
        in_features: usize,
        out_features: usize,
        init: Init,
        bias: bool,
    ) -> std::result::Result<Self, ModelError> {
        let mut draw =
            |part: &str, shape: &[usize], init| checkpoint.init(&format!("{name}.{part}"), shape, init);
        Ok(Linear {
            weight: draw("weight", &[out_features, in_features], init)?,
            transposed: false,
            bias: bias.then(|| draw("bias", &[out_features], Init::Zeros)).transpose()?,
            name: name.to_string(),
            in_features,
            out_features,
        })
    }

    /// Takes `NAME.weight` as `[in_features, out_features]`, and `NAME.bias`.
    pub fn load_transposed(
        checkpoint: &mut Checkpoint,
        name: impl Into<String>,
        in_features: usize,
        out_features: usize,
    ) -> std::result::Result<Self, ModelError> {
        let name = name.into();
        let weight = checkpoint.tensor(&format!("{name}.weight"), &[in_features, out_features])?;
        let bias = Some(checkpoint.tensor(&format!("{name}.bias"), &[out_features])?);
        Ok(Linear { name, weight, transposed: true, bias, in_features, out_features })
    }

    /// The vocabulary projection: the table of the word embeddings where that is its weight too, else `NAME.weight`.
    pub fn vocabulary(
        checkpoint: &mut Checkpoint,
        name: &str,
        hidden_size: usize,
        vocabulary: Vocabulary,
    ) -> std::result::Result<Self, ModelError> {
        let Vocabulary { size, tied } = vocabulary;
        match tied {
            None => Linear::load_with(checkpoint, name, hidden_size, size, false),
            Some(weight) => Ok(Linear {
                name: name.to_string(),
                weight,
                transposed: false,
                bias: None,
                in_features: hidden_size,
                out_features: size,
            }),
        }
    }

    /// The weight as `[out_features, in_features]`, however it is kept; of blocks what they hold.
    pub fn matrix(&self, tape: &Tape, parameters: &Parameters) -> Result<Var> {
        // By the tape: a block that is computed once more has no parameters but those that it noted.
        let weight = tape.parameter(parameters, self.weight);
        let weight = match weight.value().dtype() {
            DType::Blocks(_) => Var::constant(weight.value().to(DType::F32)?),
            _ => weight,
        };
        if self.transposed { ops::transpose(tape, &weight) } else { Ok(weight) }
    }

    /// Puts `matrix`, `[out_features, in_features]`, in the place of the weight.
    pub fn set_matrix(&self, parameters: &mut Parameters, matrix: Tensor) -> Result<()> {
        let kept = match self.transposed {
            true => ops::transpose(&Tape::inference(), &Var::constant(matrix))?.value().clone(),
            false => matrix,
        };
        parameters.get_mut(self.weight).value = kept;
        Ok(())
    }

    /// The layer as an op takes it, with its weight and a bias as they are in a pass.
    pub fn op<'a>(&self, weight: &'a Var, bias: Option<&'a Var>) -> ops::Linear<'a> {
        ops::Linear { transposed: self.transposed, ..ops::Linear::plain(weight, bias) }
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
        let linear = ops::Linear { low_rank, activation, ..self.op(weight, bias.as_ref()) };
        ops::linear(forward.tape, x, layout, linear)
    }

    /// Weight and bias.
    pub fn parameters(&self) -> impl Iterator<Item = ParamId> {
        [Some(self.weight), self.bias].into_iter().flatten()
    }
}
