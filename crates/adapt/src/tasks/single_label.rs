//! One of several classes for each row: softmax and cross-entropy.

use std::path::Path;

use retune_data::{Examples, LabelMap, ProblemType, Tokens};
use retune_metrics::{Bootstrap, ConfusionMatrix, Tally};
use retune_tensor::{Result as TensorResult, Var, ops};

use super::form::{
    About, Answer, Decode, Form, FormSpec, LabelScore, LossOptions, Measured, Metrics, Mistake, Score,
    Scoring, Targets,
};
use super::head::HeadOutput;
use super::rows::{EachRow, JudgeRow, RowByRow};
use crate::AdaptError;

pub(super) static SPEC: FormSpec = FormSpec {
    problem_type: Some(ProblemType::SingleLabel),
    summary: "one of several classes for each row",
    decides: "accuracy",
    // Right rows and all rows.
    decided: |[right, rows, ..]| right / rows.max(1.0),
    shown: &[
        ("accuracy", "accuracy"),
        ("f1_macro", "macro F1"),
        ("f1_weighted", "weighted F1"),
        ("matthews", "Matthews"),
    ],
};

#[derive(Debug)]
pub(super) struct SingleLabel {
    labels: LabelMap,
}

impl SingleLabel {
    pub fn new(labels: LabelMap) -> Self {
        SingleLabel { labels }
    }

    /// What the logits of one row say: `[labels]`.
    fn answer(&self, logits: &[f32]) -> Answer {
        let (class, score) = most_probable(logits);
        Answer::Class { label: self.labels.name(class).unwrap_or_default().to_string(), score }
    }
}

impl Form for SingleLabel {
    fn spec(&self) -> &'static FormSpec {
        &SPEC
    }

    fn labels(&self) -> &LabelMap {
        &self.labels
    }

    fn targets(
        &self,
        examples: &Examples,
        _: &Tokens,
        path: &Path,
        options: LossOptions,
    ) -> Result<Box<dyn Targets>, AdaptError> {
        let classes = self.labels.encode(examples, path)?;
        Ok(Box::new(Classes {
            class_weights: options.balanced.then(|| {
                let mut counts = vec![0; self.labels.len()];
                classes.iter().for_each(|class| counts[*class as usize] += 1);
                balanced(&counts)
            }),
            label_smoothing: options.label_smoothing,
            classes,
            labels: self.labels.clone(),
        }))
    }

    fn decode<'a>(&'a self, _: &'a Examples, _: &'a Tokens) -> Result<Box<dyn Decode + 'a>, AdaptError> {
        Ok(Box::new(EachRow { outputs: self.labels.len(), answer: |logits: &[f32]| self.answer(logits) }))
    }
}

/// The most probable class, the first of several equal ones, and its probability.
pub(super) fn most_probable(logits: &[f32]) -> (usize, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (class, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (class, *logit);
        }
    }
    let total: f64 = logits.iter().map(|logit| f64::from(logit - best.1).exp()).sum();
    (best.0, (1.0 / total) as f32)
}

/// A weight for each class, of which there are so many rows: rows / (classes * rows of the class), as scikit-learn.
pub(super) fn balanced(counts: &[usize]) -> Vec<f32> {
    let rows: usize = counts.iter().sum();
    counts.iter().map(|count| rows as f32 / (counts.len() * (*count).max(1)) as f32).collect()
}

/// The class of each row.
#[derive(Debug)]
struct Classes {
    classes: Vec<u32>,
    class_weights: Option<Vec<f32>>,
    label_smoothing: f32,
    labels: LabelMap,
}

impl JudgeRow for Classes {
    fn tally(&self, row: usize, logits: &[f32]) -> Tally {
        [f64::from(u8::from(most_probable(logits).0 == self.classes[row] as usize)), 1.0, 0.0, 0.0]
    }

    fn mistake(&self, row: usize, logits: &[f32]) -> Option<Mistake> {
        let ((class, score), gold) = (most_probable(logits), self.classes[row] as usize);
        let name = |class: usize| self.labels.name(class).unwrap_or_default().to_string();
        (class != gold).then(|| Mistake {
            example: row,
            about: About::Text,
            expected: vec![name(gold)],
            predicted: name(class),
            score,
        })
    }
}

