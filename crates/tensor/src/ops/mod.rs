//! One op a file: what it computes, its backward, and a test of one against the other. An op is as big as a layer.

mod add;
mod attention;
mod attention_cached;
mod binary_cross_entropy;
mod cast;
mod cayley;
#[cfg(test)]
mod check;
mod cross_entropy;
mod dropout;
mod embedding;
mod gate;
mod gated;
mod hadamard;
mod kronecker;
mod kronecker_sum;
mod layer_norm;
mod linear;
mod loss;
mod magnitude;
mod mean_rows;
mod orthogonality;
mod place_rows;
mod position_cross_entropy;
mod prepend_rows;
mod product;
mod rms_norm;
mod rotary;
mod rotate;
mod scale;
mod select_columns;
mod select_rows;
mod squared_error;
mod transpose;
mod vocabulary_cross_entropy;
mod weighted_sum;

pub use add::add;
pub use attention::{attention, attention_of_first, attention_over};
pub use attention_cached::{KeyValues, attention_cached};
pub use binary_cross_entropy::{BinaryCrossEntropyOptions, binary_cross_entropy};
pub use cast::cast;
pub use cayley::cayley;
pub use cross_entropy::{CrossEntropyOptions, cross_entropy};
pub use dropout::dropout;
pub use embedding::{Lookup, embedding};
pub use gate::gate;
pub use gated::gated;
pub use hadamard::{Hadamard, hadamard};
pub use kronecker::kronecker;
pub use kronecker_sum::kronecker_sum;
pub use layer_norm::{LayerNormOptions, layer_norm};
pub use linear::{Linear, LowRank, linear};
pub use magnitude::{Magnitude, magnitude};
pub use mean_rows::mean_rows;
pub use orthogonality::{Side, orthogonality};
pub use place_rows::place_rows;
pub use position_cross_entropy::position_cross_entropy;
pub use prepend_rows::prepend_rows;
pub use product::product;
pub use rms_norm::rms_norm;
pub use rotary::rotary;
pub use rotate::rotate;
pub use scale::{scale, scale_columns, scale_rows};
pub use select_columns::select_columns;
pub use select_rows::select_rows;
pub use squared_error::squared_error;
pub use transpose::transpose;
pub use vocabulary_cross_entropy::{vocabulary_cross_entropy, vocabulary_losses};
pub use weighted_sum::weighted_sum;

use crate::backend::Dropout;
use crate::{DType, Device, Error, Result, Tensor, Var};

/// The tensor itself where no one else reads it, else a copy to write into.
pub(crate) fn owned(tensor: Tensor) -> Result<Tensor> {
    if tensor.is_unique() {
        return Ok(tensor);
    }
    copy(&tensor)
}

fn copy(tensor: &Tensor) -> Result<Tensor> {
    let mut own = Tensor::empty_as(tensor.device(), tensor.dtype(), tensor.shape())?;
    tensor.device().backend().copy(tensor.values(), own.values_mut()?);
    Ok(own)
}

/// The type that `x` and all of `vars` have.
fn same_type(op: &'static str, x: &Var, vars: &[&Var]) -> Result<DType> {
    let dtype = x.value().dtype();
    match vars.iter().map(|var| var.value().dtype()).find(|other| *other != dtype) {
        Some(other) => Err(Error::shape(op, format!("values of type {dtype:?}"), other)),
        None => Ok(dtype),
    }
}

/// Refuses what is no chance to lose a value and keep others.
fn check_dropout(op: &'static str, dropout: Option<Dropout>) -> Result<()> {
    match dropout {
        Some(Dropout { probability, .. }) if !(0.0..1.0).contains(&probability) => {
            Err(Error::shape(op, "a dropout of at least 0 and less than 1", probability))
        }
        _ => Ok(()),
    }
}

/// The device that all of `vars` live on.
fn same_device(op: &'static str, x: &Var, vars: &[&Var]) -> Result<Device> {
    let left = x.value().device();
    match vars.iter().map(|var| var.value().device()).find(|right| *right != left) {
        Some(right) => Err(Error::Device { op, left, right }),
        None => Ok(left),
    }
}
