//! The blocks of GGUF files, as ggml lays them out (`ggml-common.h`), to the bit what the `gguf` package of Python makes of
//! them: each function reads one block. Multi-byte values are little-endian.

use crate::backend::cpu::parallel::vectorised;

/// Reads block after block.
#[inline(always)]
pub(super) fn each<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    read: impl Fn(&[u8; BYTES], &mut [f32; VALUES]),
) {
    vectorised(
        #[inline(always)]
        || {
            for (block, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                read(block, out);
            }
        },
    );
}

/// A half as f32, exactly and without branches, so that loops are vectorised.
#[inline(always)]
fn half(low: u8, high: u8) -> f32 {
    let bits = u32::from(u16::from_le_bytes([low, high]));
    let (sign, magnitude) = ((bits & 0x8000) << 16, bits & 0x7FFF);
    // As the exponent's bias differs by 112: 2^112 times what these bits are as an f32. Subnormals come out right.
    let value = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    // Infinity and NaN keep the highest exponent.
    let special = if magnitude >= 0x7C00 { 0x7F80_0000 } else { 0 };
    f32::from_bits(value.to_bits() | special | sign)
}

#[inline(always)]
pub(super) fn f16(block: &[u8; 2], out: &mut [f32; 1]) {
    out[0] = half(block[0], block[1]);
}

/// Factor, 16 bytes: the low halves are the first 16 values.
#[inline(always)]
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    for i in 0..16 {
        let q = block[2 + i];
        out[i] = (f32::from(q & 15) - 8.0) * d;
        out[16 + i] = (f32::from(q >> 4) - 8.0) * d;
    }
}

/// Factor, least value, 16 bytes as before.
#[inline(always)]
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = (half(block[0], block[1]), half(block[2], block[3]));
    for i in 0..16 {
        let q = block[4 + i];
        out[i] = d * f32::from(q & 15) + m;
        out[16 + i] = d * f32::from(q >> 4) + m;
    }
}

/// Factor, the fifth bits of all values, 16 bytes as before.
#[inline(always)]
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for i in 0..16 {
        let q = u32::from(block[6 + i]);
        let (low, high) = (q & 15 | (fifth >> i & 1) << 4, q >> 4 | (fifth >> (16 + i) & 1) << 4);
        out[i] = (low as f32 - 16.0) * d;
        out[16 + i] = (high as f32 - 16.0) * d;
    }
}

/// Factor, least value, fifth bits, 16 bytes.
#[inline(always)]
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = (half(block[0], block[1]), half(block[2], block[3]));
    let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for i in 0..16 {
        let q = u32::from(block[8 + i]);
        let (low, high) = (q & 15 | (fifth >> i & 1) << 4, q >> 4 | (fifth >> (16 + i) & 1) << 4);
        out[i] = d * low as f32 + m;
        out[16 + i] = d * high as f32 + m;
    }
}

/// Factor, 32 signed bytes.
#[inline(always)]
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    for i in 0..32 {
        out[i] = f32::from(block[2 + i].cast_signed()) * d;
    }
}

/// The factors and least values of the eight parts of a block, of six bits each, in twelve bytes.
#[inline(always)]
fn six_bits(bytes: &[u8], part: usize) -> [f32; 2] {
    let (scale, least) = if part < 4 {
        (bytes[part] & 63, bytes[4 + part] & 63)
    } else {
        let both = bytes[4 + part];
        (both & 15 | bytes[part - 4] >> 6 << 4, both >> 4 | bytes[part] >> 6 << 4)
    };
    [f32::from(scale), f32::from(least)]
}

/// Factor of the factors, factor of the least values, 12 bytes of both, 128 bytes: of each 32 the low halves are a part, and
/// the high halves the next.
#[inline(always)]
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, least) = (half(block[0], block[1]), half(block[2], block[3]));
    for pair in 0..4 {
        for upper in 0..2 {
            let part = 2 * pair + upper;
            let [scale, m] = six_bits(&block[4..16], part);
            let (scale, m) = (d * scale, least * m);
            for i in 0..32 {
                let q = block[16 + 32 * pair + i] >> (4 * upper) & 15;
                out[32 * part + i] = scale * f32::from(q) - m;
            }
        }
    }
}

/// As before with 32 bytes between, in which a bit of each is the fifth of a part's value.
#[inline(always)]
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let (d, least) = (half(block[0], block[1]), half(block[2], block[3]));
    for pair in 0..4 {
        for upper in 0..2 {
            let part = 2 * pair + upper;
            let [scale, m] = six_bits(&block[4..16], part);
            let (scale, m) = (d * scale, least * m);
            for i in 0..32 {
                let q = block[48 + 32 * pair + i] >> (4 * upper) & 15;
                let fifth = block[16 + i] >> part & 1;
                out[32 * part + i] = scale * f32::from(q | fifth << 4) - m;
            }
        }
    }
}

/// The low four bits, the high two bits, 16 signed factors, the factor of these.
#[inline(always)]
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = half(block[208], block[209]);
    for part in 0..8 {
        // Of 128 values each: two times 32 low halves, two times 32 high ones.
        let (side, quarter) = (part / 4, part % 4);
        let low = 64 * side + 32 * (quarter % 2);
        for both in 0..2 {
            let scale = d * f32::from(block[192 + 2 * part + both].cast_signed());
            for i in 16 * both..16 * both + 16 {
                let four = block[low + i] >> (4 * (quarter / 2)) & 15;
                let two = block[128 + 32 * side + i] >> (2 * quarter) & 3;
                out[32 * part + i] = scale * (f32::from(four | two << 4) - 32.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_half_is_what_the_library_says() {
        for bits in 0..=u16::MAX {
            let [low, high] = bits.to_le_bytes();
            let (got, want) = (super::half(low, high), half::f16::from_bits(bits).to_f32());
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{bits}: {got} {want}");
        }
    }
}
