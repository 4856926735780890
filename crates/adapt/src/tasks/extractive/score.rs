//! How good the answers to questions are, a batch at a time.

use retune_metrics::{AnswerScore, Bootstrap, QuestionScore, QuestionScores};

use super::{Questions, Rows, null_odds, part, probabilities};
use crate::tasks::Thresholds;
use crate::tasks::form::{About, Measured, Metrics, Mistake, Score, Scoring};
use crate::tasks::mistakes::Mistakes;

/// How a question was answered, whatever the threshold will be.
struct Found {
    example: usize,
    score: QuestionScore,
    text: String,
    /// Of the answer, and of none.
    probabilities: [f32; 2],
}

/// An evaluation: of each question its best answer is kept, whatever the threshold will be.
pub(super) struct QuestionsScored<'a> {
    targets: &'a Questions,
    scoring: Scoring,
    rows: Rows<'a>,
    loss: f64,
    learnt: usize,
    found: Vec<Found>,
}

impl<'a> QuestionsScored<'a> {
    /// Nothing counted yet.
    pub fn new(targets: &'a Questions, scoring: Scoring) -> Self {
        let rows = Rows { windows: &targets.windows, settings: targets.settings, current: None };
        QuestionsScored { targets, scoring, rows, loss: 0.0, learnt: 0, found: Vec::new() }
    }
}

/// The loss of one side of a row: minus the logarithm of its target's share.
fn surprise(logits: &[f32], side: usize, target: usize) -> f64 {
    let (pairs, _) = logits.as_chunks::<2>();
    let scores = || pairs.iter().map(|pair| f64::from(pair[side]));
    let largest = scores().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores().map(|score| (score - largest).exp()).sum();
    sum.ln() + largest - pairs.get(target).map_or(f64::NAN, |pair| f64::from(pair[side]))
}

impl Score for QuestionsScored<'_> {
    fn add(&mut self, rows: &[usize], logits: &[f32]) {
        let targets = self.targets;
        let mut rest = logits;
        for row in rows {
            let length = 2 * targets.windows.row(*row).length;
            let (here, more) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = more;
            if let Some(Some([start, end])) = targets.positions.get(*row) {
                self.loss += (surprise(here, 0, *start as usize) + surprise(here, 1, *end as usize)) / 2.0;
                self.learnt += 1;
            }
        }
        let found = &mut self.found;
        let text = |example: usize| targets.examples.get(example).map_or("", |asked| &*asked.text);
        self.rows.add(rows, logits, text, |example, answers| {
            let Some(asked) = targets.examples.get(example) else { return };
            let best = answers.spans.first().map_or("", |best| part(&asked.text, best));
            let (scores, null) = probabilities(&answers, targets.threshold.is_finite());
            let answer = targets.segmentation.score(best, &asked.golds, targets.unanswerable);
            found.push(Found {
                example,
                score: QuestionScore {
                    has_answer: !asked.golds.is_empty(),
                    answer,
                    null_score: f64::from(null_odds(&answers)),
                },
                text: best.to_owned(),
                probabilities: [scores.first().copied().unwrap_or_default(), null],
            });
        });
    }

    fn measure(self: Box<Self>, bootstrap: Option<Bootstrap>) -> Measured {
        let QuestionsScored { targets, scoring, loss, learnt, found, .. } = *self;
        let mut scores = QuestionScores::default();
        found.iter().for_each(|one| scores.record(one.score));
        let tuned = (targets.thresholds == Thresholds::Tune).then(|| scores.best_threshold().0 as f32);
        let threshold = tuned.unwrap_or(targets.threshold);
        let at = f64::from(threshold);
        let intervals = bootstrap.map(|bootstrap| scores.intervals(at, &bootstrap));
        let mut metrics = Metrics::of(&scores.report(at), scores.rows(), intervals);
        if tuned.is_some() {
            metrics.values.insert("f1_at_zero".into(), scores.report(0.0).f1);
        }
        let tally = |one: &Found| one.score.tally(at);
        Measured {
            loss: loss / (learnt as f64).max(1.0),
            metrics,
            labels: Vec::new(),
            matrix: None,
            thresholds: tuned.map(|threshold| vec![threshold]),
            tallies: if scoring.tallies { found.iter().map(tally).collect() } else { Vec::new() },
            mistakes: mistakes(targets, &found, threshold, scoring.mistakes),
        }
    }
}

/// The most confident of the wrong answers.
fn mistakes(targets: &Questions, found: &[Found], threshold: f32, most: usize) -> Vec<Mistake> {
    let mut mistakes = Mistakes::new(most);
    for one in found {
        let silent = one.score.null_score > f64::from(threshold);
        let AnswerScore { exact, .. } = one.score.at(f64::from(threshold));
        if exact < 1.0
            && let Some(asked) = targets.examples.get(one.example)
        {
            mistakes.add(Mistake {
                example: one.example,
                about: About::Question,
                expected: asked.golds.clone(),
                predicted: if silent { String::new() } else { one.text.clone() },
                score: one.probabilities[usize::from(silent)],
            });
        }
    }
    mistakes.sorted()
}
