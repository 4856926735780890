use std::sync::Arc;

use retune_tensor::backend::{Dropout, Layout};
use retune_tensor::{ParamId, Result, Var, ops};

use crate::{Checkpoint, Forward, ModelError};

/// Layer norm with weight and bias.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: ParamId,
    bias: ParamId,
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
        Ok(LayerNorm {
            weight: checkpoint.tensor(&format!("{name}.weight"), &[columns])?,
            bias: checkpoint.tensor(&format!("{name}.bias"), &[columns])?,
            epsilon: epsilon as f32,
        })
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
        let (weight, bias) = (&forward.parameter(self.weight), &forward.parameter(self.bias));
        let options = ops::LayerNormOptions { weight, bias, epsilon: self.epsilon, residual, dropout };
        ops::layer_norm(forward.tape, x, layout, options)
    }
}
