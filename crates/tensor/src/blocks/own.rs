//! Blocks that are made here: 4-bit NormalFloat with double quantisation (Dettmers et al. 2023, QLoRA), where fewer values share a
//! factor, which has a sign and is sought, and int8 by rows (Dettmers et al. 2022, LLM.int8).

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::backend::cpu::parallel::{dispatch, vectorised};

/// Values of a block.
pub(super) const NF4: usize = 32;

/// Of these, those that share a factor. QLoRA has 64: for less than a tenth of a byte a value more, the squares of what weights lose
/// are less than half.
const SHARE: usize = 8;

/// Bytes of a block: the codes of its values, and six bits a factor.
pub(super) const NF4_BYTES: usize = NF4 / 2 + FACTORS * 6 / 8;

const FACTORS: usize = NF4 / SHARE;

/// Blocks whose factors are parts of one number.
const GROUP: usize = 64;

/// The parts in which that number is told.
const STEPS: u8 = 32;

/// The bit of a factor's code that turns its sign. More places lie above zero than below, so values that have more to say below zero
/// are better off upside down.
const TURNED: u8 = STEPS;

/// How many steps below and above the largest magnitude a factor is sought. The one value that has it loses by a smaller factor,
/// and the others gain.
const SOUGHT: [u8; 2] = [9, 3];

/// Quantiles of a normal distribution, from -1 to 1 with a 0 among them (QLoRA, appendix E).
const PLACES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Each byte's two places, the upper half's first.
const PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut both = 0;
    while both < 256 {
        pairs[both] = [PLACES[both >> 4], PLACES[both & 15]];
        both += 1;
    }
    pairs
};

/// What a factor's code says in a group whose factors reach `most`.
#[inline(always)]
fn factor(code: u8, most: f32) -> f32 {
    let size = f32::from(code % STEPS + 1) / f32::from(STEPS) * most;
    if code & TURNED == 0 { size } else { -size }
}

/// The largest magnitude; NaN where there is one, so that what is made of it shows that, as no code could.
fn largest(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(0.0f32, |most, value| if most >= value.abs() || most.is_nan() { most } else { value.abs() })
}

/// What lies behind the blocks of `len` values: an f32 a group of them.
pub(super) fn nf4_apart(len: usize) -> usize {
    4 * len.div_ceil(NF4 * GROUP)
}

fn f32_at(bytes: &[u8], place: usize) -> f32 {
    bytes.get(place..).and_then(|bytes| bytes.first_chunk()).map_or(0.0, |value| f32::from_le_bytes(*value))
}

/// Of `bytes`, which hold `len` values, those from `first` on.
pub(super) fn read_nf4(bytes: &[u8], len: usize, first: usize, mut out: &mut [f32]) {
    let (blocks, groups) = bytes.split_at_checked(NF4_BYTES * len.div_ceil(NF4)).unwrap_or_default();
    let blocks = blocks.as_chunks::<NF4_BYTES>().0;
    let (mut block, mut within) = (first / NF4, first % NF4);
    while let Some(bytes) = blocks.get(block)
        && !out.is_empty()
    {
        let most = f32_at(groups, 4 * (block / GROUP));
        let (part, rest) = out.split_at_mut((NF4 - within).min(out.len()));
        if let Ok(whole) = <&mut [f32; NF4]>::try_from(&mut *part) {
            block_nf4(bytes, most, whole);
        } else {
            let mut whole = [0.0; NF4];
            block_nf4(bytes, most, &mut whole);
            part.copy_from_slice(&whole[within..within + part.len()]);
        }
        (block, within, out) = (block + 1, 0, rest);
    }
}

#[inline(always)]
fn block_nf4(bytes: &[u8; NF4_BYTES], most: f32, out: &mut [f32; NF4]) {
    vectorised(
        #[inline(always)]
        || {
            let (codes, [low, middle, high]) = bytes.split_at(NF4 / 2) else { return };
            let factors = u32::from_le_bytes([*low, *middle, *high, 0]);
            for (number, (codes, out)) in
                codes.chunks(SHARE / 2).zip(out.as_chunks_mut::<SHARE>().0).enumerate()
            {
                let factor = factor((factors >> (6 * number)) as u8 & 63, most);
                for (both, out) in codes.iter().zip(out.as_chunks_mut::<2>().0) {
                    *out = PAIRS[usize::from(*both)];
                }
                out.iter_mut().for_each(|value| *value *= factor);
            }
        },
    );
}

/// Quantises `values` into `out`, all of it.
pub(super) fn nf4(values: &[f32], out: &mut [u8]) {
    let (blocks, groups) = out.split_at_mut(NF4_BYTES * values.len().div_ceil(NF4));
    let of_a_group = values.par_chunks(NF4 * GROUP).zip(blocks.par_chunks_mut(NF4_BYTES * GROUP));
    of_a_group.zip(groups.par_chunks_mut(4)).for_each(|((values, blocks), group)| {
        let most = largest(values);
        group.copy_from_slice(&most.to_le_bytes());
        dispatch(Quantise { values, blocks, most });
    });
}

/// The blocks of a group whose magnitudes reach `most`.
struct Quantise<'a> {
    values: &'a [f32],
    blocks: &'a mut [u8],
    most: f32,
}

