//! The innermost loops of a product, over operands that were packed: a tile of the output stays in registers while its
//! whole depth goes by.

use std::sync::LazyLock;

use pulp::{Simd, WithSimd};

use super::pack::Packed;
use crate::backend::Matrix;
use crate::backend::cpu::parallel::dispatch;
use crate::dtype::{Element, bf16};

/// Columns of a tile, in vectors.
const VECTORS: usize = 2;

/// Depths that the right operand is asked for ahead: it lies in a farther cache, and the processor foresees less of it than
/// the loop needs.
const AHEAD: usize = 8;

/// Bytes apart at which all rows of a tile share one set of the nearest cache, which holds eight of them: 64 sets of 64 bytes.
/// Each line would be gone before its next value is read.
const ONE_SET: usize = 64 * 64;

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

/// The body for each row of a tile of up to twelve, one after the other. Written out, since a loop with a body as large as these
/// is not sure to be: it would index the tile by a number that is not known, which takes all sums to memory and back, before and
/// after each tile.
macro_rules! each_row {
    ($row:ident of $rows:ident $body:block) => {
        each_row!(@ $row of $rows $body 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $row:ident of $rows:ident $body:block $($number:literal)*) => {
        const { assert!($rows <= 12) };
        $(if $number < $rows {
            let $row = $number;
            $body
        })*
    };
}

/// How rows of the left operand lie, in packed units.
#[derive(Clone, Copy)]
pub(in crate::backend::cpu) enum Left<'a, P> {
    /// The rows of a tile side by side. Packed, the depth of a tile goes by before the next tile begins; of a matrix that lies
    /// transposed, all rows of a depth lie beside one another. What follows the last row of a tile is read, and not used.
    Columns {
        /// From the first row on.
        values: &'a [P],
        /// From one tile to the next.
        tile: usize,
        /// From one depth to the next.
        depth: usize,
    },
    /// Row by row, as many units apart.
    Rows(&'a [P], usize),
}

impl<'a, P: Packed> Left<'a, P> {
    /// What [`pack`](super::pack::pack) made of rows.
    pub(in crate::backend::cpu) fn packed(values: &'a [P], depth: usize) -> Self {
        let tall = P::tile()[0];
        Left::Columns { values, tile: tall * depth, depth: tall }
    }

    /// A matrix `[depth, rows]`, with room behind it for a tile.
    pub(in crate::backend::cpu) fn transposed(values: &'a [P], rows: usize) -> Self {
        Left::Columns { values, tile: P::tile()[0], depth: rows }
    }

    /// The rows of a matrix where they lie, if they lie as they are multiplied, and a tile of them fits in the nearest cache.
    pub(in crate::backend::cpu) fn of(matrix: &Matrix<'a>) -> Option<Self> {
        let Matrix { data, shape: [_, columns], strides: [down, right] } = *matrix;
        let whole = right == 1 && columns.is_multiple_of(P::VALUES) && down.is_multiple_of(P::VALUES);
        let whole = whole && !(down / P::VALUES * size_of::<P>()).is_multiple_of(ONE_SET);
        let values = P::in_place(data).filter(|_| whole)?;
        Some(Left::Rows(values, down / P::VALUES))
    }

    /// Units that must be there for `rows` of `depth`.
    fn least(&self, rows: usize, depth: usize) -> usize {
        let tall = P::tile()[0];
        match *self {
            Left::Columns { tile, depth: step, .. } => {
                (rows.div_ceil(tall) - 1) * tile + (depth - 1) * step + tall
            }
            Left::Rows(_, stride) => (rows - 1) * stride + depth,
        }
    }

    fn values(&self) -> &'a [P] {
        match self {
            Left::Columns { values, .. } | Left::Rows(values, _) => values,
        }
    }
}

/// Where a result goes.
#[derive(Clone, Copy)]
pub(in crate::backend::cpu) enum Out<'a> {
    /// As sums.
    Sums {
        /// Where the first one goes.
        place: *mut f32,
        /// Whether they are added to what is there.
        adds: bool,
    },
    /// Rounded while it is in registers.
    Rounded {
        /// Where the first value goes.
        place: *mut bf16,
        /// Is added to each row, from the first column on.
        bias: Option<&'a [f32]>,
        /// Whether what is there is added then.
        adds: bool,
    },
}

