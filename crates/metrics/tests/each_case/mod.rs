//! Random cases, made again as `oracle/random_cases.py` makes them, and what each of them scores in its references.

/// The numbers that cases are drawn by.
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * bound as u128) >> 64) as usize
    }
}

/// Compares the scores of each case, of which the file has the sum with these weights.
pub fn compare(file: &[u8], cases: usize, mut scores: impl FnMut() -> Vec<f64>) {
    let weights = [2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0].map(f64::sqrt);
    let (expected, rest) = file.as_chunks::<8>();
    assert_eq!((expected.len(), rest.len()), (cases, 0));
    for (case, expected) in expected.iter().enumerate() {
        let (scores, expected) = (scores(), f64::from_le_bytes(*expected));
        let sum: f64 = scores.iter().zip(weights).map(|(score, weight)| weight * score).sum();
        let fits = (sum - expected).abs() < 1e-9 * expected.abs().max(1.0);
        assert!(fits, "case {case}: {scores:?} have the sum {sum}, expected {expected}");
    }
}
