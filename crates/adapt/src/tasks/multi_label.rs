//! Any number of labels for each row: a sigmoid and a binary cross-entropy for each label.

use std::path::Path;

use retune_data::{Examples, LabelMap, ProblemType, Tokens};
use retune_metrics::{Bootstrap, MultiLabelCounts, Tally, best_threshold};
use retune_tensor::{Result as TensorResult, Var, ops};

use super::form::{
    Answer, Decode, Form, FormSpec, LabelScore, LossOptions, Measured, Metrics, Score, Scoring, Targets,
};
use super::head::HeadOutput;
use super::rows::{EachRow, JudgeRow, RowByRow};
use crate::AdaptError;

pub(super) static SPEC: FormSpec = FormSpec {
    problem_type: Some(ProblemType::MultiLabel),
    summary: "any number of labels for each row",
    decides: "f1_micro",
    // Labels given and right, given, and right.
    decided: |[both, given, gold, _]| if given + gold > 0.0 { 2.0 * both / (given + gold) } else { 0.0 },
    shown: &[
        ("f1_micro", "micro F1"),
        ("f1_macro", "macro F1"),
        ("f1_weighted", "weighted F1"),
        ("f1_samples", "F1 a row"),
        ("subset_accuracy", "all labels right"),
        ("hamming_loss", "Hamming loss"),
    ],
};

/// A label with fewer rows than this keeps a threshold of 0.5: one tuned on them would say more of chance.
const ENOUGH_TO_TUNE: u64 = 5;

/// From which probability on a row is given a label.
#[derive(Debug, Clone, PartialEq)]
pub enum Thresholds {
    /// 0.5, until an evaluation finds for each label where its F1 is highest.
    Tune,
    /// One for each label.
    Set(Vec<f32>),
}

impl Thresholds {
    fn of(&self, label: usize) -> f32 {
        match self {
            Thresholds::Tune => 0.5,
            Thresholds::Set(thresholds) => thresholds.get(label).copied().unwrap_or(0.5),
        }
    }

    /// Which labels a row is given: `scores` and what comes back are `[labels]`.
    fn given(&self, scores: &[f32]) -> Vec<bool> {
        scores.iter().enumerate().map(|(label, score)| *score >= self.of(label)).collect()
    }
}

/// How many of `labels` have rows enough for a threshold to be tuned on; the others keep 0.5.
pub fn tunable_labels(labels: &[LabelScore]) -> usize {
    labels.iter().filter(|label| label.support >= ENOUGH_TO_TUNE).count()
}

#[derive(Debug)]
pub(super) struct MultiLabel {
    labels: LabelMap,
    thresholds: Thresholds,
}

impl MultiLabel {
    pub fn new(labels: LabelMap, thresholds: Thresholds) -> Self {
        MultiLabel { labels, thresholds }
    }

    /// What the logits of one row say: `[labels]`.
    fn answer(&self, logits: &[f32]) -> Answer {
        let scores = probabilities(logits);
        let given = self.thresholds.given(&scores).into_iter().zip(scores).zip(self.labels.names());
        let named = given.filter(|((given, _), _)| *given).map(|((_, score), name)| (name.clone(), score));
        let (labels, scores) = named.unzip();
        Answer::Labels { labels, scores }
    }
}

impl Form for MultiLabel {
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
        options.refuse_smoothing(
            "it takes from the right class and gives to the others, and the labels of a row are decided each for \
             itself; leave it out",
        )?;
        let rows = self.labels.encode_many(examples, path)?;
        Ok(Box::new(LabelSets {
            positive_weights: options.balanced.then(|| balanced(&rows, self.labels.len())),
            rows,
            labels: self.labels.clone(),
            thresholds: self.thresholds.clone(),
        }))
    }

    fn decode<'a>(&'a self, _: &'a Examples, _: &'a Tokens) -> Result<Box<dyn Decode + 'a>, AdaptError> {
        Ok(Box::new(EachRow { outputs: self.labels.len(), answer: |logits: &[f32]| self.answer(logits) }))
    }
}

