use std::sync::Arc;

use retune_tensor::backend::Layout;
use retune_tensor::{ParamId, Result, Var, ops};

use crate::{Checkpoint, Forward, ModelError};

/// RMS norm: of a token's columns, or of each head's where the weight is as wide as a head.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: ParamId,
    epsilon: f32,
}

impl RmsNorm {
    /// Takes `NAME.weight`, `[columns]`.
    pub fn load(
        checkpoint: &mut Checkpoint,
        name: &str,
        columns: usize,
        epsilon: f64,
    ) -> std::result::Result<Self, ModelError> {
        let weight = checkpoint.tensor(&format!("{name}.weight"), &[columns])?;
        Ok(RmsNorm { weight, epsilon: epsilon as f32 })
    }

    /// `x / sqrt(mean(x^2) + epsilon) * weight`, of the shape of `x`; `layout` counts the tokens.
    pub fn forward(&self, forward: &Forward<'_>, x: &Var, layout: &Arc<Layout>) -> Result<Var> {
        if forward.differs([self.weight], |_| false) {
            return forward.apart(&[x], [layout, layout], |_, forward, inputs, layout| {
                self.forward(forward, &inputs[0], layout)
            });
        }
        ops::rms_norm(forward.tape, x, &forward.parameter(self.weight), self.epsilon)
    }
}
