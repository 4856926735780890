//! Rows and columns out of a matrix, and gradients back into it.

use rayon::prelude::*;

use super::embedding::add_rows;
use super::parallel::{rows_per_block, vectorised};

pub(super) fn rows(values: &[f32], index: &[usize], columns: usize, out: &mut [f32]) {
    for (out, row) in out.chunks_exact_mut(columns.max(1)).zip(index) {
        out.copy_from_slice(&values[row * columns..][..columns]);
    }
}

pub(super) fn rows_backward(gradient: &[f32], index: &[usize], columns: usize, out: &mut [f32]) {
    add_rows(gradient, &index.iter().map(|row| Some(*row)), columns, out);
}

/// The rows `index` of two matrices, one after another.
pub(super) fn rows_of_both(first: &[f32], second: &[f32], index: &[usize], columns: usize, out: &mut [f32]) {
    if columns == 0 {
        return;
    }
    let rows = rows_per_block(columns);
    out.par_chunks_mut(rows * columns).zip(index.par_chunks(rows)).for_each(|(out, index)| {
        for (out, row) in out.chunks_exact_mut(columns).zip(index) {
            let start = row * columns;
            let (from, start) =
                if start < first.len() { (first, start) } else { (second, start - first.len()) };
            out.copy_from_slice(&from[start..start + columns]);
        }
    });
}

pub(super) fn columns(values: &[f32], [from, to]: [usize; 2], first: usize, out: &mut [f32]) {
    if to == 0 {
        return;
    }
    let rows = rows_per_block(from);
    out.par_chunks_mut(rows * to).zip(values.par_chunks(rows * from)).for_each(|(out, values)| {
        for (out, row) in out.chunks_exact_mut(to).zip(values.chunks_exact(from)) {
            out.copy_from_slice(&row[first..first + to]);
        }
    });
}

pub(super) fn columns_backward(gradient: &[f32], [from, to]: [usize; 2], first: usize, out: &mut [f32]) {
    if to == 0 {
        return;
    }
    let rows = rows_per_block(from);
    out.par_chunks_mut(rows * from).zip(gradient.par_chunks(rows * to)).for_each(|(out, gradient)| {
        vectorised(
            #[inline(always)]
            || {
                for (out, row) in out.chunks_exact_mut(from).zip(gradient.chunks_exact(to)) {
                    out[first..first + to].iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
                }
            },
        );
    });
}
