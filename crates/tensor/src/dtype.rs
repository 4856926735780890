//! The types of values, and slices of either.

pub use half::bf16;

use crate::blocks::{BlockType, Blocks};

/// What a tensor's values are stored as. Whatever is computed of them is computed in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DType {
    /// 32 bits, IEEE 754.
    #[default]
    F32,
    /// The upper half of an f32: its range, and 8 bits of its precision.
    Bf16,
    /// Blocks of a few bits a value: frozen matrices alone, which products and look-ups read.
    Blocks(BlockType),
}

impl DType {
    /// Bytes of `len` values in rows of `columns`; none where no machine could count them.
    pub fn bytes(self, len: usize, columns: usize) -> Option<usize> {
        match self {
            DType::F32 => len.checked_mul(size_of::<f32>()),
            DType::Bf16 => len.checked_mul(size_of::<bf16>()),
            DType::Blocks(kind) => len.checked_mul(size_of::<f32>()).map(|_| kind.bytes(len, columns)),
        }
    }

    /// `f32`, `bf16`, or the name of the blocks.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
            DType::Blocks(kind) => kind.name(),
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for DType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(DType::F32),
            "bf16" => Ok(DType::Bf16),
            _ => Err("expected f32 or bf16".to_string()),
        }
    }
}

/// The values of a tensor of whichever type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values<'a> {
    /// f32
    F32(&'a [f32]),
    /// bf16
    Bf16(&'a [bf16]),
    /// Blocks
    Blocks(Blocks<'a>),
}

/// The same, to be written.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// f32
    F32(&'a mut [f32]),
    /// bf16
    Bf16(&'a mut [bf16]),
}

impl<'a> Values<'a> {
    /// How many there are.
    pub fn len(self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
            Values::Blocks(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Their type.
    pub fn dtype(self) -> DType {
        match self {
            Values::F32(_) => DType::F32,
            Values::Bf16(_) => DType::Bf16,
            Values::Blocks(values) => DType::Blocks(values.kind()),
        }
    }

    /// Those from `first` on; none where that lies beyond the end.
    pub fn from(self, first: usize) -> Self {
        match self {
            Values::F32(values) => Values::F32(values.get(first..).unwrap_or_default()),
            Values::Bf16(values) => Values::Bf16(values.get(first..).unwrap_or_default()),
            Values::Blocks(values) => Values::Blocks(values.from(first)),
        }
    }
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Self {
        Values::F32(values)
    }
}

impl<'a> From<&'a [bf16]> for Values<'a> {
    fn from(values: &'a [bf16]) -> Self {
        Values::Bf16(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Values<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Values::F32(values)
    }
}

impl<'a> From<&'a mut [f32]> for ValuesMut<'a> {
    fn from(values: &'a mut [f32]) -> Self {
        ValuesMut::F32(values)
    }
}

impl<'a> From<&'a mut Vec<f32>> for ValuesMut<'a> {
    fn from(values: &'a mut Vec<f32>) -> Self {
        ValuesMut::F32(values)
    }
}

impl<'a> From<&'a mut [bf16]> for ValuesMut<'a> {
    fn from(values: &'a mut [bf16]) -> Self {
        ValuesMut::Bf16(values)
    }
}

impl ValuesMut<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their type.
    pub fn dtype(&self) -> DType {
        self.as_ref().dtype()
    }

    /// `len` of them from `first` on; none where these are not there.
    pub fn part(self, first: usize, len: usize) -> Self {
        let range = first..first.saturating_add(len);
        match self {
            ValuesMut::F32(values) => ValuesMut::F32(values.get_mut(range).unwrap_or_default()),
            ValuesMut::Bf16(values) => ValuesMut::Bf16(values.get_mut(range).unwrap_or_default()),
        }
    }

    /// The same, for a while.
    pub fn reborrow(&mut self) -> ValuesMut<'_> {
        match self {
            ValuesMut::F32(values) => ValuesMut::F32(values),
            ValuesMut::Bf16(values) => ValuesMut::Bf16(values),
        }
    }

    /// To be read.
    pub fn as_ref(&self) -> Values<'_> {
        match self {
            ValuesMut::F32(values) => Values::F32(values),
            ValuesMut::Bf16(values) => Values::Bf16(values),
        }
    }
}

