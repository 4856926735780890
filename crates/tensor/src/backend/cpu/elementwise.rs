//! Passes over values: one read, one write, in blocks.

use rayon::prelude::*;

use super::parallel::{BLOCK, rows_per_block, vectorised};
use crate::Blocks;
use crate::backend::{Dropout, Layout};
use crate::dtype::Element;

pub(super) fn zero<E: Element>(values: &mut [E]) {
    values.par_chunks_mut(BLOCK).for_each(|block| block.fill(E::zeroed()));
}

pub(super) fn copy<E: Element, F: Element>(from: &[E], to: &mut [F]) {
    to.par_chunks_mut(BLOCK).zip(from.par_chunks(BLOCK)).for_each(|(to, from)| {
        vectorised(
            #[inline(always)]
            || to.iter_mut().zip(from).for_each(|(to, from)| *to = F::put(from.get())),
        );
    });
}

/// The same of blocks.
pub(super) fn copy_blocks<F: Element>(from: Blocks<'_>, to: &mut [F]) {
    to.par_chunks_mut(BLOCK).enumerate().for_each(|(index, to)| {
        let mut part = vec![0.0; to.len()];
        from.from(index * BLOCK).read(&mut part);
        copy(&part, to);
    });
}

pub(super) fn add_assign<E: Element, F: Element>(sum: &mut [E], more: &[F]) {
    sum.par_chunks_mut(BLOCK).zip(more.par_chunks(BLOCK)).for_each(|(sum, more)| {
        vectorised(
            #[inline(always)]
            || sum.iter_mut().zip(more).for_each(|(sum, more)| *sum = E::put(sum.get() + more.get())),
        );
    });
}

pub(super) fn scale<E: Element>(values: &mut [E], factor: f32) {
    values.par_chunks_mut(BLOCK).for_each(|block| {
        vectorised(
            #[inline(always)]
            || {
                for x in block.iter_mut() {
                    *x = E::put(x.get() * factor);
                }
            },
        );
    });
}

pub(super) fn sum_of_squares(values: &[f32]) -> f64 {
    let blocks: Vec<f64> = values
        .par_chunks(BLOCK)
        .map(|block| {
            vectorised(
                #[inline(always)]
                || {
                    let mut lanes = [0.0f64; 8];
                    let (whole, rest) = block.as_chunks::<8>();
                    for chunk in whole {
                        for lane in 0..8 {
                            lanes[lane] += f64::from(chunk[lane]) * f64::from(chunk[lane]);
                        }
                    }
                    lanes.iter().sum::<f64>()
                        + rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>()
                },
            )
        })
        .collect();
    blocks.iter().sum()
}

/// The sum over a table that is 0 but for these rows, by the very additions of [`sum_of_squares`] that change anything.
pub(super) fn sum_of_squares_of_rows(values: &[f32], rows: &[u32], [entries, columns]: [usize; 2]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    // What is left of the last block when it is cut in eights has no lane.
    let whole = entries * columns / 8 * 8;
    let (mut total, mut block) = (0.0f64, 0);
    let (mut lanes, mut rest) = ([0.0f64; 8], 0.0);
    for (row, mut values) in rows.iter().zip(values.chunks_exact(columns.max(1))) {
        let mut place = *row as usize * columns;
        while !values.is_empty() {
            if place / BLOCK != block {
                total += lanes.iter().sum::<f64>() + rest;
                (lanes, rest, block) = ([0.0; 8], 0.0, place / BLOCK);
            }
            let (piece, next) = values.split_at(values.len().min(BLOCK - place % BLOCK));
            let eights = if place.is_multiple_of(8) { piece.len() / 8 * 8 } else { 0 };
            vectorised(
                #[inline(always)]
                || {
                    for chunk in piece[..eights].as_chunks::<8>().0 {
                        for lane in 0..8 {
                            lanes[lane] += square(chunk[lane]);
                        }
                    }
                },
            );
            for (place, x) in (place + eights..).zip(&piece[eights..]) {
                if place < whole { lanes[place % 8] += square(*x) } else { rest += square(*x) }
            }
            place += piece.len();
            values = next;
        }
    }
    total + (lanes.iter().sum::<f64>() + rest)
}

/// Rows in sixteen parts, each summed in order, then the parts: what is read lies side by side.
pub(super) fn sum_rows<E: Element>(values: &[E], out: &mut [f32], accumulate: bool) {
    let columns = out.len();
    sum_in_parts(values.len() / columns.max(1), out, accumulate, |range, sums| {
        vectorised(
            #[inline(always)]
            || {
                let values = &values[range.start * columns..range.end * columns];
                for row in values.chunks_exact(columns) {
                    for (sum, x) in sums.iter_mut().zip(row) {
                        *sum += x.get();
                    }
                }
            },
        );
    });
}

/// `out (+)= ` what `add` adds up over sixteen ranges of `rows`, each into sums of its own.
pub(super) fn sum_in_parts(
    rows: usize,
    out: &mut [f32],
    accumulate: bool,
    add: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync,
) {
    const PARTS: usize = 16;
    let len = out.len();
    if len == 0 {
        return;
    }
    let each = rows.div_ceil(PARTS).max(1);
    let mut parts = vec![0.0; rows.div_ceil(each).max(1) * len];
    parts.par_chunks_mut(len).enumerate().with_max_len(1).for_each(|(part, sums)| {
        add(part * each..((part + 1) * each).min(rows), sums);
    });
    if !accumulate {
        out.fill(0.0);
    }
    for part in parts.chunks_exact(len) {
        vectorised(
            #[inline(always)]
            || {
                for (sum, x) in out.iter_mut().zip(part) {
                    *sum += x;
                }
            },
        );
    }
}

pub(super) fn dropout<E: Element>(values: &mut [E], layout: &Layout, dropout: Dropout) {
    let columns = values.len() / layout.tokens().max(1);
    if columns == 0 {
        return;
    }
    let rows = rows_per_block(columns);
    values.par_chunks_mut(rows * columns).zip(layout.counters().par_chunks(rows)).for_each(
        |(values, places)| {
            for (row, place) in values.chunks_exact_mut(columns).zip(places) {
                dropout.mask(dropout.key, *place, 1.0, row);
            }
        },
    );
}
