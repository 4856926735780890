//! Rotary positions: pairs of channels turned by angles that grow with the position.

use rayon::prelude::*;

use super::parallel::{rows_per_block, vectorised};
use crate::backend::{Layout, Rotary};
use crate::dtype::Element;

pub(super) fn turn<E: Element>(values: &mut [E], layout: &Layout, rotary: Rotary, back: bool) {
    let columns = values.len() / layout.tokens().max(1);
    let half = rotary.head_size / 2;
    if columns == 0 || half == 0 {
        return;
    }
    let longest = layout.cu_seqlens().windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0);
    let angles = angles(rotary, longest, back);
    let rows = rows_per_block(columns);
    values.par_chunks_mut(rows * columns).zip(layout.counters().par_chunks(rows)).for_each(
        |(values, places)| {
            vectorised(
                #[inline(always)]
                || {
                    for (row, [position, ..]) in values.chunks_exact_mut(columns).zip(places) {
                        let angles = &angles[*position as usize * rotary.head_size..][..rotary.head_size];
                        let (cosines, sines) = angles.split_at(half);
                        for head in row.chunks_exact_mut(rotary.head_size) {
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

/// For each position the cosines, then the sines, of its angles; of minus the angles to turn back.
fn angles(rotary: Rotary, positions: usize, back: bool) -> Vec<f32> {
    let Rotary { head_size, theta } = rotary;
    // Rounded where transformers rounds: at thousands of positions the last bit of a frequency is 1e-3 of an angle.
    let frequencies: Vec<f32> =
        (0..head_size / 2).map(|pair| 1.0 / theta.powf((2 * pair) as f32 / head_size as f32)).collect();
    let mut table = vec![0.0; positions * head_size];
    table.par_chunks_mut(head_size).enumerate().for_each(|(position, row)| {
        let (cosines, sines) = row.split_at_mut(frequencies.len());
        for ((cosine, sine), frequency) in cosines.iter_mut().zip(sines).zip(&frequencies) {
            let angle = f64::from(position as f32 * frequency);
            let (sin, cos) = angle.sin_cos();
            *cosine = cos as f32;
            *sine = if back { -sin } else { sin } as f32;
        }
    });
    table
}
