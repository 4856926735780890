//! Which token comes next, of its logits.

use retune_tensor::random::Key;

/// How a token is drawn. The parts are applied in the order of the fields, each with the definition of transformers' logits
/// processor of its name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits of tokens that the row has are divided by it where they are above 0, else multiplied (Keskar et al. 2019); 1 changes
    /// nothing.
    pub repetition_penalty: f32,
    /// What logits are divided by; at 0 the likeliest token is taken, and nothing is drawn.
    pub temperature: f32,
    /// So many of the likeliest tokens stay, with those that are as likely; all at 0.
    pub top_k: usize,
    /// The likeliest tokens stay that together have this probability (Holtzman et al. 2020); all at 1.
    pub top_p: f32,
    /// Tokens stay that have this share of the likeliest one's probability (Nguyen et al. 2024); all at 0.
    pub min_p: f32,
}

impl Default for Sampling {
    /// The likeliest token.
    fn default() -> Self {
        Sampling { repetition_penalty: 1.0, temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0 }
    }
}

impl Sampling {
    /// The next token behind `seen`; `key` draws it. The first of several that are equally likely where nothing is drawn. None
    /// where a logit is no number, or there are none.
    pub fn next(&self, logits: &[f32], seen: &[u32], key: Key) -> Option<u32> {
        let mut scores = logits.to_vec();
        self.scores(&mut scores, seen);
        if scores.iter().any(|score| score.is_nan()) {
            return None;
        }
        let best = |scores: &[f32]| {
            let beats = |best: usize, at: usize| if scores[at] > scores[best] { at } else { best };
            (0..scores.len()).reduce(beats)
        };
        let token = match best(&scores)? {
            at if !scores[at].is_finite() => None,
            at if self.is_greedy() => Some(at),
            at => {
                let most = f64::from(scores[at]);
                let weights: Vec<f64> = scores.iter().map(|score| (f64::from(*score) - most).exp()).collect();
                let total: f64 = weights.iter().sum();
                let mut stream = key.stream();
                // 48 bits, so that rare tokens are drawn as rarely as they should be.
                let share =
                    (f64::from(stream.uniform()) + f64::from(stream.uniform()) / 16_777_216.0) * total;
                let mut below = 0.0;
                let drawn = weights.iter().position(|weight| {
                    below += weight;
                    share < below
                });
                // Rounding may leave the last share to nobody.
                drawn.or(Some(at))
            }
        };
        token.and_then(|token| u32::try_from(token).ok())
    }

    /// Whether nothing is drawn.
    pub fn is_greedy(&self) -> bool {
        self.temperature <= 0.0
    }

    /// What is drawn from, of logits: what is left out is minus infinity.
    pub fn scores(&self, scores: &mut [f32], seen: &[u32]) {
        if self.repetition_penalty.to_bits() != 1.0f32.to_bits() {
            let mut seen = seen.to_vec();
            seen.sort_unstable();
            seen.dedup();
            for token in seen {
                let Some(score) = scores.get_mut(token as usize) else { continue };
                *score = if *score < 0.0 {
                    *score * self.repetition_penalty
                } else {
                    *score / self.repetition_penalty
                };
                *score = score.clamp(f32::MIN, f32::MAX);
            }
        }
        if self.is_greedy() {
            return;
        }
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // A temperature that would make the largest infinite sees how far the others are below.
        let from = if (most / self.temperature).is_finite() { 0.0 } else { most };
        scores.iter_mut().for_each(|score| *score = (*score - from) / self.temperature);
        if self.top_k > 0 && self.top_k < scores.len() {
            let mut sorted = scores.to_vec();
            let (_, least, _) = sorted.select_nth_unstable_by(self.top_k - 1, |a, b| b.total_cmp(a));
            let least = *least;
            drop_where(scores, |score| score < least);
        }
        if self.top_p < 1.0 {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
            let shares = shares(scores);
            let (mut below, rare) = (0.0, 1.0 - f64::from(self.top_p));
            // The likeliest stays, whatever it has.
            for at in order.iter().take(order.len().saturating_sub(1)) {
                below += shares[*at];
                if below > rare {
                    break;
                }
                scores[*at] = f32::NEG_INFINITY;
            }
        }
        if self.min_p > 0.0 {
            let shares = shares(scores);
            let least = f64::from(self.min_p) * shares.iter().copied().fold(0.0, f64::max);
            scores.iter_mut().zip(shares).filter(|(_, share)| *share < least).for_each(|(score, _)| {
                *score = f32::NEG_INFINITY;
            });
        }
    }
}

