//! The innermost loops of a product, over operands that were packed: a tile of the output stays in registers while its
//! whole depth goes by.

use std::sync::LazyLock;

use pulp::{Simd, WithSimd};

use crate::backend::cpu::parallel::dispatch;

/// Columns of a tile, in vectors.
const VECTORS: usize = 2;

/// The most rows that a tile has on any processor, and the most columns.
pub(super) const MOST: [usize; 2] = [12, 2 * 16];

/// Rows and columns of a tile here: as many sums as leave registers for the operands.
pub(super) static TILE: LazyLock<[usize; 2]> = LazyLock::new(|| dispatch(Tile));

struct Tile;

impl WithSimd for Tile {
    type Output = [usize; 2];

    fn with_simd<S: Simd>(self, _: S) -> [usize; 2] {
        [rows::<S>(), VECTORS * S::F32_LANES]
    }
}

const fn rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 12 } else { 6 }
}

/// Some rows of the left operand, times some columns of the right one.
pub(super) struct Panels<'a> {
    /// Tiles of rows, one after another: `[tile, depth, rows of a tile]`.
    pub left: &'a [f32],
    /// Tiles of columns: `[tile, depth, columns of a tile]`.
    pub right: &'a [f32],
    /// What is summed over.
    pub depth: usize,
    /// Where the result's first value goes.
    pub out: *mut f32,
    /// How far apart its rows are.
    pub stride: usize,
    /// Rows and columns of the result, which its last tiles may reach beyond.
    pub shape: [usize; 2],
    /// Whether it is added to what is there.
    pub adds: bool,
}

impl Panels<'_> {
    /// Computes it.
    ///
    /// # Safety
    /// `out` must be good for writing `shape` at `stride`, and no one else may touch these places meanwhile.
    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
    pub(super) unsafe fn multiply(self) {
        let [rows, columns] = self.shape;
        let [tall, wide] = *TILE;
        assert!(
            self.left.len() >= rows.next_multiple_of(tall) * self.depth
                && self.right.len() >= columns.next_multiple_of(wide) * self.depth,
            "gemm: packed operands that do not fit"
        );
        dispatch(self);
    }
}

impl WithSimd for Panels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if rows::<S>() == 12 { self.tiles::<S, 12>(simd) } else { self.tiles::<S, 6>(simd) }
    }
}

impl Panels<'_> {
    #[inline(always)]
    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
    fn tiles<S: Simd, const ROWS: usize>(&self, simd: S) {
        let wide = VECTORS * S::F32_LANES;
        let [rows, columns] = self.shape;
        for (right, first_column) in
            self.right.chunks_exact(wide * self.depth).zip((0..columns).step_by(wide))
        {
            for (left, first_row) in self.left.chunks_exact(ROWS * self.depth).zip((0..rows).step_by(ROWS)) {
                let [tall, broad] = [ROWS.min(rows - first_row), wide.min(columns - first_column)];
                let out = self.out.wrapping_add(first_row * self.stride + first_column);
                // The sums take long enough for the output to come from a far cache meanwhile.
                for row in 0..tall {
                    prefetch(out.wrapping_add(row * self.stride));
                }
                let sums = sums::<S, ROWS>(simd, left, right);
                if [tall, broad] == [ROWS, wide] {
                    for (row, sums) in sums.into_iter().enumerate() {
                        for (vector, sum) in sums.into_iter().enumerate() {
                            let place =
                                out.wrapping_add(row * self.stride + vector * S::F32_LANES).cast::<S::f32s>();
                            // SAFETY: the tile is inside the shape, which the caller of `multiply` answers for.
                            unsafe {
                                let sum =
                                    if self.adds { simd.add_f32s(place.read_unaligned(), sum) } else { sum };
                                place.write_unaligned(sum);
                            }
                        }
                    }
                } else {
                    let mut whole = [0.0; MOST[0] * MOST[1]];
                    for (row, sums) in whole.chunks_exact_mut(wide).zip(sums) {
                        row.copy_from_slice(bytemuck::cast_slice(&sums));
                    }
                    for (row, sums) in whole.chunks_exact(wide).take(tall).enumerate() {
                        // SAFETY: cut to the shape, which the caller of `multiply` answers for.
                        let out = unsafe {
                            std::slice::from_raw_parts_mut(out.wrapping_add(row * self.stride), broad)
                        };
                        for (out, sum) in out.iter_mut().zip(sums) {
                            *out = if self.adds { *out + sum } else { *sum };
                        }
                    }
                }
            }
        }
    }
}

/// One tile: the sum over the depth of the products of a column of `left` and a row of `right`.
#[inline(always)]
fn sums<S: Simd, const ROWS: usize>(simd: S, left: &[f32], right: &[f32]) -> [[S::f32s; VECTORS]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    let (vectors, _) = S::as_simd_f32s(right);
    let (left, _) = left.as_chunks::<ROWS>();
    let (vectors, _) = vectors.as_chunks::<VECTORS>();
    for (left, [first, second]) in left.iter().zip(vectors) {
        for (sums, left) in sums.iter_mut().zip(left) {
            let left = simd.splat_f32s(*left);
            sums[0] = simd.mul_add_e_f32s(left, *first, sums[0]);
            sums[1] = simd.mul_add_e_f32s(left, *second, sums[1]);
        }
    }
    sums
}

#[inline(always)]
fn prefetch(place: *mut f32) {
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the instruction has no safe name")]
    // SAFETY: a prefetch reads nothing and faults nowhere; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(place.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tall tiles of processors with 32 registers, on the vectors of whatever runs the test.
    struct Tall<'a>(Panels<'a>);

    impl WithSimd for Tall<'_> {
        type Output = usize;

        fn with_simd<S: Simd>(self, simd: S) -> usize {
            self.0.tiles::<S, 12>(simd);
            VECTORS * S::F32_LANES
        }
    }

    #[test]
    fn tall_tiles_are_the_plain_sum() {
        let wide = TILE[1];
        let (rows, columns, depth) = (17, wide + 3, 5);
        let left: Vec<f32> = (0..24 * depth).map(|i| (i % 13) as f32 - 6.0).collect();
        let right: Vec<f32> = (0..2 * wide * depth).map(|i| (i % 11) as f32 - 5.0).collect();
        let mut out = vec![1.0; rows * columns];
        let (shape, stride) = ([rows, columns], columns);
        let panels =
            Panels { left: &left, right: &right, depth, out: out.as_mut_ptr(), stride, shape, adds: true };
        assert_eq!(dispatch(Tall(panels)), wide);
        for (index, got) in out.iter().enumerate() {
            let (row, column) = (index / columns, index % columns);
            let of = |k: usize| {
                left[(row / 12 * depth + k) * 12 + row % 12]
                    * right[(column / wide * depth + k) * wide + column % wide]
            };
            let want = 1.0 + (0..depth).map(of).sum::<f32>();
            assert!((got - want).abs() < 1e-3, "[{row}, {column}]: {got}, expected {want}");
        }
    }
}
