//! Answers to questions, against the rules of SQuAD's and MLQA's official scripts: see `oracle/squad_metrics.py`.
#![expect(
    clippy::unwrap_used,
    reason = "the golden file is ours: a test may stop at the first surprise in it"
)]

mod each_case;

use each_case::SplitMix64;
use retune_metrics::Segmentation;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    seed: u64,
    fragments: Vec<String>,
    cases: Vec<Case>,
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

#[test]
fn ten_thousand_random_answers_score_as_in_the_official_scripts() {
    let Golden { seed, fragments, .. } = golden();
    let mut random = SplitMix64(seed);
    each_case::compare(include_bytes!("golden/squad.cases"), 10_000, || {
        let predicted: Vec<&str> =
            (0..random.below(6)).map(|_| fragments[random.below(fragments.len())].as_str()).collect();
        let golds: Vec<String> = (0..1 + random.below(3))
            .map(|_| {
                let fragment = |random: &mut SplitMix64| match random.below(2) == 0 || predicted.is_empty() {
                    true => fragments[random.below(fragments.len())].as_str(),
                    false => predicted[random.below(predicted.len())],
                };
                (0..random.below(6)).map(|_| fragment(&mut random)).collect()
            })
            .collect();
        scores(&predicted.concat(), &golds).to_vec()
    });
}
