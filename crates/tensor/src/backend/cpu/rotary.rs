//! Rotary positions: pairs of channels turned by angles that grow with the position.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::parallel::{rows_per_block, vectorised};
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
                    for (row, [position, ..]) in values.chunks_exact_mut(columns).zip(places) {
                        let angles = &angles[(*position - first) as usize * head_size..][..head_size];
                        let (cosines, sines) = angles.split_at(half);
                        for head in row.chunks_exact_mut(head_size) {
                            let (left, right) = head.split_at_mut(half);
                            let pairs = left.iter_mut().zip(right).zip(cosines.iter().zip(sines));
                            for ((left, right), (cosine, sine)) in pairs {
                                let (a, b) = (left.get(), right.get());
                                *left = E::put(a * cosine - b * sine);
                                *right = E::put(b * cosine + a * sine);
                            }
                        }
                    }
                },
            );
        },
    );
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
