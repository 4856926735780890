use crate::backend::AdamW;
use crate::{Device, Result, Tensor};

/// Values of a byte each: in blocks of 256 the place of a value on a fixed scale, times the block's largest magnitude
/// (Dettmers et al. 2022, 8-bit optimizers via block-wise quantization).
#[derive(Debug)]
pub struct EightBit {
    /// Four bytes lie in the place of an `f32`.
    codes: Tensor,
    /// One a block.
    largest: Tensor,
}

impl EightBit {
    /// Values that share a largest magnitude.
    pub const BLOCK: usize = 256;

    /// So many values, all 0.
    pub fn zeros(device: Device, len: usize) -> Result<Self> {
        Ok(EightBit {
            codes: Tensor::zeros(device, &[len.div_ceil(4)])?,
            largest: Tensor::zeros(device, &[len.div_ceil(Self::BLOCK)])?,
        })
    }

    /// The bytes, as they lie in `f32` values that mean nothing, and the blocks' largest magnitudes.
    pub fn tensors(&self) -> [&Tensor; 2] {
        [&self.codes, &self.largest]
    }

    /// The same, to be brought back.
    pub fn tensors_mut(&mut self) -> [&mut Tensor; 2] {
        [&mut self.codes, &mut self.largest]
    }
}

/// A step of AdamW whose two moments are kept in bytes: they are widened, changed, used and narrowed block by block.
/// `gradient` and `weight` have the same shape. Errors if anyone else holds one that is written.
pub fn adamw_8bit(
    step: AdamW,
    gradient: &Tensor,
    weight: &mut Tensor,
    moments: &mut [EightBit; 2],
) -> Result<()> {
    let backend = weight.device().backend();
    let [first, second] = moments.each_mut().map(|EightBit { codes, largest }| {
        Ok((bytemuck::cast_slice_mut::<f32, u8>(codes.f32_mut()?), largest.f32_mut()?))
    });
    backend.adamw_8bit(step, gradient.f32(), weight.f32_mut()?, [first?, second?]);
    Ok(())
}
