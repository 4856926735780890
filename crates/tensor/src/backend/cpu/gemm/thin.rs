//! Products of which one side is so narrow that packing the other would cost more than multiplying: those of low rank.
//! They read the wide operand once, as it lies. Sums over rows are not among them where the machine multiplies pairs of bf16: packing
//! these costs little.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{gemm, on_pairs};
use crate::backend::cpu::elementwise::sum_in_parts;
use crate::backend::cpu::math::widen;
use crate::backend::cpu::parallel::{dispatch, rows_per_block, vectorised};
use crate::backend::{Ends, Matrix, Product};
use crate::dtype::{DType, Element, with_values};

/// The widest narrow side.
const NARROW: usize = 16;

/// The least that a wide side has: below that packing costs little, and a layer keeps the bits that it has beside a branch.
const WIDE: usize = 128;

/// Rows of the wide operand whose products are added at once.
const TOGETHER: usize = 4;

/// Rows and columns whose sums stay in registers together: this many of each.
const TILE: usize = 4;

/// `out (+)= product`, if it is such a product. The kind depends on the weights' sizes, on how operands lie and what they are, never
/// on how many rows there are, so that a row has the same bits in any batch.
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
    // Packed and multiplied, these take a third of the time.
    let pairs = on_pairs(std::slice::from_ref(product));
    if n <= NARROW && m >= WIDE && by_rows(&left.t()) {
        // The transpose of what is next, or of what is packed.
        let mut turned = vec![0.0; m * n];
        if pairs {
            let product = Product { left: right.t(), right: left.t(), scale };
            gemm((&mut turned[..]).into(), &[product], false, Ends::default());
        } else {
            let factors = gather(right, scale);
            with_values!(left.data, rows => outer(rows, &factors, [m, n], &mut turned));
        }
        for (row, out) in out[..m * n].chunks_exact_mut(n).enumerate() {
            for (column, out) in out.iter_mut().enumerate() {
                let sum = turned[column * m + row];
                *out = if accumulate { *out + sum } else { sum };
            }
        }
        return true;
    }
    if m <= NARROW && m > 1 && n >= WIDE && by_rows(&left.t()) && by_rows(&right) && !pairs {
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

/// The values as f32: where they lie, or widened into `room`.
fn widened<'a, E: Element>(values: &'a [E], room: &'a mut Vec<f32>) -> &'a [f32] {
    if let Ok(values) = bytemuck::try_cast_slice(values)
        && E::DTYPE == DType::F32
    {
        return values;
    }
    room.resize(values.len(), 0.0);
    vectorised(
        #[inline(always)]
        || widen(values, room),
    );
    room
}

/// `out[i, j] (+)= rows[i] . columns[j]`
fn dots<E: Element>(rows: &[E], columns: &[f32], [k, n]: [usize; 2], out: &mut [f32], accumulate: bool) {
    let each = rows_per_block(k);
    out.par_chunks_mut(each * n).zip(rows.par_chunks(each * k)).for_each(|(out, rows)| {
        let mut room = Vec::new();
        for (out, rows) in out.chunks_mut(TILE * n).zip(rows.chunks(TILE * k)) {
            let rows = widened(rows, &mut room);
            dispatch(Dots { rows, columns, shape: [k, n], out, accumulate });
        }
    });
}

/// At most [`TILE`] rows. The order of a sum is the same whichever rows and columns are beside it.
struct Dots<'a> {
    rows: &'a [f32],
    columns: &'a [f32],
    shape: [usize; 2],
    out: &'a mut [f32],
    accumulate: bool,
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Dots { rows, columns, shape: [k, n], out, accumulate } = self;
        let mut put = |row: usize, column: usize, sum: f32| {
            let out = &mut out[row * n + column];
            *out = if accumulate { *out + sum } else { sum };
        };
        let count = rows.len() / k;
        for first in (0..n).step_by(TILE) {
            let wide = TILE.min(n - first);
            if [count, wide] == [TILE; 2] {
                let sums = dots_of::<S, TILE>(simd, rows, &columns[first * k..][..TILE * k]);
                for (row, sums) in sums.iter().enumerate() {
                    for (column, sum) in sums.iter().enumerate() {
                        put(row, first + column, *sum);
                    }
                }
                continue;
            }
            for row in 0..count {
                for column in first..first + wide {
                    let [[sum]] = dots_of::<S, 1>(simd, &rows[row * k..][..k], &columns[column * k..][..k]);
                    put(row, column, sum);
                }
            }
        }
    }
}

/// Of each of `COUNT` rows with each of as many columns, which lie as rows too. Plain loops are sure to be unrolled.
#[inline(always)]
fn dots_of<S: Simd, const COUNT: usize>(simd: S, rows: &[f32], columns: &[f32]) -> [[f32; COUNT]; COUNT] {
    let k = rows.len() / COUNT;
    let mut all = [[0.0; COUNT]; COUNT];
    let vectors = k / S::F32_LANES;
    let (mut left, mut right) = ([&[][..]; COUNT], [&[][..]; COUNT]);
    for index in 0..COUNT {
        left[index] = &S::as_simd_f32s(&rows[index * k..][..k]).0[..vectors];
        right[index] = &S::as_simd_f32s(&columns[index * k..][..k]).0[..vectors];
    }
    let mut sums = [[simd.splat_f32s(0.0); COUNT]; COUNT];
    for place in 0..vectors {
        for row in 0..COUNT {
            for column in 0..COUNT {
                sums[row][column] =
                    simd.mul_add_e_f32s(left[row][place], right[column][place], sums[row][column]);
            }
        }
    }
    for row in 0..COUNT {
        for column in 0..COUNT {
            let mut sum = simd.reduce_sum_f32s(sums[row][column]);
            for place in vectors * S::F32_LANES..k {
                sum += rows[row * k + place] * columns[column * k + place];
            }
            all[row][column] = sum;
        }
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
                    widen(group, &mut wide_rows);
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
