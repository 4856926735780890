use std::sync::Arc;

use crate::dtype::{DType, Values, ValuesMut};
use crate::memory::Block;
use crate::{Device, Error, Result};

/// A dense, row-major block of values. A clone shares the memory; writing needs the only handle.
#[derive(Debug, Clone)]
pub struct Tensor {
    block: Arc<Block>,
    shape: Vec<usize>,
}

impl Tensor {
    /// f32 zeros.
    pub fn zeros(device: Device, shape: &[usize]) -> Result<Self> {
        Self::zeros_as(device, DType::F32, shape)
    }

    /// Zeros of a type.
    pub fn zeros_as(device: Device, dtype: DType, shape: &[usize]) -> Result<Self> {
        Self::allocate(device, dtype, shape, true)
    }

    /// f32 values to be overwritten: what is in them is unspecified.
    pub fn empty(device: Device, shape: &[usize]) -> Result<Self> {
        Self::empty_as(device, DType::F32, shape)
    }

    /// Values of a type to be overwritten.
    pub fn empty_as(device: Device, dtype: DType, shape: &[usize]) -> Result<Self> {
        Self::allocate(device, dtype, shape, false)
    }

    fn allocate(device: Device, dtype: DType, shape: &[usize], zeroed: bool) -> Result<Self> {
        let size = [count(shape).unwrap_or(usize::MAX), shape.last().copied().unwrap_or(1)];
        Ok(Tensor { block: Arc::new(Block::new(device, dtype, size, zeroed)?), shape: shape.to_vec() })
    }

    /// The same values as another type, each the nearest there is; the tensor itself where it has that type. Errors if they are
    /// to be blocks that are not made here.
    pub fn to(&self, dtype: DType) -> Result<Self> {
        if self.dtype() == dtype {
            return Ok(self.clone());
        }
        if let DType::Blocks(kind) = dtype {
            if !kind.is_made() {
                return Err(Error::shape("tensor", "blocks that are made here: nf4 or int8", kind));
            }
            let dense = self.to(DType::F32)?;
            let mut blocks = Self::empty_as(self.device(), dtype, &self.shape)?;
            if self.device() != Device::Meta {
                kind.quantise(dense.f32(), self.columns(), blocks.bytes_mut()?);
            }
            return Ok(blocks);
        }
        let mut other = Self::empty_as(self.device(), dtype, &self.shape)?;
        self.device().backend().copy(self.values(), other.values_mut()?);
        Ok(other)
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

    /// The type of its values.
    pub fn dtype(&self) -> DType {
        self.block.dtype()
    }

    /// The values of an f32 tensor; an empty slice on [`Device::Meta`], and where the type is another.
    pub fn f32(&self) -> &[f32] {
        match self.values() {
            Values::F32(values) => values,
            Values::Bf16(_) | Values::Blocks(_) => &[],
        }
    }

    /// The values of an f32 tensor to write. Errors if another handle shares them, or the type is another.
    pub fn f32_mut(&mut self) -> Result<&mut [f32]> {
        match self.values_mut()? {
            ValuesMut::F32(values) => Ok(values),
            ValuesMut::Bf16(_) => Err(Error::shape("tensor", "values of type f32", DType::Bf16)),
        }
    }

    /// The values, of whichever type; none on [`Device::Meta`].
    pub fn values(&self) -> Values<'_> {
        self.block.values()
    }

    /// The values to write. Errors if another handle shares them, or they lie in blocks.
    pub fn values_mut(&mut self) -> Result<ValuesMut<'_>> {
        let dtype = self.dtype();
        let block = Arc::get_mut(&mut self.block).ok_or(Error::Shared { op: "tensor" })?;
        block.values_mut().ok_or_else(|| Error::shape("tensor", "values that are written one by one", dtype))
    }

    /// The bytes of blocks to write: none on [`Device::Meta`]. Errors if another handle shares them.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        Arc::get_mut(&mut self.block).map(Block::bytes_mut).ok_or(Error::Shared { op: "tensor" })
    }

    /// Whether this is the only handle, so that the values may be written in place.
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.block) == 1
    }

    /// Whether both are handles of the same memory.
    pub fn shares(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.block, &other.block)
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
