//! Rows and columns exchanged, in tiles that stay in the first cache.

use rayon::prelude::*;

use crate::dtype::Element;

/// Rows and columns a tile.
const TILE: usize = 32;

pub(super) fn transpose<E: Element>(values: &[E], [rows, columns]: [usize; 2], out: &mut [E]) {
    if rows == 0 || columns == 0 {
        return;
    }
    out.par_chunks_mut(TILE * rows).enumerate().for_each(|(tile, out)| {
        for first in (0..rows).step_by(TILE) {
            for (column, out) in (tile * TILE..).zip(out.chunks_exact_mut(rows)) {
                for (row, out) in (first..rows).zip(&mut out[first..(first + TILE).min(rows)]) {
                    *out = values[row * columns + column];
                }
            }
        }
    });
}