/// What kernels are generic over: a value in memory, and the f32 that is computed with.
pub(crate) trait Element: bytemuck::Pod + Send + Sync {
    /// Its type.
    const DTYPE: DType;
    /// The value, exactly.
    fn get(self) -> f32;
    /// The nearest value, ties to even.
    fn put(value: f32) -> Self;
    /// The bits of the nearest bf16.
    fn half(self) -> u32;
    /// The slice of this type. An op has checked that it is: none where it is not.
    fn of(values: Values<'_>) -> &[Self];
    /// The same, to be written.
    fn of_mut(values: ValuesMut<'_>) -> &mut [Self];
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;

    #[inline(always)]
    fn get(self) -> f32 {
        self
    }

    #[inline(always)]
    fn put(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn half(self) -> u32 {
        round(self)
    }

    fn of(values: Values<'_>) -> &[f32] {
        match values {
            Values::F32(values) => values,
            Values::Bf16(_) | Values::Blocks(_) => &[],
        }
    }

    fn of_mut(values: ValuesMut<'_>) -> &mut [f32] {
        match values {
            ValuesMut::F32(values) => values,
            ValuesMut::Bf16(_) => &mut [],
        }
    }
}

/// Without branches, so that loops are vectorised.
impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;

    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn put(value: f32) -> Self {
        bf16::from_bits(round(value) as u16)
    }

    #[inline(always)]
    fn half(self) -> u32 {
        u32::from(self.to_bits())
    }

    fn of(values: Values<'_>) -> &[bf16] {
        match values {
            Values::Bf16(values) => values,
            Values::F32(_) | Values::Blocks(_) => &[],
        }
    }

    fn of_mut(values: ValuesMut<'_>) -> &mut [bf16] {
        match values {
            ValuesMut::Bf16(values) => values,
            ValuesMut::F32(_) => &mut [],
        }
    }
}

/// The bits of the bf16 nearest to `value`, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn round(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    if bits & 0x7FFF_FFFF > 0x7F80_0000 { (bits >> 16) | 0x40 } else { rounded }
}

/// Runs `$body` with `$name` bound to the slice of whichever type there is. Blocks are read whole first: what reads large ones
/// often has a way of its own.
macro_rules! with_values {
    ($values:expr, $name:ident => $body:expr) => {
        match $values {
            $crate::dtype::Values::F32($name) => $body,
            $crate::dtype::Values::Bf16($name) => $body,
            $crate::dtype::Values::Blocks(blocks) => {
                let dense = blocks.dense();
                let $name = dense.as_slice();
                $body
            }
        }
    };
}

/// The same of values to be written.
macro_rules! with_values_mut {
    ($values:expr, $name:ident => $body:expr) => {
        match $values {
            $crate::dtype::ValuesMut::F32($name) => $body,
            $crate::dtype::ValuesMut::Bf16($name) => $body,
        }
    };
}

pub(crate) use {with_values, with_values_mut};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_the_library() {
        let edges = [0.0, -0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-42];
        let many = (0..1 << 16).map(|i: u32| f32::from_bits(i.wrapping_mul(65_521)));
        for value in edges.into_iter().chain(many) {
            let (got, want) = (<bf16 as Element>::put(value), bf16::from_f32(value));
            if value.is_nan() {
                assert!(got.is_nan());
                continue;
            }
            assert_eq!(got.to_bits(), want.to_bits(), "{value}");
            assert_eq!(Element::get(got).to_bits(), want.to_f32().to_bits(), "{value}");
        }
    }
}
