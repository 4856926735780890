//! How good a model is on a file.

use std::path::{Path, PathBuf};
use std::time::Instant;

use retune_adapt::tasks::{
    About, FormSpec, LabelScore, LossOptions, Measured, Metrics, Mistake, Scoring, TaskRows,
    WantedProblemType, serialize_counts, tunable_labels,
};
use retune_data::{Examples, Tokens};
use retune_metrics::{Bootstrap, ConfusionMatrix, Paired, Tally, paired};
use retune_tensor::{Parameters, Tape};
use retune_train::Batching;
use serde::Serialize;

use crate::{Error, FileSettings, ModelSettings, Result, TextModel, dataset, inputs};

/// Tokens that are computed at once: enough to fill the machine, little enough to need no memory to speak of.
pub(crate) const TOKENS: usize = 2048;

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// The mean loss, without weights or smoothing.
    pub loss: f64,
    /// Accuracy, F1 and the rest.
    pub metrics: Metrics,
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
    /// What the model was most sure of and is wrong, that first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<WrongAnswer>,
    /// Another model on the same rows, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Sentences for the user: which columns were read, what looks odd.
    #[serde(skip)]
    pub said: Vec<String>,
    /// How many rows of each label were predicted as each, where a row has one: `[gold][predicted]`.
    #[serde(
        rename = "confusion_matrix",
        serialize_with = "serialize_counts",
        skip_serializing_if = "Option::is_none"
    )]
    pub matrix: Option<ConfusionMatrix>,
    /// From which probability on each label is given, if that was tuned on these rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<f32>>,
}

impl Evaluation {
    /// The metric that decides between two checkpoints.
    pub(crate) fn score(&self, form: &FormSpec) -> f64 {
        self.metrics.get(form.decides).unwrap_or(f64::NAN)
    }

    /// What became of the thresholds that were to be tuned on these rows.
    pub(crate) fn tuning_said(&self) -> String {
        if let (true, Some([at])) = (self.labels.is_empty(), self.thresholds.as_deref()) {
            return format!(
                "no answer is given where it is likelier than the best by {at:.3}: tuned on the evaluation rows, whose \
                 scores flatter for it; --thresholds 0 gives the likelier of the two"
            );
        }
        let (labels, tuned) = (self.labels.len(), tunable_labels(&self.labels));
        let how = match tuned {
            0 => {
                return "thresholds: 0.5 for each label, as none has the five evaluation rows that tuning one takes"
                    .into();
            }
            _ if tuned == labels => "each label",
            _ => &format!("{tuned} of {labels} labels, while those with fewer than five such rows keep 0.5"),
        };
        format!(
            "thresholds: tuned on the evaluation rows for {how}; their scores flatter for it; --thresholds 0.5 leaves all \
             at a half"
        )
    }
}

/// An answer that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WrongAnswer {
    /// The file, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The line of the file where its row begins.
    pub line: u64,
    /// The text, the part of it that the answer is about, or the question.
    pub text: String,
    /// What is around that part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// What is right, any of it; nothing where nothing is to be found.
    pub expected: Vec<String>,
    /// What was predicted; empty for nothing.
    pub predicted: String,
    /// How probable the model found it.
    pub score: f32,
}

impl WrongAnswer {
    fn of(mistake: Mistake, examples: &Examples) -> Result<Option<Self>> {
        let Mistake { example, about, expected, predicted, score } = mistake;
        let Some(example) = examples.get(example)? else { return Ok(None) };
        let file = examples.file_of(&example).map(Path::to_path_buf);
        let (text, context) = match about {
            About::Text => (example.text.as_str(), None),
            About::Part(part) => (example.text.get(part).unwrap_or_default(), Some(example.text.clone())),
            About::Question => (example.pair.as_deref().unwrap_or_default(), None),
        };
        let text = text.to_string();
        Ok(Some(WrongAnswer { file, line: example.line, text, context, expected, predicted, score }))
    }
}

/// Mistakes that an evaluation shows.
const MISTAKES: usize = 20;

/// Evaluates the model at `settings` on the rows of `data`, with confidence intervals; and the model at `other` on the same
/// rows, to compare the two row by row.
///
/// Errors if a model or the file cannot be read, if answers are no numbers, or if the two answer in different forms.
pub fn evaluate(
    settings: &ModelSettings,
    other: Option<&ModelSettings>,
    data: &[PathBuf],
    file: &FileSettings,
    max_length: Option<usize>,
) -> Result<Evaluation> {
    let (model, mut evaluation, first) = tallied(settings, data, file, max_length)?;
    let Some(other) = other else { return Ok(evaluation) };
    let (other, _, second) = tallied(other, data, file, max_length)?;
    let (form, folder) = (model.form.spec(), other.source.folder.clone());
    if form.decides != other.form.spec().decides {
        let kind = |model: &TextModel| match model.form.spec().problem_type {
            Some(problem_type) => problem_type.to_string(),
            None => model.task.name().to_string(),
        };
        let message = format!(
            "expected a model for {} as the first one is, got one for {}",
            kind(&model),
            kind(&other)
        );
        return Err(Error::place(&folder, message));
    }
    // As many draws as make the p-value's second digit sure, and fewer where rows are very many.
    let resamples = (200_000_000 / first.len().max(1)).clamp(1000, 10_000);
    let bootstrap = Bootstrap { resamples, ..Bootstrap::default() };
    let paired = paired(&first, &second, form.decided, &bootstrap)
        .map_err(|error| Error::place(&inputs::together(data), error.to_string()))?;
    evaluation.comparison = Some(Comparison { other: folder, metric: form.decides, paired });
    Ok(evaluation)
}

