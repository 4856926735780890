//! The engine: tensors, a tape of layer-sized ops with written backwards, and the kernels under them.
//!
//! Data goes one way. [`Parameters`] hold the weights; an op of [`ops`] takes [`Var`]s, computes through the
//! [`backend`] of the tensors' [`Device`] and records its backward on the [`Tape`]; [`Tape::backward`] leaves one
//! gradient a trainable parameter in [`Gradients`].
//!
//! What holds everywhere:
//! * A batch is ragged: `[tokens, channels]` with the rows' offsets (`cu_seqlens`), never padded.
//! * The same bits whatever the number of threads: work is cut into blocks fixed by shape, and sums have one order.
//! * Every byte of a tensor is counted ([`memory`]), on [`Device::Meta`] too, where nothing is allocated.

pub mod backend;
mod blocks;
mod device;
mod dtype;
mod eight_bit;
mod error;
mod gradients;
pub mod memory;
pub mod ops;
mod parameters;
pub mod random;
mod tape;
mod tensor;

pub use blocks::{BlockType, Blocks};
pub use device::Device;
pub use dtype::{DType, Values, ValuesMut, bf16};
pub use eight_bit::{EightBit, adamw_8bit};
pub use error::{Error, Result};
pub use gradients::{Gradient, Gradients, RowGradient};
pub use parameters::{ParamId, Parameter, Parameters};
pub use tape::{Kept, NodeId, Remade, Sink, TableRows, Tape, Var};
pub use tensor::Tensor;
