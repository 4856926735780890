//! Blocks that are made here: 4-bit NormalFloat with double quantisation (Dettmers et al. 2023, QLoRA), in smaller blocks and with
//! factors that have a sign, and int8 by rows (Dettmers et al. 2022, LLM.int8).

use rayon::prelude::*;

use crate::backend::cpu::parallel::vectorised;

/// Values that share a factor. QLoRA has 64: for a twentieth of a byte a value more, a model of 135 million parameters loses a fifth
/// of what it loses so.
pub(super) const NF4: usize = 16;

/// Factors that share one of their own.
const GROUP: usize = 256;

/// The steps of a factor to either side of the mean of all.
const STEPS: f32 = 63.0;

/// The bit of a factor's code that turns its sign. More places lie above zero than below, so a block that has more to say below
/// zero is better off upside down.
const TURNED: u8 = 0x80;

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

/// What a factor's code says but for its sign, in a group whose factors reach `most` from their `mean`: no less than 0.
#[inline(always)]
fn factor(code: u8, most: f32, mean: f32) -> f32 {
    let steps = f32::from(code & !TURNED) - STEPS;
    let factor = steps / STEPS * most + mean;
    // Not `max`, which would make 0 of NaN.
    if factor < 0.0 { 0.0 } else { factor }
}

/// The largest magnitude; NaN where there is one, so that what is made of it shows that, as no code could.
fn largest(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(0.0f32, |most, value| if most >= value.abs() || most.is_nan() { most } else { value.abs() })
}

/// What lies behind the codes of `len` values: a byte a block, an f32 a group of blocks, and the factors' mean.
pub(super) fn nf4_apart(len: usize) -> usize {
    let blocks = len.div_ceil(NF4);
    blocks + 4 * blocks.div_ceil(GROUP) + 4
}

fn f32_at(bytes: &[u8], place: usize) -> f32 {
    bytes.get(place..).and_then(|bytes| bytes.first_chunk()).map_or(0.0, |value| f32::from_le_bytes(*value))
}

/// Of `bytes`, which hold `len` values, those from `first` on.
pub(super) fn read_nf4(bytes: &[u8], len: usize, first: usize, mut out: &mut [f32]) {
    let blocks = len.div_ceil(NF4);
    let scales = NF4 / 2 * blocks;
    let mean = f32_at(bytes, scales + blocks + 4 * blocks.div_ceil(GROUP));
    let mut at = first;
    while !out.is_empty() {
        let (block, within) = (at / NF4, at % NF4);
        let (part, rest) = out.split_at_mut((NF4 - within).min(out.len()));
        let group = f32_at(bytes, scales + blocks + 4 * (block / GROUP));
        let code = bytes.get(scales + block).copied().unwrap_or(0);
        let factor = factor(code, group, mean) * if code & TURNED == 0 { 1.0 } else { -1.0 };
        let codes = bytes.get(NF4 / 2 * block..NF4 / 2 * (block + 1)).unwrap_or_default();
        match (<&mut [f32; NF4]>::try_from(&mut *part), codes.first_chunk()) {
            (Ok(out), Some(codes)) => whole_nf4(codes, factor, out),
            _ => {
                for (place, out) in (within..).zip(part.iter_mut()) {
                    let both = codes.get(place / 2).copied().unwrap_or(0);
                    let code = if place % 2 == 0 { both >> 4 } else { both & 15 };
                    *out = PLACES[usize::from(code)] * factor;
                }
            }
        }
        at += part.len();
        out = rest;
    }
}

#[inline(always)]
fn whole_nf4(codes: &[u8; NF4 / 2], factor: f32, out: &mut [f32; NF4]) {
    vectorised(
        #[inline(always)]
        || {
            // Products with the places, so that a value is one look-up.
            let places = PLACES.map(|place| place * factor);
            for (both, out) in codes.iter().zip(out.as_chunks_mut::<2>().0) {
                // The upper half is the first value.
                *out = [places[usize::from(both >> 4)], places[usize::from(both & 15)]];
            }
        },
    );
}

/// Quantises `values` into `out`, all of it.
pub(super) fn nf4(values: &[f32], out: &mut [u8]) {
    let blocks = values.len().div_ceil(NF4);
    let (codes, apart) = out.split_at_mut(NF4 / 2 * blocks);
    let (scales, groups) = apart.split_at_mut(blocks);
    let largest: Vec<f32> = values.par_chunks(NF4).map(largest).collect();
    // In order, so that it has the same bits on any number of threads.
    let mean = (largest.iter().map(|x| f64::from(*x)).sum::<f64>() / largest.len().max(1) as f64) as f32;
    let (means, groups) = match groups.split_last_chunk_mut::<4>() {
        Some((groups, last)) => (last, groups),
        None => return,
    };
    *means = mean.to_le_bytes();
    let groups = groups.as_chunks_mut::<4>().0;
    let blocks = values.par_chunks(GROUP * NF4).zip(codes.par_chunks_mut(GROUP * NF4 / 2));
    let factors = largest.par_chunks(GROUP).zip(scales.par_chunks_mut(GROUP)).zip(groups);
    blocks.zip(factors).for_each(|((values, codes), ((largest, scales), group))| {
        let most = largest.iter().fold(0.0f32, |most, factor| most.max((factor - mean).abs()));
        *group = most.to_le_bytes();
        let blocks = values.chunks(NF4).zip(codes.chunks_mut(NF4 / 2));
        for ((largest, scale), (values, codes)) in largest.iter().zip(scales).zip(blocks) {
            let part = if most > 0.0 { (largest - mean) / most } else { 0.0 };
            *scale = ((part * STEPS).round_ties_even() + STEPS) as u8;
            // By the factor that will be read, not by the one that it stands for.
            let factor = factor(*scale, most, mean);
            let [up, down] = [factor, -factor].map(|factor| nearest(values, factor));
            let (found, turned) = if down.1 < up.1 { (down.0, TURNED) } else { (up.0, 0) };
            *scale |= turned;
            for (pair, both) in found.as_chunks::<2>().0.iter().zip(codes) {
                *both = pair[0] << 4 | pair[1];
            }
        }
    });
}

/// The code of the place nearest to each value of a block, and the sum of the squares of what they miss.
fn nearest(values: &[f32], factor: f32) -> ([u8; NF4], f32) {
    let (mut codes, mut missed) = ([0; NF4], 0.0);
    for (place, code) in codes.iter_mut().enumerate() {
        let value = values.get(place).copied().unwrap_or(0.0);
        let wanted = if factor == 0.0 { 0.0 } else { value / factor };
        // The number of middles below it.
        *code = PLACES.windows(2).filter(|pair| wanted > f32::midpoint(pair[0], pair[1])).count() as u8;
        missed += (PLACES[usize::from(*code)] * factor - value).powi(2);
    }
    (codes, missed)
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