impl WithSimd for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (values, block) in self.values.chunks(NF4).zip(self.blocks.as_chunks_mut::<NF4_BYTES>().0) {
            let mut whole = [0.0; NF4];
            whole[..values.len()].copy_from_slice(values);
            *block = quantised(simd, &whole, self.most);
        }
    }
}

/// A block of a group.
#[inline(always)]
fn quantised<S: Simd>(simd: S, values: &[f32; NF4], most: f32) -> [u8; NF4_BYTES] {
    let (mut block, mut factors) = ([0; NF4_BYTES], 0);
    for (number, values) in values.as_chunks::<SHARE>().0.iter().enumerate() {
        let code = best_factor(simd, values, most);
        factors |= u32::from(code) << (6 * number);
        let factor = factor(code, most);
        let mut codes = [0; SHARE];
        for (code, value) in codes.iter_mut().zip(values) {
            *code = nearest(wanted(*value, factor));
        }
        for (both, pair) in block[SHARE / 2 * number..].iter_mut().zip(codes.as_chunks::<2>().0) {
            *both = pair[0] << 4 | pair[1];
        }
    }
    block[NF4 / 2..].copy_from_slice(&factors.to_le_bytes()[..3]);
    block
}

/// What a place has to be for `value`.
#[inline(always)]
fn wanted(value: f32, factor: f32) -> f32 {
    if factor == 0.0 { 0.0 } else { value / factor }
}

/// The code of the place nearest to `wanted`: the number of middles below it.
#[inline(always)]
fn nearest(wanted: f32) -> u8 {
    let mut below = 0;
    for pair in PLACES.windows(2) {
        below += u8::from(wanted > f32::midpoint(pair[0], pair[1]));
    }
    below
}

/// The code of the factor by which `values` lose least, as the sum of squares.
#[inline(always)]
fn best_factor<S: Simd>(simd: S, values: &[f32; SHARE], most: f32) -> u8 {
    let size = largest(values) / most * f32::from(STEPS);
    let middle = (size.round_ties_even() as u8).clamp(1, STEPS) - 1;
    let (mut best, mut least) = (middle, f32::INFINITY);
    for code in middle.saturating_sub(SOUGHT[0])..=(middle + SOUGHT[1]).min(STEPS - 1) {
        let factor = factor(code, most);
        let [up, down] = lost(simd, values, factor);
        if up < least {
            (best, least) = (code, up);
        }
        if down < least {
            (best, least) = (code | TURNED, down);
        }
    }
    best
}

/// What `values` lose by `factor` and by its negative, both at once. Plain loops, here and in what calls it: closures are not sure to be
/// compiled for this machine's vectors, and most of the time of making blocks is here.
#[inline(always)]
fn lost<S: Simd>(simd: S, values: &[f32; SHARE], factor: f32) -> [f32; 2] {
    let times = if factor == 0.0 { 0.0 } else { 1.0 / factor };
    let mut wanted = [0.0; 2 * SHARE];
    for (place, value) in values.iter().enumerate() {
        wanted[place] = value * times;
        wanted[SHARE + place] = value * -times;
    }
    for wanted in S::as_mut_simd_f32s(&mut wanted).0 {
        let mut least = simd.splat_f32s(f32::INFINITY);
        for place in PLACES {
            let away = simd.sub_f32s(*wanted, simd.splat_f32s(place));
            least = simd.min_f32s(least, simd.mul_f32s(away, away));
        }
        *wanted = least;
    }
    let mut sums = [0.0; 2];
    for (sum, squares) in sums.iter_mut().zip(wanted.as_chunks::<SHARE>().0) {
        for square in squares {
            *sum += square;
        }
        *sum *= factor * factor;
    }
    sums
}

/// Of `bytes`, which hold rows of `columns` values and behind them all a factor a row, those from `first` on.
pub(super) fn read_int8(bytes: &[u8], len: usize, columns: usize, first: usize, mut out: &mut [f32]) {
    let mut at = first;
    while !out.is_empty() && columns > 0 {
        let (row, within) = (at / columns, at % columns);
        let (part, rest) = out.split_at_mut((columns - within).min(out.len()));
        let factor = f32_at(bytes, len + 4 * row);
        let codes = bytes.get(at..at + part.len()).unwrap_or_default();
        vectorised(
            #[inline(always)]
            || {
                for (out, code) in part.iter_mut().zip(codes) {
                    *out = f32::from(code.cast_signed()) * factor;
                }
            },
        );
        at += part.len();
        out = rest;
    }
}

/// Quantises rows of `columns` values into `out`, all of it.
pub(super) fn int8(values: &[f32], columns: usize, out: &mut [u8]) {
    let (codes, factors) = out.split_at_mut(values.len());
    let columns = columns.max(1);
    let rows = values.par_chunks(columns).zip(codes.par_chunks_mut(columns)).zip(factors.par_chunks_mut(4));
    rows.for_each(|((values, codes), factor)| {
        let largest = largest(values);
        factor.copy_from_slice(&(largest / 127.0).to_le_bytes());
        let times = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        for (value, code) in values.iter().zip(codes) {
            *code = ((value * times).round_ties_even() as i8).cast_unsigned();
        }
    });
}
