//! Predictions of every kind, numbers that are none among them: scores stay in their bounds, and nothing panics.

#![expect(clippy::panic, reason = "a test may stop at the first surprise")]

#[path = "../../../tests/fuzz/mod.rs"]
mod fuzz;

use fuzz::Target;
use retune_metrics::{
    Bootstrap, ConfusionMatrix, MultiLabelCounts, QuestionScore, QuestionScores, RegressionPairs,
    Segmentation, best_threshold,
};

fn seeds() -> Vec<Vec<u8>> {
    let values = [1.5, -0.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE / 4.0, 1e308, -1e308, 3.0, 3.0, 0.1];
    vec![
        vec![3, 0, 1, 2, 2, 1, 0, 0, 1, 1, 2, 2],
        vec![1, 0, 0],
        vec![0],
        vec![200, 199, 3, 7, 7, 255, 0],
        values.iter().flat_map(|value: &f64| value.to_le_bytes()).collect(),
        vec![0b1010_0110; 40],
    ]
}

fn settings(input: &mut fuzz::Input<'_>) -> Bootstrap {
    let confidence = [0.95, 0.5, 1e-300, 0.999_999, 0.0, 1.0, f64::NAN, -1.0][input.random.below(8)];
    Bootstrap { resamples: input.random.below(12), confidence, seed: input.random.next() }
}

fn is_share(score: f64) -> bool {
    (0.0..=1.0).contains(&score)
}

#[test]
fn classes() {
    Target { name: "classes", cost: 1, seeds: seeds(), dictionary: &[] }.run(|input| {
        let Some((classes, rows)) = input.bytes.split_first() else { return };
        let mut matrix = ConfusionMatrix::new((*classes).into());
        let mut counted = 0;
        for pair in rows.chunks_exact(2).take(500) {
            counted += u64::from(matrix.record(pair[0].into(), pair[1].into()).is_ok());
        }
        assert_eq!(matrix.rows(), counted);
        let report = matrix.report();
        assert!(
            [report.accuracy, report.f1_macro, report.f1_weighted].into_iter().all(is_share),
            "{report:?}"
        );
        assert!((-1.0..=1.0).contains(&matrix.matthews()));
        assert_eq!(
            (matrix.counts().len(), matrix.per_class().len()),
            (usize::from(*classes), usize::from(*classes))
        );
        matrix.most_confused(usize::from(*classes) % 7);
        let other = matrix.clone();
        matrix.merge(&other).unwrap();
        if let Ok(intervals) = settings(input).intervals(&other) {
            assert!(intervals.scores.values().all(|ends| ends.low <= ends.high && is_share(ends.low)));
        }
    });
}

#[test]
fn several_labels() {
    Target { name: "several-labels", cost: 1, seeds: seeds(), dictionary: &[] }.run(|input| {
        let Some((labels, rows)) = input.bytes.split_first() else { return };
        let labels = usize::from(labels % 9);
        let mut counts = MultiLabelCounts::new(labels);
        for pair in rows.chunks_exact(2).take(500) {
            let decisions =
                |byte: u8, length| (0..length).map(|bit| byte >> bit & 1 == 1).collect::<Vec<_>>();
            // Now and then one decision too many.
            let wrong = usize::from(pair[0] == 255 && labels < 8);
            let recorded = counts.record(&decisions(pair[0], labels), &decisions(pair[1], labels + wrong));
            assert_eq!(recorded.is_ok(), wrong == 0);
        }
        let report = counts.report();
        for score in
            [report.f1_micro, report.f1_macro, report.f1_samples, report.subset_accuracy, report.hamming_loss]
        {
            assert!(is_share(score), "{report:?}");
        }
        if let Ok(intervals) = counts.intervals(&settings(input)) {
            assert!(intervals.scores.values().all(|ends| ends.low <= ends.high && is_share(ends.low)));
        }
    });
}

#[test]
fn numbers() {
    Target { name: "numbers", cost: 1, seeds: seeds(), dictionary: &[] }.run(|input| {
        let mut pairs = RegressionPairs::default();
        let values: Vec<f64> =
            input.bytes.as_chunks().0.iter().take(500).map(|bytes| f64::from_le_bytes(*bytes)).collect();
        for pair in values.windows(2) {
            pairs.record(pair[0], pair[1]);
        }
        let report = pairs.report();
        for score in [report.pearson, report.spearman] {
            assert!(score.is_nan() || (-1.0..=1.0).contains(&score), "{report:?}");
        }
        // What is not finite is said so, and not hidden.
        if values.len() > 1 && values.iter().any(|value| value.is_nan()) {
            assert!(report.mse.is_nan() && report.mae.is_nan(), "{report:?}");
        }
        let _ = pairs.intervals(&settings(input));
        let scores: Vec<f32> = values.iter().map(|value| *value as f32).collect();
        let gold: Vec<bool> = input.bytes.iter().take(scores.len()).map(|byte| byte & 1 == 1).collect();
        assert!(is_share(best_threshold(&scores, &gold).1));
    });
}

#[test]
fn answers() {
    let mut seeds = seeds();
    seeds.extend(
        ["The a\tan\tbroncos", "北京，a\t中国（２０）\t", "\t\t\u{130}\u{3a3}ß"]
            .map(|text| text.as_bytes().to_vec()),
    );
    Target { name: "answers", cost: 1, seeds, dictionary: &["the ", "中", "\t", "\u{a0}"] }.run(|input| {
        let text = input.text().into_owned();
        let texts: Vec<&str> = text.split('\t').collect();
        let mut scores = QuestionScores::default();
        for (place, predicted) in texts.iter().enumerate() {
            let (characters, strict) = (input.random.below(2) == 0, input.random.below(2) == 0);
            let segmentation = if characters { Segmentation::Characters } else { Segmentation::Words };
            let golds = &texts[..place.min(3)];
            let answer = segmentation.score(predicted, golds, strict);
            assert!(is_share(answer.exact) && is_share(answer.f1), "{answer:?}");
            let itself = segmentation.score(predicted, &[predicted], true);
            assert!((itself.exact, itself.f1) == (1.0, 1.0), "{predicted:?}");
            let null_score = [f64::NAN, -1.5, 0.0, 2.0, f64::INFINITY][input.random.below(5)];
            scores.record(QuestionScore { has_answer: !golds.is_empty(), answer, null_score });
        }
        let (threshold, f1) = scores.best_threshold();
        assert!(is_share(f1));
        let report = scores.report(threshold);
        assert!(is_share(report.exact_match) && is_share(report.f1));
        if let Ok(intervals) = scores.intervals(threshold, &settings(input)) {
            assert!(intervals.scores.values().all(|ends| ends.low <= ends.high && is_share(ends.low)));
        }
    });
}
