//! Rotary positions: pairs of channels turned by angles that grow with the position.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::math::widen;
use super::parallel::{dispatch, rows_per_block, vectorised};
use crate::backend::{Layout, Rotary};
use crate::dtype::Element;

pub(super) fn turn<E: Element>(values: &mut [E], layout: &Layout, rotary: &Rotary, back: bool) {
    let columns = values.len() / layout.tokens().max(1);
    let (half, head_size) = (rotary.frequencies.len(), rotary.head_size());
    if columns == 0 || half == 0 {
        return;
    }
    let positions = || layout.counters().iter().map(|[position, ..]| *position);
    let (Some(first), Some(last)) = (positions().min(), positions().max()) else { return };
    let angles = angles(rotary, first..=last, back);
    let angles = &*angles;
    let rows = rows_per_block(columns);
    values.par_chunks_mut(rows * columns).zip(layout.counters().par_chunks(rows)).for_each(
        |(values, places)| {
            vectorised(
                #[inline(always)]
                || {
                    let mut wide = vec![0.0; columns];
                    for (row, [position, ..]) in values.chunks_exact_mut(columns).zip(places) {
                        let angles = &angles[(*position - first) as usize * head_size..][..head_size];
                        widen(row, &mut wide);
                        dispatch(Turn { heads: &mut wide, angles });
                        for (to, x) in row.iter_mut().zip(&wide) {
                            *to = E::put(*x);
                        }
                    }
                },
            );
        },
    );
}

/// The heads of a token by the cosines and sines of its position; by vectors as types, since heads are short, and a loop that is
/// unrolled for long ones turns them value by value.
struct Turn<'a> {
    heads: &'a mut [f32],
    angles: &'a [f32],
}

impl WithSimd for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Turn { heads, angles } = self;
        let half = angles.len() / 2;
        let (cosines, sines) = angles.split_at(half);
        let vectors = half / S::F32_LANES;
        for first in (0..heads.len()).step_by(2 * half) {
            let (left, right) = heads[first..][..2 * half].split_at_mut(half);
            let all_left = &mut S::as_mut_simd_f32s(left).0[..vectors];
            let all_right = &mut S::as_mut_simd_f32s(right).0[..vectors];
            let cosine = &S::as_simd_f32s(cosines).0[..vectors];
            let sine = &S::as_simd_f32s(sines).0[..vectors];
            for place in 0..vectors {
                let (a, b) = (all_left[place], all_right[place]);
                let turned = simd.mul_f32s(b, sine[place]);
                all_left[place] = simd.sub_f32s(simd.mul_f32s(a, cosine[place]), turned);
                let turned = simd.mul_f32s(a, sine[place]);
                all_right[place] = simd.add_f32s(simd.mul_f32s(b, cosine[place]), turned);
            }
            for place in vectors * S::F32_LANES..half {
                let (a, b) = (left[place], right[place]);
                left[place] = a * cosines[place] - b * sines[place];
                right[place] = b * cosines[place] + a * sines[place];
            }
        }
    }
}

/// What angles were asked for, and these.
struct Table {
    rotary: Rotary,
    positions: RangeInclusive<u32>,
    angles: Arc<[f32]>,
}

/// The tables of the last ways forward and back: all blocks of a model ask for the same, and an angle costs more than what is
/// turned by it.
static LAST: Mutex<[Option<Table>; 2]> = Mutex::new([None, None]);

/// For each position the cosines, then the sines, of its angles; of minus the angles to turn back.
fn angles(rotary: &Rotary, positions: RangeInclusive<u32>, back: bool) -> Arc<[f32]> {
    let place = usize::from(back);
    // A table is put there whole, so it is good whatever happened to who held the lock.
    let last = || LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(table) = &last()[place]
        && (&table.rotary, &table.positions) == (rotary, &positions)
    {
        return table.angles.clone();
    }
    let angles: Arc<[f32]> = computed(rotary, positions.clone(), back).into();
    last()[place] = Some(Table { rotary: rotary.clone(), positions, angles: angles.clone() });
    angles
}

fn computed(rotary: &Rotary, positions: RangeInclusive<u32>, back: bool) -> Vec<f32> {
    let (frequencies, scale) = (&rotary.frequencies, f64::from(rotary.scale));
    let (first, count) = (*positions.start(), positions.count());
    let mut table = vec![0.0; count * rotary.head_size()];
    table.par_chunks_mut(rotary.head_size()).zip(first..first + count as u32).for_each(|(row, position)| {
        let (cosines, sines) = row.split_at_mut(frequencies.len());
        for ((cosine, sine), frequency) in cosines.iter_mut().zip(sines).zip(frequencies.iter()) {
            let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
            *cosine = (scale * cos) as f32;
            *sine = (scale * if back { -sin } else { sin }) as f32;
        }
    });
    table
}