/// Some rows of the left operand, times some columns of the right one.
pub(in crate::backend::cpu) struct Panels<'a, P> {
    /// The rows.
    pub left: Left<'a, P>,
    /// Tiles of columns: `[tile, depth, columns of a tile]`.
    pub right: &'a [P],
    /// From one tile of columns to the next: their whole depth, of which `depth` may be a part.
    pub right_tile: usize,
    /// What is summed over, in packed units.
    pub depth: usize,
    /// Where the result goes.
    pub out: Out<'a>,
    /// How far apart its rows are.
    pub stride: usize,
    /// Rows and columns of the result, which its last tiles may reach beyond.
    pub shape: [usize; 2],
}

impl<P: Packed> Panels<'_, P> {
    /// Computes it.
    ///
    /// # Safety
    /// `out` must be good for reading and writing `shape` at `stride`, and no one else may touch these places meanwhile.
    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
    pub(in crate::backend::cpu) unsafe fn multiply(self) {
        let [rows, columns] = self.shape;
        let wide = P::tile()[1];
        if rows == 0 || columns == 0 {
            return;
        }
        assert!(
            self.depth > 0
                && self.left.values().len() >= self.left.least(rows, self.depth)
                && self.right.len() >= (columns.div_ceil(wide) - 1) * self.right_tile + wide * self.depth,
            "gemm: packed operands that do not fit"
        );
        if let Out::Rounded { bias: Some(bias), .. } = self.out {
            assert!(bias.len() >= columns, "gemm: a bias that does not fit");
        }
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
    /// The nearest bf16 of each.
    ///
    /// # Safety
    /// The place must be good for writing `LANES`.
    #[inline(always)]
    #[expect(unsafe_code, reason = "a row of a tile is no chunk of a slice")]
    unsafe fn round(self, sums: Self::Sums, place: *mut bf16) {
        let sums: &[f32] = bytemuck::cast_slice(std::slice::from_ref(&sums));
        for (lane, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { place.add(lane).write(bf16::put(*sum)) };
        }
    }
    /// The f32 that bf16 are.
    ///
    /// # Safety
    /// The place must be good for reading `LANES`.
    #[inline(always)]
    #[expect(unsafe_code, reason = "a row of a tile is no chunk of a slice")]
    unsafe fn widen(self, place: *const bf16) -> Self::Sums {
        let mut sums = self.zero();
        let values: &mut [f32] = bytemuck::cast_slice_mut(std::slice::from_mut(&mut sums));
        for (lane, value) in values.iter_mut().enumerate() {
            // SAFETY: the caller's.
            *value = unsafe { place.add(lane).read() }.get();
        }
        sums
    }
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
    pub(super) fn tiles<V: Vectors<Packed = P>, const ROWS: usize>(&self, vectors: V) {
        let wide = VECTORS * V::LANES;
        let [rows, columns] = self.shape;
        let (tall_tiles, wide_tiles) = (rows.div_ceil(ROWS), columns.div_ceil(wide));
        let left = self.left.values().as_ptr();
        for across in 0..wide_tiles {
            let right = &self.right[across * self.right_tile..][..wide * self.depth];
            let broad = wide.min(columns - across * wide);
            for down in 0..tall_tiles {
                let tall = ROWS.min(rows - down * ROWS);
                let tile = [down * ROWS, across * wide, tall, broad];
                self.fetch(tile);
                // Each kind writes its own sums, which thus stay in registers.
                // SAFETY: `multiply` has asserted that each operand is as long as its tiles, and its caller answers for
                // the output; rows beyond the last are the last again.
                unsafe {
                    match self.left {
                        Left::Columns { tile: step, depth, .. } => {
                            let sums =
                                sums_of_columns::<V, ROWS>(vectors, left.add(down * step), depth, right);
                            self.write(vectors, &sums, tile);
                        }
                        Left::Rows(_, stride) => {
                            let mut rows = [left; ROWS];
                            each_row!(row of ROWS {
                                rows[row] = left.add((down * ROWS + row.min(tall - 1)) * stride);
                            });
                            let sums = sums_of_rows::<V, ROWS>(vectors, rows, right);
                            self.write(vectors, &sums, tile);
                        }
                    }
                }
            }
        }
    }

    /// Asks for where a tile goes: the sums take long enough for it to come from a far cache meanwhile.
    #[inline(always)]
    fn fetch(&self, [top, left, tall, _]: [usize; 4]) {
        for row in top..top + tall {
            let first = row * self.stride + left;
            match self.out {
                Out::Sums { place, .. } => prefetch(place.wrapping_add(first)),
                Out::Rounded { place, .. } => prefetch(place.wrapping_add(first)),
            }
        }
    }

    /// Writes a tile's sums, or as many of them as there are rows and columns from its first ones on.
    ///
    /// # Safety
    /// `out` must be good for that.
    #[inline(always)]
    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
    unsafe fn write<V: Vectors<Packed = P>, const ROWS: usize>(
        &self,
        vectors: V,
        sums: &[[V::Sums; VECTORS]; ROWS],
        [top, left, tall, broad]: [usize; 4],
    ) {
        let wide = VECTORS * V::LANES;
        let first = top * self.stride + left;
        let bias = match self.out {
            Out::Rounded { bias, .. } => bias.map(|bias| bias[left..].as_ptr()),
            Out::Sums { .. } => None,
        };
        match self.out {
            Out::Sums { place, adds } if tall == ROWS && broad == wide => {
                each_row!(row of ROWS {
                    let place = place.wrapping_add(first + row * self.stride);
                    // SAFETY: the caller's.
                    unsafe {
                        write_vector(vectors, sums[row][0], adds, place);
                        write_vector(vectors, sums[row][1], adds, place.wrapping_add(V::LANES));
                    }
                });
            }
            Out::Sums { place, adds } if tall == ROWS && broad == V::LANES => {
                each_row!(row of ROWS {
                    let place = place.wrapping_add(first + row * self.stride);
                    // SAFETY: the caller's.
                    unsafe { write_vector(vectors, sums[row][0], adds, place) };
                });
            }
            Out::Rounded { place, adds, .. } if tall == ROWS && broad == wide => {
                each_row!(row of ROWS {
                    let place = place.wrapping_add(first + row * self.stride);
                    // SAFETY: the caller's.
                    unsafe { round_row(vectors, sums[row], bias, adds, place) };
                });
            }
            out => {
                let mut tile = [[0.0; WIDEST]; ROWS];
                each_row!(row of ROWS {
                    if row < tall {
                        let place = tile[row].as_mut_ptr();
                        // SAFETY: a tile is no wider than the room for it.
                        unsafe {
                            write_vector(vectors, sums[row][0], false, place);
                            write_vector(vectors, sums[row][1], false, place.wrapping_add(V::LANES));
                        }
                    }
                });
                for (row, sums) in tile[..tall].iter().enumerate() {
                    // SAFETY: the caller's.
                    unsafe { write_part(vectors, &sums[..broad], out, first + row * self.stride, left) };
                }
            }
        }
    }
}

