//! The scores of several labels a row and of numbers, against scikit-learn's and scipy's: see `oracle/metrics.py`.
#![expect(
    clippy::unwrap_used,
    reason = "the golden files are ours: a test may stop at the first surprise in them"
)]

mod each_case;

use each_case::SplitMix64;
use retune_metrics::{Bootstrap, Intervals, MultiLabelCounts, RegressionPairs, best_threshold};
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
const REGRESSION: &str = include_str!("golden/regression.json");

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
        for what in ["f1_micro", "f1_samples", "subset_accuracy"] {
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
    let cases = golden(REGRESSION, "regression");
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

#[test]
fn ten_thousand_random_rows_of_labels_equal_scikit_learn() {
    let mut random = SplitMix64(20_261_208);
    each_case::compare(include_bytes!("golden/multi_label.cases"), 10_000, || {
        let labels = 2 + random.below(4);
        let mut counts = MultiLabelCounts::new(labels);
        for _ in 0..=random.below(8) {
            let mut cell = |_| {
                let gold = random.below(2) == 1;
                (gold, if random.below(2) == 0 { random.below(2) == 1 } else { gold })
            };
            let (gold, predicted): (Vec<bool>, Vec<bool>) = (0..labels).map(&mut cell).unzip();
            counts.record(&gold, &predicted).unwrap();
        }
        let r = counts.report();
        let f1 = [r.f1_micro, r.f1_macro, r.f1_weighted, r.f1_samples];
        let others = [r.precision_micro, r.recall_micro, r.subset_accuracy, r.hamming_loss];
        f1.into_iter().chain(others).collect()
    });
}

#[test]
fn ten_thousand_random_columns_of_numbers_equal_scikit_learn_and_scipy() {
    let mut random = SplitMix64(20_261_209);
    each_case::compare(include_bytes!("golden/regression.cases"), 10_000, || {
        let rows = 3 + random.below(10);
        let mut column = || -> Vec<f64> {
            let mut numbers: Vec<f64> = (0..rows).map(|_| random.below(9) as f64).collect();
            if numbers.iter().all(|number| number.total_cmp(&numbers[0]).is_eq()) {
                numbers[0] += 1.0;
            }
            numbers
        };
        let (gold, predicted) = (column(), column());
        let mut pairs = RegressionPairs::default();
        gold.iter().zip(&predicted).for_each(|(gold, predicted)| pairs.record(*gold, *predicted));
        let r = pairs.report();
        vec![r.pearson, r.spearman, r.mse, r.mae, r.r2]
    });
}

/// Whether the intervals of a case are those of numpy's resampling. Both are random: an end of 20,000 resamples has a
/// standard error of half a hundredth of the interval's width, and scores move in steps of a row.
fn same_intervals(case: &Value, scores: usize, found: &Intervals) {
    let expected = case["ends"].as_object().unwrap();
    assert_eq!((expected.len(), found.scores.len()), (scores, scores));
    for (what, expected) in expected {
        let (expected, actual) = (numbers(expected), found.scores[what.as_str()]);
        let width = expected[1] - expected[0];
        let allowed = 0.03 * width
            + if what.starts_with("subset") { 1.0 / case["rows"].as_f64().unwrap() } else { 0.0 };
        assert!(width > 0.0);
        assert!(
            (actual.low - expected[0]).abs() < allowed && (actual.high - expected[1]).abs() < allowed,
            "{what}: expected {expected:?}, got {actual:?}"
        );
    }
}

fn bootstrap(case: &Value) -> Bootstrap {
    Bootstrap { confidence: case["confidence"].as_f64().unwrap(), resamples: 20_000, seed: 11 }
}

#[test]
fn multi_label_intervals_agree_with_numpy() {
    for case in golden(MULTI_LABEL, "bootstrap") {
        let [gold, predicted] = ["gold", "predicted"].map(|key| case[key].as_array().unwrap());
        let mut counts = MultiLabelCounts::new(decisions(&gold[0]).len());
        for (gold, predicted) in gold.iter().zip(predicted) {
            counts.record(&decisions(gold), &decisions(predicted)).unwrap();
        }
        same_intervals(&case, 4, &counts.intervals(&bootstrap(&case)).unwrap());
    }
}

#[test]
fn regression_intervals_agree_with_numpy() {
    for case in golden(REGRESSION, "bootstrap") {
        let mut pairs = RegressionPairs::default();
        for (gold, predicted) in numbers(&case["gold"]).into_iter().zip(numbers(&case["predicted"])) {
            pairs.record(gold, predicted);
        }
        same_intervals(&case, 5, &pairs.intervals(&bootstrap(&case)).unwrap());
    }
}
