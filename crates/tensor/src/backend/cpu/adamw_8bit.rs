//! AdamW with moments of a byte a value, after Dettmers et al. 2022.

use std::sync::LazyLock;

use rayon::prelude::*;

use super::adamw::Factors;
use super::math;
use super::parallel::{BLOCK, vectorised};
use crate::EightBit;
use crate::backend::AdamW;

const SIDE: usize = EightBit::BLOCK;

/// 256 places from -1 or 0 to 1, rising: the finer the smaller, by decades, so that what differs by a millionth of the largest
/// is still told apart. The paper's dynamic tree, with the places that `bitsandbytes` gives it.
struct Scale {
    places: [f32; 256],
    /// Above which the next place is nearer.
    middles: [f32; 256],
    /// The place nearest to the least of all numbers with the same sign, exponent and first seven bits; there is at most one
    /// middle among these.
    first: Vec<u8>,
}

/// The first moment's, with signs, and the second's.
static SCALES: LazyLock<[Scale; 2]> = LazyLock::new(|| [Scale::new(true), Scale::new(false)]);

const SIGN: usize = 1 << 14;

impl Scale {
    fn new(signed: bool) -> Self {
        const DECADES: usize = 7;
        let mut places = vec![0.0, 1.0];
        for decade in 0..DECADES {
            let count = 1usize << (decade + usize::from(!signed));
            let edge = |at: usize| 0.1 + 0.9 * at as f64 / count as f64;
            for at in 0..count {
                let place =
                    10f64.powi(decade as i32 + 1 - DECADES as i32) * f64::midpoint(edge(at), edge(at + 1));
                places.push(place as f32);
                if signed {
                    places.push(-place as f32);
                }
            }
        }
        places.sort_by(f32::total_cmp);
        let mut scale = Scale { places: [0.0; 256], middles: [f32::INFINITY; 256], first: Vec::new() };
        scale.places.copy_from_slice(&places);
        for (middle, pair) in scale.middles.iter_mut().zip(places.windows(2)) {
            *middle = f32::midpoint(pair[0], pair[1]);
        }
        let nearest = |x: f32| scale.middles.partition_point(|middle| *middle < x) as u8;
        let least = |bits: usize| match bits & SIGN {
            0 => f32::from_bits((bits as u32) << 16),
            _ => -f32::from_bits((((bits ^ SIGN) as u32) << 16) | 0xffff),
        };
        scale.first = (0..2 * SIGN).map(|bits| nearest(least(bits))).collect();
        scale
    }

    /// The place nearest to `x`, which lies between -1 and 1.
    #[inline(always)]
    fn code(&self, x: f32) -> u8 {
        // What is no number stays none, and has bits that are a place in the table too.
        let x = x.clamp(-1.0, 1.0);
        let bits = x.abs().to_bits() as usize >> 16 | if x < 0.0 { SIGN } else { 0 };
        let first = self.first[bits];
        first + u8::from(x > self.middles[usize::from(first)])
    }
}

pub(super) fn step(
    step: AdamW,
    gradient: &[f32],
    weight: &mut [f32],
    [first, second]: [(&mut [u8], &mut [f32]); 2],
) {
    let factors = Factors::new(&step);
    let blocks = (
        weight.par_chunks_mut(BLOCK),
        gradient.par_chunks(BLOCK),
        first.0.par_chunks_mut(BLOCK),
        first.1.par_chunks_mut(BLOCK / SIDE),
        second.0.par_chunks_mut(BLOCK),
        second.1.par_chunks_mut(BLOCK / SIDE),
    );
    blocks.into_par_iter().for_each(|(weight, gradient, first, first_largest, second, second_largest)| {
        vectorised(
            #[inline(always)]
            || {
                let weights = weight.chunks_mut(SIDE).zip(gradient.chunks(SIDE));
                let firsts = first.chunks_mut(SIDE).zip(first_largest);
                let seconds = second.chunks_mut(SIDE).zip(second_largest);
                for (((weight, gradient), first), second) in weights.zip(firsts).zip(seconds) {
                    block(&factors, weight, gradient, first, second);
                }
            },
        );
    });
}

#[inline(always)]
fn block(
    factors: &Factors,
    weight: &mut [f32],
    gradient: &[f32],
    (first, first_largest): (&mut [u8], &mut f32),
    (second, second_largest): (&mut [u8], &mut f32),
) {
    let [with_sign, without] = &*SCALES;
    let n = weight.len();
    let [mut m, mut v] = [[0.0f32; SIDE]; 2];
    for (values, scale, codes, largest) in
        [(&mut m, with_sign, &*first, &*first_largest), (&mut v, without, &*second, &*second_largest)]
    {
        values.iter_mut().zip(codes).for_each(|(x, code)| *x = scale.places[usize::from(*code)] * *largest);
    }
    for (((w, g), m), v) in weight.iter_mut().zip(gradient).zip(&mut m).zip(&mut v) {
        factors.update(*g, w, m, v);
    }
    let magnitudes = m.map(f32::abs);
    *first_largest = math::max(&magnitudes[..n], |x| x);
    *second_largest = math::max(&v[..n], |x| x);
    let (largest_m, largest_v) = (share(*first_largest), share(*second_largest));
    first.iter_mut().zip(&m[..n]).for_each(|(code, m)| *code = with_sign.code(m / largest_m));
    // A second moment that was rounded to 0 beside a first that was not would be a step of any size.
    second
        .iter_mut()
        .zip(&v[..n])
        .for_each(|(code, v)| *code = without.code(v / largest_v).max(u8::from(*v > 0.0)));
}

/// What the values of a block are divided by: where all are 0, anything.
#[inline(always)]
fn share(largest: f32) -> f32 {
    if largest > 0.0 { largest } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_nearest_places() {
        for scale in &*SCALES {
            assert!(scale.places.is_sorted_by(|one, next| one < next));
            // One comparison is enough: no two middles begin with the same bits.
            let key = |x: f32| (x.is_sign_negative(), x.abs().to_bits() >> 16);
            assert!(scale.middles[..255].windows(2).all(|pair| key(pair[0]) != key(pair[1])));
            let nearest = |x: f32| {
                let distance = |code: &u8| (f64::from(scale.places[usize::from(*code)]) - f64::from(x)).abs();
                (0..=255u8).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap()
            };
            let least = scale.places[0];
            for i in 0..40_000 {
                let t = f64::from(i) / 40_000.0;
                for x in [t as f32, -t as f32, (10f64.powf(-8.0 * t)) as f32, -(10f64.powf(-8.0 * t)) as f32]
                {
                    if x < least {
                        continue;
                    }
                    let (code, nearest) = (scale.code(x), nearest(x));
                    let [got, best] = [code, nearest].map(|code| (scale.places[usize::from(code)] - x).abs());
                    assert!(got <= best + 2e-7 * x.abs(), "{x}: {code}, expected {nearest}");
                }
            }
            // The places themselves come back.
            assert!((0..=255u8).all(|code| scale.code(scale.places[usize::from(code)]) == code));
            assert_eq!((scale.code(5.0), scale.code(f32::INFINITY)), (255, 255));
            assert_eq!(scale.code(-5.0), scale.code(-1.0));
            scale.code(f32::NAN);
        }
    }
}