fn drop_where(scores: &mut [f32], dropped: impl Fn(f32) -> bool) {
    scores.iter_mut().filter(|score| dropped(**score)).for_each(|score| *score = f32::NEG_INFINITY);
}

/// Their softmax.
fn shares(scores: &[f32]) -> Vec<f64> {
    let most = f64::from(scores.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let weights: Vec<f64> = scores.iter().map(|score| (f64::from(*score) - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        let logits = [1.0, -0.5, 2.0, 0.3, f32::NEG_INFINITY];
        let sampling = Sampling { temperature: 0.7, ..Sampling::default() };
        let (mut counts, draws) = ([0u32; 5], 40_000);
        for draw in 0..draws {
            let token = sampling.next(&logits, &[], Key::new(5).with(draw)).unwrap();
            counts[token as usize] += 1;
        }
        let mut scores = logits.to_vec();
        sampling.scores(&mut scores, &[]);
        for (count, share) in counts.iter().zip(shares(&scores)) {
            let got = f64::from(*count) / draws as f64;
            // Five standard deviations.
            assert!(
                (got - share).abs() < 5.0 * (share * (1.0 - share) / draws as f64).sqrt() + 1e-9,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn scores_are_those_of_transformers() {
        let text = include_str!("../tests/golden/sampling.json");
        let golden: serde_json::Value = serde_json::from_str(text).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        for case in cases {
            let number = |name: &str, usual: f64| case["settings"][name].as_f64().unwrap_or(usual) as f32;
            let sampling = Sampling {
                repetition_penalty: number("repetition_penalty", 1.0),
                temperature: number("temperature", 0.0),
                top_k: number("top_k", 0.0) as usize,
                top_p: number("top_p", 1.0),
                min_p: number("min_p", 0.0),
            };
            let list = |name: &str| case[name].as_array().unwrap().clone();
            let seen: Vec<u32> = list("seen").iter().map(|id| id.as_u64().unwrap() as u32).collect();
            let number = |value: &serde_json::Value| value.as_f64().map_or(f32::NEG_INFINITY, |x| x as f32);
            let mut scores: Vec<f32> = list("logits").iter().map(number).collect();
            sampling.scores(&mut scores, &seen);
            for (got, want) in scores.iter().zip(list("scores").iter().map(number)) {
                let same = got.to_bits() == want.to_bits() || (got - want).abs() < 1e-5 * want.abs();
                assert!(same, "{}: {got}, expected {want}", case["settings"]);
            }
        }
        assert_eq!(cases.len(), 13);
    }

    #[test]
    fn the_likeliest_is_taken_and_what_is_no_number_is_told() {
        let greedy = Sampling::default();
        let key = Key::new(1);
        assert_eq!(greedy.next(&[0.5, 2.0, 2.0], &[], key), Some(1), "the first of equals");
        assert_eq!(
            Sampling { repetition_penalty: 9.0, ..greedy }.next(&[0.5, 2.0, -1.0], &[1], key),
            Some(0)
        );
        assert_eq!(greedy.next(&[0.5, f32::NAN], &[], key), None);
        assert_eq!(greedy.next(&[f32::NEG_INFINITY; 3], &[], key), None);
        assert_eq!(greedy.next(&[], &[], key), None);
        // Nothing becomes infinite.
        let (cold, harsh) = (
            Sampling { temperature: 1e-40, ..greedy },
            Sampling { temperature: 1.0, top_k: 1, repetition_penalty: 1e-39, ..greedy },
        );
        assert_eq!(cold.next(&[1.0, 3.0, 2.0], &[], key), Some(1));
        assert_eq!(harsh.next(&[1.0, 3.0, 2.0], &[0], key), Some(0));
        // However little is to stay, the likeliest does.
        let least = Sampling { temperature: 1.0, top_k: 1, top_p: 1e-9, min_p: 1.0, ..greedy };
        assert_eq!(least.next(&[0.5, 2.0, 1.0], &[], key), Some(1));
    }
}
