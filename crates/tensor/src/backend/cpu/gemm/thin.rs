//! Products of which one side is so narrow that packing the other would cost more than multiplying: those of low rank.
//! They read the wide operand once, as it lies, about as fast as it could be copied.

use rayon::prelude::*;

use crate::backend::cpu::elementwise::sum_in_parts;
use crate::backend::cpu::parallel::{rows_per_block, vectorised};
use crate::backend::{Matrix, Product};
use crate::dtype::{Element, with_values};

/// The widest narrow side.
const NARROW: usize = 16;

/// The least that a wide side has: below that packing costs little, and a layer keeps the bits that it has beside a branch.
const WIDE: usize = 128;

/// Rows of the wide operand whose products are added at once.
const TOGETHER: usize = 4;

/// `out (+)= product`, if it is such a product. The kind depends on the weights' sizes and on how operands lie, never on how
/// many rows there are, so that a row has the same bits in any batch.
pub(super) fn multiply(out: &mut [f32], product: &Product<'_>, accumulate: bool) -> bool {
    let Product { left, right, scale } = *product;
    let ([m, k], n) = (left.shape, right.shape[1]);
    if m == 0 || n == 0 || k == 0 {
        return false;
    }
    let by_rows = |matrix: &Matrix<'_>| matrix.strides[1] == 1 && matrix.strides[0] == matrix.shape[1];
    if n <= NARROW && k >= WIDE && by_rows(&left) {
        // [n, k], small: a row of it meets a row of the left operand.
        let columns = gather(right.t(), scale);
        with_values!(left.data, rows => dots(rows, &columns, [k, n], out, accumulate));
        return true;
    }
    if n <= NARROW && m >= WIDE && by_rows(&left.t()) {
        // The transpose of the next.
        let factors = gather(right, scale);
        let mut turned = vec![0.0; m * n];
        with_values!(left.data, rows => outer(rows, &factors, [m, n], &mut turned));
        for (row, out) in out[..m * n].chunks_exact_mut(n).enumerate() {
            for (column, out) in out.iter_mut().enumerate() {
                let sum = turned[column * m + row];
                *out = if accumulate { *out + sum } else { sum };
            }
        }
        return true;
    }
    if m <= NARROW && m > 1 && n >= WIDE && by_rows(&left.t()) && by_rows(&right) {
        let factors = gather(left.t(), scale);
        let mut sums = vec![0.0; m * n];
        with_values!(right.data, rows => outer(rows, &factors, [n, m], &mut sums));
        for (out, sum) in out.iter_mut().zip(&sums) {
            *out = if accumulate { *out + sum } else { *sum };
        }
        return true;
    }
    false
}

/// The matrix row by row in f32, times `scale`.
fn gather(matrix: Matrix<'_>, scale: f32) -> Vec<f32> {
    let Matrix { data, shape: [rows, columns], strides: [down, right] } = matrix;
    let mut all = Vec::with_capacity(rows * columns);
    with_values!(data, data => {
        for row in 0..rows {
            all.extend((0..columns).map(|column| data[row * down + column * right].get() * scale));
        }
    });
    all
}

/// `out[i, j] (+)= rows[i] . columns[j]`, each sum in sixteen lanes.
fn dots<E: Element>(rows: &[E], columns: &[f32], [k, n]: [usize; 2], out: &mut [f32], accumulate: bool) {
    let each = rows_per_block(k);
    out.par_chunks_mut(each * n).zip(rows.par_chunks(each * k)).for_each(|(out, rows)| {
        vectorised(
            #[inline(always)]
            || {
                for (out, row) in out.chunks_exact_mut(n).zip(rows.chunks_exact(k)) {
                    for (out, columns) in out.chunks_mut(4).zip(columns.chunks(4 * k)) {
                        // Whole groups know their size, and the row is read once for four columns.
                        let sums = match out.len() {
                            4 => lanes::<E, 4>(row, columns),
                            3 => lanes::<E, 3>(row, columns),
                            2 => lanes::<E, 2>(row, columns),
                            _ => lanes::<E, 1>(row, columns),
                        };
                        for (out, sum) in out.iter_mut().zip(sums) {
                            *out = if accumulate { *out + sum } else { sum };
                        }
                    }
                }
            },
        );
    });
}

/// The products of a row with `COUNT` columns, one after another; only so many of the result are meant.
#[inline(always)]
fn lanes<E: Element, const COUNT: usize>(row: &[E], columns: &[f32]) -> [f32; 4] {
    let k = row.len();
    let mut sums = [[0.0f32; 16]; COUNT];
    let (whole, rest) = row.as_chunks::<16>();
    for (place, chunk) in whole.iter().enumerate() {
        for column in 0..COUNT {
            let factors = &columns[column * k + place * 16..][..16];
            for lane in 0..16 {
                sums[column][lane] += chunk[lane].get() * factors[lane];
            }
        }
    }
    let mut all = [0.0; 4];
    for column in 0..COUNT {
        let mut sum = 0.0;
        for lane in sums[column] {
            sum += lane;
        }
        let factors = &columns[column * k + whole.len() * 16..][..rest.len()];
        for (x, factor) in rest.iter().zip(factors) {
            sum += x.get() * factor;
        }
        all[column] = sum;
    }
    all
}

/// `out [narrow, wide] = ` the sum over the rows of `factors[row] (x) rows[row]`, in parts of rows.
fn outer<E: Element>(rows: &[E], factors: &[f32], [wide, narrow]: [usize; 2], out: &mut [f32]) {
    sum_in_parts(rows.len() / wide, out, false, |range, sums| {
        let (rows, factors) =
            (&rows[range.start * wide..range.end * wide], &factors[range.start * narrow..range.end * narrow]);
        vectorised(
            #[inline(always)]
            || {
                let mut wide_rows = vec![0.0f32; TOGETHER * wide];
                let groups = rows.chunks(TOGETHER * wide).zip(factors.chunks(TOGETHER * narrow));
                for (group, factors) in groups {
                    for (to, x) in wide_rows.iter_mut().zip(group) {
                        *to = x.get();
                    }
                    let count = group.len() / wide;
                    for (column, sums) in sums.chunks_exact_mut(wide).enumerate() {
                        if count == TOGETHER {
                            let (a, rest) = wide_rows.split_at(wide);
                            let (b, rest) = rest.split_at(wide);
                            let (c, d) = rest.split_at(wide);
                            let [fa, fb, fc, fd] =
                                [0, 1, 2, 3].map(|row: usize| factors[row * narrow + column]);
                            for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                                *sum += (fa * a + fb * b) + (fc * c + fd * d);
                            }
                        } else {
                            for (row, values) in wide_rows.chunks_exact(wide).take(count).enumerate() {
                                let factor = factors[row * narrow + column];
                                for (sum, x) in sums.iter_mut().zip(values) {
                                    *sum += factor * x;
                                }
                            }
                        }
                    }
                }
            },
        );
    });
}
