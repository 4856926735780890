//! Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
//!
//! A number is a function of a key and a counter, so it does not depend on what was drawn before. Dropout keys it by
//! (seed, epoch, site) and counts (channel, position in the row, row id): neither threads, nor packing, nor gradient
//! accumulation, nor an interruption can move a draw.

pub(crate) const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// A key of the generator: one stream of 2^128 counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key([u32; 2]);

impl Key {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Key(halves(mix(seed)))
    }

    /// A stream of its own for `part` (an epoch, a site, a parameter) of this one.
    pub fn with(self, part: u64) -> Self {
        let own = u64::from(self.0[0]) | u64::from(self.0[1]) << 32;
        Key(halves(mix(own ^ mix(part.wrapping_add(0x9E37_79B9_7F4A_7C15)))))
    }

    /// A stream of its own for a name.
    pub fn with_name(self, name: &str) -> Self {
        // FNV-1a: any fixed hash will do, and this one needs no table.
        let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        self.with(hash)
    }

    /// The four words of one counter, by ten rounds.
    pub fn block(self, counter: [u32; 4]) -> [u32; 4] {
        self.rounds::<10>(counter)
    }

    /// The same by fewer rounds. Seven are the fewest that pass every test of the paper (its table 2).
    pub(crate) fn rounds<const ROUNDS: usize>(self, counter: [u32; 4]) -> [u32; 4] {
        let mut words = counter;
        for key in self.keys::<ROUNDS>() {
            let left = u64::from(MULTIPLIERS[0]) * u64::from(words[0]);
            let right = u64::from(MULTIPLIERS[1]) * u64::from(words[2]);
            let high = |product: u64| (product >> 32) as u32;
            words =
                [high(right) ^ words[1] ^ key[0], right as u32, high(left) ^ words[3] ^ key[1], left as u32];
        }
        words
    }

    /// What each round is keyed with.
    #[inline(always)]
    pub(crate) fn keys<const ROUNDS: usize>(self) -> [[u32; 2]; ROUNDS] {
        let mut keys = [self.0; ROUNDS];
        for round in 1..ROUNDS {
            let [left, right] = keys[round - 1];
            keys[round] = [left.wrapping_add(WEYL[0]), right.wrapping_add(WEYL[1])];
        }
        keys
    }

    /// Words one after the other, for initial weights and shuffles.
    pub fn stream(self) -> Stream {
        Stream { key: self, next: 0, block: [0; 4] }
    }
}

/// Draws in sequence.
#[derive(Debug, Clone)]
pub struct Stream {
    key: Key,
    next: u64,
    block: [u32; 4],
}

impl Stream {
    /// A uniform word.
    pub fn word(&mut self) -> u32 {
        let lane = (self.next % 4) as usize;
        if lane == 0 {
            let [low, high] = halves(self.next / 4);
            self.block = self.key.block([low, high, 0, 0]);
        }
        self.next += 1;
        self.block[lane]
    }

    /// Uniform in [0, 1), with all 24 bits of an f32.
    pub fn uniform(&mut self) -> f32 {
        (self.word() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Standard normal (Box and Muller 1958), in f64 so that the tails are sound.
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - f64::from(self.uniform())).ln()).sqrt();
        let angle = std::f64::consts::TAU * f64::from(self.uniform());
        (radius * angle.cos()) as f32
    }

    /// Uniform in 0..`bound` without bias (Lemire 2019).
    pub fn below(&mut self, bound: u32) -> u32 {
        let reject = bound.wrapping_neg() % bound.max(1);
        loop {
            let wide = u64::from(self.word()) * u64::from(bound);
            if wide as u32 >= reject {
                return (wide >> 32) as u32;
            }
        }
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let bound = u32::try_from(last + 1).unwrap_or(u32::MAX);
            items.swap(last, self.below(bound) as usize);
        }
    }
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// The finaliser of SplitMix64 (Steele et al. 2014).
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_random123() {
        assert_eq!(Key([0, 0]).block([0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = u32::MAX;
        assert_eq!(Key([ones, ones]).block([ones; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(
            Key([0xa409_3822, 0x299f_31d0]).block(pi),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn known_answer_of_seven_rounds() {
        let words = Key([0, 0]).rounds::<7>([0; 4]);
        assert_eq!(words, [0x5f6f_b709, 0x0d89_3f64, 0x4f12_1f81, 0x4f73_0a48]);
    }

    #[test]
    fn draws_are_uniform_and_normal_enough() {
        let mut stream = Key::new(1).stream();
        let (mut mean, mut square, n) = (0.0, 0.0, 40_000);
        for _ in 0..n {
            let x = f64::from(stream.normal());
            mean += x / f64::from(n);
            square += x * x / f64::from(n);
        }
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.03, "{mean} {square}");
        let mut counts = [0; 7];
        (0..70_000).for_each(|_| counts[stream.below(7) as usize] += 1);
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut items: Vec<u32> = (0..101).collect();
        Key::new(3).stream().shuffle(&mut items);
        assert_ne!(items, (0..101).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..101).collect::<Vec<_>>());
    }
}
