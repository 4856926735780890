//! The one form of questions over texts: two logits a token, of an answer's start and its end.

mod score;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use retune_data::{
    DataError, Example, Examples, GoldAnswer, Label, LabelMap, TextWindow, TextWindows, Tokens,
};
use retune_metrics::Segmentation;
use retune_model::tokenizer::Tokenizer;
use retune_tensor::{Result as TensorResult, Var, ops};

use self::score::QuestionsScored;
use super::Thresholds;
use super::answer_spans::{Answers, Span};
use super::form::{
    Answer, Answered, Candidate, Decode, Form, FormSpec, LossOptions, Score, Scoring, Targets,
};
use super::head::HeadOutput;
use super::question_answering::QuestionSettings;
use crate::AdaptError;

const DECIDES: &str = "f1";
const SUMMARY: &str = "the part of a text that answers a question";

/// The sum of F1, and rows.
fn decided([f1, _, rows, _]: &retune_metrics::Tally) -> f64 {
    f1 / rows.max(1.0)
}

/// Where every question has an answer.
pub(super) static SPEC: FormSpec = FormSpec {
    problem_type: None,
    summary: SUMMARY,
    decides: DECIDES,
    decided,
    shown: &[("exact_match", "exact match"), ("f1", "F1")],
};

/// The same where some have none.
pub(super) static WITH_UNANSWERABLE: FormSpec = FormSpec {
    problem_type: None,
    summary: SUMMARY,
    decides: DECIDES,
    decided,
    shown: &[
        ("exact_match", "exact match"),
        ("f1", "F1"),
        ("has_answer_exact_match", "exact match where there is an answer"),
        ("has_answer_f1", "F1 where there is an answer"),
        ("no_answer_exact_match", "right where there is none"),
    ],
};

#[derive(Debug)]
pub(super) struct Extractive {
    labels: LabelMap,
    thresholds: Thresholds,
    settings: QuestionSettings,
}

impl Extractive {
    /// The threshold is that of no answer, as [`ThresholdUse::NoAnswer`](super::ThresholdUse::NoAnswer) has it.
    pub fn new(labels: LabelMap, thresholds: Thresholds, settings: QuestionSettings) -> Self {
        Extractive { labels, thresholds, settings }
    }

    /// By how much no answer must be likelier than the best to be given; 0 until an evaluation finds it.
    fn threshold(&self) -> f32 {
        match &self.thresholds {
            Thresholds::Tune => 0.0,
            Thresholds::Set(thresholds) => thresholds.first().copied().unwrap_or(f32::INFINITY),
        }
    }
}

impl Form for Extractive {
    fn spec(&self) -> &'static FormSpec {
        &SPEC
    }

    fn labels(&self) -> &LabelMap {
        &self.labels
    }

    fn tokens(
        &self,
        examples: &Examples,
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<Tokens, AdaptError> {
        let doc_stride = self.settings.doc_stride;
        if doc_stride >= max_length {
            let message = format!(
                "expected fewer tokens than a row has, which are {max_length}, got {doc_stride}: windows of a text share \
                 them"
            );
            return Err(AdaptError::Option { option: "doc-stride".into(), message });
        }
        Ok(Tokens::of_questions(tokenizer, examples, max_length, doc_stride)?)
    }

    fn tokens_said(&self, tokens: &Tokens) -> Vec<String> {
        self.settings.crowded_said(tokens.windows()).into_iter().collect()
    }

    fn targets(
        &self,
        examples: &Examples,
        tokens: &Tokens,
        _: &Path,
        options: LossOptions,
    ) -> Result<Box<dyn Targets>, AdaptError> {
        options.refuse_balanced("it weighs classes, and answers are places in a text; leave it out")?;
        options.refuse_smoothing(
            "it spreads a target over classes, and answers are places in a text; leave it out",
        )?;
        Ok(Box::new(Questions::new(self, examples, tokens)?))
    }

    fn decode<'a>(
        &'a self,
        examples: &'a Examples,
        tokens: &'a Tokens,
    ) -> Result<Box<dyn Decode + 'a>, AdaptError> {
        let rows = Rows::new(tokens.windows(), examples, self.settings);
        Ok(Box::new(Decoder { rows, threshold: self.threshold() }))
    }
}

