use std::sync::Arc;

use retune_model::layers::{SubLayer, SubLayerInputs};
use retune_model::{Forward, SubLayerHook};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{ParamId, Result, Var, ops};

use super::{Design, Residual};

/// One adapter, at its site.
pub(super) struct Bottleneck {
    pub design: Design,
    pub activation: Activation,
    pub down: Projection,
    pub up: Projection,
    /// Weight and bias of the norm behind it.
    pub norm: Option<[ParamId; 2]>,
}

/// One of its layers.
pub(super) enum Projection {
    Dense { weight: ParamId, bias: ParamId },
    Hypercomplex { rule: ParamId, left: ParamId, right: ParamId, bias: ParamId },
}

impl Projection {
    fn forward(
        &self,
        forward: &Forward<'_>,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> Result<Var> {
        let (weight, bias) = match *self {
            Projection::Dense { weight, bias } => (forward.parameter(weight), bias),
            Projection::Hypercomplex { rule, left, right, bias } => {
                let [rule, left, right] = [rule, left, right].map(|id| forward.parameter(id));
                (ops::kronecker_sum(forward.tape, &rule, &left, &right)?, bias)
            }
        };
        let bias = forward.parameter(bias);
        let linear = ops::Linear { activation, ..ops::Linear::plain(&weight, Some(&bias)) };
        ops::linear(forward.tape, x, layout, linear)
    }
}

impl Bottleneck {
    /// What the adapter reads, and the residual around it.
    fn inputs(
        &self,
        forward: &Forward<'_>,
        base: &SubLayer,
        inputs: SubLayerInputs<'_>,
    ) -> Result<(Var, Var)> {
        let SubLayerInputs { made, read, residual, layout } = inputs;
        if self.design.parallel {
            return Ok((read.clone(), made.clone()));
        }
        if !self.design.behind_norm {
            return Ok((made.clone(), made.clone()));
        }
        let sum = |of| ops::add(forward.tape, made, of, layout, None);
        let x = match &base.norm {
            Some(norm) => norm.forward(forward, made, layout, Some(residual), None)?,
            // As the library does in blocks that norm first.
            None => sum(read)?,
        };
        let around = match self.design.residual {
            Residual::Made => made.clone(),
            Residual::Added => sum(residual)?,
            Residual::Normed => x.clone(),
        };
        Ok((x, around))
    }
}

impl SubLayerHook for Bottleneck {
    fn sub_layer(&self, forward: &Forward<'_>, base: &SubLayer, inputs: SubLayerInputs<'_>) -> Result<Var> {
        let (tape, layout) = (forward.tape, inputs.layout);
        let (x, around) = self.inputs(forward, base, inputs)?;
        let down = self.down.forward(forward, &x, layout, self.activation)?;
        let up = self.up.forward(forward, &down, layout, Activation::Identity)?;
        let up = ops::scale(tape, &up, self.design.scaling as f32)?;
        let dropout = forward.dropout(&format!("{}.adapters", base.name), self.design.dropout as f32);
        let Some(norm) = self.norm else { return ops::add(tape, &up, &around, layout, dropout) };
        let [weight, bias] = norm.map(|id| forward.parameter(id));
        let inside = self.design.norm_after == Some(true) && !self.design.parallel;
        let options = ops::LayerNormOptions {
            weight: &weight,
            bias: Some(&bias),
            epsilon: 1e-5,
            residual: inside.then_some(&around),
            dropout,
        };
        let normed = ops::layer_norm(tape, &up, layout, options)?;
        if inside { Ok(normed) } else { ops::add(tape, &normed, &around, layout, None) }
    }
}
