//! Vectors of 512 bits: of f32, and of pairs of bf16, where AVX512_BF16 has an instruction that multiplies pairs of
//! neighbouring depth and adds both to an f32 sum.
//!
//! `pulp` has such vectors of f32 too, but as plain structs, of which the compiler keeps a tile of 24 in memory: a third of
//! the speed.

use std::arch::x86_64::{
    __m256bh, __m512, __m512bh, __m512i, _mm256_loadu_si256, _mm256_maskz_loadu_epi16, _mm512_add_ps,
    _mm512_castsi512_ps, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh, _mm512_cvtneps_pbh, _mm512_dpbf16_ps,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_storeu_epi32, _mm512_maskz_loadu_ps,
    _mm512_or_si512, _mm512_permutexvar_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_slli_epi32, _mm512_storeu_si512,
};
use std::hint::black_box;
use std::sync::LazyLock;

use super::kernel::{Panels, Vectors};
use crate::backend::cpu::parallel::forced;
use crate::dtype::bf16;

/// Where each half of sixteen pairs is, of two vectors of sixteen halves.
const BESIDE: [u16; 32] = {
    let mut places = [0; 32];
    let mut half = 0;
    while half < 32 {
        places[half] = (half / 2 + half % 2 * 16) as u16;
        half += 1;
    }
    places
};

/// Proof that this machine has AVX-512, and that nobody asked to do without.
#[derive(Clone, Copy)]
pub(super) struct Floats(());

/// The same of AVX512_BF16.
#[derive(Clone, Copy)]
pub(super) struct Pairs(());

/// None where it has not.
pub(super) static FLOATS: LazyLock<Option<Floats>> = LazyLock::new(|| {
    // All that `pulp` asks for as well, which says how large a tile is.
    let there = std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512vl")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512cd")
        && std::is_x86_feature_detected!("avx512dq");
    (there && forced().is_none_or(|wish| wish == "avx512")).then_some(Floats(()))
});

/// None where it has not.
pub(super) static PAIRS: LazyLock<Option<Pairs>> = LazyLock::new(|| {
    let there = FLOATS.is_some() && std::is_x86_feature_detected!("avx512bf16");
    (there && forced().is_none()).then_some(Pairs(()))
});

impl Floats {
    pub(super) fn multiply(self, panels: &Panels<'_, f32>) {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx2,fma")]
        fn tiles(vectors: Floats, panels: &Panels<'_, f32>) {
            panels.tiles::<_, 12>(vectors);
        }
        #[expect(unsafe_code, reason = "the instructions are there only on some machines")]
        // SAFETY: a `Floats` is made only where they are; AVX-512 brings AVX2 and FMA.
        unsafe {
            tiles(self, panels);
        }
    }
}

impl Pairs {
    pub(super) fn multiply(self, panels: &Panels<'_, u32>) {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512bf16,avx2,fma")]
        fn tiles(vectors: Pairs, panels: &Panels<'_, u32>) {
            panels.tiles::<_, 12>(vectors);
        }
        #[expect(unsafe_code, reason = "the instructions are there only on some machines")]
        // SAFETY: a `Pairs` is made only where they are.
        unsafe {
            tiles(self, panels);
        }
    }

    /// Runs `work`, which must be `#[inline(always)]`, compiled for these instructions.
    #[inline]
    pub(super) fn vectorised<R>(self, work: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512cd,avx512dq,avx512bf16,avx2,fma")]
        fn run<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        #[expect(unsafe_code, reason = "the instructions are there only on some machines")]
        // SAFETY: as of `multiply`.
        unsafe {
            run(work)
        }
    }