impl Targets for Classes {
    fn denominator(&self, rows: &[usize]) -> f32 {
        match &self.class_weights {
            None => rows.len() as f32,
            Some(weights) => rows.iter().map(|row| weights[self.classes[*row] as usize]).sum(),
        }
    }

    fn loss(&self, output: &HeadOutput<'_>, rows: &[usize], denominator: f32) -> TensorResult<Var> {
        let (tape, logits) = (output.tape(), &output.logits()?);
        let targets: Vec<u32> = rows.iter().map(|row| self.classes[*row]).collect();
        let options = ops::CrossEntropyOptions {
            class_weights: self.class_weights.as_deref(),
            label_smoothing: self.label_smoothing,
            denominator,
        };
        ops::cross_entropy(tape, logits, &targets, options)
    }

    fn score(&self, scoring: Scoring) -> Box<dyn Score + '_> {
        let counts =
            ClassScores { targets: self, matrix: ConfusionMatrix::new(self.labels.len()), loss: 0.0 };
        Box::new(RowByRow::new(counts, scoring, self.labels.len(), self))
    }
}

struct ClassScores<'a> {
    targets: &'a Classes,
    matrix: ConfusionMatrix,
    loss: f64,
}

impl Score for ClassScores<'_> {
    fn add(&mut self, rows: &[usize], logits: &[f32]) -> Result<(), AdaptError> {
        let classes = self.targets.labels.len().max(1);
        for (row, logits) in rows.iter().zip(logits.chunks_exact(classes)) {
            let target = self.targets.classes[*row] as usize;
            let (class, score) = most_probable(logits);
            let lse = f64::from(logits[class]) - f64::from(score).ln();
            self.loss += lse - logits.get(target).map_or(f64::NAN, |logit| f64::from(*logit));
            // Both are classes of the labels: the targets were encoded by them, and the head has one logit for each.
            let counted = self.matrix.record(target, class);
            debug_assert!(counted.is_ok(), "{counted:?}");
        }
        Ok(())
    }

    fn measure(self: Box<Self>, bootstrap: Option<Bootstrap>) -> Measured {
        let ClassScores { targets, matrix, loss } = *self;
        let intervals = bootstrap.map(|bootstrap| bootstrap.intervals(&matrix));
        Measured {
            loss: loss / (matrix.rows() as f64).max(1.0),
            metrics: Metrics::of(&matrix.report(), matrix.rows(), intervals),
            labels: LabelScore::all(&targets.labels, matrix.per_class()),
            matrix: Some(matrix),
            thresholds: None,
            tallies: Vec::new(),
            mistakes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::form::testing::{class, form_of, rows, targets_of};

    #[test]
    fn a_row_is_decoded_as_softmax_says() {
        let (class, score) = most_probable(&[0.0, 2.0, 1.0]);
        let expected = 2.0f64.exp() / (1.0 + 2.0f64.exp() + 1.0f64.exp());
        assert!(class == 1 && (f64::from(score) - expected).abs() < 1e-6);
        assert_eq!(most_probable(&[3.0, 3.0, -1.0]).0, 0);
    }

    #[test]
    fn the_loss_is_the_mean_cross_entropy() {
        let form = form_of(ProblemType::SingleLabel, &["a", "b"]);
        let examples = rows(&[class("a"), class("a")]);
        let targets = targets_of(&*form, &examples, LossOptions::default()).unwrap();
        let mut score = targets.score(Scoring::default());
        score.add(&[0, 1], &[1.0, 3.0, 2.0, -1.0]).unwrap();
        let measured = score.measure(None);
        let expected = (f64::ln_1p(2.0f64.exp()) + f64::ln_1p((-3.0f64).exp())) / 2.0;
        assert!((measured.loss - expected).abs() < 1e-6, "{} {expected}", measured.loss);
        assert!((measured.metrics.get("accuracy").unwrap() - 0.5).abs() < 1e-12);
    }
}
