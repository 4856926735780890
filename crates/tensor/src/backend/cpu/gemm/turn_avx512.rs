//! Rows that lie in memory as rows, turned by vectors of 512 bits: left to itself, the compiler moves value by value.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm256_maskz_loadu_epi16, _mm512_castsi512_ps, _mm512_cvtepu16_epi32,
    _mm512_cvtne2ps_pbh, _mm512_mask_storeu_epi32, _mm512_maskz_loadu_epi32, _mm512_maskz_loadu_ps,
    _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_slli_epi32,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::avx512::{Floats, Pairs};
use super::pack::Packed;
use crate::dtype::{DType, Element};

/// Units in a vector.
const LANES: usize = 16;

/// The first `count` lanes, or all.
#[inline(always)]
fn lanes(count: usize) -> u16 {
    ((1u32 << count.min(LANES)) - 1) as u16
}

/// Up to sixteen values as f32, times `scale` if they are `SCALED`; 0 beyond them.
///
/// # Safety
/// The machine must have AVX-512, and `place` be good for reading `count` values, or as many as there are lanes.
#[inline(always)]
#[expect(unsafe_code, reason = "the instructions are there only on some machines")]
unsafe fn floats<E: Element, const SCALED: bool>(place: *const E, count: usize, scale: f32) -> __m512 {
    // SAFETY: the caller's; what is masked is not read.
    unsafe {
        let values = if E::DTYPE == DType::Bf16 {
            let halves = _mm256_maskz_loadu_epi16(lanes(count), place.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
        } else {
            _mm512_maskz_loadu_ps(lanes(count), place.cast())
        };
        if SCALED { _mm512_mul_ps(values, _mm512_set1_ps(scale)) } else { values }
    }
}

/// What reads sixteen units of a row.
pub(super) trait Units: Copy {
    /// What it packs.
    type Packed: Packed;
    /// Up to sixteen of them, of neighbouring values; 0 beyond them.
    ///
    /// # Safety
    /// `place` must be good for reading the values of `count` units, or of as many as there are lanes.
    #[expect(unsafe_code, reason = "checked slices cost more than what is read")]
    unsafe fn read<E: Element, const SCALED: bool>(
        self,
        place: *const E,
        count: usize,
        scale: f32,
    ) -> __m512i;
}

#[expect(unsafe_code, reason = "the instructions are there only on some machines")]
impl Units for Floats {
    type Packed = f32;

    #[inline(always)]
    unsafe fn read<E: Element, const SCALED: bool>(
        self,
        place: *const E,
        count: usize,
        scale: f32,
    ) -> __m512i {
        // SAFETY: the caller's; a `Floats` is made only where the instructions are. A vector is 512 bits, whatever its type.
        unsafe { std::mem::transmute(floats::<E, SCALED>(place, count, scale)) }
    }
}

#[expect(unsafe_code, reason = "the instructions are there only on some machines")]
impl Units for Pairs {
    type Packed = u32;

    /// Rounds by one instruction, to which numbers below the smallest normal one are 0, as they are to the products.
    #[inline(always)]
    unsafe fn read<E: Element, const SCALED: bool>(
        self,
        place: *const E,
        count: usize,
        scale: f32,
    ) -> __m512i {
        // SAFETY: the caller's; a `Pairs` is made only where the instructions are. A vector is 512 bits, whatever its type.
        unsafe {
            if !SCALED && E::DTYPE == DType::Bf16 {
                return _mm512_maskz_loadu_epi32(lanes(count), place.cast());
            }
            let first = floats::<E, SCALED>(place, 2 * count, scale);
            let beyond = (2 * count).saturating_sub(LANES);
            let second = floats::<E, SCALED>(place.wrapping_add(LANES), beyond, scale);
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first))
        }
    }
}

/// `TALL` rows, `down` values apart, of as many units as `tile` holds: `tile[unit, row]`.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "plain loops of known length, so that rows are registers")]
pub(super) fn turn<V: Units, E: Element, const SCALED: bool, const TALL: usize>(
    vectors: V,
    data: &[E],
    down: usize,
    scale: f32,
    tile: &mut [V::Packed],
) {
    const { assert!(TALL < LANES || TALL.is_multiple_of(LANES)) };
    let tall = const { if TALL < LANES { TALL } else { LANES } };
    let values = V::Packed::VALUES;
    let units = tile.len() / TALL;
    assert!(units == 0 || data.len() >= (TALL - 1) * down + units * values, "gemm: rows that end early");
    for first in (0..units).step_by(LANES) {
        let count = LANES.min(units - first);
        for top in (0..TALL).step_by(LANES) {
            #[expect(unsafe_code, reason = "checked slices cost more than what is read")]
            // SAFETY: `vectors` is made only where the instructions are; rows and tile are as long as is read and written, by
            // the assertion and by the number of units.
            unsafe {
                let mut rows = [_mm512_setzero_si512(); LANES];
                for row in 0..tall {
                    let place = data.as_ptr().add((top + row) * down + first * values);
                    rows[row] = vectors.read::<E, SCALED>(place, count, scale);
                }
                let columns = turned(rows);
                for unit in 0..LANES {
                    if unit < count {
                        let place = tile.as_mut_ptr().add((first + unit) * TALL + top);
                        _mm512_mask_storeu_epi32(place.cast(), lanes(tall), columns[unit]);
                    }
                }
            }
        }
    }
}

/// Sixteen rows of sixteen as columns: neighbours are brought together, then pairs of these, then fours.
///
/// # Safety
/// The machine must have AVX-512.
#[inline(always)]
#[expect(unsafe_code, reason = "the instructions are there only on some machines")]
unsafe fn turned(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    // SAFETY: the caller's.
    unsafe {
        let mut twos = rows;
        for at in (0..LANES).step_by(2) {
            twos[at] = _mm512_unpacklo_epi32(rows[at], rows[at + 1]);
            twos[at + 1] = _mm512_unpackhi_epi32(rows[at], rows[at + 1]);
        }
        // `fours[4 g + column]` holds of rows 4 g to 4 g + 3 that column of each lane of four.
        let mut fours = twos;
        for at in (0..LANES).step_by(4) {
            fours[at] = _mm512_unpacklo_epi64(twos[at], twos[at + 2]);
            fours[at + 1] = _mm512_unpackhi_epi64(twos[at], twos[at + 2]);
            fours[at + 2] = _mm512_unpacklo_epi64(twos[at + 1], twos[at + 3]);
            fours[at + 3] = _mm512_unpackhi_epi64(twos[at + 1], twos[at + 3]);
        }
        let mut columns = fours;
        for column in 0..4 {
            let upper_even = _mm512_shuffle_i32x4::<EVEN>(fours[column], fours[4 + column]);
            let upper_odd = _mm512_shuffle_i32x4::<ODD>(fours[column], fours[4 + column]);
            let lower_even = _mm512_shuffle_i32x4::<EVEN>(fours[8 + column], fours[12 + column]);
            let lower_odd = _mm512_shuffle_i32x4::<ODD>(fours[8 + column], fours[12 + column]);
            columns[column] = _mm512_shuffle_i32x4::<EVEN>(upper_even, lower_even);
            columns[4 + column] = _mm512_shuffle_i32x4::<EVEN>(upper_odd, lower_odd);
            columns[8 + column] = _mm512_shuffle_i32x4::<ODD>(upper_even, lower_even);
            columns[12 + column] = _mm512_shuffle_i32x4::<ODD>(upper_odd, lower_odd);
        }
        columns
    }
}
