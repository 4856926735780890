//! Narrow products of rows of bf16 where they lie, on AVX512_BF16: what is wide is neither packed nor widened.
//! The narrow operand is rounded to bf16, as it is wherever it is packed.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd, _mm512_dpbf16_ps,
    _mm512_loadu_ps, _mm512_maskz_loadu_epi16, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_f32x4, _mm512_storeu_ps, _mm512_unpackhi_epi16, _mm512_unpackhi_pd, _mm512_unpackhi_ps,
    _mm512_unpacklo_epi16, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::mem::transmute;
use std::ops::Range;

use rayon::prelude::*;

use super::avx512::{PAIRS, Pairs};
use super::kernel::prefetch;
use super::thin::{Outer, ROWS, SUMS, Sums, TILE, gather};
use crate::backend::Matrix;
use crate::backend::cpu::parallel::rows_per_block;
use crate::dtype::{Values, bf16};

/// Values in a vector.
const LANES: usize = 32;

/// A matrix of bf16 whose rows follow one another, on a machine that multiplies pairs of them.
pub(super) struct Rows<'a> {
    vectors: Pairs,
    values: &'a [bf16],
    wide: usize,
}

impl<'a> Rows<'a> {
    /// `matrix`, which must lie row by row; none where it is not bf16, or the machine has no such products.
    pub(super) fn of(matrix: &Matrix<'a>) -> Option<Self> {
        let Values::Bf16(values) = matrix.data else { return None };
        let [rows, wide] = matrix.shape;
        PAIRS.map(|vectors| Rows { vectors, values: &values[..rows * wide], wide })
    }

    /// `out (+)= scale * rows right`
    pub(super) fn dots(&self, right: Matrix<'_>, scale: f32, out: &mut [f32], accumulate: bool) {
        let [k, n] = right.shape;
        // Columns as rows; a tile of them is whole.
        let columns: Vec<bf16> = gather(right.t(), 1.0, n.next_multiple_of(TILE));
        let each = rows_per_block(k).next_multiple_of(TILE);
        out.par_chunks_mut(each * n).zip(self.values.par_chunks(each * k)).for_each(|(out, rows)| {
            let count = rows.len() / k;
            assert!(
                rows.len() == count * k && out.len() == count * n,
                "gemm: narrow operands that do not fit"
            );
            for top in (0..count).step_by(TILE) {
                // Rows beyond the last are the last again.
                let row = |index: usize| rows[(top + index).min(count - 1) * k..][..k].as_ptr();
                let left: [_; TILE] = std::array::from_fn(row);
                for first in (0..n).step_by(TILE) {
                    let right: [_; TILE] =
                        std::array::from_fn(|index| columns[(first + index) * k..][..k].as_ptr());
                    #[expect(unsafe_code, reason = "checked slices cost more than what is read")]
                    // SAFETY: all of them are slices of `k` values.
                    let sums = unsafe { self.vectors.dots(left, right, k) };
                    for (row, sums) in (top..count).zip(sums.as_chunks::<TILE>().0) {
                        for (column, sum) in (first..n).zip(sums) {
                            let out = &mut out[row * n + column];
                            *out = if accumulate { *out + scale * sum } else { scale * sum };
                        }
                    }
                }
            }
        });
    }
}

impl Outer for Rows<'_> {
    type Packed = u32;

    fn add(&self, rows: Range<usize>, column: usize, factors: &[[u32; SUMS[0]]], sums: &mut Sums) {
        const { assert!(SUMS[1] == LANES && TILE == 4) };
        assert!(column < self.wide, "gemm: columns that are not there");
        let rows = &self.values[rows.start * self.wide..rows.end * self.wide];
        self.vectors.outer(rows, factors, [self.wide, column], sums);
    }

    /// Of each eight columns, the lower four are in the first vector and the upper four in the second.
    fn in_order(sums: &[f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|column| sums[column / 4 % 2 * (LANES / 2) + column / 8 * 4 + column % 4])
    }
}

/// So many of 32 halves, 1 at least, or all.
#[inline(always)]
fn lanes(count: usize) -> u32 {
    u32::MAX >> (LANES - count.min(LANES))
}

