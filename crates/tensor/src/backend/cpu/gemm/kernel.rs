//! The innermost loops of a product, over operands that were packed: a tile of the output stays in registers while its
//! whole depth goes by.

use std::sync::LazyLock;

use pulp::{Simd, WithSimd};

use crate::backend::cpu::parallel::dispatch;

/// Columns of a tile, in vectors.
const VECTORS: usize = 2;

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
    /// Plain loops throughout: what a closure of an iterator does is not sure to be compiled for the vectors of `S`.
    #[inline(always)]
    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
    #[expect(clippy::needless_range_loop, reason = "see above")]
    fn tiles<S: Simd, const ROWS: usize>(&self, simd: S) {
        let wide = VECTORS * S::F32_LANES;
        let [rows, columns] = self.shape;
        let (tall_tiles, wide_tiles) = (rows.div_ceil(ROWS), columns.div_ceil(wide));
        for across in 0..wide_tiles {
            let right = &self.right[across * wide * self.depth..][..wide * self.depth];
            let broad = wide.min(columns - across * wide);
            for down in 0..tall_tiles {
                let left = &self.left[down * ROWS * self.depth..][..ROWS * self.depth];
                let tall = ROWS.min(rows - down * ROWS);
                let out = self.out.wrapping_add(down * ROWS * self.stride + across * wide);
                // The sums take long enough for the output to come from a far cache meanwhile.
                for row in 0..tall {
                    prefetch(out.wrapping_add(row * self.stride));
                }
                let sums = sums::<S, ROWS>(simd, left, right);
                if tall == ROWS && broad == wide {
                    for row in 0..ROWS {
                        for vector in 0..VECTORS {
                            let place = out.wrapping_add(row * self.stride + vector * S::F32_LANES);
                            let place = place.cast::<S::f32s>();
                            let mut sum = sums[row][vector];
                            // SAFETY: the tile is inside the shape, which the caller of `multiply` answers for.
                            unsafe {
                                if self.adds {
                                    sum = simd.add_f32s(place.read_unaligned(), sum);
                                }
                                place.write_unaligned(sum);
                            }
                        }
                    }
                } else {
                    for row in 0..tall {
                        // SAFETY: cut to the shape, which the caller of `multiply` answers for.
                        let out = unsafe {
                            std::slice::from_raw_parts_mut(out.wrapping_add(row * self.stride), broad)
                        };
                        let sums: &[f32] = bytemuck::cast_slice(&sums[row]);
                        for column in 0..broad {
                            out[column] = if self.adds { out[column] + sums[column] } else { sums[column] };
                        }
                    }
                }
            }
        }
    }
}

/// One tile: the sum over the depth of the products of a column of `left` and a row of `right`.
#[inline(always)]
#[expect(unsafe_code, reason = "checked slices in this loop cost a tenth of its speed")]
#[expect(clippy::needless_range_loop, reason = "closures are not sure to be compiled for the vectors of `S`")]
fn sums<S: Simd, const ROWS: usize>(simd: S, left: &[f32], right: &[f32]) -> [[S::f32s; VECTORS]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
    let (depth, wide) = (left.len() / ROWS, VECTORS * S::F32_LANES);
    assert!(right.len() >= depth * wide, "gemm: tiles of two depths");
    let (mut left, mut right) = (left.as_ptr(), right.as_ptr());
    for _ in 0..depth {
        // SAFETY: `depth` times ROWS values and VECTORS vectors are there by the assertion.
        unsafe {
            let first = right.cast::<S::f32s>().read_unaligned();
            let second = right.add(S::F32_LANES).cast::<S::f32s>().read_unaligned();
            for row in 0..ROWS {
                let value = simd.splat_f32s(*left.add(row));
                sums[row][0] = simd.mul_add_e_f32s(value, first, sums[row][0]);
                sums[row][1] = simd.mul_add_e_f32s(value, second, sums[row][1]);
            }
            left = left.add(ROWS);
            right = right.add(wide);
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
