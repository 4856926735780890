//! Products of which one side is so narrow that packing the other would cost more than multiplying: those of low rank.
//! They read the wide operand from memory once, as it lies.

use std::ops::Range;

use bytemuck::Zeroable as _;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::prefetch;
use super::pack::{Packed, pack};
#[cfg(target_arch = "x86_64")]
use super::thin_avx512;
use crate::backend::cpu::math::widen;
use crate::backend::cpu::parallel::{Disjoint, dispatch, rows_per_block, vectorised};
use crate::backend::{Matrix, Product};
use crate::dtype::{DType, Element, with_values};

/// The widest narrow side.
const NARROW: usize = 16;

/// The least that a wide side has: below that packing costs little, and a layer keeps the bits that it has beside a branch.
const WIDE: usize = 128;

/// Rows and columns whose sums stay in registers together: this many of each.
pub(super) const TILE: usize = 4;

/// `out (+)= product`, if it is such a product. The kind depends on the weights' sizes, on how operands lie and what they are, never
/// on how many rows there are, so that a row has the same bits in any batch.
pub(super) fn multiply(out: &mut [f32], product: &Product<'_>, accumulate: bool) -> bool {
    let Product { left, right, scale } = *product;
    let ([m, k], n) = (left.shape, right.shape[1]);
    if m == 0 || n == 0 || k == 0 {
        return false;
    }
    let out = &mut out[..m * n];
    let by_rows = |matrix: &Matrix<'_>| matrix.strides[1] == 1 && matrix.strides[0] == matrix.shape[1];
    if n <= NARROW && k >= WIDE && by_rows(&left) {
        #[cfg(target_arch = "x86_64")]
        if let Some(rows) = thin_avx512::Rows::of(&left) {
            rows.dots(right, scale, out, accumulate);
            return true;
        }
        // [n, k], small: a row of it meets a row of the left operand.
        let columns: Vec<f32> = gather(right.t(), scale, n);
        with_values!(left.data, rows => dots(&rows[..m * k], &columns, [k, n], out, accumulate));
        return true;
    }
    if n <= NARROW && m >= WIDE && by_rows(&left.t()) {
        // The transpose of what is next.
        let mut turned = vec![0.0; m * n];
        sum_over_rows(left.t(), right, scale, &mut turned, false);
        for (row, out) in out.chunks_exact_mut(n).enumerate() {
            for (column, out) in out.iter_mut().enumerate() {
                let sum = turned[column * m + row];
                *out = if accumulate { *out + sum } else { sum };
            }
        }
        return true;
    }
    // A single row of a single value lies as its transpose does, and goes where more such rows go.
    if m <= NARROW && m > 1 && n >= WIDE && by_rows(&left.t()) && by_rows(&right) {
        sum_over_rows(right, left.t(), scale, out, accumulate);
        return true;
    }
    false
}

/// `out [narrow, wide] (+)= scale * ` the sum over all rows of `factors[row] (x) rows[row]`, where `rows` lie one after the other.
fn sum_over_rows(rows: Matrix<'_>, factors: Matrix<'_>, scale: f32, out: &mut [f32], accumulate: bool) {
    #[cfg(target_arch = "x86_64")]
    if let Some(own) = thin_avx512::Rows::of(&rows) {
        return outer(&own, rows.shape, factors, scale, out, accumulate);
    }
    with_values!(rows.data, values => {
        outer(&Widened { values, wide: rows.shape[1] }, rows.shape, factors, scale, out, accumulate);
    });
}

