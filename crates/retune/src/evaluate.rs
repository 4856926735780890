//! How good a model is on a file.

use std::path::Path;
use std::time::Instant;

use retune_adapt::tasks::{ClassificationScore, ClassifierRows};
use retune_metrics::{Bootstrap, ClassificationReport, ConfusionMatrix};
use retune_tensor::{Parameters, Tape};
use serde::{Serialize, Serializer};

use crate::{Error, FileSettings, ModelSettings, Result, TextModel, dataset};

/// Tokens that are computed at once: enough to fill the machine, little enough to need no memory to speak of.
pub(crate) const TOKENS: usize = 2048;

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// The mean cross-entropy.
    pub loss: f64,
    /// Accuracy, F1 and the rest.
    #[serde(rename = "metrics")]
    pub report: ClassificationReport,
    /// How many rows.
    pub rows: usize,
    /// How many tokens, all of them real.
    pub tokens: usize,
    /// How long it took, from tokens to numbers.
    pub seconds: f64,
    /// What is most often taken for what: the right label, the predicted one, how often.
    pub most_confused: Vec<(String, String, u64)>,
    /// Each label's precision, recall and F1.
    pub labels: Vec<LabelScore>,
    /// Sentences for the user: which columns were read, what looks odd.
    #[serde(skip)]
    pub said: Vec<String>,
    /// How many rows of each label were predicted as each: `[gold][predicted]`.
    #[serde(rename = "confusion_matrix", serialize_with = "counts")]
    pub matrix: ConfusionMatrix,
}

fn counts<S: Serializer>(matrix: &ConfusionMatrix, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    matrix.counts().serialize(serializer)
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

/// Evaluates the model at `settings` on the file `data`, with confidence intervals.
pub fn evaluate(
    settings: &ModelSettings,
    data: &Path,
    file: &FileSettings,
    max_length: Option<usize>,
) -> Result<Evaluation> {
    let model = TextModel::open(settings)?;
    let max_length = model.max_length(max_length)?;
    let read = dataset::read_labelled(data, file, |file, table| model.file_settings(file, table))?;
    model.check_pair(read.columns.pair.is_some())?;
    let rows = dataset::rows(&read.examples, data, &model, max_length)?;
    let mut evaluation = score(&model, &model.parameters, &rows)?;
    if !evaluation.loss.is_finite() {
        return Err(Error::place(&model.source.folder, "its answers are no numbers: the weights are broken"));
    }
    evaluation.said = dataset::said(&read.table, &read.columns);
    let cut = rows.tokens.truncated();
    if cut > 0 {
        evaluation.said.push(format!("{cut} rows were cut to {max_length} tokens"));
    }
    evaluation.report.intervals = Bootstrap::default().intervals(&evaluation.matrix).ok();
    Ok(evaluation)
}

/// Scores `rows` with weights that may still be in training.
pub(crate) fn score(model: &TextModel, parameters: &Parameters, rows: &ClassifierRows) -> Result<Evaluation> {
    let start = Instant::now();
    let mut score = ClassificationScore::new(&model.labels);
    for batch in batches(rows) {
        let logits = model.logits_with(parameters, &Tape::inference(), &rows.tokens.batch(&batch), None)?;
        score.add(logits.value().f32(), &rows.targets(&batch), model.labels.len());
    }
    let name = |class: usize| model.labels.name(class).unwrap_or_default().to_string();
    let labels = score.matrix.per_class().into_iter().enumerate().map(|(class, score)| LabelScore {
        label: name(class),
        precision: score.precision,
        recall: score.recall,
        f1: score.f1,
        support: score.support,
    });
    let confused = score.matrix.most_confused(10);
    Ok(Evaluation {
        loss: score.loss(),
        report: score.matrix.report(),
        rows: rows.tokens.len(),
        tokens: rows.tokens.total(),
        seconds: start.elapsed().as_secs_f64(),
        most_confused: confused
            .into_iter()
            .map(|(gold, predicted, count)| (name(gold), name(predicted), count))
            .collect(),
        labels: labels.collect(),
        matrix: score.matrix,
        said: Vec::new(),
    })
}

/// Rows in the order of the file, as many at once as have [`TOKENS`] tokens.
pub(crate) fn batches(rows: &ClassifierRows) -> Vec<Vec<usize>> {
    let lengths: Vec<usize> = (0..rows.tokens.len()).map(|row| rows.tokens.length(row)).collect();
    by_tokens(&lengths)
}

pub(crate) fn by_tokens(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for (row, length) in lengths.iter().enumerate() {
        if batches.is_empty() || tokens + length > TOKENS {
            batches.push(Vec::new());
            tokens = 0;
        }
        tokens += length;
        if let Some(batch) = batches.last_mut() {
            batch.push(row);
        }
    }
    batches
}
