//! From the bytes of a file to `f32`. The bytes are little-endian and at any alignment.

use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::Dtype;

/// Errors with the reason if the type is none of F32, F16, BF16, F64.
pub(in crate::formats) fn check(dtype: Dtype) -> Result<(), String> {
    match dtype {
        Dtype::F32 | Dtype::BF16 | Dtype::F16 | Dtype::F64 => Ok(()),
        other => Err(refusal(other)),
    }
}

/// Converts `bytes`, elements of `dtype`, into `out`, which has one place for each.
/// Errors with the reason if the type is none of F32, F16, BF16, F64.
pub(in crate::formats) fn to_f32(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> Result<(), String> {
    match dtype {
        Dtype::F32 => each(bytes, out, f32::from_le_bytes),
        Dtype::BF16 => each(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        Dtype::F16 => from_f16(bytes, out),
        Dtype::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        other => return Err(refusal(other)),
    }
    Ok(())
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    let (elements, _) = bytes.as_chunks::<N>();
    for (out, element) in out.iter_mut().zip(elements) {
        *out = read(*element);
    }
}

/// The processor converts halves in vectors, but asks for them aligned: hence the small buffer.
fn from_f16(bytes: &[u8], out: &mut [f32]) {
    let mut halves = [f16::ZERO; 1024];
    for (out, bytes) in out.chunks_mut(halves.len()).zip(bytes.chunks(2 * halves.len())) {
        let (elements, _) = bytes.as_chunks::<2>();
        for (half, element) in halves.iter_mut().zip(elements) {
            *half = f16::from_le_bytes(*element);
        }
        if let Some(halves) = halves.get(..out.len()) {
            halves.convert_to_f32_slice(out);
        }
    }
}

fn refusal(dtype: Dtype) -> String {
    use Dtype::{BOOL, I8, I16, I32, I64, U8, U16, U32, U64};
    match dtype {
        BOOL | I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 => {
            format!(
                "is of type {dtype}, which counts or flags: only F32, F16, BF16 and F64 are read as weights"
            )
        }
        _ => format!(
            "is of type {dtype}, a quantised or rare type that cannot be trained from: get the model as F32, F16 or BF16"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn halves_of_every_bit_pattern_convert_exactly() {
        let patterns: Vec<u16> = (0..=u16::MAX).collect();
        // One byte off, so that no alignment helps.
        let mut bytes = vec![0xEE];
        bytes.extend(patterns.iter().flat_map(|p| p.to_le_bytes()));
        let mut out = vec![0.0; patterns.len()];
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());

        to_f32(Dtype::F16, &bytes[1..], &mut out).unwrap();
        assert!(patterns.iter().zip(&out).all(|(&p, &x)| same(x, f16::from_bits(p).to_f32())));
        to_f32(Dtype::BF16, &bytes[1..], &mut out).unwrap();
        assert!(patterns.iter().zip(&out).all(|(&p, &x)| same(x, bf16::from_bits(p).to_f32())));
    }

    #[test]
    fn wide_floats_keep_their_values() {
        let values = [1.5, -0.0, f32::MIN_POSITIVE / 4.0, f32::INFINITY, 3.4e38];
        let narrow: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let wide: Vec<u8> = values.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
        let mut out = [0.0; 5];
        for (dtype, bytes) in [(Dtype::F32, narrow), (Dtype::F64, wide)] {
            to_f32(dtype, &bytes, &mut out).unwrap();
            assert_eq!(out.map(f32::to_bits), values.map(f32::to_bits));
        }
    }

    #[test]
    fn other_types_are_refused_with_a_reason() {
        let refused = |dtype| {
            let reason = to_f32(dtype, &[0; 8], &mut [0.0]).unwrap_err();
            assert_eq!(check(dtype), Err(reason.clone()));
            reason
        };
        assert!(refused(Dtype::I64).starts_with("is of type I64, which counts"));
        assert!(refused(Dtype::F8_E4M3).starts_with("is of type F8_E4M3, a quantised"));
    }
}
