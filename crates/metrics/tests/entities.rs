//! Named entities, against seqeval: see `oracle/entity_metrics.py`.
#![expect(
    clippy::unwrap_used,
    reason = "the golden file is ours: a test may stop at the first surprise in it"
)]

mod each_case;

use each_case::SplitMix64;
use retune_metrics::{EntityCounts, Prefix, Strictness, Tag};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    seed: u64,
    types: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    scheme: String,
    gold: Vec<String>,
    predicted: Vec<String>,
    scores: [f64; 8],
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/entities.json")).unwrap()
}

fn scores(counts: &EntityCounts) -> [f64; 8] {
    let r = counts.report();
    [
        r.f1,
        r.precision,
        r.recall,
        r.f1_macro,
        r.f1_strict,
        r.precision_strict,
        r.recall_strict,
        r.token_accuracy,
    ]
}

fn close(found: [f64; 8], expected: [f64; 8]) -> bool {
    found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9)
}

fn tag(text: &str, types: &[String]) -> Tag {
    let prefix = match text.as_bytes()[0] {
        b'B' => Prefix::B,
        b'I' => Prefix::I,
        b'E' => Prefix::E,
        b'S' => Prefix::S,
        _ => return Tag::OUTSIDE,
    };
    let kind = types.iter().position(|name| *name == text[2..]).unwrap();
    Tag { prefix, kind: u32::try_from(kind).unwrap() }
}

#[test]
fn named_sequences_score_as_in_seqeval() {
    let Golden { types, cases, .. } = golden();
    for Case { name, scheme, gold, predicted, scores: expected } in cases {
        let strictness = if scheme == "IOB2" { Strictness::Iob2 } else { Strictness::Iobes };
        let mut counts = EntityCounts::new(types.len(), strictness);
        let [gold, predicted] =
            [gold, predicted].map(|tags| tags.iter().map(|text| tag(text, &types)).collect::<Vec<_>>());
        let tally = counts.record(&gold, &predicted).unwrap();
        let found = scores(&counts);
        assert!(close(found, expected), "{name}: {found:?}, expected {expected:?}");
        assert!((EntityCounts::f1_of(&tally) - expected[0]).abs() < 1e-12, "{name}");
    }
}

#[test]
fn twenty_thousand_cases_score_as_in_seqeval_broken_sequences_included() {
    let Golden { seed, types, .. } = golden();
    let tags = |prefixes: &str| -> Vec<Tag> {
        let typed =
            prefixes.chars().flat_map(|prefix| types.iter().map(move |name| format!("{prefix}-{name}")));
        std::iter::once("O".to_string()).chain(typed).map(|text| tag(&text, &types)).collect()
    };
    let schemes = [(Strictness::Iob2, tags("BI")), (Strictness::Iobes, tags("BIES"))];
    let (mut random, mut case) = (SplitMix64(seed), 0);
    each_case::compare(include_bytes!("golden/entities.cases"), 20_000, || {
        let (strictness, tags) = &schemes[case / 10_000];
        case += 1;
        let mut counts = EntityCounts::new(types.len(), *strictness);
        for _ in 0..=random.below(4) {
            let words = 1 + random.below(8);
            let gold: Vec<Tag> = (0..words).map(|_| tags[random.below(tags.len())]).collect();
            let mut other = |tag: &Tag| match random.below(2) {
                0 => tags[random.below(tags.len())],
                _ => *tag,
            };
            let predicted: Vec<Tag> = gold.iter().map(&mut other).collect();
            counts.record(&gold, &predicted).unwrap();
        }
        scores(&counts).to_vec()
    });
}