/// Columns of the widest tile.
const WIDEST: usize = 64;

/// Sums of a tile, after what is there has been added if it `adds`.
///
/// # Safety
/// A vector must be there at `place`.
#[inline(always)]
#[expect(unsafe_code, reason = "a row of a tile is no chunk of a slice")]
unsafe fn write_vector<V: Vectors>(vectors: V, mut sums: V::Sums, adds: bool, place: *mut f32) {
    let place = place.cast::<V::Sums>();
    // SAFETY: the caller's.
    unsafe {
        if adds {
            sums = vectors.add(place.read_unaligned(), sums);
        }
        place.write_unaligned(sums);
    }
}

/// A row of a tile that ends early: its sums go to `place`, the bias from `left` on is added to them.
///
/// # Safety
/// `out` must be good for that.
#[inline(always)]
#[expect(unsafe_code, reason = "a row of a tile is no chunk of a slice")]
unsafe fn write_part<V: Vectors>(vectors: V, sums: &[f32], out: Out<'_>, place: usize, left: usize) {
    match out {
        Out::Sums { place: out, adds } => {
            // SAFETY: the caller's.
            let out = unsafe { std::slice::from_raw_parts_mut(out.wrapping_add(place), sums.len()) };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = if adds { *out + sum } else { *sum };
            }
        }
        // In a whole row's place.
        Out::Rounded { place: out, bias, adds } => {
            let broad = sums.len();
            // SAFETY: the caller's.
            let out = unsafe { std::slice::from_raw_parts_mut(out.wrapping_add(place), broad) };
            let (mut all, mut there, mut added) = ([0.0; WIDEST], [bf16::ZERO; WIDEST], [0.0; WIDEST]);
            all[..broad].copy_from_slice(sums);
            there[..broad].copy_from_slice(out);
            if let Some(bias) = bias {
                added[..broad].copy_from_slice(&bias[left..left + broad]);
            }
            let bias = bias.map(|_| added.as_ptr());
            let all: [V::Sums; VECTORS] =
                bytemuck::pod_read_unaligned(bytemuck::cast_slice(&all[..VECTORS * V::LANES]));
            // SAFETY: a tile is no wider than these rooms.
            unsafe { round_row(vectors, all, bias, adds, there.as_mut_ptr()) };
            out.copy_from_slice(&there[..broad]);
        }
    }
}