/// The matrix row by row, times `scale`, and rows of zeros up to so many.
pub(super) fn gather<E: Element>(matrix: Matrix<'_>, scale: f32, most: usize) -> Vec<E> {
    let Matrix { data, shape: [rows, columns], strides: [down, right] } = matrix;
    let mut all = Vec::with_capacity(most * columns);
    with_values!(data, data => {
        for row in 0..rows {
            all.extend((0..columns).map(|column| E::put(data[row * down + column * right].get() * scale)));
        }
    });
    all.resize(most * columns, E::zeroed());
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
    let each = rows_per_block(k).next_multiple_of(TILE);
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

/// Sums over rows that stay in registers together: of so many columns of the narrow operand, and of the wide one.
pub(super) const SUMS: [usize; 2] = [8, 32];

/// Such sums.
pub(super) type Sums = [[f32; SUMS[1]]; SUMS[0]];

/// Rows that go by before the next columns of them do: with those that are fetched meanwhile they stay in the nearest cache.
pub(super) const ROWS: usize = 32;

/// Columns of a task that sums over rows: whole cache lines of a row, side by side.
const COLUMNS: usize = 4 * SUMS[1];

/// Rows of which sums are made.
pub(super) trait Outer: Sync {
    /// What the narrow operand is packed as.
    type Packed: Packed;
    /// Adds to `sums` what some rows give by their factors, [`ROWS`] at most, in the columns from `column` on, as far as there are.
    fn add(&self, rows: Range<usize>, column: usize, factors: &[[Self::Packed; SUMS[0]]], sums: &mut Sums);
    /// Sums in the order of the columns, if they are kept in another.
    fn in_order(sums: &[f32; SUMS[1]]) -> [f32; SUMS[1]] {
        *sums
    }
}

/// See [`sum_over_rows`]. For each value of `out` the rows go by in order, so how columns are shared out changes no bits.
fn outer<O: Outer>(
    rows: &O,
    [count, wide]: [usize; 2],
    factors: Matrix<'_>,
    scale: f32,
    out: &mut [f32],
    accumulate: bool,
) {
    let narrow = factors.shape[1];
    let units = count.div_ceil(O::Packed::VALUES);
    let mut packed = vec![O::Packed::zeroed(); narrow.next_multiple_of(SUMS[0]) * units];
    pack(factors.t(), 1.0, SUMS[0], [0, units], &mut packed);
    let packed = packed.as_chunks().0;
    let out = Disjoint::new(out);
    (0..wide.div_ceil(COLUMNS)).into_par_iter().with_max_len(1).for_each(|task| {
        let columns = (task * COLUMNS..wide.min((task + 1) * COLUMNS)).step_by(SUMS[1]);
        let mut all = vec![[[[0.0; SUMS[1]]; SUMS[0]]; COLUMNS / SUMS[1]]; narrow.div_ceil(SUMS[0])];
        for top in (0..count).step_by(ROWS) {
            let some = top..count.min(top + ROWS);
            let [first, last] = [some.start, some.end].map(|row| row.div_ceil(O::Packed::VALUES));
            for (factors, all) in packed.chunks_exact(units).zip(&mut all) {
                for (column, sums) in columns.clone().zip(all) {
                    rows.add(some.clone(), column, &factors[first..last], sums);
                }
            }
        }
        for (group, all) in all.iter().enumerate() {
            for (column, sums) in columns.clone().zip(all) {
                for (row, sums) in (group * SUMS[0]..narrow).zip(sums) {
                    let range = row * wide + column..row * wide + wide.min(column + SUMS[1]);
                    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
                    // SAFETY: this task alone has these columns.
                    let out = unsafe { out.slice(range) };
                    for (out, sum) in out.iter_mut().zip(O::in_order(sums)) {
                        *out = if accumulate { *out + scale * sum } else { scale * sum };
                    }
                }
            }
        }
    });
}

/// Rows as f32, by the vectors of whatever the machine has.
struct Widened<'a, E> {
    values: &'a [E],
    wide: usize,
}

impl<E: Element> Outer for Widened<'_, E> {
    type Packed = f32;

    fn add(&self, rows: Range<usize>, column: usize, factors: &[[f32; SUMS[0]]], sums: &mut Sums) {
        let columns = SUMS[1].min(self.wide - column);
        let mut room;
        let row = |row: usize| &self.values[row * self.wide + column..][..columns];
        for row in rows.clone() {
            let place = self.values.as_ptr().wrapping_add((row + ROWS) * self.wide + column);
            prefetch(place);
            prefetch(place.wrapping_add(columns - 1));
        }
        let there = match bytemuck::try_cast_slice(self.values) {
            Ok(values) if E::DTYPE == DType::F32 && columns == SUMS[1] => {
                (&values[rows.start * self.wide + column..], self.wide)
            }
            _ => {
                room = [[0.0; SUMS[1]]; ROWS];
                vectorised(
                    #[inline(always)]
                    || {
                        rows.clone()
                            .zip(&mut room)
                            .for_each(|(index, room)| widen(row(index), &mut room[..columns]))
                    },
                );
                (room.as_flattened(), SUMS[1])
            }
        };
        dispatch(AddOuter { rows: there.0, stride: there.1, factors, sums });
    }
}

/// Whole rows of [`SUMS`], so many values apart; as many as there are factors.
struct AddOuter<'a> {
    rows: &'a [f32],
    stride: usize,
    factors: &'a [[f32; SUMS[0]]],
    sums: &'a mut Sums,
}

impl WithSimd for AddOuter<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 && S::F32_LANES * 2 <= SUMS[1] {
            self.vectors::<S, 2>(simd)
        } else {
            self.vectors::<S, 1>(simd)
        }
    }
}

impl AddOuter<'_> {
    /// As many vectors of columns at once as leave registers for the rest.
    #[inline(always)]
    fn vectors<S: Simd, const VECTORS: usize>(self, simd: S) {
        let AddOuter { rows, stride, factors, sums } = self;
        for part in (0..SUMS[1]).step_by(VECTORS * S::F32_LANES) {
            let mut all = [[simd.splat_f32s(0.0); VECTORS]; SUMS[0]];
            for narrow in 0..SUMS[0] {
                let there = S::as_simd_f32s(&sums[narrow][part..][..VECTORS * S::F32_LANES]).0;
                all[narrow].copy_from_slice(there);
            }
            for (row, factors) in factors.iter().enumerate() {
                let row = S::as_simd_f32s(&rows[row * stride + part..][..VECTORS * S::F32_LANES]).0;
                for narrow in 0..SUMS[0] {
                    let factor = simd.splat_f32s(factors[narrow]);
                    for vector in 0..VECTORS {
                        all[narrow][vector] = simd.mul_add_e_f32s(factor, row[vector], all[narrow][vector]);
                    }
                }
            }
            for narrow in 0..SUMS[0] {
                let there = S::as_mut_simd_f32s(&mut sums[narrow][part..][..VECTORS * S::F32_LANES]).0;
                there.copy_from_slice(&all[narrow]);
            }
        }
    }
}
