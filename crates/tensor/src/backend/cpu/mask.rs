//! The mask of dropout, drawn wherever it is needed: a row of channels at a time, vectors of counters of the generator.

use pulp::{Simd, WithSimd};

use super::parallel::dispatch;
use crate::backend::Dropout;
use crate::dtype::Element;
use crate::random::{Key, MULTIPLIERS};

/// Counters at a time: as many as the widest vector has lanes, so that each machine draws the same.
const COUNTERS: usize = 16;

/// Values at a time: a counter gives four words, and a word two draws.
const VALUES: usize = 8 * COUNTERS;

/// What a draw is below.
const DRAWS: f32 = 65_536.0;

impl Dropout {
    /// Applies the mask of one row of channels in place, and multiplies what is kept with `factor`; `place` is what keys
    /// the row.
    #[inline(always)]
    pub(super) fn mask<E: Element>(self, key: Key, place: [u32; 3], factor: f32, values: &mut [E]) {
        // p < 1, but its nearest share of the draws may be all of them.
        let dropped = (self.probability * DRAWS).round().min(DRAWS - 1.0);
        let keep = factor * (DRAWS / (DRAWS - dropped));
        dispatch(Mask { key, place, threshold: dropped as i32, keep, values });
    }
}

struct Mask<'a, E> {
    key: Key,
    place: [u32; 3],
    /// A draw below it drops its value.
    threshold: i32,
    keep: f32,
    values: &'a mut [E],
}

impl<E: Element> WithSimd for Mask<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (block, values) in self.values.chunks_mut(VALUES).enumerate() {
            let words = words(simd, self.key, (block * COUNTERS) as u32, self.place);
            let words = words.as_flattened();
            let (low, high) = values.split_at_mut(values.len().min(VALUES / 2));
            // Products, so that a NaN is not dropped with its value.
            for (x, word) in low.iter_mut().zip(words) {
                let factor = if ((word & 0xFFFF) as i32) < self.threshold { 0.0 } else { self.keep };
                *x = E::put(x.get() * factor);
            }
            for (x, word) in high.iter_mut().zip(words) {
                let factor = if ((word >> 16) as i32) < self.threshold { 0.0 } else { self.keep };
                *x = E::put(x.get() * factor);
            }
        }
    }
}

/// The words of [`COUNTERS`] counters from `first` on, word by word: see [`Key::rounds`].
#[inline(always)]
fn words<S: Simd>(simd: S, key: Key, first: u32, place: [u32; 3]) -> [[u32; COUNTERS]; 4] {
    let mut counters = [first; COUNTERS];
    for (lane, counter) in counters.iter_mut().enumerate() {
        *counter = first.wrapping_add(lane as u32);
    }
    let keys = key.keys::<7>();
    let mut words = [[0; COUNTERS]; 4];
    let (left, right) = (simd.splat_u32s(MULTIPLIERS[0]), simd.splat_u32s(MULTIPLIERS[1]));
    let (vectors, _) = S::as_simd_u32s(&counters);
    for (index, counter) in vectors.iter().enumerate() {
        let mut now =
            [*counter, simd.splat_u32s(place[0]), simd.splat_u32s(place[1]), simd.splat_u32s(place[2])];
        for key in &keys {
            let (left_low, left_high) = simd.widening_mul_u32s(now[0], left);
            let (right_low, right_high) = simd.widening_mul_u32s(now[2], right);
            now = [
                simd.xor_u32s(simd.xor_u32s(right_high, now[1]), simd.splat_u32s(key[0])),
                right_low,
                simd.xor_u32s(simd.xor_u32s(left_high, now[3]), simd.splat_u32s(key[1])),
                left_low,
            ];
        }
        for (to, now) in words.iter_mut().zip(now) {
            let (to, _) = S::as_mut_simd_u32s(to);
            to[index] = now;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Words(Key, u32, [u32; 3]);

    impl WithSimd for Words {
        type Output = [[u32; COUNTERS]; 4];

        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            words(simd, self.0, self.1, self.2)
        }
    }

    #[test]
    fn vectors_draw_what_one_counter_draws() {
        let key = Key::new(7).with(3).with_name("site");
        let vectors = dispatch(Words(key, 32, [1, 2, 3]));
        let portable = pulp::Scalar.vectorize(Words(key, 32, [1, 2, 3]));
        for lane in 0..COUNTERS {
            let one = key.rounds::<7>([32 + lane as u32, 1, 2, 3]);
            assert_eq!(vectors.map(|word| word[lane]), one);
            assert_eq!(portable.map(|word| word[lane]), one);
        }
    }

    /// Rows of masks, by position and row of the batch.
    fn masks(columns: usize) -> Vec<Vec<f32>> {
        let dropout = Dropout { probability: 0.1, key: Key::new(5).with_name("site") };
        (0..6000)
            .map(|row| {
                let mut values = vec![1.0; columns];
                dropout.mask(dropout.key, [row % 100, row / 100, 0], 1.0, &mut values);
                values
            })
            .collect()
    }

    #[test]
    fn masks_keep_the_mean_and_do_not_follow_one_another() {
        for columns in [13, 64, 200, 384] {
            let masks = masks(columns);
            let count = (masks.len() * columns) as f64;
            let mean = masks.iter().flatten().map(|x| f64::from(*x)).sum::<f64>() / count;
            // The deviation of one value is 1/3.
            assert!((mean - 1.0).abs() < 4.0 / 3.0 / count.sqrt(), "{columns} columns: a mean of {mean}");
            let around = |row: &[f32]| row.iter().map(|x| f64::from(*x) - 1.0).collect::<Vec<_>>();
            let centred: Vec<Vec<f64>> = masks.iter().map(|row| around(row)).collect();
            // Values beside one another, a vector, a word and half a block apart; and rows beside one another.
            for apart in [1, 2, 8, 16, 32, 64, 128].into_iter().filter(|apart| *apart < columns) {
                let pairs = centred.iter().flat_map(|row| row.iter().zip(&row[apart..]).map(|(a, b)| a * b));
                let pairs: Vec<f64> = pairs.collect();
                let correlation = 9.0 * pairs.iter().sum::<f64>() / pairs.len() as f64;
                let most = 4.5 / (pairs.len() as f64).sqrt();
                assert!(correlation.abs() < most, "{columns} columns, {apart} apart: {correlation}");
            }
            for apart in [1, 100] {
                let rows = centred.iter().zip(&centred[apart..]);
                let sum: f64 = rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>()).sum();
                let correlation = 9.0 * sum / count;
                assert!(correlation.abs() < 4.5 / count.sqrt(), "{columns} columns, rows {apart} apart");
            }
        }
    }
}
