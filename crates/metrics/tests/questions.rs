//! Answers to questions, against the rules of SQuAD's and MLQA's official scripts: see `oracle/squad_metrics.py`.
#![expect(
    clippy::unwrap_used,
    reason = "the golden file is ours: a test may stop at the first surprise in it"
)]

use retune_metrics::Segmentation;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    seed: u64,
    fragments: Vec<String>,
    cases: Vec<Case>,
    blocks: Vec<[f64; 6]>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    predicted: String,
    golds: Vec<String>,
    scores: [f64; 6],
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/squad.json")).unwrap()
}

/// Words of version 1.1, words of 2.0, characters.
fn scores(predicted: &str, golds: &[String]) -> [f64; 6] {
    let [first, second, third] =
        [(Segmentation::Words, false), (Segmentation::Words, true), (Segmentation::Characters, false)]
            .map(|(segmentation, strict)| segmentation.score(predicted, golds, strict));
    [first.exact, first.f1, second.exact, second.f1, third.exact, third.f1]
}

fn close(found: [f64; 6], expected: [f64; 6]) -> bool {
    found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9)
}

#[test]
fn named_answers_score_as_in_the_official_scripts() {
    for Case { name, predicted, golds, scores: expected } in golden().cases {
        let found = scores(&predicted, &golds);
        assert!(close(found, expected), "{name}: {found:?}, expected {expected:?}");
    }
}

struct SplitMix64(u64);

impl SplitMix64 {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * bound as u128) >> 64) as usize
    }
}

#[test]
fn ten_thousand_random_answers_score_as_in_the_official_scripts() {
    let Golden { seed, fragments, blocks, .. } = golden();
    assert_eq!(blocks.len(), 100);
    let mut random = SplitMix64(seed);
    for (block, expected) in blocks.into_iter().enumerate() {
        let mut sums = [0.0; 6];
        for _ in 0..100 {
            let predicted: Vec<&str> =
                (0..random.below(6)).map(|_| fragments[random.below(fragments.len())].as_str()).collect();
            let golds: Vec<String> = (0..1 + random.below(3))
                .map(|_| {
                    let fragment =
                        |random: &mut SplitMix64| match random.below(2) == 0 || predicted.is_empty() {
                            true => fragments[random.below(fragments.len())].as_str(),
                            false => predicted[random.below(predicted.len())],
                        };
                    (0..random.below(6)).map(|_| fragment(&mut random)).collect()
                })
                .collect();
            let scores = scores(&predicted.concat(), &golds);
            sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score);
        }
        assert!(close(sums, expected), "cases from {}: {sums:?}, expected {expected:?}", block * 100);
    }
}