    /// Pairs of what is at the same place, the first in the lower half: the compiler does it value by value.
    #[inline(always)]
    pub(super) fn join(self, first: &[u16], second: &[u16], out: &mut [u32]) {
        let len = out.len();
        assert!(first.len() == len && second.len() == len, "gemm: pairs of slices of two lengths");
        let mut place = 0;
        while place < len {
            let there = u16::MAX >> (16 - (len - place).min(16));
            #[expect(unsafe_code, reason = "the instructions are there only on some machines")]
            // SAFETY: a `Pairs` is made only where they are; what is masked is neither read nor written, the rest is inside
            // the slices.
            unsafe {
                let (first, second) = (first.as_ptr().add(place).cast(), second.as_ptr().add(place).cast());
                let out = out.as_mut_ptr().add(place).cast();
                if there == u16::MAX {
                    let upper = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(second)));
                    let lower = _mm512_cvtepu16_epi32(_mm256_loadu_si256(first));
                    _mm512_storeu_si512(out, _mm512_or_si512(lower, upper));
                } else {
                    let wide = |values| _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, values));
                    let upper = _mm512_slli_epi32::<16>(wide(second.cast()));
                    let pairs = _mm512_or_si512(wide(first.cast()), upper);
                    _mm512_mask_storeu_epi32(out.cast(), there, pairs);
                }
            }
            place += 16;
        }
    }

    /// The same of f32, rounded to the nearest bf16; what is less than the least normal one becomes 0, as it is to the products.
    #[inline(always)]
    pub(super) fn round_join(self, first: &[f32], second: &[f32], out: &mut [u32]) {
        let len = out.len();
        assert!(first.len() == len && second.len() == len, "gemm: pairs of slices of two lengths");
        for place in (0..len).step_by(16) {
            let there = u16::MAX >> (16 - (len - place).min(16));
            #[expect(unsafe_code, reason = "the instructions are there only on some machines")]
            // SAFETY: a `Pairs` is made only where they are; what is masked is neither read nor written, the rest is inside
            // the slices.
            unsafe {
                let first = _mm512_maskz_loadu_ps(there, first.as_ptr().add(place));
                let second = _mm512_maskz_loadu_ps(there, second.as_ptr().add(place));
                // The halves of a pair are a vector's halves, sixteen values apart.
                let apart: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(second, first));
                let pairs =
                    _mm512_permutexvar_epi16(std::mem::transmute::<[u16; 32], __m512i>(BESIDE), apart);
                _mm512_mask_storeu_epi32(out.as_mut_ptr().add(place).cast(), there, pairs);
            }
        }
    }

    /// A row along itself, rounded likewise; what is missing of the last pair is 0.
    #[inline(always)]
    pub(super) fn round_row(self, row: &[f32], out: &mut [u32]) {
        assert!(out.len() == row.len().div_ceil(2), "gemm: a row packed into a room of another length");
        for place in (0..row.len()).step_by(32) {
            let there = u32::MAX >> (32 - (row.len() - place).min(32));
            let units = u16::MAX >> (16 - (out.len() - place / 2).min(16));
            #[expect(unsafe_code, reason = "the instructions are there only on some machines")]
            // SAFETY: as of `round_join`.
            unsafe {
                let row = row.as_ptr().wrapping_add(place);
                let lower = _mm512_maskz_loadu_ps(there as u16, row);
                let upper = _mm512_maskz_loadu_ps((there >> 16) as u16, row.wrapping_add(16));
                let pairs: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(upper, lower));
                _mm512_mask_storeu_epi32(out.as_mut_ptr().add(place / 2).cast(), units, pairs);
            }
        }
    }

    /// Twelve sums that do not depend on one another hide what a multiplication takes: floating point operations done.
    pub(super) fn registers(self, turns: usize) -> f64 {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512bf16,avx2,fma")]
        fn all(vectors: Pairs, turns: usize) -> f64 {
            let factor = _mm512_set1_epi32(black_box(0x3F7F_3F7F));
            let left = black_box(0x3F7F_3F7F);
            let mut sums = [vectors.zero(); 12];
            for _ in 0..turns {
                for sum in &mut sums {
                    *sum = vectors.multiply_add(left, factor, *sum);
                }
            }
            black_box(sums);
            4.0 * (turns * sums.len() * Pairs::LANES) as f64
        }
        #[expect(unsafe_code, reason = "the instructions are there only on some machines")]
        // SAFETY: as of `multiply`.
        unsafe {
            all(self, turns)
        }
    }
}

#[expect(unsafe_code, reason = "the instructions are there only on some machines")]
impl Vectors for Floats {
    type Packed = f32;
    type Right = __m512;
    type Sums = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: a `Floats` is made only where the instructions are. The same below.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(self, place: *const f32) -> __m512 {
        // SAFETY: the caller's, and see above.
        unsafe { _mm512_loadu_ps(place) }
    }

    #[inline(always)]
    fn multiply_add(self, left: f32, right: __m512, sums: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(_mm512_set1_ps(left), right, sums) }
    }

    #[inline(always)]
    fn add(self, left: __m512, right: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(left, right) }
    }
}

#[expect(unsafe_code, reason = "the instructions are there only on some machines")]
impl Vectors for Pairs {
    type Packed = u32;
    type Right = __m512i;
    type Sums = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: a `Pairs` is made only where the instructions are. The same below.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(self, place: *const u32) -> __m512i {
        // SAFETY: the caller's, and see above.
        unsafe { _mm512_loadu_si512(place.cast()) }
    }

    #[inline(always)]
    fn multiply_add(self, left: u32, right: __m512i, sums: __m512) -> __m512 {
        // SAFETY: see above; the vectors are 512 bits each, whatever their type.
        unsafe {
            let left: __m512bh = std::mem::transmute(_mm512_set1_epi32(left as i32));
            _mm512_dpbf16_ps(sums, left, std::mem::transmute::<__m512i, __m512bh>(right))
        }
    }

    #[inline(always)]
    fn add(self, left: __m512, right: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(left, right) }
    }

    /// One instruction, to which numbers below the smallest normal one are 0, as they are to the products.
    #[inline(always)]
    unsafe fn round(self, sums: __m512, place: *mut bf16) {
        // SAFETY: the caller's, and see above.
        unsafe { place.cast::<__m256bh>().write_unaligned(_mm512_cvtneps_pbh(sums)) };
    }

    #[inline(always)]
    unsafe fn widen(self, place: *const bf16) -> __m512 {
        // SAFETY: the caller's, and see above.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(place.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
}
