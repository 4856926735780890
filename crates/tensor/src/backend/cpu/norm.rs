//! Layer norm over the sum of a residual and a dropped-out input (Ba et al. 2016), one pass a row.

use rayon::prelude::*;

use super::math::{dot, sum, widen};
use super::parallel::{rows_per_block, vectorised};
use crate::backend::{LayerNorm, LayerNormSaved};
use crate::dtype::{Element, ValuesMut};

pub(super) fn forward<E: Element>(norm: &LayerNorm<'_>, out: &mut [E], normal: &mut [E], rstd: &mut [f32]) {
    let columns = norm.weight.len();
    let (x, residual) = (E::of(norm.x), norm.residual.map(E::of));
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
                    let mut sums = vec![0.0; columns];
                    let z = &mut sums[..];
                    let rows = out.chunks_exact_mut(columns).zip(normal.chunks_exact_mut(columns)).zip(rstd);
                    for (row, ((out, normal), rstd)) in rows.enumerate() {
                        let token = index * rows_per_block(columns) + row;
                        let range = token * columns..(token + 1) * columns;
                        widen(&x[range.clone()], z);
                        if let Some((dropout, layout)) = norm.dropout {
                            dropout.mask(dropout.key, layout.counters()[token], 1.0, z);
                        }
                        if let Some(residual) = residual {
                            for (z, r) in z.iter_mut().zip(&residual[range]) {
                                *z += r.get();
                            }
                        }
                        let mean = sum(z, |z| z) / columns as f32;
                        let variance = sum(z, |z| (z - mean) * (z - mean)) / columns as f32;
                        *rstd = 1.0 / (variance + norm.epsilon).sqrt();
                        for (normal, z) in normal.iter_mut().zip(z.iter()) {
                            *normal = E::put((z - mean) * *rstd);
                        }
                        affine(normal, norm.weight, norm.bias, out);
                    }
                },
            );
        });
}

/// `out = normal * weight + bias`
pub(super) fn affine_rows<E: Element>(normal: &[E], weight: &[f32], bias: Option<&[f32]>, out: &mut [E]) {
    let columns = weight.len();
    if columns == 0 {
        return;
    }
    let block = rows_per_block(columns) * columns;
    out.par_chunks_mut(block).zip(normal.par_chunks(block)).for_each(|(out, normal)| {
        vectorised(
            #[inline(always)]
            || {
                for (out, normal) in out.chunks_exact_mut(columns).zip(normal.chunks_exact(columns)) {
                    affine(normal, weight, bias, out);
                }
            },
        );
    });
}

/// `out = normal * weight + bias`, one row.
#[inline(always)]
fn affine<E: Element>(normal: &[E], weight: &[f32], bias: Option<&[f32]>, out: &mut [E]) {
    match bias {
        Some(bias) => {
            for (((out, normal), weight), bias) in out.iter_mut().zip(normal).zip(weight).zip(bias) {
                *out = E::put(normal.get() * weight + bias);
            }
        }
        None => {
            for ((out, normal), weight) in out.iter_mut().zip(normal).zip(weight) {
                *out = E::put(normal.get() * weight);
            }
        }
    }
}

pub(super) fn backward<E: Element>(
    gradient: &[E],
    saved: &LayerNormSaved<'_>,
    dz: Option<ValuesMut<'_>>,
    dweight: Option<(&mut [f32], bool)>,
    dbias: Option<(&mut [f32], bool)>,
) {
    let columns = saved.weight.len();
    if columns == 0 {
        return;
    }
    let all_normal = E::of(saved.normal);
    if let Some(dz) = dz {
        let dz = E::of_mut(dz);
        let rows = rows_per_block(columns);
        dz.par_chunks_mut(rows * columns).enumerate().for_each(|(index, dz)| {
            vectorised(
                #[inline(always)]
                || {
                    let (mut d, mut normal) = (vec![0.0; columns], vec![0.0; columns]);
                    for (row, dz) in dz.chunks_exact_mut(columns).enumerate() {
                        let token = index * rows + row;
                        let range = token * columns..(token + 1) * columns;
                        widen(&all_normal[range.clone()], &mut normal);
                        for ((d, g), weight) in d.iter_mut().zip(&gradient[range]).zip(saved.weight) {
                            *d = g.get() * weight;
                        }
                        let mean = sum(&d, |d| d) / columns as f32;
                        let along = dot(&d, &normal) / columns as f32;
                        let rstd = saved.rstd[token];
                        for ((dz, d), n) in dz.iter_mut().zip(&d).zip(&normal) {
                            *dz = E::put(rstd * (d - mean - n * along));
                        }
                    }
                },
            );
        });
    }
    if let Some((dweight, accumulate)) = dweight {
        sum_products(gradient, all_normal, dweight, accumulate);
    }
    if let Some((dbias, accumulate)) = dbias {
        super::elementwise::sum_rows(gradient, dbias, accumulate);
    }
}

/// `out (+)= sum over rows of left * right`
fn sum_products<E: Element>(left: &[E], right: &[E], out: &mut [f32], accumulate: bool) {
    let columns = out.len();
    super::elementwise::sum_in_parts(left.len() / columns.max(1), out, accumulate, |range, sums| {
        vectorised(
            #[inline(always)]
            || {
                let values = range.start * columns..range.end * columns;
                let (left, right) = (&left[values.clone()], &right[values]);
                for (left, right) in left.chunks_exact(columns).zip(right.chunks_exact(columns)) {
                    for ((sum, a), b) in sums.iter_mut().zip(left).zip(right) {
                        *sum += a.get() * b.get();
                    }
                }
            },
        );
    });
}
