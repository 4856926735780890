//! How good the answers to questions are, a batch at a time.

use retune_metrics::{AnswerScore, Bootstrap, QuestionScore, QuestionScores};

use super::{Found, Questions, Rows, golds, null_odds, part, probabilities};
use crate::AdaptError;
use crate::tasks::Thresholds;
use crate::tasks::form::{About, Measured, Metrics, Mistake, Score, Scoring};
use crate::tasks::mistakes::Mistakes;

/// How a question was answered, whatever the threshold will be.
struct Scored {
    example: usize,
    score: QuestionScore,
    /// Of the answer, and of none.
    probabilities: [f32; 2],
    /// The answer and what is right, where mistakes are asked for.
    told: Option<Box<(String, Vec<String>)>>,
}

/// An evaluation: of each question its best answer is kept, whatever the threshold will be.
pub(super) struct QuestionsScored<'a> {
    targets: &'a Questions,
    scoring: Scoring,
    rows: Rows<'a>,
    loss: f64,
    learnt: usize,
    found: Vec<Scored>,
}

impl<'a> QuestionsScored<'a> {
    /// Nothing counted yet.
    pub fn new(targets: &'a Questions, scoring: Scoring) -> Self {
        let rows = Rows::new(&targets.windows, &targets.examples, targets.settings);
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
    fn add(&mut self, rows: &[usize], logits: &[f32]) -> Result<(), AdaptError> {
        let QuestionsScored { targets, scoring, rows: under_way, loss, learnt, found } = self;
        let each = |row: usize, logits: &[f32]| {
            if let Some(Some([start, end])) = targets.positions.get(row) {
                *loss += (surprise(logits, 0, *start as usize) + surprise(logits, 1, *end as usize)) / 2.0;
                *learnt += 1;
            }
        };
        let done = |Found { number, example, answers }: Found| {
            let golds: Vec<String> = golds(&example).iter().map(|answer| answer.text.clone()).collect();
            let best = answers.spans.first().map_or("", |best| part(&example.text, best));
            let (scores, null) = probabilities(&answers, targets.threshold.is_finite());
            found.push(Scored {
                example: number,
                score: QuestionScore {
                    has_answer: !golds.is_empty(),
                    answer: targets.segmentation.score(best, &golds, targets.unanswerable),
                    null_score: f64::from(null_odds(&answers)),
                },
                probabilities: [scores.first().copied().unwrap_or_default(), null],
                told: (scoring.mistakes > 0).then(|| Box::new((best.to_owned(), golds))),
            });
        };
        Ok(under_way.add(rows, logits, each, done)?)
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
        let tally = |one: &Scored| one.score.tally(at);
        Measured {
            loss: loss / (learnt as f64).max(1.0),
            metrics,
            labels: Vec::new(),
            matrix: None,
            thresholds: tuned.map(|threshold| vec![threshold]),
            tallies: if scoring.tallies { found.iter().map(tally).collect() } else { Vec::new() },
            mistakes: mistakes(found, threshold, scoring.mistakes),
        }
    }
}

/// The most confident of the wrong answers.
fn mistakes(found: Vec<Scored>, threshold: f32, most: usize) -> Vec<Mistake> {
    let mut mistakes = Mistakes::new(most);
    for Scored { example, score, probabilities, told } in found {
        let silent = score.null_score > f64::from(threshold);
        let AnswerScore { exact, .. } = score.at(f64::from(threshold));
        if exact < 1.0
            && let Some((text, golds)) = told.map(|told| *told)
        {
            mistakes.add(Mistake {
                example,
                about: About::Question,
                expected: golds,
                predicted: if silent { String::new() } else { text },
                score: probabilities[usize::from(silent)],
            });
        }
    }
    mistakes.sorted()
}
