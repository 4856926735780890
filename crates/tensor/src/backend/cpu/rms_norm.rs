//! RMS norm (Zhang and Sennrich 2019), one pass a row.

use rayon::prelude::*;

use super::math::{dot, sum, widen};
use super::parallel::{rows_per_block, vectorised};
use crate::backend::RmsNorm;
use crate::dtype::{Element, Values};

pub(super) fn forward<E: Element>(norm: &RmsNorm<'_>, out: &mut [E], rstd: &mut [f32]) {
    let (columns, x) = (norm.weight.len(), E::of(norm.x));
    if columns == 0 {
        return;
    }
    let rows = rows_per_block(columns);
    out.par_chunks_mut(rows * columns)
        .zip(x.par_chunks(rows * columns))
        .zip(rstd.par_chunks_mut(rows))
        .for_each(|((out, x), rstd)| {
            vectorised(
                #[inline(always)]
                || {
                    let mut wide = vec![0.0; columns];
                    let rows = out.chunks_exact_mut(columns).zip(x.chunks_exact(columns)).zip(rstd);
                    for ((out, x), rstd) in rows {
                        widen(x, &mut wide);
                        let mean = sum(&wide, |x| x * x) / columns as f32;
                        *rstd = 1.0 / (mean + norm.epsilon).sqrt();
                        for ((out, x), weight) in out.iter_mut().zip(&wide).zip(norm.weight) {
                            *out = E::put(x * *rstd * weight);
                        }
                    }
                },
            );
        });
}

/// With `n = x rstd` and `d = gradient weight`: `dx (+)= rstd (d - n mean(d n))`.
pub(super) fn backward<E: Element>(
    gradient: Values<'_>,
    norm: &RmsNorm<'_>,
    rstd: &[f32],
    dx: &mut [E],
    accumulate: bool,
) {
    let columns = norm.weight.len();
    let (x, gradient) = (E::of(norm.x), E::of(gradient));
    if columns == 0 {
        return;
    }
    let rows = rows_per_block(columns);
    dx.par_chunks_mut(rows * columns)
        .zip(x.par_chunks(rows * columns).zip(gradient.par_chunks(rows * columns)))
        .zip(rstd.par_chunks(rows))
        .for_each(|((dx, (x, gradient)), rstd)| {
            vectorised(
                #[inline(always)]
                || {
                    let (mut d, mut wide) = (vec![0.0; columns], vec![0.0; columns]);
                    let inputs = x.chunks_exact(columns).zip(gradient.chunks_exact(columns));
                    for ((dx, (x, gradient)), rstd) in dx.chunks_exact_mut(columns).zip(inputs).zip(rstd) {
                        for ((d, g), weight) in d.iter_mut().zip(gradient).zip(norm.weight) {
                            *d = g.get() * weight;
                        }
                        widen(x, &mut wide);
                        let along = dot(&d, &wide) * rstd * rstd / columns as f32;
                        let values = dx.iter_mut().zip(d.iter().zip(&wide));
                        if accumulate {
                            for (dx, (d, x)) in values {
                                *dx = E::put(dx.get() + rstd * (d - x * along));
                            }
                        } else {
                            for (dx, (d, x)) in values {
                                *dx = E::put(rstd * (d - x * along));
                            }
                        }
                    }
                },
            );
        });
}

/// `dweight (+)= ` the sum over the rows of `gradient x rstd`.
pub(super) fn weight_backward<E: Element>(
    gradient: &[E],
    norm: &RmsNorm<'_>,
    rstd: &[f32],
    dweight: &mut [f32],
    accumulate: bool,
) {
    let (columns, x) = (dweight.len(), E::of(norm.x));
    if columns == 0 {
        return;
    }
    super::elementwise::sum_in_parts(rstd.len(), dweight, accumulate, |range, sums| {
        vectorised(
            #[inline(always)]
            || {
                let values = range.start * columns..range.end * columns;
                let rows =
                    gradient[values.clone()].chunks_exact(columns).zip(x[values].chunks_exact(columns));
                for ((gradient, x), rstd) in rows.zip(&rstd[range.clone()]) {
                    for ((sum, g), x) in sums.iter_mut().zip(gradient).zip(x) {
                        *sum += g.get() * (x.get() * rstd);
                    }
                }
            },
        );
    });
}