/// One model's evaluation, and each row's part in the metric that decides.
fn tallied(
    settings: &ModelSettings,
    data: &[PathBuf],
    file: &FileSettings,
    max_length: Option<usize>,
) -> Result<(TextModel, Evaluation, Vec<Tally>)> {
    let model = TextModel::open(settings)?;
    let max_length = model.max_length(max_length)?;
    let known = WantedProblemType::Known(model.form.spec().problem_type.unwrap_or_default());
    let reading = model.reading(file, known, true)?;
    let read = model.task.read(data, &reading)?;
    let path = inputs::together(data);
    model.check_columns(&read.columns, file, &path)?;
    let rows = dataset::rows(&read.examples, &path, &model, max_length, LossOptions::default())?;
    let bootstrap = Some(Bootstrap::default());
    let scoring = Scoring { tallies: true, mistakes: MISTAKES };
    let (mut evaluation, Kept { tallies, mistakes }) =
        score(&model, &model.parameters, &rows, bootstrap, scoring)?;
    evaluation.mistakes = mistakes
        .into_iter()
        .filter_map(|mistake| WrongAnswer::of(mistake, &read.examples).transpose())
        .collect::<Result<_>>()?;
    if !evaluation.loss.is_finite() {
        return Err(Error::place(&model.source.folder, "its answers are no numbers: the weights are broken"));
    }
    evaluation.said = read.said;
    evaluation.said.extend(rows.targets.said());
    evaluation.said.extend(model.thresholds_said());
    evaluation.said.extend(model.adapter_said());
    let cut = rows.tokens.truncated();
    if cut > 0 {
        evaluation.said.push(format!("{cut} rows were cut to {max_length} tokens"));
    }
    Ok((model, evaluation, tallies))
}

/// Two models on the same rows, by the metric that decides.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Where the other model is.
    pub other: PathBuf,
    /// The metric.
    pub metric: &'static str,
    /// The numbers; this model is the first.
    #[serde(flatten)]
    pub paired: Paired,
}

/// What was kept of single examples, where that was asked for.
pub(crate) struct Kept {
    /// The part of each in the metric that decides.
    pub tallies: Vec<Tally>,
    /// The most confident mistakes.
    pub mistakes: Vec<Mistake>,
}

/// Scores `rows` with weights that may still be in training.
pub(crate) fn score(
    model: &TextModel,
    parameters: &Parameters,
    rows: &TaskRows,
    bootstrap: Option<Bootstrap>,
    scoring: Scoring,
) -> Result<(Evaluation, Kept)> {
    let start = Instant::now();
    let mut score = rows.targets.score(scoring);
    for batch in batches(&rows.tokens) {
        let (tape, tokens) = (Tape::inference(), rows.tokens.batch(&batch)?);
        let output = model.output(parameters, &tape, &tokens, None)?;
        score.add(&batch, rows.targets.scored(&output)?.f32())?;
    }
    let Measured { loss, metrics, labels, matrix, thresholds, tallies, mistakes } = score.measure(bootstrap);
    let name = |class: usize| model.labels().name(class).unwrap_or_default().to_string();
    let confused = matrix.as_ref().map(|matrix| matrix.most_confused(10)).unwrap_or_default();
    let evaluation = Evaluation {
        loss,
        metrics,
        rows: rows.tokens.examples(),
        tokens: rows.tokens.total(),
        seconds: start.elapsed().as_secs_f64(),
        most_confused: confused
            .into_iter()
            .map(|(gold, predicted, count)| (name(gold), name(predicted), count))
            .collect(),
        labels,
        matrix,
        thresholds,
        mistakes: Vec::new(),
        comparison: None,
        said: Vec::new(),
    };
    Ok((evaluation, Kept { tallies, mistakes }))
}

/// Rows in the order of the file, as many at once as have [`TOKENS`] tokens.
pub(crate) fn batches(tokens: &Tokens) -> Vec<Vec<usize>> {
    Batching::Tokens(TOKENS).gather(0..tokens.len(), |row| tokens.length(row))
}
