//! Rows and columns out of a matrix, and gradients back into it.

use rayon::prelude::*;

use super::embedding::add_rows;
use super::parallel::{rows_per_block, vectorised};
use crate::dtype::Element;

pub(super) fn rows<E: Element>(values: &[E], index: &[usize], columns: usize, out: &mut [E]) {
    for (out, row) in out.chunks_exact_mut(columns.max(1)).zip(index) {
        out.copy_from_slice(&values[row * columns..][..columns]);
    }
}

pub(super) fn rows_backward<E: Element>(gradient: &[E], index: &[usize], columns: usize, out: &mut [E]) {
    add_rows(gradient, &index.iter().map(|row| Some(*row)), columns, out);
}

/// The rows `index` of two matrices, one after another.
pub(super) fn rows_of_both<E: Element>(
    first: &[E],
    second: &[E],
    index: &[usize],
    columns: usize,
    out: &mut [E],
) {
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

pub(super) fn columns<E: Element>(values: &[E], [from, to]: [usize; 2], first: usize, out: &mut [E]) {
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

pub(super) fn columns_backward<E: Element>(
    gradient: &[E],
    [from, to]: [usize; 2],
    first: usize,
    out: &mut [E],
) {
    if to == 0 {
        return;
    }
    let rows = rows_per_block(from);
    out.par_chunks_mut(rows * from).zip(gradient.par_chunks(rows * to)).for_each(|(out, gradient)| {
        vectorised(
            #[inline(always)]
            || {
                for (out, row) in out.chunks_exact_mut(from).zip(gradient.chunks_exact(to)) {
                    let part = out[first..first + to].iter_mut();
                    part.zip(row).for_each(|(sum, g)| *sum = E::put(sum.get() + g.get()));
                }
            },
        );
    });
}
