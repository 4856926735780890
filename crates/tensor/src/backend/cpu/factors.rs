//! Products with vectors, value by value: what scales rows and columns, and the sums that their gradients are.

use rayon::prelude::*;

use super::activation::activate;
use super::parallel::{Disjoint, rows_per_block, vectorised};
use crate::backend::Ends;
use crate::dtype::Element;

pub(super) fn scale_columns(values: &[f32], factors: &[f32], ends: Ends<'_>, out: &mut [f32]) {
    let columns = factors.len();
    if columns == 0 {
        return;
    }
    let rows = rows_per_block(columns);
    let Ends { bias, activation, before_activation } = ends;
    let before = before_activation.map(|before| Disjoint::new(f32::of_mut(before)));
    out.par_chunks_mut(rows * columns).zip(values.par_chunks(rows * columns)).enumerate().for_each(
        |(index, (out, values))| {
            vectorised(
                #[inline(always)]
                || {
                    for (out, row) in out.chunks_exact_mut(columns).zip(values.chunks_exact(columns)) {
                        out.iter_mut().zip(row).zip(factors).for_each(|((out, x), factor)| *out = x * factor);
                        if let Some(bias) = bias {
                            out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
                        }
                    }
                },
            );
            if let Some(before) = &before {
                let first = index * rows * columns;
                #[expect(unsafe_code, reason = "two outputs in step")]
                // SAFETY: the range is this block's own.
                unsafe { before.slice(first..first + out.len()) }.copy_from_slice(out);
            }
            vectorised(
                #[inline(always)]
                || activate(activation, out),
            );
        },
    );
}

pub(super) fn scale_rows(values: &[f32], factors: &[f32], out: &mut [f32]) {
    let columns = out.len() / factors.len().max(1);
    if columns == 0 {
        return;
    }
    let rows = rows_per_block(columns);
    out.par_chunks_mut(rows * columns)
        .zip(values.par_chunks(rows * columns))
        .zip(factors.par_chunks(rows))
        .for_each(|((out, values), factors)| {
            vectorised(
                #[inline(always)]
                || {
                    let pairs = out.chunks_exact_mut(columns).zip(values.chunks_exact(columns));
                    for ((out, row), factor) in pairs.zip(factors) {
                        out.iter_mut().zip(row).for_each(|(out, x)| *out = x * factor);
                    }
                },
            );
        });
}

/// Column blocks run over all rows in order: the sum's order is that of the rows.
pub(super) fn dot_columns(left: &[f32], right: &[f32], out: &mut [f32], accumulate: bool) {
    let columns = out.len();
    const WIDTH: usize = 128;
    out.par_chunks_mut(WIDTH).enumerate().for_each(|(index, sums)| {
        vectorised(
            #[inline(always)]
            || {
                if !accumulate {
                    sums.fill(0.0);
                }
                for (left, right) in left.chunks_exact(columns).zip(right.chunks_exact(columns)) {
                    let left = &left[index * WIDTH..][..sums.len()];
                    let right = &right[index * WIDTH..][..sums.len()];
                    sums.iter_mut().zip(left).zip(right).for_each(|((sum, a), b)| *sum += a * b);
                }
            },
        );
    });
}

/// Each sum is one row's, in f64, which costs little beside what reads the rows.
pub(super) fn dot_rows(left: &[f32], right: &[f32], out: &mut [f32], accumulate: bool) {
    let columns = left.len() / out.len().max(1);
    if columns == 0 {
        if !accumulate {
            out.fill(0.0);
        }
        return;
    }
    let rows = rows_per_block(columns);
    out.par_chunks_mut(rows)
        .zip(left.par_chunks(rows * columns))
        .zip(right.par_chunks(rows * columns))
        .for_each(|((out, left), right)| {
            for ((out, left), right) in
                out.iter_mut().zip(left.chunks_exact(columns)).zip(right.chunks_exact(columns))
            {
                let products = left.iter().zip(right).map(|(a, b)| f64::from(*a) * f64::from(*b));
                let sum = products.sum::<f64>() as f32;
                *out = if accumulate { *out + sum } else { sum };
            }
        });
}

/// A square that rounding made negative, or none at all, counts as the smallest that divides.
pub(super) fn divide_by_root(values: &[f32], squares: &[f32], out: &mut [f32]) {
    for ((out, x), square) in out.iter_mut().zip(values).zip(squares) {
        *out = x / square.max(f32::MIN_POSITIVE).sqrt();
    }
}

/// Row `i, k` and column `j, l` of the result is `left[i, j] right[k, l]`.
pub(super) fn kronecker(
    [left, right]: [&[f32]; 2],
    [[_, b], [c, d]]: [[usize; 2]; 2],
    scale: f32,
    out: &mut [f32],
) {
    if b * d == 0 {
        return;
    }
    out.par_chunks_mut(b * d).enumerate().for_each(|(row, out)| {
        let (left, right) = (&left[row / c * b..][..b], &right[row % c * d..][..d]);
        vectorised(
            #[inline(always)]
            || {
                for (out, factor) in out.chunks_exact_mut(d).zip(left) {
                    out.iter_mut().zip(right).for_each(|(out, x)| *out += scale * factor * x);
                }
            },
        );
    });
}

/// The gradients of [`kronecker`] by both, for `gradient` by its result.
pub(super) fn kronecker_backward(
    [left, right]: [&[f32]; 2],
    [[_, b], [c, d]]: [[usize; 2]; 2],
    scale: f32,
    gradient: &[f32],
    [dleft, dright]: [&mut [f32]; 2],
) {
    if b * d == 0 {
        return;
    }
    dleft.par_chunks_mut(b).enumerate().for_each(|(i, dleft)| {
        for (j, dleft) in dleft.iter_mut().enumerate() {
            let sum: f64 = (0..c)
                .map(|k| {
                    let (row, right) = (&gradient[((i * c + k) * b + j) * d..][..d], &right[k * d..][..d]);
                    row.iter().zip(right).map(|(g, x)| f64::from(*g) * f64::from(*x)).sum::<f64>()
                })
                .sum();
            *dleft = scale * sum as f32;
        }
    });
    dright.par_chunks_mut(d).enumerate().for_each(|(k, dright)| {
        dright.fill(0.0);
        for (place, factor) in left.iter().enumerate() {
            let row = &gradient[((place / b * c + k) * b + place % b) * d..][..d];
            vectorised(
                #[inline(always)]
                || dright.iter_mut().zip(row).for_each(|(sum, g)| *sum += scale * factor * g),
            );
        }
    });
}