/// Each logit's sigmoid.
fn probabilities(logits: &[f32]) -> Vec<f32> {
    logits.iter().map(|logit| (1.0 / (1.0 + (-f64::from(*logit)).exp())) as f32).collect()
}

/// What a row with the label weighs against one without: rows without over rows with it, as PyTorch's `pos_weight` is
/// meant. A label that no row has weighs 1.
fn balanced(rows: &[Vec<usize>], labels: usize) -> Vec<f32> {
    let mut with = vec![0usize; labels];
    rows.iter().flatten().for_each(|label| with[*label] += 1);
    let weight = |with: &usize| match with {
        0 => 1.0,
        with => (rows.len() - with) as f32 / *with as f32,
    };
    with.iter().map(weight).collect()
}

/// The labels of each row.
#[derive(Debug)]
struct LabelSets {
    rows: Vec<Vec<usize>>,
    positive_weights: Option<Vec<f32>>,
    labels: LabelMap,
    thresholds: Thresholds,
}

impl LabelSets {
    fn has(&self, row: usize) -> Vec<bool> {
        let mut has = vec![false; self.labels.len()];
        self.rows[row].iter().for_each(|label| has[*label] = true);
        has
    }
}

impl JudgeRow for LabelSets {
    fn tally(&self, row: usize, logits: &[f32]) -> Tally {
        let given = self.thresholds.given(&probabilities(logits));
        let mut tally = Tally::default();
        for (given, gold) in given.into_iter().zip(self.has(row)) {
            let add = |yes: bool| f64::from(u8::from(yes));
            tally[0] += add(given && gold);
            tally[1] += add(given);
            tally[2] += add(gold);
        }
        tally
    }
}

impl Targets for LabelSets {
    /// Rows times labels: transformers' mean.
    fn denominator(&self, rows: &[usize]) -> f32 {
        (rows.len() * self.labels.len()) as f32
    }

    fn loss(&self, output: &HeadOutput<'_>, rows: &[usize], denominator: f32) -> TensorResult<Var> {
        let (tape, logits) = (output.tape(), &output.logits()?);
        let has = rows.iter().flat_map(|row| self.has(*row));
        let targets: Vec<f32> = has.map(|has| f32::from(u8::from(has))).collect();
        let positive_weights = self.positive_weights.as_deref();
        let options = ops::BinaryCrossEntropyOptions { positive_weights, denominator };
        ops::binary_cross_entropy(tape, logits, &targets, options)
    }

    fn score(&self, scoring: Scoring) -> Box<dyn Score + '_> {
        let counts = LabelSetScores {
            targets: self,
            counts: MultiLabelCounts::new(self.labels.len()),
            loss: 0.0,
            to_tune: Vec::new(),
        };
        Box::new(RowByRow::new(counts, scoring, self.labels.len(), self))
    }
}

struct LabelSetScores<'a> {
    targets: &'a LabelSets,
    counts: MultiLabelCounts,
    loss: f64,
    /// The rows and their probabilities, kept only where thresholds are still to be found.
    to_tune: Vec<(usize, Vec<f32>)>,
}

