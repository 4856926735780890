use std::sync::Arc;

use retune_model::layers::Linear;
use retune_model::{Forward, LinearHook, Merged};
use retune_tensor::backend::{Activation, Ends, Layout, Matrix, Product};
use retune_tensor::{ParamId, Parameters, Result, Tape, Tensor, Var, ops};

/// A branch at a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Branch {
    pub(crate) a: ParamId,
    pub(crate) b: ParamId,
    pub(crate) scale: f32,
    pub(crate) dropout: f32,
}

impl Branch {
    /// As an op takes it, with `a` and `b` as they are in this pass.
    pub(crate) fn low_rank<'v>(
        &self,
        forward: &Forward<'_>,
        base: &Linear,
        a: &'v Var,
        b: &'v Var,
    ) -> ops::LowRank<'v> {
        let dropout = forward.dropout(&format!("{}.lora", base.name), self.dropout);
        ops::LowRank { a, b, scale: self.scale, dropout }
    }

    /// `weight + scale b a`
    pub(crate) fn dense(&self, parameters: &Parameters, base: &Linear) -> Result<Tensor> {
        let value = |id| &parameters.get(id).value;
        let weight = base.matrix(&Tape::inference(), parameters)?;
        dense(weight.value(), value(self.a), value(self.b), self.scale)
    }
}

/// `weight + scale b a`, in f32.
pub(crate) fn dense(weight: &Tensor, a: &Tensor, b: &Tensor, scale: f32) -> Result<Tensor> {
    let backend = weight.device().backend();
    let mut dense = Tensor::empty(weight.device(), weight.shape())?;
    backend.copy(weight.values(), dense.values_mut()?);
    let matrix = |tensor: &Tensor| (tensor.rows(), tensor.columns());
    let ((rank, width), (out, _)) = (matrix(a), matrix(b));
    let product =
        Product { left: Matrix::new(b.f32(), out, rank), right: Matrix::new(a.f32(), rank, width), scale };
    backend.gemm(dense.values_mut()?, &[product], true, Ends::default());
    Ok(dense)
}

impl LinearHook for Branch {
    fn linear(
        &self,
        forward: &Forward<'_>,
        base: &Linear,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> Result<Var> {
        let (a, b) = (&forward.parameter(self.a), &forward.parameter(self.b));
        base.with_branch(forward, x, layout, Some(self.low_rank(forward, base, a, b)), activation)
    }

    fn merged(&self, parameters: &Parameters, base: &Linear) -> Result<Option<Merged>> {
        Ok(Some(Merged { weight: self.dense(parameters, base)?, bias: None }))
    }
}
