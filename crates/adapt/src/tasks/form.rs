//! What a task's forms have in common: what a row's target is, the loss, how logits are read, and how good they are.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;

use retune_data::{Examples, LabelMap, ProblemType, Tokens};
use retune_metrics::{Bootstrap, ClassScore, ConfusionMatrix, Intervals, MetricError, Tally};
use retune_model::tokenizer::Tokenizer;
use retune_tensor::{Result as TensorResult, Tensor, Var};
use serde::{Serialize, Serializer};

use super::head::HeadOutput;
use crate::AdaptError;

/// What is known of a form before there are rows.
#[derive(Debug)]
pub struct FormSpec {
    /// How it is called, where a task has several forms.
    pub problem_type: Option<ProblemType>,
    /// What a row gets, in one line.
    pub summary: &'static str,
    /// The metric that decides between two checkpoints: higher is better.
    pub decides: &'static str,
    /// The deciding metric of examples, from the sum of their tallies: what a comparison of two models draws anew.
    pub decided: fn(&Tally) -> f64,
    /// The metrics that people are shown, and their words.
    pub shown: &'static [(&'static str, &'static str)],
}

/// One form of a task, with its labels: all that the recipe knows of what is learnt.
pub trait Form: Debug + Send + Sync {
    /// What is known without rows.
    fn spec(&self) -> &'static FormSpec;

    /// The outputs of the head, in the order of the logits.
    fn labels(&self) -> &LabelMap;

    /// The tokens of `examples`: a row for each, or several where a text is read in windows. No row has more tokens
    /// than `max_length`.
    fn tokens(
        &self,
        examples: &Examples,
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<Tokens, AdaptError> {
        Ok(Tokens::new(tokenizer, examples, max_length)?)
    }

    /// Sentences for the user: how these tokens are not as they should be.
    fn tokens_said(&self, tokens: &Tokens) -> Vec<String> {
        let _ = tokens;
        Vec::new()
    }

    /// The targets of `examples`, which come from the file `path` and have these `tokens`, and how they are weighed.
    /// Errors if a label is not one of the form's, or a loss option has no meaning for it.
    fn targets(
        &self,
        examples: &Examples,
        tokens: &Tokens,
        path: &Path,
        options: LossOptions,
    ) -> Result<Box<dyn Targets>, AdaptError>;

    /// What reads the logits of `examples`, which have these `tokens`. Errors if the system cannot read them again.
    fn decode<'a>(
        &'a self,
        examples: &'a Examples,
        tokens: &'a Tokens,
    ) -> Result<Box<dyn Decode + 'a>, AdaptError>;
}

/// The targets of a file's rows.
pub trait Targets: Debug + Send + Sync {
    /// What the sum of the losses of `rows` is divided by.
    fn denominator(&self, rows: &[usize]) -> f32;

