//! Every score against scikit-learn's, and the intervals against numpy's resampling: see `oracle/metrics.py`.
#![expect(
    clippy::unwrap_used,
    reason = "the golden file is ours: a test may stop at the first surprise in it"
)]

mod each_case;

use each_case::SplitMix64;
use retune_metrics::{Bootstrap, ConfusionMatrix};
use serde_json::Value;

fn golden(section: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(include_str!("golden/classification.json")).unwrap();
    golden[section].as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn labels(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|label| label.as_u64().unwrap() as usize).collect()
}

#[test]
fn scores_equal_scikit_learn() {
    let cases = golden("classification");
    assert!(cases.len() >= 35, "only {} cases", cases.len());
    for case in cases {
        let classes = case["classes"].as_u64().unwrap() as usize;
        let matrix =
            ConfusionMatrix::from_pairs(&labels(&case["gold"]), &labels(&case["predicted"]), classes)
                .unwrap();
        let same = |what: &str, actual: f64, expected: f64| {
            assert!(
                (actual - expected).abs() < 1e-12,
                "{}: {what}: expected {expected}, got {actual}",
                case["name"]
            );
        };

        assert_eq!(serde_json::to_value(matrix.counts()).unwrap(), case["counts"], "{}", case["name"]);
        let report = serde_json::to_value(matrix.report()).unwrap();
        assert_eq!(report["rows"].as_u64().unwrap() as usize, labels(&case["gold"]).len());
        for what in
            ["accuracy", "f1_macro", "f1_micro", "f1_weighted", "precision_macro", "recall_macro", "matthews"]
        {
            same(what, report[what].as_f64().unwrap(), case[what].as_f64().unwrap());
        }
        let per_class = serde_json::to_value(matrix.per_class()).unwrap();
        assert_eq!(per_class.as_array().unwrap().len(), classes);
        for what in ["precision", "recall", "f1", "support"] {
            for (class, expected) in numbers(&case["per_class"][what]).into_iter().enumerate() {
                same(&format!("{what} of class {class}"), per_class[class][what].as_f64().unwrap(), expected);
            }
        }
    }
}

#[test]
fn ten_thousand_random_cases_equal_scikit_learn() {
    let mut random = SplitMix64(20_261_207);
    each_case::compare(include_bytes!("golden/classification.cases"), 10_000, || {
        let mut matrix = ConfusionMatrix::new(1 + random.below(5));
        for _ in 0..=random.below(12) {
            let gold = random.below(matrix.classes());
            let predicted = if random.below(2) == 0 { random.below(matrix.classes()) } else { gold };
            matrix.record(gold, predicted).unwrap();
        }
        let r = matrix.report();
        let f1 = [r.f1_macro, r.f1_micro, r.f1_weighted];
        [r.accuracy].into_iter().chain(f1).chain([r.precision_macro, r.recall_macro, r.matthews]).collect()
    });
}

#[test]
fn intervals_agree_with_numpy() {
    for case in golden("bootstrap") {
        let counts: Vec<Vec<usize>> = case["counts"].as_array().unwrap().iter().map(labels).collect();
        let mut matrix = ConfusionMatrix::new(counts.len());
        for (gold, row) in counts.iter().enumerate() {
            for (predicted, &count) in row.iter().enumerate() {
                for _ in 0..count {
                    matrix.record(gold, predicted).unwrap();
                }
            }
        }
        let confidence = case["confidence"].as_f64().unwrap();
        let intervals = Bootstrap { confidence, resamples: 20_000, seed: 11 }.intervals(&matrix).unwrap();
        for (what, actual, expected) in [
            ("accuracy", intervals.scores["accuracy"], &case["accuracy"]),
            ("f1_macro", intervals.scores["f1_macro"], &case["f1_macro"]),
        ] {
            let expected = numbers(expected);
            // Both are random: an end of 20,000 resamples has a standard error of half a hundredth of the interval's
            // width, and scores move in steps of a row.
            let allowed = 0.03 * (expected[1] - expected[0]) + 1.0 / matrix.rows() as f64;
            assert!(
                (actual.low - expected[0]).abs() < allowed && (actual.high - expected[1]).abs() < allowed,
                "{}: {what}: expected {expected:?}, got {actual:?}",
                case["name"]
            );
        }
    }
}

#[test]
fn a_perfect_correlation_is_no_more_than_one() {
    // Eight rows, all right, whose variance has a root that rounds down.
    let gold = [0, 0, 0, 0, 0, 0, 1, 2];
    let matrix = ConfusionMatrix::from_pairs(&gold, &gold, 3).unwrap();
    assert_eq!(matrix.matthews().to_bits(), 1.0_f64.to_bits());
}
