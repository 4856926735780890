//! What operands are packed as: f32, and pairs of bf16. Each says how it is made of values, and which kernel multiplies it.

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::kernel::{OnePair, PAIRS_TILE, Panels, TILE};
use super::pack::{self, Packed};
#[cfg(target_arch = "x86_64")]
use super::turn_avx512;
use crate::backend::cpu::parallel::{dispatch, vectorised};
#[cfg(target_arch = "x86_64")]
use crate::dtype::DType;
use crate::dtype::{Element, Values, bf16};

impl Packed for f32 {
    const VALUES: usize = 1;

    fn tile() -> [usize; 2] {
        *TILE
    }

    #[inline(always)]
    fn join<E: Element, const SCALED: bool>(value: E, _: E, scale: f32) -> f32 {
        if SCALED { value.get() * scale } else { value.get() }
    }

    #[inline(always)]
    fn turn<E: Element, const SCALED: bool, const TALL: usize>(
        data: &[E],
        down: usize,
        scale: f32,
        tile: &mut [f32],
    ) {
        #[cfg(target_arch = "x86_64")]
        if let Some(vectors) = *avx512::FLOATS {
            return turn_avx512::turn::<_, E, SCALED, TALL>(vectors, data, down, scale, tile);
        }
        pack::turn::<f32, E, SCALED, TALL>(data, down, scale, tile);
    }

    fn in_place(values: Values<'_>) -> Option<&[f32]> {
        match values {
            Values::F32(values) => Some(values),
            Values::Bf16(_) | Values::Blocks(_) => None,
        }
    }

    fn multiply(panels: Panels<'_, f32>) {
        #[cfg(target_arch = "x86_64")]
        if let Some(vectors) = *avx512::FLOATS {
            return vectors.multiply(&panels);
        }
        dispatch(panels);
    }
}

/// Two bf16 of neighbouring depth, the first in the lower half.
impl Packed for u32 {
    const VALUES: usize = 2;

    fn tile() -> [usize; 2] {
        PAIRS_TILE
    }

    #[inline(always)]
    fn join<E: Element, const SCALED: bool>(first: E, second: E, scale: f32) -> u32 {
        let half = |value: E| {
            if SCALED { crate::dtype::round(value.get() * scale) } else { value.half() }
        };
        half(first) | half(second) << 16
    }

    #[inline(always)]
    fn join_all<E: Element, const SCALED: bool>(first: &[E], second: &[E], scale: f32, out: &mut [u32]) {
        #[cfg(target_arch = "x86_64")]
        if let (Some(vectors), false) = (*avx512::PAIRS, SCALED) {
            return if E::DTYPE == DType::Bf16 {
                vectors.join(bytemuck::cast_slice(first), bytemuck::cast_slice(second), out)
            } else {
                vectors.round_join(bytemuck::cast_slice(first), bytemuck::cast_slice(second), out)
            };
        }
        pack::join_all::<u32, E, SCALED>(first, second, scale, out);
    }

    #[inline(always)]
    fn turn<E: Element, const SCALED: bool, const TALL: usize>(
        data: &[E],
        down: usize,
        scale: f32,
        tile: &mut [u32],
    ) {
        #[cfg(target_arch = "x86_64")]
        if let Some(vectors) = *avx512::PAIRS {
            return turn_avx512::turn::<_, E, SCALED, TALL>(vectors, data, down, scale, tile);
        }
        pack::turn::<u32, E, SCALED, TALL>(data, down, scale, tile);
    }

    #[inline]
    fn vectorised<R>(work: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        if let Some(vectors) = *avx512::PAIRS {
            return vectors.vectorised(work);
        }
        vectorised(work)
    }

    /// Rounded one after the other where that is the order of a pair, which the compiler makes vectors of.
    #[inline(always)]
    fn pack_row(row: &[f32], out: &mut [u32]) {
        if !cfg!(target_endian = "little") {
            return pack::pack_row(row, out);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(vectors) = *avx512::PAIRS {
            return vectors.round_row(row, out);
        }
        let out: &mut [bf16] = bytemuck::cast_slice_mut(out);
        for (out, value) in out.iter_mut().zip(row) {
            *out = bf16::put(*value);
        }
        if let Some(rest) = out.get_mut(row.len()).filter(|_| !row.len().is_multiple_of(2)) {
            *rest = bf16::ZERO;
        }
    }

    /// Where the first value lies at a pair's place. On a machine of the other order of bytes it lies nowhere.
    fn in_place(values: Values<'_>) -> Option<&[u32]> {
        match values {
            Values::Bf16(values) if cfg!(target_endian = "little") => {
                bytemuck::try_cast_slice(&values[..values.len() / 2 * 2]).ok()
            }
            _ => None,
        }
    }

    fn multiply(panels: Panels<'_, u32>) {
        #[cfg(target_arch = "x86_64")]
        if let Some(vectors) = *avx512::PAIRS {
            return vectors.multiply(&panels);
        }
        panels.tiles::<_, 12>(OnePair);
    }
}
