//! Layer norm over the sum of a residual and a dropped-out input (Ba et al. 2016), one pass a row.

use rayon::prelude::*;

use super::math::{sum, sum2};
use super::parallel::{rows_per_block, vectorised};
use crate::backend::{LayerNorm, LayerNormSaved};

pub(super) fn forward(norm: &LayerNorm<'_>, out: &mut [f32], normal: &mut [f32], rstd: &mut [f32]) {
    let columns = norm.weight.len();
    if columns == 0 {
        return;
    }
    let rows = rows_per_block(columns);
    out.par_chunks_mut(rows * columns)
        .zip(normal.par_chunks_mut(rows * columns))
        .zip(rstd.par_chunks_mut(rows))
        .enumerate()
        .for_each(|(index, ((out, normal), rstd))| {
            vectorised(
                #[inline(always)]
                || {
                    let rows = out.chunks_exact_mut(columns).zip(normal.chunks_exact_mut(columns)).zip(rstd);
                    for (row, ((out, normal), rstd)) in rows.enumerate() {
                        let token = index * rows_per_block(columns) + row;
                        let range = token * columns..(token + 1) * columns;
                        normal.copy_from_slice(&norm.x[range.clone()]);
                        if let Some((dropout, layout)) = norm.dropout {
                            dropout.mask(dropout.key, layout.counters()[token], 1.0, normal);
                        }
                        if let Some(residual) = norm.residual {
                            normal.iter_mut().zip(&residual[range]).for_each(|(z, r)| *z += r);
                        }
                        let mean = sum(normal, |z| z) / columns as f32;
                        let variance = sum(normal, |z| (z - mean) * (z - mean)) / columns as f32;
                        *rstd = 1.0 / (variance + norm.epsilon).sqrt();
                        for ((z, out), weight) in normal.iter_mut().zip(out.iter_mut()).zip(norm.weight) {
                            *z = (*z - mean) * *rstd;
                            *out = *z * weight;
                        }
                        if let Some(bias) = norm.bias {
                            out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
                        }
                    }
                },
            );
        });
}

pub(super) fn backward(
    gradient: &[f32],
    saved: &LayerNormSaved<'_>,
    dz: Option<&mut [f32]>,
    dweight: Option<(&mut [f32], bool)>,
    dbias: Option<(&mut [f32], bool)>,
) {
    let columns = saved.weight.len();
    if columns == 0 {
        return;
    }
    if let Some(dz) = dz {
        let rows = rows_per_block(columns);
        dz.par_chunks_mut(rows * columns).enumerate().for_each(|(index, dz)| {
            vectorised(
                #[inline(always)]
                || {
                    for (row, dz) in dz.chunks_exact_mut(columns).enumerate() {
                        let token = index * rows + row;
                        let range = token * columns..(token + 1) * columns;
                        let normal = &saved.normal[range.clone()];
                        for ((dz, g), weight) in dz.iter_mut().zip(&gradient[range]).zip(saved.weight) {
                            *dz = g * weight;
                        }
                        let mean = sum(dz, |d| d) / columns as f32;
                        let along = sum2(dz, normal, |d, n| d * n) / columns as f32;
                        let rstd = saved.rstd[token];
                        dz.iter_mut().zip(normal).for_each(|(d, n)| *d = rstd * (*d - mean - n * along));
                    }
                },
            );
        });
    }
    if let Some((dweight, accumulate)) = dweight {
        sum_products(gradient, saved.normal, dweight, accumulate);
    }
    if let Some((dbias, accumulate)) = dbias {
        super::elementwise::sum_rows(gradient, dbias, accumulate);
    }
}

/// `out (+)= sum over rows of left * right`; column blocks run over all rows in order.
fn sum_products(left: &[f32], right: &[f32], out: &mut [f32], accumulate: bool) {
    const WIDTH: usize = 128;
    let columns = out.len();
    out.par_chunks_mut(WIDTH).enumerate().for_each(|(block, sums)| {
        vectorised(
            #[inline(always)]
            || {
                if !accumulate {
                    sums.fill(0.0);
                }
                for (left, right) in left.chunks_exact(columns).zip(right.chunks_exact(columns)) {
                    let (left, right) = (&left[block * WIDTH..], &right[block * WIDTH..]);
                    sums.iter_mut().zip(left).zip(right).for_each(|((sum, a), b)| *sum += a * b);
                }
            },
        );
    });
}