/// A whole row of a tile, rounded after the bias and what is there have been added.
///
/// # Safety
/// A row of a tile must be there at `bias` and `place`.
#[inline(always)]
#[expect(unsafe_code, reason = "a row of a tile is no chunk of a slice")]
unsafe fn round_row<V: Vectors>(
    vectors: V,
    sums: [V::Sums; VECTORS],
    bias: Option<*const f32>,
    adds: bool,
    place: *mut bf16,
) {
    const { assert!(VECTORS * V::LANES <= WIDEST, "a tile wider than the room for one that ends early") };
    let [first, second] = sums;
    // SAFETY: the caller's.
    unsafe {
        round_vector(vectors, first, bias, adds, place);
        let bias = bias.map(|bias| bias.wrapping_add(V::LANES));
        round_vector(vectors, second, bias, adds, place.wrapping_add(V::LANES));
    }
}

/// A vector of it.
///
/// # Safety
/// A vector must be there at `bias` and `place`.
#[inline(always)]
#[expect(unsafe_code, reason = "a row of a tile is no chunk of a slice")]
unsafe fn round_vector<V: Vectors>(
    vectors: V,
    mut sum: V::Sums,
    bias: Option<*const f32>,
    adds: bool,
    place: *mut bf16,
) {
    // SAFETY: the caller's.
    unsafe {
        if let Some(bias) = bias {
            sum = vectors.add(sum, bias.cast::<V::Sums>().read_unaligned());
        }
        if adds {
            sum = vectors.add(sum, vectors.widen(place));
        }
        vectors.round(sum, place);
    }
}

/// One tile: the sum over the depth of the products of a column of the left operand, which begin `step` apart, and a row
/// of `right`.
///
/// # Safety
/// `ROWS` units must be there at each step.
#[inline(always)]
#[expect(unsafe_code, reason = "checked slices in this loop cost a tenth of its speed")]
unsafe fn sums_of_columns<V: Vectors, const ROWS: usize>(
    vectors: V,
    mut left: *const V::Packed,
    step: usize,
    right: &[V::Packed],
) -> [[V::Sums; VECTORS]; ROWS] {
    let mut sums = [[vectors.zero(); VECTORS]; ROWS];
    let wide = VECTORS * V::LANES;
    let depth = right.len() / wide;
    let mut right = right.as_ptr();
    for _ in 0..depth {
        // SAFETY: the vectors are there by the slice's length, the values by the caller's promise.
        unsafe {
            prefetch(right.wrapping_add(AHEAD * wide));
            prefetch(right.wrapping_add(AHEAD * wide + V::LANES));
            let first = vectors.load(right);
            let second = vectors.load(right.add(V::LANES));
            each_row!(row of ROWS {
                let value = *left.add(row);
                sums[row][0] = vectors.multiply_add(value, first, sums[row][0]);
                sums[row][1] = vectors.multiply_add(value, second, sums[row][1]);
            });
            left = left.wrapping_add(step);
            right = right.add(wide);
        }
    }
    sums
}

