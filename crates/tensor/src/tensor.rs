use std::sync::Arc;

use crate::memory::Block;
use crate::{Device, Error, Result};

/// A dense, row-major block of `f32` values. A clone shares the memory; writing needs the only handle.
#[derive(Debug, Clone)]
pub struct Tensor {
    block: Arc<Block>,
    shape: Vec<usize>,
}

impl Tensor {
    /// All zeros.
    pub fn zeros(device: Device, shape: &[usize]) -> Result<Self> {
        Self::allocate(device, shape, true)
    }

    /// Values to be overwritten: what is in them is unspecified.
    pub fn empty(device: Device, shape: &[usize]) -> Result<Self> {
        Self::allocate(device, shape, false)
    }

    fn allocate(device: Device, shape: &[usize], zeroed: bool) -> Result<Self> {
        let len = count(shape).unwrap_or(usize::MAX);
        Ok(Tensor { block: Arc::new(Block::new(device, len, zeroed)?), shape: shape.to_vec() })
    }

    /// A copy of `values`. Errors if their count is not what `shape` says.
    pub fn from_slice(device: Device, shape: &[usize], values: &[f32]) -> Result<Self> {
        if count(shape) != Some(values.len()) {
            return Err(Error::shape("tensor", format!("as many values as {shape:?} has"), values.len()));
        }
        let mut tensor = Self::empty(device, shape)?;
        if device != Device::Meta {
            tensor.f32_mut()?.copy_from_slice(values);
        }
        Ok(tensor)
    }

    /// The sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The size of the last dimension (1 for a scalar).
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, rest)| rest.iter().product())
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        self.block.device()
    }

    /// The values; an empty slice on [`Device::Meta`].
    pub fn f32(&self) -> &[f32] {
        self.block.f32()
    }

    /// The values to write. Errors if another handle shares them.
    pub fn f32_mut(&mut self) -> Result<&mut [f32]> {
        Arc::get_mut(&mut self.block).map(Block::f32_mut).ok_or(Error::Shared { op: "tensor" })
    }

    /// Whether this is the only handle, so that the values may be written in place.
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.block) == 1
    }

    /// The same values under another shape. Errors if the counts differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if count(shape) != Some(self.len()) {
            return Err(Error::shape("reshape", format!("{} values", self.len()), shape));
        }
        Ok(Tensor { block: self.block.clone(), shape: shape.to_vec() })
    }

    /// The one value of a scalar; `None` where there is no data or more than one value.
    pub fn item(&self) -> Option<f32> {
        match self.f32() {
            [value] => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn expect(&self, op: &'static str, shape: &[usize], what: &str) -> Result<()> {
        if self.shape == shape {
            return Ok(());
        }
        Err(Error::Shape { op, expected: format!("{what} {shape:?}"), got: format!("{:?}", self.shape) })
    }
}

/// How many values a shape has; `None` where no machine could count them.
fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n))
}