impl Pairs {
    /// Of each of some rows with each of as many columns, row by row. Every sum is added up in the same order.
    ///
    /// # Safety
    /// `k` values must be at each of the pointers.
    #[expect(unsafe_code, reason = "checked slices cost more than what is read")]
    unsafe fn dots(
        self,
        left: [*const bf16; TILE],
        right: [*const bf16; TILE],
        k: usize,
    ) -> [f32; TILE * TILE] {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512bf16,avx2,fma")]
        unsafe fn sums(
            left: [*const bf16; TILE],
            right: [*const bf16; TILE],
            k: usize,
        ) -> [f32; TILE * TILE] {
            let mut sums = [_mm512_setzero_ps(); TILE * TILE];
            for place in (0..k).step_by(LANES) {
                let there = lanes(k - place);
                // SAFETY: the caller's; what is masked is not read.
                let read = |row: *const bf16| unsafe {
                    _mm512_maskz_loadu_epi16(there, row.wrapping_add(place).cast())
                };
                let right = right.map(read);
                for row in 0..TILE {
                    // What follows is asked for ahead: the next tile of rows.
                    prefetch(left[row].wrapping_add(TILE * k + place));
                    let left = read(left[row]);
                    for column in 0..TILE {
                        let sum = &mut sums[row * TILE + column];
                        *sum = multiply_add(left, right[column], *sum);
                    }
                }
            }
            // Two vectors become one, whose lanes are sums of half as many lanes of both.
            let add = |a: __m512, b: __m512| _mm512_add_ps(a, b);
            let two = |a, b| add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let four = |a, b| {
                let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
                add(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
            };
            let eight = |a, b| add(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xEE>(a, b));
            let all = |a, b| add(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b));
            let row = |row: usize| {
                let [a, b, c, d] = [0, 1, 2, 3].map(|column| sums[row * TILE + column]);
                four(two(a, b), two(c, d))
            };
            let sums = all(eight(row(0), row(1)), eight(row(2), row(3)));
            // SAFETY: as many values of the same type.
            unsafe { transmute::<__m512, [f32; TILE * TILE]>(sums) }
        }
        // SAFETY: a `Pairs` is made only where the instructions are; the rest is the caller's.
        unsafe { sums(left, right, k) }
    }

    /// See [`Outer::add`]; `rows` are `wide` values apart, of which `column` is less, and each pair of them has its `factors`.
    fn outer(self, rows: &[bf16], factors: &[[u32; SUMS[0]]], [wide, column]: [usize; 2], sums: &mut Sums) {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512bf16,avx2,fma")]
        fn add(rows: &[bf16], factors: &[[u32; SUMS[0]]], [wide, column]: [usize; 2], sums: &mut Sums) {
            let there = lanes(wide - column);
            let mut all = [[_mm512_setzero_ps(); 2]; SUMS[0]];
            for (all, sums) in all.iter_mut().zip(sums.iter()) {
                let (lower, upper) = sums.split_at(LANES / 2);
                // SAFETY: sixteen values each.
                #[expect(unsafe_code, reason = "a vector has no safe way from a slice")]
                unsafe {
                    *all = [_mm512_loadu_ps(lower.as_ptr()), _mm512_loadu_ps(upper.as_ptr())];
                }
            }
            let count = rows.len() / wide;
            for (pair, factors) in factors.iter().enumerate() {
                // A row that is missing of the last pair is 0.
                let read = |row: usize| {
                    let place = rows.as_ptr().wrapping_add(row * wide + column);
                    // The same columns of the rows that come after these.
                    prefetch(place.wrapping_add(ROWS * wide));
                    if row < count {
                        #[expect(unsafe_code, reason = "a vector has no safe way from a slice")]
                        // SAFETY: the row is there, what is masked is not read, and one value is not masked: `column` is less than `wide`.
                        unsafe {
                            _mm512_maskz_loadu_epi16(there, place.cast())
                        }
                    } else {
                        _mm512_setzero_si512()
                    }
                };
                let (first, second) = (read(2 * pair), read(2 * pair + 1));
                let lower = _mm512_unpacklo_epi16(first, second);
                let upper = _mm512_unpackhi_epi16(first, second);
                for narrow in 0..SUMS[0] {
                    let factor = _mm512_set1_epi32(factors[narrow] as i32);
                    all[narrow][0] = multiply_add(factor, lower, all[narrow][0]);
                    all[narrow][1] = multiply_add(factor, upper, all[narrow][1]);
                }
            }
            for (all, sums) in all.iter().zip(sums.iter_mut()) {
                let (lower, upper) = sums.split_at_mut(LANES / 2);
                // SAFETY: sixteen values each.
                #[expect(unsafe_code, reason = "a vector has no safe way to a slice")]
                unsafe {
                    _mm512_storeu_ps(lower.as_mut_ptr(), all[0]);
                    _mm512_storeu_ps(upper.as_mut_ptr(), all[1]);
                }
            }
        }
        #[expect(unsafe_code, reason = "the instructions are there only on some machines")]
        // SAFETY: a `Pairs` is made only where they are.
        unsafe {
            add(rows, factors, [wide, column], sums);
        }
    }
}

/// `sums + left right`, of pairs, lane by lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply_add(left: __m512i, right: __m512i, sums: __m512) -> __m512 {
    #[expect(unsafe_code, reason = "the vectors are of two types")]
    // SAFETY: both are of 512 bits.
    unsafe {
        _mm512_dpbf16_ps(sums, transmute::<__m512i, __m512bh>(left), transmute::<__m512i, __m512bh>(right))
    }
}