/// The windows of one question after another, as they come out of a model.
struct Rows<'a> {
    windows: &'a TextWindows,
    examples: &'a Examples,
    settings: QuestionSettings,
    /// The question under way.
    current: Option<Found>,
}

/// The answers to a question that were found in its windows so far.
struct Found {
    /// Its number among the examples.
    number: usize,
    example: Example,
    answers: Answers,
}

impl<'a> Rows<'a> {
    fn new(windows: &'a TextWindows, examples: &'a Examples, settings: QuestionSettings) -> Self {
        Rows { windows, examples, settings, current: None }
    }

    /// Adds the next rows, whose `logits` are `[tokens, 2]`; `each` is shown those of every row, and `done` given each
    /// question that ends in them.
    fn add(
        &mut self,
        rows: &[usize],
        mut logits: &[f32],
        mut each: impl FnMut(usize, &[f32]),
        mut done: impl FnMut(Found),
    ) -> Result<(), DataError> {
        for row in rows {
            let window = self.windows.row(*row)?;
            let (here, rest) = logits.split_at_checked(2 * window.length).unwrap_or((logits, &[]));
            logits = rest;
            each(*row, here);
            let mut found = match self.current.take() {
                Some(found) => found,
                None => Found {
                    number: window.example,
                    example: self.examples.at(window.example)?,
                    answers: Answers::new(self.settings.search),
                },
            };
            found.answers.add(&found.example.text, &window, here);
            // It ends with its last window, so that nothing waits for the next one's.
            if window.last { done(found) } else { self.current = Some(found) }
        }
        Ok(())
    }
}

/// By how much no answer is likelier than the best one.
fn null_odds(answers: &Answers) -> f32 {
    answers.null_score - answers.spans.first().map_or(f32::NEG_INFINITY, |best| best.score)
}

/// The probabilities of the answers and of none, by softmax over their scores; without `unanswerable` none has 0.
fn probabilities(answers: &Answers, unanswerable: bool) -> (Vec<f32>, f32) {
    let null = if unanswerable { answers.null_score } else { f32::NEG_INFINITY };
    let scores = || answers.spans.iter().map(|span| span.score);
    let largest = scores().fold(null, f32::max);
    if largest == f32::NEG_INFINITY {
        // A text without a token has no answer, and where there is always one none has no probability either.
        return (scores().map(|_| 0.0).collect(), 0.0);
    }
    let power = |score: f32| f64::from(score - largest).exp();
    let sum = scores().map(power).sum::<f64>() + power(null);
    (scores().map(|score| (power(score) / sum) as f32).collect(), (power(null) / sum) as f32)
}

struct Decoder<'a> {
    rows: Rows<'a>,
    threshold: f32,
}

impl Decode for Decoder<'_> {
    fn add(&mut self, rows: &[usize], logits: &[f32]) -> Result<Vec<Answered>, AdaptError> {
        let (threshold, mut answered) = (self.threshold, Vec::new());
        self.rows.add(
            rows,
            logits,
            |_, _| (),
            |Found { example, answers, .. }| {
                answered.push(Answered { answer: answer(&example.text, &answers, threshold), logits: None });
            },
        )?;
        Ok(answered)
    }
}

/// What is said of a question over `text`.
fn answer(text: &str, answers: &Answers, threshold: f32) -> Answer {
    let unanswerable = threshold.is_finite();
    let (scores, null) = probabilities(answers, unanswerable);
    let characters = |byte: u32| text.get(..byte as usize).map_or(0, |before| before.chars().count());
    let candidate = |(span, score): (&Span, &f32)| Candidate {
        answer: part(text, span).to_owned(),
        start: Some(characters(span.bytes[0])),
        end: Some(characters(span.bytes[1])),
        score: *score,
    };
    let mut n_best: Vec<Candidate> = answers.spans.iter().zip(&scores).map(candidate).collect();
    let nothing = Candidate { answer: String::new(), start: None, end: None, score: null };
    let null_odds = null_odds(answers);
    let best = n_best.first().filter(|_| null_odds <= threshold).unwrap_or(&nothing).clone();
    if unanswerable {
        let place = n_best.partition_point(|other| other.score >= null);
        n_best.insert(place, nothing);
    }
    let Candidate { answer, start, end, score } = best;
    Answer::Span {
        answer,
        start,
        end,
        score,
        null_odds: Some(null_odds).filter(|odds| odds.is_finite()),
        n_best,
    }
}