    /// The loss of `rows`, which `output` is of, divided by `denominator`; a scalar.
    fn loss(&self, output: &HeadOutput<'_>, rows: &[usize], denominator: f32) -> TensorResult<Var>;

    /// What an evaluation is given of `rows`: the logits, one row's after the other's, `[rows, outputs]`, or
    /// `[tokens, outputs]` where the head reads tokens, unless the form needs less of them.
    fn scored(&self, output: &HeadOutput<'_>) -> TensorResult<Tensor> {
        Ok(output.logits()?.value().clone())
    }

    /// An evaluation of these rows, with nothing counted yet.
    fn score(&self, scoring: Scoring) -> Box<dyn Score + '_>;

    /// Sentences for the user: what of the labels could not be learnt.
    fn said(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What an evaluation keeps beside its counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scoring {
    /// Each example's part in the metric that decides.
    pub tallies: bool,
    /// So many of the mistakes, the most confident.
    pub mistakes: usize,
}

/// What an evaluation adds up, a batch at a time: the logits are never kept.
pub trait Score {
    /// Counts a batch, the next rows in their order; `logits` is as [`Targets::scored`] gives them. Errors if the system
    /// cannot read the examples again.
    fn add(&mut self, rows: &[usize], logits: &[f32]) -> Result<(), AdaptError>;

    /// What all batches came to, with intervals where a bootstrap is given.
    fn measure(self: Box<Self>, bootstrap: Option<Bootstrap>) -> Measured;
}

/// What reads logits, a batch at a time.
pub trait Decode {
    /// Reads a batch, the next rows in their order, and gives the answers for the examples that end in it. Errors if the
    /// system cannot read the examples again.
    fn add(&mut self, rows: &[usize], logits: &[f32]) -> Result<Vec<Answered>, AdaptError>;
}

/// Rows with their targets.
#[derive(Debug)]
pub struct TaskRows {
    /// What the model reads.
    pub tokens: Tokens,
    /// What is to be learnt of each.
    pub targets: Box<dyn Targets>,
}

/// What a loss is told.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossOptions {
    /// Rare labels weigh more.
    pub balanced: bool,
    /// How much of each target is spread over all classes.
    pub label_smoothing: f32,
}

impl LossOptions {
    pub(super) fn refuse_balanced(self, why: &str) -> Result<(), AdaptError> {
        refuse(self.balanced, "class-weights", why)
    }

    pub(super) fn refuse_smoothing(self, why: &str) -> Result<(), AdaptError> {
        refuse(self.label_smoothing > 0.0, "label-smoothing", why)
    }
}

fn refuse(given: bool, option: &str, message: &str) -> Result<(), AdaptError> {
    match given {
        true => Err(AdaptError::Option { option: option.into(), message: message.into() }),
        false => Ok(()),
    }
}

/// What was predicted for one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// One class.
    Class {
        /// The most probable one; the first of several equal ones.
        label: String,
        /// Its probability.
        score: f32,
    },
    /// Any number of labels.
    Labels {
        /// Those that reach their thresholds, in the order of the logits.
        labels: Vec<String>,
        /// The probability of each of them.
        scores: Vec<f32>,
    },
    /// A number.
    Number {
        /// It.
        score: f32,
    },
    /// A part of the text, or nothing.
    Span {
        /// It; empty where the question has no answer.
        answer: String,
        /// The character where it begins, counted from 0.
        start: Option<usize>,
        /// The character behind it.
        end: Option<usize>,
        /// Its probability among the best, and none where a question may have none.
        score: f32,
        /// By how much no answer is likelier than the best one: the difference of their logits.
        null_odds: Option<f32>,
        /// The likeliest answers, the best first; an empty one is none.
        n_best: Vec<Candidate>,
    },
    /// Entities.
    Entities {
        /// Each, in the order of the text.
        entities: Vec<EntityAnswer>,
        /// The tag of each word, where the words are the file's.
        #[serde(skip)]
        tags: Option<Vec<String>>,
    },
}

/// One of several answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// It; empty for no answer.
    pub answer: String,
    /// The character where it begins.
    pub start: Option<usize>,
    /// The character behind it.
    pub end: Option<usize>,
    /// Its probability.
    pub score: f32,
}

/// An entity in a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntityAnswer {
    /// The character of the text where it begins, counted from 0.
    pub start: usize,
    /// Behind its last character.
    pub end: usize,
    /// Its words, as they stand in the text.
    pub text: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// How probable its tags are, the mean over its words.
    pub score: f32,
}

/// An answer, and what it was read from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answered {
    /// What was predicted.
    #[serde(flatten)]
    pub answer: Answer,
    /// The logits, one a label in the labels' order, where they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

impl Answered {
    /// The columns of a table, by name.
    pub fn cells(&self) -> Vec<(&'static str, Cell)> {
        let mut cells = self.answer.cells();
        cells.extend(self.logits.as_ref().map(|logits| ("logits", Cell::json(logits))));
        cells
    }
}

/// What stands in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A number or a list, as JSON has it.
    Json(String),
}

impl Cell {
    /// The JSON of `value`, which is made of texts and finite numbers.
    pub fn json(value: &impl Serialize) -> Self {
        Cell::Json(serde_json::to_string(value).unwrap_or_default())
    }

    /// As it stands in a table without types.
    pub fn text(&self) -> &str {
        match self {
            Cell::Text(text) | Cell::Json(text) => text,
        }
    }
}

impl Answer {
    /// The columns of a table, by name.
    pub fn cells(&self) -> Vec<(&'static str, Cell)> {
        match self {
            Answer::Class { label, score } => {
                vec![("label", Cell::Text(label.clone())), ("score", Cell::json(score))]
            }
            Answer::Labels { labels, scores } => {
                vec![("labels", Cell::json(labels)), ("scores", Cell::json(scores))]
            }
            Answer::Number { score } => vec![("score", Cell::json(score))],
            Answer::Span { answer, start, end, score, null_odds, n_best } => vec![
                ("answer", Cell::Text(answer.clone())),
                ("start", Cell::json(start)),
                ("end", Cell::json(end)),
                ("score", Cell::json(score)),
                ("null_odds", Cell::json(null_odds)),
                ("n_best", Cell::json(n_best)),
            ],
            Answer::Entities { entities, tags } => {
                let tags = tags.as_ref().map(|tags| ("tags", Cell::json(tags)));
                tags.into_iter().chain([("entities", Cell::json(entities))]).collect()
            }
        }
    }
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The mean loss, without weights or smoothing.
    pub loss: f64,
    /// How good it is.
    pub metrics: Metrics,
    /// Each label's precision, recall and F1; empty for a number.
    pub labels: Vec<LabelScore>,
    /// How many rows of each class were predicted as each, where a row has one.
    pub matrix: Option<ConfusionMatrix>,
    /// The thresholds that were tuned on these rows, if any were.
    pub thresholds: Option<Vec<f32>>,
    /// What each example adds to the deciding metric, where that was asked for: see [`FormSpec::decided`].
    pub tallies: Vec<Tally>,
    /// The most confident mistakes, that first; as many as were asked for.
    pub mistakes: Vec<Mistake>,
}

