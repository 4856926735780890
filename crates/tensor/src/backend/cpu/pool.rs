//! Tokens of a row into one, and gradients back to each of them.

use rayon::prelude::*;

use super::parallel::vectorised;
use crate::backend::Layout;

pub(super) fn mean(values: &[f32], layout: &Layout, columns: usize, out: &mut [f32]) {
    if columns == 0 {
        return;
    }
    out.par_chunks_mut(columns).zip(layout.cu_seqlens().par_windows(2)).for_each(|(out, ends)| {
        vectorised(
            #[inline(always)]
            || {
                out.fill(0.0);
                for token in values[ends[0] * columns..ends[1] * columns].chunks_exact(columns) {
                    out.iter_mut().zip(token).for_each(|(sum, x)| *sum += x);
                }
                let share = share(ends);
                out.iter_mut().for_each(|sum| *sum *= share);
            },
        );
    });
}

pub(super) fn mean_backward(
    gradient: &[f32],
    layout: &Layout,
    columns: usize,
    mut out: &mut [f32],
    accumulate: bool,
) {
    if columns == 0 {
        return;
    }
    let mut rows = Vec::with_capacity(layout.rows());
    for (ends, gradient) in layout.cu_seqlens().windows(2).zip(gradient.chunks_exact(columns)) {
        let (row, rest) = out.split_at_mut((ends[1] - ends[0]) * columns);
        rows.push((row, gradient, share(ends)));
        out = rest;
    }
    rows.into_par_iter().for_each(|(row, gradient, share)| {
        vectorised(
            #[inline(always)]
            || {
                for token in row.chunks_exact_mut(columns) {
                    if !accumulate {
                        token.fill(0.0);
                    }
                    token.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g * share);
                }
            },
        );
    });
}

/// One over the length of a row; a row without tokens has nothing to share.
#[inline(always)]
fn share(ends: &[usize]) -> f32 {
    1.0 / (ends[1] - ends[0]).max(1) as f32
}
