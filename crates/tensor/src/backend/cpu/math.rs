//! Functions of one value, without branches, so that a loop over them is vectorised. The same operations in the same order on
//! every machine: a sum with a product is rounded once (`mul_add`), which is one instruction on all but old processors, and a
//! call of the library there.

use pulp::{Simd, WithSimd};

use super::parallel::dispatch;
use crate::dtype::Element;

/// e^x to about 1e-7 relative: 2^n e^r with |r| <= ln(2) / 2, and e^r as the polynomial of degree six with the least relative
/// error, 4e-9, of those that begin with 1 + r; zero from about 2^-126.5 down, infinite from 2^127.5 up.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // 1.5 * 2^23: adding it rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    // Just so far that 2^n becomes the bits of zero and of infinity: a clamp within would make e^-inf 1e-38.
    let x = x.clamp(-88.0, 89.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let series = r.mul_add(1.381_454e-3, 8.368_745e-3).mul_add(r, 4.166_839_1e-2);
    let series = series.mul_add(r, 0.166_665_2).mul_add(r, 0.499_999_93);
    let series = series.mul_add(r, 1.0).mul_add(r, 1.0);
    // The integer stands in the last bits of the shifted number; its sign goes over the edge.
    series * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// erf(x) to about 3e-7: the rational minimax approximation x P(x^2) / Q(x^2) on [-4, 4] used by Eigen and XLA.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let near = x.clamp(-4.0, 4.0);
    let s = near * near;
    let p = s.mul_add(-2.726_142_3e-10, 2.770_681_4e-8).mul_add(s, -2.101_024e-6);
    let p = p.mul_add(s, -5.692_506_4e-5).mul_add(s, -7.349_906e-4);
    let p = p.mul_add(s, -2.954_6e-3).mul_add(s, -1.609_603_4e-2);
    let q = s.mul_add(-1.456_607_2e-5, -2.133_740_6e-4).mul_add(s, -1.682_827e-3);
    let q = q.mul_add(s, -7.373_329e-3).mul_add(s, -1.426_473_9e-2);
    // The quotient misses 1 by its last bits, which gelu would multiply with a large x.
    if x.abs() >= 4.0 { 1.0f32.copysign(x) } else { near * p / q }
}

/// tanh(x): by e^2x, and by its series near zero, where the difference would lose digits.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let s = x * x;
    let series = s.mul_add(62.0 / 2835.0, -17.0 / 315.0).mul_add(s, 2.0 / 15.0).mul_add(s, -1.0 / 3.0);
    let near = x * series.mul_add(s, 1.0);
    let far = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if s < 0.06 { near } else { far }
}

const INV_SQRT_2: f32 = std::f32::consts::FRAC_1_SQRT_2;
const INV_SQRT_TAU: f32 = 0.398_942_3;
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * INV_SQRT_2))
}

#[inline(always)]
pub(super) fn gelu_derivative(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * INV_SQRT_2)) + x * INV_SQRT_TAU * exp(-0.5 * x * x)
}

#[inline(always)]
pub(super) fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)))
}

#[inline(always)]
pub(super) fn gelu_tanh_derivative(x: f32) -> f32 {
    let t = tanh(SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x));
    let inner = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044_715 * x * x);
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
}

#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The sum of `f` over `values`: sixteen partial sums in a fixed order, so that it is vectorised and the same on
/// every machine.
#[inline(always)]
pub(super) fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let (whole, rest) = values.as_chunks::<16>();
    for chunk in whole {
        for lane in 0..16 {
            lanes[lane] += f(chunk[lane]);
        }
    }
    fold(lanes) + rest.iter().fold(0.0, |sum, x| sum + f(*x))
}

/// The sum of the products of two slices, likewise; by vectors as types, as the compiler does not find them in a loop that
/// is inlined where much else is.
#[inline(always)]
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    struct Dot<'a>(&'a [[f32; 16]], &'a [[f32; 16]]);
    impl WithSimd for Dot<'_> {
        type Output = [f32; 16];

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> [f32; 16] {
            let mut lanes = [0.0f32; 16];
            let (sums, _) = S::as_mut_simd_f32s(&mut lanes);
            for (vector, sum) in sums.iter_mut().enumerate() {
                let mut own = *sum;
                for (a, b) in self.0.iter().zip(self.1) {
                    own = simd.add_f32s(
                        own,
                        simd.mul_f32s(S::as_simd_f32s(a).0[vector], S::as_simd_f32s(b).0[vector]),
                    );
                }
                *sum = own;
            }
            lanes
        }
    }
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<16>(), right.as_chunks::<16>());
    fold(dispatch(Dot(left, right))) + left_rest.iter().zip(right_rest).fold(0.0, |sum, (a, b)| sum + a * b)
}

/// The values as f32.
#[inline(always)]
pub(super) fn widen<E: Element>(from: &[E], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.get();
    }
}

/// The largest of `f` over `values`.
#[inline(always)]
pub(super) fn max(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (whole, rest) = values.as_chunks::<16>();
    for chunk in whole {
        for lane in 0..16 {
            let x = f(chunk[lane]);
            lanes[lane] = if x > lanes[lane] { x } else { lanes[lane] };
        }
    }
    let rest = rest.iter().map(|x| f(*x));
    lanes.into_iter().chain(rest).fold(f32::NEG_INFINITY, |max, x| if x > max { x } else { max })
}

#[inline(always)]
fn fold(mut lanes: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_tanh_follow_the_library() {
        for i in -3000..3000 {
            let x = i as f32 * 0.0291;
            let (want, got) = (f64::from(x).exp(), f64::from(exp(x)));
            assert!((got - want).abs() <= 3e-7 * want + 1e-37, "exp({x}) = {got}, expected {want}");
            let x = i as f32 * 0.004;
            let (want, got) = (f64::from(x).tanh(), f64::from(tanh(x)));
            assert!((got - want).abs() <= 4e-7 * want.abs() + 1e-12, "tanh({x}) = {got}, expected {want}");
        }
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan() && gelu(f32::NAN).is_nan());
    }

    #[test]
    fn limits_are_reached() {
        let zeros = [exp(f32::NEG_INFINITY), exp(-1e30), gelu(-1e30), gelu_derivative(-1e38), sigmoid(-1e30)];
        assert!(zeros.iter().all(|x| *x == 0.0), "{zeros:?}");
        let ones = [tanh(1e30), sigmoid(1e30), gelu_derivative(1e38), gelu(1e30) / 1e30];
        assert!(ones.iter().all(|x| (x - 1.0).abs() < 1e-6), "{ones:?}");
        assert!(exp(1e30).is_infinite() && exp(1e30) > 0.0);
    }

    #[test]
    fn sums_count_every_value_once() {
        for n in [0, 1, 15, 16, 17, 33, 100] {
            let values: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            let want = (n * (n + 1) / 2) as f32;
            assert!((sum(&values, |x| x) - want).abs() < 0.5);
            let (apart, together) = (sum(&values, |x| x * x), dot(&values, &values));
            assert_eq!(apart.to_bits(), together.to_bits());
            assert!(n == 0 || (max(&values, |x| x) - n as f32).abs() < 0.5);
        }
    }
}
