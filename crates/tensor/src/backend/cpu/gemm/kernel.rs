//! The innermost loops of a product, over operands that were packed: a tile of the output stays in registers while its
//! whole depth goes by.

use std::sync::LazyLock;

use pulp::{Simd, WithSimd};

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::pack::Packed;
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
pub(super) struct Panels<'a, P> {
    /// Tiles of rows, one after another: `[tile, depth, rows of a tile]`.
    pub left: &'a [P],
    /// Tiles of columns: `[tile, depth, columns of a tile]`.
    pub right: &'a [P],
    /// What is summed over, in packed units.
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

impl<P: Packed> Panels<'_, P> {
    /// Computes it.
    ///
    /// # Safety
    /// `out` must be good for writing `shape` at `stride`, and no one else may touch these places meanwhile.
    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
    pub(super) unsafe fn multiply(self) {
        let [rows, columns] = self.shape;
        let [tall, wide] = P::tile();
        assert!(
            self.left.len() >= rows.next_multiple_of(tall) * self.depth
                && self.right.len() >= columns.next_multiple_of(wide) * self.depth,
            "gemm: packed operands that do not fit"
        );
        P::multiply(self);
    }
}

/// The vectors that a tile is made of: `LANES` sums, and what is multiplied into them.
pub(super) trait Vectors: Copy {
    /// What operands are packed as.
    type Packed: Packed;
    /// `LANES` of them.
    type Right: Copy;
    /// `LANES` f32.
    type Sums: bytemuck::Pod;
    /// f32 in a vector.
    const LANES: usize;
    /// Zeros.
    fn zero(self) -> Self::Sums;
    /// A vector from memory.
    ///
    /// # Safety
    /// The place must be good for reading `LANES`.
    #[expect(unsafe_code, reason = "checked slices in this loop cost a tenth of its speed")]
    unsafe fn load(self, place: *const Self::Packed) -> Self::Right;
    /// `sums + left right`, lane by lane.
    fn multiply_add(self, left: Self::Packed, right: Self::Right, sums: Self::Sums) -> Self::Sums;
    /// `left + right`
    fn add(self, left: Self::Sums, right: Self::Sums) -> Self::Sums;
}

/// f32, by the vectors of whatever the machine has.
#[derive(Clone, Copy)]
struct Floats<S>(S);

impl<S: Simd> Vectors for Floats<S> {
    type Packed = f32;
    type Right = S::f32s;
    type Sums = S::f32s;
    const LANES: usize = S::F32_LANES;

    #[inline(always)]
    fn zero(self) -> S::f32s {
        self.0.splat_f32s(0.0)
    }

    #[inline(always)]
    #[expect(unsafe_code, reason = "checked slices in this loop cost a tenth of its speed")]
    unsafe fn load(self, place: *const f32) -> S::f32s {
        // SAFETY: the caller's.
        unsafe { place.cast::<S::f32s>().read_unaligned() }
    }

    #[inline(always)]
    fn multiply_add(self, left: f32, right: S::f32s, sums: S::f32s) -> S::f32s {
        self.0.mul_add_e_f32s(self.0.splat_f32s(left), right, sums)
    }

    #[inline(always)]
    fn add(self, left: S::f32s, right: S::f32s) -> S::f32s {
        self.0.add_f32s(left, right)
    }
}

impl WithSimd for Panels<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let vectors = Floats(simd);
        if rows::<S>() == 12 { self.tiles::<_, 12>(vectors) } else { self.tiles::<_, 6>(vectors) }
    }
}

impl Packed for f32 {
    const VALUES: usize = 1;

    fn tile() -> [usize; 2] {
        *TILE
    }

    #[inline(always)]
    fn join<E: crate::dtype::Element, const SCALED: bool>(value: E, _: E, scale: f32) -> f32 {
        if SCALED { value.get() * scale } else { value.get() }
    }

    fn multiply(panels: Panels<'_, f32>) {
        #[cfg(target_arch = "x86_64")]
        if let Some(vectors) = *avx512::FLOATS {
            return vectors.multiply(&panels);
        }
        dispatch(panels);
    }
}

/// Two bf16 of neighbouring depth, the first in the lower half.
impl Packed for u32 {
    const VALUES: usize = 2;

    fn tile() -> [usize; 2] {
        PAIRS_TILE
    }