/// Something that was predicted and is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    /// The example.
    pub example: usize,
    /// What of it is meant.
    pub about: About,
    /// What is right, any of it; nothing where nothing is to be found.
    pub expected: Vec<String>,
    /// What was predicted; empty for nothing.
    pub predicted: String,
    /// How probable the model found it.
    pub score: f32,
}

/// What of an example a mistake is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// Its text.
    Text,
    /// These bytes of its text.
    Part(Range<usize>),
    /// What its second text asks.
    Question,
}

/// Numbers by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Metrics {
    /// Each metric, higher or lower.
    #[serde(flatten)]
    pub values: BTreeMap<String, f64>,
    /// Rows they are over.
    pub rows: u64,
    /// How far they may be trusted; left out where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intervals: Option<Intervals>,
}

impl Metrics {
    /// The fields of a report that are numbers.
    pub(super) fn of(
        report: &impl Serialize,
        rows: u64,
        intervals: Option<Result<Intervals, MetricError>>,
    ) -> Self {
        let value = serde_json::to_value(report).unwrap_or_default();
        let numbers = value.as_object().into_iter().flatten().filter(|(name, _)| *name != "rows");
        let values = numbers.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
        // No rows have no intervals.
        Metrics { values, rows, intervals: intervals.and_then(Result::ok) }
    }

    /// The metric called `name`, if the form has it.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }
}

/// One label's scores.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelScore {
    /// Its name.
    pub label: String,
    /// Of the rows predicted as it, the share that are.
    pub precision: f64,
    /// Of its rows, the share predicted as it.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
    /// Its rows.
    pub support: u64,
}

impl LabelScore {
    pub(super) fn all(labels: &LabelMap, scores: Vec<ClassScore>) -> Vec<Self> {
        Self::named(labels.names(), scores)
    }

    pub(super) fn named(names: &[String], scores: Vec<ClassScore>) -> Vec<Self> {
        let named = names.iter().zip(scores);
        let score = |(label, score): (&String, ClassScore)| LabelScore {
            label: label.clone(),
            precision: score.precision,
            recall: score.recall,
            f1: score.f1,
            support: score.support,
        };
        named.map(score).collect()
    }
}

/// The whole table of a matrix, for a document.
pub fn serialize_counts<S: Serializer>(
    matrix: &Option<ConfusionMatrix>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    matrix.as_ref().map(ConfusionMatrix::counts).serialize(serializer)
}

#[cfg(test)]
pub(super) mod testing {
    use std::path::Path;

    use retune_data::{Example, Examples, Label, LabelMap, ProblemType, Tokens};

    use super::{Form, LossOptions, Targets};
    use crate::AdaptError;
    use crate::tasks::{FormSettings, Thresholds, USUAL};

    pub(crate) fn form_of(problem_type: ProblemType, labels: &[&str]) -> Box<dyn Form> {
        let labels = LabelMap::new(labels.iter().map(|name| (*name).to_string()).collect()).unwrap();
        USUAL
            .form(FormSettings {
                problem_type,
                labels,
                thresholds: Thresholds::Tune,
                questions: Default::default(),
                language: Default::default(),
            })
            .unwrap()
    }

    /// Targets that do not ask for tokens.
    pub(crate) fn targets_of(
        form: &dyn Form,
        examples: &Examples,
        options: LossOptions,
    ) -> Result<Box<dyn Targets>, AdaptError> {
        form.targets(examples, &Tokens::default(), Path::new("file"), options)
    }

    pub(crate) fn class(name: &str) -> Label {
        Label::Class(name.to_string())
    }

    pub(crate) fn labels(names: &[&str]) -> Label {
        Label::Labels(names.iter().map(|name| (*name).to_string()).collect())
    }

    pub(crate) fn rows(labels: &[Label]) -> Examples {
        let rows = (0..).zip(labels);
        let example = |(row, label): (u64, &Label)| Example {
            row,
            line: row + 2,
            text: format!("text {row}"),
            pair: None,
            label: Some(label.clone()),
        };
        rows.map(example).collect::<Vec<_>>().into()
    }
}