/// The same of rows that lie anywhere, each from one depth to the next.
///
/// # Safety
/// Each row must be as deep as `right`.
#[inline(always)]
#[expect(unsafe_code, reason = "checked slices in this loop cost a tenth of its speed")]
unsafe fn sums_of_rows<V: Vectors, const ROWS: usize>(
    vectors: V,
    left: [*const V::Packed; ROWS],
    right: &[V::Packed],
) -> [[V::Sums; VECTORS]; ROWS] {
    let mut sums = [[vectors.zero(); VECTORS]; ROWS];
    let wide = VECTORS * V::LANES;
    let depth = right.len() / wide;
    let mut right = right.as_ptr();
    for place in 0..depth {
        // SAFETY: the vectors are there by the slice's length, the values by the caller's promise.
        unsafe {
            prefetch(right.wrapping_add(AHEAD * wide));
            prefetch(right.wrapping_add(AHEAD * wide + V::LANES));
            let first = vectors.load(right);
            let second = vectors.load(right.add(V::LANES));
            each_row!(row of ROWS {
                let value = *left[row].add(place);
                sums[row][0] = vectors.multiply_add(value, first, sums[row][0]);
                sums[row][1] = vectors.multiply_add(value, second, sums[row][1]);
            });
            right = right.add(wide);
        }
    }
    sums
}

#[inline(always)]
pub(super) fn prefetch<T>(place: *const T) {
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
        // The last tile is less than a vector wide, and one.
        for more in [3, TILE[1] / VECTORS] {
            tall_tiles(TILE[1] + more);
        }
    }

    fn tall_tiles(columns: usize) {
        let (wide, rows, depth) = (TILE[1], 17, 5);
        let left = |row: usize, k: usize| ((row * depth + k) % 13) as f32 - 6.0;
        let right = |column: usize, k: usize| ((column * depth + k) % 11) as f32 - 5.0;
        let packed = |len: usize, place: &dyn Fn(usize) -> (usize, usize)| -> Vec<f32> {
            (0..len).map(place).map(|(row, k)| left(row, k)).collect()
        };
        let of_tiles =
            packed(24 * depth, &|index| (index / (12 * depth) * 12 + index % 12, index / 12 % depth));
        let by_rows = packed(rows * depth, &|index| (index / depth, index % depth));
        let by_columns = packed(rows * depth + 12, &|index| (index % rows, index / rows % depth));
        // Deeper than what is summed over, as a part of a longer row is.
        let rights: Vec<f32> = (0..columns.div_ceil(wide) * wide * (depth + 1))
            .map(|index| {
                let (tile, k) = (index / (wide * (depth + 1)), index / wide % (depth + 1));
                right(tile * wide + index % wide, k)
            })
            .collect();
        for left_operand in [
            Left::Columns { values: &of_tiles, tile: 12 * depth, depth: 12 },
            Left::Rows(&by_rows, depth),
            Left::Columns { values: &by_columns, tile: 12, depth: rows },
        ] {
            let mut out = vec![1.0; rows * columns];
            let panels = Panels {
                left: left_operand,
                right: &rights,
                right_tile: wide * (depth + 1),
                depth,
                out: Out::Sums { place: out.as_mut_ptr(), adds: true },
                stride: columns,
                shape: [rows, columns],
            };
            assert_eq!(dispatch(Tall(panels)), wide);
            for (index, got) in out.iter().enumerate() {
                let (row, column) = (index / columns, index % columns);
                let want = 1.0 + (0..depth).map(|k| left(row, k) * right(column, k)).sum::<f32>();
                assert!((got - want).abs() < 1e-3, "[{row}, {column}]: {got}, expected {want}");
            }
        }
    }
}
