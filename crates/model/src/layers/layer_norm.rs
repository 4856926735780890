use std::sync::Arc;

use retune_tensor::backend::{Dropout, Layout};
use retune_tensor::{ParamId, Result, Var, ops};

use crate::{Checkpoint, Forward, Init, ModelError};

/// Layer norm with a weight and, in most families, a bias.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: ParamId,
    bias: Option<ParamId>,
    epsilon: f32,
}

impl LayerNorm {
    /// Takes `NAME.weight` and `NAME.bias`, each `[columns]`.
    pub fn load(
        checkpoint: &mut Checkpoint,
        name: &str,
        columns: usize,
        epsilon: f64,
    ) -> std::result::Result<Self, ModelError> {
        LayerNorm::load_with(checkpoint, name, columns, epsilon, true)
    }

    /// The same, with `NAME.bias` only if there is to be a `bias`.
    pub fn load_with(
        checkpoint: &mut Checkpoint,
        name: &str,
        columns: usize,
        epsilon: f64,
        bias: bool,
    ) -> std::result::Result<Self, ModelError> {
        let mut take = |part: &str| checkpoint.tensor(&format!("{name}.{part}"), &[columns]);
        let (weight, bias) = (take("weight")?, bias.then(|| take("bias")).transpose()?);
        Ok(LayerNorm { weight, bias, epsilon: epsilon as f32 })
    }

    /// The same, made anew where the checkpoint has none: weight 1, bias 0.
    pub fn load_or_init_with(
        checkpoint: &mut Checkpoint,
        name: &str,
        columns: usize,
        epsilon: f64,
        bias: bool,
    ) -> std::result::Result<Self, ModelError> {
        let mut take =
            |part: &str, init| checkpoint.tensor_or_init(&format!("{name}.{part}"), &[columns], init);
        let weight = take("weight", Init::Ones)?;
        let bias = bias.then(|| take("bias", Init::Zeros)).transpose()?;
        Ok(LayerNorm { weight, bias, epsilon: epsilon as f32 })
    }

    /// Weight and bias.
    pub fn parameters(&self) -> impl Iterator<Item = ParamId> {
        [Some(self.weight), self.bias].into_iter().flatten()
    }

    /// `norm(dropout(x) + residual)`, `[tokens, columns]`; `layout` counts the tokens.
    pub fn forward(
        &self,
        forward: &Forward<'_>,
        x: &Var,
        layout: &Arc<Layout>,
        residual: Option<&Var>,
        dropout: Option<Dropout>,
    ) -> Result<Var> {
        if forward.differs(self.parameters(), |_| false) {
            let inputs: Vec<&Var> = [Some(x), residual].into_iter().flatten().collect();
            return forward.apart(&inputs, [layout, layout], |_, forward, inputs, layout| {
                self.forward(forward, &inputs[0], layout, inputs.get(1), dropout)
            });
        }
        let weight = &forward.parameter(self.weight);
        let bias = self.bias.map(|bias| forward.parameter(bias));
        let bias = bias.as_ref();
        let options = ops::LayerNormOptions { weight, bias, epsilon: self.epsilon, residual, dropout };
        ops::layer_norm(forward.tape, x, layout, options)
    }
}