impl Score for LabelSetScores<'_> {
    fn add(&mut self, rows: &[usize], logits: &[f32]) -> Result<(), AdaptError> {
        for (row, logits) in rows.iter().zip(logits.chunks_exact(self.targets.labels.len().max(1))) {
            for (logit, has) in logits.iter().zip(self.targets.has(*row)) {
                // -log sigmoid of the logit, or of its opposite.
                let x = f64::from(if has { -*logit } else { *logit });
                // max would hide what is no number.
                self.loss += (-x.abs()).exp().ln_1p() + if x > 0.0 { x } else { 0.0 };
            }
            let scores = probabilities(logits);
            match &self.targets.thresholds {
                Thresholds::Tune => self.to_tune.push((*row, scores)),
                set @ Thresholds::Set(_) => record(&mut self.counts, self.targets, *row, &scores, set),
            }
        }
        Ok(())
    }

    fn measure(mut self: Box<Self>, bootstrap: Option<Bootstrap>) -> Measured {
        let Thresholds::Tune = self.targets.thresholds else { return self.measured(bootstrap, None) };
        let (targets, to_tune) = (self.targets, std::mem::take(&mut self.to_tune));
        let counted = |thresholds: &Thresholds| {
            let mut counts = MultiLabelCounts::new(targets.labels.len());
            to_tune.iter().for_each(|(row, scores)| record(&mut counts, targets, *row, scores, thresholds));
            counts
        };
        let at_half = counted(&Thresholds::Tune);
        let Some(thresholds) = targets.tuned(&to_tune) else {
            self.counts = at_half;
            return self.measured(bootstrap, None);
        };
        self.counts = counted(&Thresholds::Set(thresholds.clone()));
        let mut measured = self.measured(bootstrap, Some(thresholds));
        // The tuned figure flatters, as it was tuned on these very rows: how much, this one lets see.
        measured.metrics.values.insert("f1_micro_at_half".into(), at_half.report().f1_micro);
        measured
    }
}

impl LabelSets {
    /// For each label the threshold at which the F1 of `rows` with these probabilities is highest. None where no label
    /// has rows enough.
    fn tuned(&self, rows: &[(usize, Vec<f32>)]) -> Option<Vec<f32>> {
        let gold: Vec<Vec<bool>> = rows.iter().map(|(row, _)| self.has(*row)).collect();
        let threshold = |label: usize| {
            let scores: Vec<f32> = rows.iter().map(|(_, scores)| scores[label]).collect();
            let gold: Vec<bool> = gold.iter().map(|has| has[label]).collect();
            let support = gold.iter().filter(|has| **has).count() as u64;
            (support >= ENOUGH_TO_TUNE).then(|| best_threshold(&scores, &gold).0)
        };
        let tuned: Vec<Option<f32>> = (0..self.labels.len()).map(threshold).collect();
        let any = tuned.iter().any(Option::is_some);
        any.then(|| tuned.into_iter().map(|threshold| threshold.unwrap_or(0.5)).collect())
    }
}

impl LabelSetScores<'_> {
    fn measured(self, bootstrap: Option<Bootstrap>, thresholds: Option<Vec<f32>>) -> Measured {
        let LabelSetScores { targets, counts, loss, .. } = self;
        let decisions = counts.rows() as f64 * targets.labels.len() as f64;
        let intervals = bootstrap.map(|bootstrap| counts.intervals(&bootstrap));
        Measured {
            loss: loss / decisions.max(1.0),
            metrics: Metrics::of(&counts.report(), counts.rows(), intervals),
            labels: LabelScore::all(&targets.labels, counts.per_label()),
            matrix: None,
            thresholds,
            tallies: Vec::new(),
            mistakes: Vec::new(),
        }
    }
}