fn part<'t>(text: &'t str, span: &Span) -> &'t str {
    text.get(span.bytes[0] as usize..span.bytes[1] as usize).unwrap_or_default()
}

/// What is right for the questions of a file.
#[derive(Debug)]
struct Questions {
    windows: Arc<TextWindows>,
    /// The target of each row, its first token where it does not hold the answer; none where nobody knows the place.
    positions: Vec<Option<[u32; 2]>>,
    examples: Examples,
    settings: QuestionSettings,
    thresholds: Thresholds,
    threshold: f32,
    segmentation: Segmentation,
    /// Whether some have no answer.
    unanswerable: bool,
}

impl Questions {
    /// Errors if the system cannot read the examples again.
    fn new(form: &Extractive, examples: &Examples, tokens: &Tokens) -> Result<Self, DataError> {
        let windows = tokens.windows().clone();
        let mut positions = Vec::with_capacity(windows.len());
        let (mut unanswerable, mut chinese) = (false, 0);
        for example in examples.iter() {
            let example = example?;
            let answers = golds(&example);
            // As transformers' script: the first answer, of those whose place is known.
            let placed = answers.iter().find_map(|answer| Some((answer.start?, answer.text.len())));
            let position = |window: &TextWindow| match placed {
                None if answers.is_empty() => Some([0, 0]),
                None => None,
                Some((start, length)) => {
                    let positions = window.positions(start..start + length).unwrap_or_default();
                    Some(positions.map(|position| u32::try_from(position).unwrap_or_default()))
                }
            };
            // The rows of an example come one after the other.
            let mut last = false;
            while !last {
                let window = windows.row(positions.len())?;
                positions.push(position(&window));
                last = window.last;
            }
            unanswerable |= answers.is_empty();
            chinese += usize::from(example.text.chars().any(is_chinese));
        }
        Ok(Questions {
            windows,
            positions,
            unanswerable,
            segmentation: match 2 * chinese > examples.len() {
                true => Segmentation::Characters,
                false => Segmentation::Words,
            },
            examples: examples.clone(),
            settings: form.settings,
            thresholds: form.thresholds.clone(),
            threshold: form.threshold(),
        })
    }

    /// The rows that are learnt from, among `rows`.
    fn learnt(&self, rows: &[usize]) -> usize {
        rows.iter().filter(|row| self.positions.get(**row).is_some_and(Option::is_some)).count()
    }
}

fn is_chinese(character: char) -> bool {
    ('\u{4e00}'..='\u{9fa5}').contains(&character)
}

fn golds(example: &Example) -> &[GoldAnswer] {
    match &example.label {
        Some(Label::Answers(answers)) => answers,
        _ => &[],
    }
}

impl Targets for Questions {
    fn denominator(&self, rows: &[usize]) -> f32 {
        self.learnt(rows).max(1) as f32
    }

    /// The mean of the cross-entropies of start and end.
    fn loss(&self, output: &HeadOutput<'_>, rows: &[usize], denominator: f32) -> TensorResult<Var> {
        let (tape, logits) = (output.tape(), &output.logits()?);
        let layout = &output.batch().layout;
        let side = |side: usize| {
            let targets: Vec<Option<u32>> =
                rows.iter().map(|row| Some(self.positions.get(*row).copied()??[side])).collect();
            let scores = ops::select_columns(tape, logits, side..side + 1)?;
            ops::position_cross_entropy(tape, &scores, layout, &targets, denominator)
        };
        ops::weighted_sum(tape, &[(side(0)?, 0.5), (side(1)?, 0.5)])
    }

    fn score(&self, scoring: Scoring) -> Box<dyn Score + '_> {
        Box::new(QuestionsScored::new(self, scoring))
    }

    fn said(&self) -> Vec<String> {
        let characters = (self.segmentation == Segmentation::Characters)
            .then(|| "answers are compared by characters, as most of the texts are Chinese".into());
        let windows = self.windows.len();
        let parted = (windows > self.examples.len()).then(|| {
            format!(
                "{} questions are read in {windows} windows, as texts are longer than a row; windows share {} tokens",
                self.examples.len(),
                self.settings.doc_stride
            )
        });
        let crowded = self.settings.crowded_said(&self.windows);
        characters.into_iter().chain(parted).chain(crowded).collect()
    }
}
