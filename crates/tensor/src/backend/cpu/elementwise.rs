//! Passes over values: one read, one write, in blocks.

use rayon::prelude::*;

use super::math;
use super::parallel::{BLOCK, rows_per_block, vectorised};
use crate::backend::{Activation, Dropout, Layout};

pub(super) fn zero(values: &mut [f32]) {
    values.par_chunks_mut(BLOCK).for_each(|block| block.fill(0.0));
}

pub(super) fn copy(from: &[f32], to: &mut [f32]) {
    to.par_chunks_mut(BLOCK).zip(from.par_chunks(BLOCK)).for_each(|(to, from)| to.copy_from_slice(from));
}

pub(super) fn add_assign(sum: &mut [f32], more: &[f32]) {
    sum.par_chunks_mut(BLOCK).zip(more.par_chunks(BLOCK)).for_each(|(sum, more)| {
        vectorised(
            #[inline(always)]
            || sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more),
        );
    });
}

pub(super) fn scale(values: &mut [f32], factor: f32) {
    values.par_chunks_mut(BLOCK).for_each(|block| {
        vectorised(
            #[inline(always)]
            || block.iter_mut().for_each(|x| *x *= factor),
        )
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

/// `values = f(values)`: one loop for each function, so that each is vectorised.
#[inline(always)]
pub(super) fn activate(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Identity => {}
        Activation::Gelu => values.iter_mut().for_each(|x| *x = math::gelu(*x)),
        Activation::GeluTanh => values.iter_mut().for_each(|x| *x = math::gelu_tanh(*x)),
        Activation::Relu => values.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
        Activation::Silu => values.iter_mut().for_each(|x| *x *= math::sigmoid(*x)),
        Activation::Tanh => values.iter_mut().for_each(|x| *x = math::tanh(*x)),
    }
}

/// `gradient *= f'(before)`, likewise.
#[inline(always)]
fn differentiate(activation: Activation, before: &[f32], gradient: &mut [f32]) {
    let pairs = gradient.iter_mut().zip(before);
    match activation {
        Activation::Identity => {}
        Activation::Gelu => pairs.for_each(|(g, x)| *g *= math::gelu_derivative(*x)),
        Activation::GeluTanh => pairs.for_each(|(g, x)| *g *= math::gelu_tanh_derivative(*x)),
        Activation::Relu => pairs.for_each(|(g, x)| *g = if *x > 0.0 { *g } else { 0.0 }),
        Activation::Silu => pairs.for_each(|(g, x)| {
            let s = math::sigmoid(*x);
            *g *= s * (1.0 + *x * (1.0 - s));
        }),
        Activation::Tanh => pairs.for_each(|(g, x)| {
            let t = math::tanh(*x);
            *g *= 1.0 - t * t;
        }),
    }
}

pub(super) fn activation_backward(activation: Activation, before: &[f32], gradient: &mut [f32]) {
    gradient.par_chunks_mut(BLOCK).zip(before.par_chunks(BLOCK)).for_each(|(gradient, before)| {
        vectorised(
            #[inline(always)]
            || differentiate(activation, before, gradient),
        )
    });
}

pub(super) fn gated(activation: Activation, values: &[f32], columns: usize, out: &mut [f32]) {
    if columns == 0 {
        return;
    }
    let rows = rows_per_block(2 * columns);
    out.par_chunks_mut(rows * columns).zip(values.par_chunks(2 * rows * columns)).for_each(
        |(out, values)| {
            vectorised(
                #[inline(always)]
                || {
                    for (out, row) in out.chunks_exact_mut(columns).zip(values.chunks_exact(2 * columns)) {
                        let (input, gate) = row.split_at(columns);
                        out.copy_from_slice(input);
                        activate(activation, out);
                        out.iter_mut().zip(gate).for_each(|(x, gate)| *x *= gate);
                    }
                },
            );
        },
    );
}

/// With `y = f(a) b`: `da = dy b f'(a)`, `db = dy f(a)`.
pub(super) fn gated_backward(
    activation: Activation,
    values: &[f32],
    gradient: &[f32],
    columns: usize,
    out: &mut [f32],
) {
    if columns == 0 {
        return;
    }
    let rows = rows_per_block(2 * columns);
    out.par_chunks_mut(2 * rows * columns)
        .zip(values.par_chunks(2 * rows * columns))
        .zip(gradient.par_chunks(rows * columns))
        .for_each(|((out, values), gradient)| {
            vectorised(
                #[inline(always)]
                || {
                    let rows = out.chunks_exact_mut(2 * columns).zip(values.chunks_exact(2 * columns));
                    for ((out, row), gradient) in rows.zip(gradient.chunks_exact(columns)) {
                        let (input, gate) = row.split_at(columns);
                        let (dinput, dgate) = out.split_at_mut(columns);
                        dinput.iter_mut().zip(gradient).zip(gate).for_each(|((d, g), gate)| *d = g * gate);
                        differentiate(activation, input, dinput);
                        dgate.copy_from_slice(input);
                        activate(activation, dgate);
                        dgate.iter_mut().zip(gradient).for_each(|(d, g)| *d *= g);
                    }
                },
            );
        });
}

/// Column blocks run over all rows in order: the sum's order is that of the rows.
pub(super) fn sum_rows(values: &[f32], out: &mut [f32], accumulate: bool) {
    let columns = out.len();
    if columns == 0 {
        return;
    }
    const WIDTH: usize = 128;
    out.par_chunks_mut(WIDTH).enumerate().for_each(|(index, sums)| {
        vectorised(
            #[inline(always)]
            || {
                if !accumulate {
                    sums.fill(0.0);
                }
                for row in values.chunks_exact(columns) {
                    let part = &row[index * WIDTH..][..sums.len()];
                    sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
                }
            },
        );
    });
}

pub(super) fn dropout(values: &mut [f32], layout: &Layout, dropout: Dropout) {
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