fn record(
    counts: &mut MultiLabelCounts,
    targets: &LabelSets,
    row: usize,
    scores: &[f32],
    thresholds: &Thresholds,
) {
    // Both have one decision for each label.
    let counted = counts.record(&targets.has(row), &thresholds.given(scores));
    debug_assert!(counted.is_ok(), "{counted:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::form::testing::{labels, rows, targets_of};

    fn form(thresholds: Thresholds) -> MultiLabel {
        let names = ["a", "b", "c"].map(str::to_string);
        MultiLabel::new(LabelMap::new(names.to_vec()).unwrap(), thresholds)
    }

    #[test]
    fn a_row_is_given_what_reaches_its_threshold() {
        let logits = [0.0, -1.0, 3.0];
        let given = |thresholds| match form(thresholds).answer(&logits) {
            Answer::Labels { labels, scores } => (labels, scores),
            other => panic!("{other:?}"),
        };
        let (names, scores) = given(Thresholds::Tune);
        assert_eq!(names, ["a", "c"]);
        assert!((scores[1] - 0.952_574_1).abs() < 1e-6, "{scores:?}");
        assert_eq!(given(Thresholds::Set(vec![0.6, 0.2, 0.96])).0, ["b"]);
    }

    #[test]
    fn the_loss_is_the_mean_over_rows_and_labels() {
        let examples = rows(&[labels(&["a", "c"]), labels(&[])]);
        let form = form(Thresholds::Set(vec![0.5; 3]));
        let targets = targets_of(&form, &examples, LossOptions::default()).unwrap();
        assert!((targets.denominator(&[1, 0, 1]) - 9.0).abs() < 1e-6);
        let mut score = targets.score(Scoring::default());
        score.add(&[0, 1], &[2.0, -1.0, 0.5, -3.0, 1.0, -500.0]).unwrap();
        let measured = score.measure(None);
        let softplus = |x: f64| x.exp().ln_1p();
        let losses = [-2.0, -1.0, -0.5, -3.0, 1.0].map(softplus);
        assert!((measured.loss - losses.iter().sum::<f64>() / 6.0).abs() < 1e-7, "{}", measured.loss);
        assert!((measured.metrics.get("subset_accuracy").unwrap() - 0.5).abs() < 1e-12);
        assert_eq!((measured.thresholds, measured.metrics.get("f1_micro_at_half")), (None, None));
    }

    #[test]
    fn thresholds_are_tuned_where_there_are_enough_rows() {
        // `a` is on six of ten rows, with low scores all; `b` on four, too few to tune.
        let has: Vec<_> = (0..10)
            .map(|row| match row {
                0..4 => labels(&["a", "b"]),
                4..6 => labels(&["a"]),
                _ => labels(&[]),
            })
            .collect();
        let form = form(Thresholds::Tune);
        let targets = targets_of(&form, &rows(&has), LossOptions::default()).unwrap();
        let mut score = targets.score(Scoring::default());
        for row in 0..10 {
            let present = |yes: bool| if yes { -1.0 } else { -3.0 };
            score.add(&[row], &[present(row < 6), present(row < 4), -4.0]).unwrap();
        }
        let measured = score.measure(None);
        let thresholds = measured.thresholds.unwrap();
        assert!(thresholds[0] > 0.05 && thresholds[0] < 0.27, "{thresholds:?}");
        assert_eq!((&thresholds[1..], tunable_labels(&measured.labels)), (&[0.5, 0.5][..], 1));
        // Six right, four missed: 12 / 16; at a half none.
        assert!((measured.metrics.get("f1_micro").unwrap() - 0.75).abs() < 1e-12);
        assert_eq!(measured.metrics.get("f1_micro_at_half"), Some(0.0));
    }

    #[test]
    fn without_rows_enough_nothing_is_tuned() {
        let has = |row: usize| labels(if row < 4 { &["a", "c"] } else { &["b"][..1 - row % 2] });
        let has: Vec<_> = (0..9).map(has).collect();
        let form = form(Thresholds::Tune);
        let targets = targets_of(&form, &rows(&has), LossOptions::default()).unwrap();
        let mut score = targets.score(Scoring::default());
        for row in 0..9 {
            score.add(&[row], &[if row < 4 { -0.5 } else { 0.5 }, -1.0, 2.0]).unwrap();
        }
        let measured = score.measure(None);
        assert_eq!((measured.thresholds, tunable_labels(&measured.labels)), (None, 0));
        assert_eq!(measured.metrics.get("f1_micro_at_half"), None);
        // At a half `c` is given to all nine rows and `a` to the wrong five: 8 / (14 + 11).
        assert!((measured.metrics.get("f1_micro").unwrap() - 8.0 / 25.0).abs() < 1e-12);
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        let options = LossOptions { balanced: false, label_smoothing: 0.1 };
        let error = targets_of(&form(Thresholds::Tune), &Vec::new().into(), options).unwrap_err();
        assert!(error.to_string().starts_with("--label-smoothing: "), "{error}");
        assert_eq!(balanced(&[vec![0], vec![0, 1], vec![0], vec![]], 3), [1.0 / 3.0, 3.0, 1.0]);
    }
}