    #[inline(always)]
    fn join<E: crate::dtype::Element, const SCALED: bool>(first: E, second: E, scale: f32) -> u32 {
        let half = |value: E| {
            if SCALED { crate::dtype::round(value.get() * scale) } else { value.half() }
        };
        half(first) | half(second) << 16
    }

    fn multiply(panels: Panels<'_, u32>) {
        #[cfg(target_arch = "x86_64")]
        if let Some(vectors) = *avx512::PAIRS {
            return vectors.multiply(&panels);
        }
        panels.tiles::<_, 12>(OnePair);
    }
}

/// That of a processor with products of pairs, and of the plain loops that stand in for them.
pub(super) const PAIRS_TILE: [usize; 2] = [12, 32];

/// Pairs without an instruction for them, in the order of the instruction that there is elsewhere: slow, for tests.
#[derive(Clone, Copy)]
pub(super) struct OnePair;

impl Vectors for OnePair {
    type Packed = u32;
    type Right = [u32; 16];
    type Sums = [f32; 16];
    const LANES: usize = 16;

    fn zero(self) -> [f32; 16] {
        [0.0; 16]
    }

    #[expect(unsafe_code, reason = "as of the others")]
    unsafe fn load(self, place: *const u32) -> [u32; 16] {
        // SAFETY: the caller's.
        unsafe { place.cast::<[u32; 16]>().read_unaligned() }
    }

    fn multiply_add(self, left: u32, right: [u32; 16], sums: [f32; 16]) -> [f32; 16] {
        let halves = |pair: u32| [f32::from_bits(pair << 16), f32::from_bits(pair & 0xFFFF_0000)];
        let [low, high] = halves(left);
        std::array::from_fn(|lane| {
            let [right_low, right_high] = halves(right[lane]);
            low.mul_add(right_low, high.mul_add(right_high, sums[lane]))
        })
    }

    fn add(self, left: [f32; 16], right: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|lane| left[lane] + right[lane])
    }
}

impl<P: Packed> Panels<'_, P> {
    /// Plain loops throughout: what a closure of an iterator does is not sure to be compiled for the vectors of `V`.
    #[inline(always)]
    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
    #[expect(clippy::needless_range_loop, reason = "see above")]
    pub(super) fn tiles<V: Vectors<Packed = P>, const ROWS: usize>(&self, vectors: V) {
        let wide = VECTORS * V::LANES;
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
                let sums = sums::<V, ROWS>(vectors, left, right);
                if tall == ROWS && broad == wide {
                    for row in 0..ROWS {
                        for vector in 0..VECTORS {
                            let place = out.wrapping_add(row * self.stride + vector * V::LANES);
                            let place = place.cast::<V::Sums>();
                            let mut sum = sums[row][vector];
                            // SAFETY: the tile is inside the shape, which the caller of `multiply` answers for.
                            unsafe {
                                if self.adds {
                                    sum = vectors.add(place.read_unaligned(), sum);
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
#[expect(clippy::needless_range_loop, reason = "closures are not sure to be compiled for the vectors of `V`")]
fn sums<V: Vectors, const ROWS: usize>(
    vectors: V,
    left: &[V::Packed],
    right: &[V::Packed],
) -> [[V::Sums; VECTORS]; ROWS] {
    let mut sums = [[vectors.zero(); VECTORS]; ROWS];
    let (depth, wide) = (left.len() / ROWS, VECTORS * V::LANES);
    assert!(right.len() >= depth * wide, "gemm: tiles of two depths");
    let (mut left, mut right) = (left.as_ptr(), right.as_ptr());
    for _ in 0..depth {
        // SAFETY: `depth` times ROWS values and VECTORS vectors are there by the assertion.
        unsafe {
            let first = vectors.load(right);
            let second = vectors.load(right.add(V::LANES));
            for row in 0..ROWS {
                let value = *left.add(row);
                sums[row][0] = vectors.multiply_add(value, first, sums[row][0]);
                sums[row][1] = vectors.multiply_add(value, second, sums[row][1]);
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
    struct Tall<'a>(Panels<'a, f32>);

    impl WithSimd for Tall<'_> {
        type Output = usize;

        fn with_simd<S: Simd>(self, simd: S) -> usize {
            self.0.tiles::<_, 12>(Floats(simd));
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
