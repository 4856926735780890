//! The scores of several labels a row and of numbers, against scikit-learn's and scipy's: see `oracle/metrics.py`.
#![expect(
    clippy::unwrap_used,
    reason = "the golden files are ours: a test may stop at the first surprise in them"
)]

use retune_metrics::{Bootstrap, MultiLabelCounts, RegressionPairs, best_threshold};
use serde_json::Value;

fn golden(text: &str, section: &str) -> Vec<Value> {
    let golden: Value = serde_json::from_str(text).unwrap();
    golden[section].as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn decisions(value: &Value) -> Vec<bool> {
    numbers(value).into_iter().map(|decision| decision > 0.5).collect()
}

/// Every number of `expected` beside that of the same name, but for those in `given`.
fn same(case: &Value, report: &Value, given: &[&str]) {
    let mut compared = 0;
    for (what, expected) in
        case.as_object().unwrap().iter().filter(|(name, _)| !given.contains(&name.as_str()))
    {
        let (expected, actual) = (expected.as_f64().unwrap(), report[what].as_f64().unwrap());
        let fits = (actual - expected).abs() <= 1e-12 * expected.abs().max(1.0);
        assert!(fits, "{}: {what}: expected {expected}, got {actual}", case["name"]);
        compared += 1;
    }
    assert!(compared >= 5);
}

const MULTI_LABEL: &str = include_str!("golden/multi_label.json");

#[test]
fn multi_label_scores_equal_scikit_learn() {
    let cases = golden(MULTI_LABEL, "multi_label");
    assert!(cases.len() >= 9);
    for case in cases {
        let pairs: Vec<(Vec<bool>, Vec<bool>)> = case["gold"]
            .as_array()
            .unwrap()
            .iter()
            .zip(case["predicted"].as_array().unwrap())
            .map(|(gold, predicted)| (decisions(gold), decisions(predicted)))
            .collect();
        let mut counts = MultiLabelCounts::new(pairs[0].0.len());
        pairs.iter().for_each(|(gold, predicted)| counts.record(gold, predicted).unwrap());
        assert_eq!(counts.rows(), pairs.len() as u64);
        let report = serde_json::to_value(counts.report()).unwrap();
        same(&case, &report, &["name", "gold", "predicted", "per_label"]);
        let per_label = serde_json::to_value(counts.per_label()).unwrap();
        for what in ["precision", "recall", "f1", "support"] {
            for (label, expected) in numbers(&case["per_label"][what]).into_iter().enumerate() {
                let actual = per_label[label][what].as_f64().unwrap();
                assert!((actual - expected).abs() < 1e-12, "{}: {what} of {label}: {actual}", case["name"]);
            }
        }
        let intervals = counts.intervals(&Bootstrap { resamples: 200, ..Bootstrap::default() }).unwrap();
        for what in ["f1_micro", "subset_accuracy"] {
            let (ends, score) = (intervals.scores[what], report[what].as_f64().unwrap());
            assert!(
                0.0 <= ends.low && ends.low <= score + 1e-12 && score <= ends.high + 1e-12,
                "{what}: {ends:?}"
            );
        }
    }
}

#[test]
fn thresholds_reach_the_best_point_of_the_curve() {
    for case in golden(MULTI_LABEL, "threshold") {
        let scores: Vec<f32> = numbers(&case["scores"]).into_iter().map(|score| score as f32).collect();
        let gold = decisions(&case["gold"]);
        let (threshold, f1) = best_threshold(&scores, &gold);
        assert!((f1 - case["f1"].as_f64().unwrap()).abs() < 1e-12, "{f1} {}", case["f1"]);
        // The threshold gives what it promises.
        let mut counts = MultiLabelCounts::new(1);
        for (score, gold) in scores.iter().zip(&gold) {
            counts.record(&[*gold], &[*score >= threshold]).unwrap();
        }
        assert!((counts.report().f1_micro - f1).abs() < 1e-12, "{threshold}");
    }
}

#[test]
fn regression_scores_equal_scikit_learn_and_scipy() {
    let cases = golden(include_str!("golden/regression.json"), "regression");
    assert!(cases.len() >= 8);
    for case in cases {
        let mut pairs = RegressionPairs::default();
        for (gold, predicted) in numbers(&case["gold"]).into_iter().zip(numbers(&case["predicted"])) {
            pairs.record(gold, predicted);
        }
        let report = serde_json::to_value(pairs.report()).unwrap();
        same(&case, &report, &["name", "gold", "predicted"]);
        let intervals = pairs.intervals(&Bootstrap { resamples: 200, ..Bootstrap::default() }).unwrap();
        let ends = intervals.scores["spearman"];
        assert!(-1.0 <= ends.low && ends.low <= ends.high && ends.high <= 1.0, "{ends:?}");
    }
}
