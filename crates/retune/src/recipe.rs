//! The five steps of fine-tuning on one screen: prepare, load, adjust, train, evaluate and save.

use std::collections::BTreeMap;
use std::path::PathBuf;

use retune_adapt::tasks;
use retune_tensor::memory;
use retune_train::{Observer, Outcome, TrainError};
use serde::Serialize;

use crate::dataset::{self, Examples};
use crate::evaluate::Evaluation;
use crate::model::Adjustment;
use crate::resolved::Resolved;
use crate::run_folder::{self, RunFolder};
use crate::workshop::ClassifierWorkshop;
use crate::{Card, Device, Error, Result, Source, TextModel, TrainSettings, artefact, workshop};

/// What a training came to: the JSON of `train`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The folder with the result.
    pub output: PathBuf,
    /// The task.
    pub task: &'static str,
    /// What was trained.
    pub method: &'static str,
    /// How many numbers were trained.
    pub trainable_parameters: usize,
    /// How many there are.
    pub total_parameters: usize,
    /// Rows to train on.
    pub train_rows: usize,
    /// Rows to evaluate on.
    pub eval_rows: usize,
    /// The labels, in the order of the logits.
    pub labels: Vec<String>,
    /// Steps done.
    pub steps: u64,
    /// The step whose weights are the result.
    pub kept_step: u64,
    /// Without evaluations.
    pub train_seconds: f64,
    /// Tokens of all steps; none of them is padding.
    pub real_tokens: u64,
    /// The same a second.
    pub tokens_per_second: f64,
    /// The most that tensors held at any moment.
    pub peak_memory_bytes: usize,
    /// The loss of the last step.
    pub last_loss: f64,
    /// How good the result is on the evaluation rows; none without any.
    pub metrics: Option<BTreeMap<String, f64>>,
    /// The same in full.
    #[serde(skip)]
    pub evaluation: Option<Evaluation>,
}

/// Who is told what a run does.
pub trait Listener: Observer {
    /// A sentence about something that was found or chosen.
    fn say(&mut self, sentence: &str);
}

/// Fine-tunes a pretrained model as `settings` say, and leaves the result in their output folder.
///
/// Errors before the first step write nothing. A loss that is no number stops the training, and the weights before it
/// are kept in the folder.
pub fn train(settings: &TrainSettings, listener: &mut dyn Listener) -> Result<Report> {
    let output = run_folder::check(settings.output.as_deref(), settings.overwrite == Some(true))?;
    let task = tasks::find(settings.task.as_deref().unwrap_or("text-classification"))?;

    // 1. Prepare the pretrained model.
    let source = Source::find(&settings.model)?;
    let resolved = Resolved::new(settings, &source, listener)?;

    // 2. Load the task's data.
    let known = source.labels()?;
    let examples = dataset::load(settings, known.clone())?;
    examples.said.iter().for_each(|sentence| listener.say(sentence));
    let keep_head = resolved.keeps_head(known.as_deref(), &examples, &source)?;

    // 3. Adjust its structure: the task's head, the method's parameters.
    let mut model = TextModel::build(
        source,
        Adjustment {
            method: resolved.method,
            options: &resolved.options,
            labels: examples.labels.clone(),
            keep_head,
            dropout: resolved.dropout,
            seed: resolved.train.seed,
        },
    )?;
    let max_length = model.max_length(settings.max_length)?;
    let encode = |rows, path| dataset::rows(rows, path, &model.labels, &model.tokenizer, max_length);
    let train_rows = encode(&examples.train, resolved.train_path())?;
    let eval_rows = encode(&examples.eval, examples.eval_path.as_deref().unwrap_or(resolved.train_path()))?;
    let profile = dataset::profile(&examples, &train_rows, max_length)?;
    profile.lines().iter().for_each(|sentence| listener.say(sentence));
    model.sentences().iter().for_each(|sentence| listener.say(sentence));

    // 4. Train all parameters, or few.
    let plan = resolved.plan(&train_rows)?;
    let run_settings = resolved.train_settings(!examples.eval.is_empty());
    let mut run = RunFolder::create(&output)?;
    let (total_parameters, trainable_parameters) = model.parameters.count();
    memory::reset_peak(Device::Cpu);
    let mut parameters = std::mem::take(&mut model.parameters);
    let mut shop = ClassifierWorkshop {
        model: &model,
        train: &train_rows,
        eval: Some(&eval_rows).filter(|rows| !rows.tokens.is_empty()),
        class_weights: workshop::class_weights(
            resolved.class_weights.as_deref(),
            &train_rows.targets,
            model.labels.len(),
        )?,
        label_smoothing: resolved.label_smoothing,
        best: run.best(),
        latest: None,
        kept: None,
    };
    let mut observer = |event: &retune_train::Event| run.event(event).and_then(|()| listener.event(event));
    let trained = retune_train::train(&mut parameters, &plan, &mut shop, &run_settings, &mut observer);
    let evaluation = shop.latest.take();
    let outcome = match trained {
        Ok(outcome) => outcome,
        Err(error) => return Err(stopped(error, &parameters, &run, &examples, &resolved)),
    };
    model.parameters = parameters;

    // 5. Evaluate, and save what can be deployed.
    let peak_memory_bytes = memory::usage(Device::Cpu).peak;
    artefact::save_model(&model, &output)?;
    card(&model, &examples, &resolved, &outcome, max_length, task.name)?.save(&output)?;
    run.finish()?;
    Ok(Report {
        output,
        task: task.name,
        method: resolved.method.name(),
        trainable_parameters,
        total_parameters,
        train_rows: train_rows.tokens.len(),
        eval_rows: eval_rows.tokens.len(),
        labels: model.labels.names().to_vec(),
        steps: outcome.steps,
        kept_step: outcome.kept_step,
        train_seconds: outcome.seconds,
        real_tokens: outcome.tokens,
        tokens_per_second: outcome.tokens as f64 / outcome.seconds.max(1e-9),
        peak_memory_bytes,
        last_loss: outcome.last_loss,
        metrics: outcome.evaluated.map(|evaluated| evaluated.metrics),
        evaluation,
    })
}

fn card(
    model: &TextModel,
    examples: &Examples,
    resolved: &Resolved<'_>,
    outcome: &Outcome,
    max_length: usize,
    task: &str,
) -> Result<Card> {
    let file = |path: &std::path::Path, rows| {
        let sha256 = artefact::hash_file(path)?;
        Ok::<_, Error>(crate::DataCard { path: artefact::absolute(path), sha256, rows: Some(rows) })
    };
    let base = &model.source.base;
    Ok(Card {
        format_version: Card::VERSION,
        retune_version: env!("CARGO_PKG_VERSION").into(),
        task: task.into(),
        method: resolved.method.name().into(),
        labels: model.labels.names().to_vec(),
        max_length,
        columns: examples.columns.clone(),
        base: crate::DataCard {
            path: artefact::absolute(base),
            sha256: artefact::hash_weights(base)?,
            rows: None,
        },
        train: file(resolved.train_path(), examples.train.len())?,
        eval: examples.eval_path.as_deref().map(|path| file(path, examples.eval.len())).transpose()?,
        settings: resolved.as_json(max_length),
        receipt: outcome.evaluated.as_ref().map(|evaluated| crate::Receipt {
            step: outcome.kept_step,
            on: examples.eval_is.clone(),
            loss: evaluated.loss,
            metrics: evaluated.metrics.clone(),
        }),
    })
}

/// A loss that is no number: the weights before it are kept, and the rows are named by their lines.
fn stopped(
    error: TrainError,
    parameters: &retune_tensor::Parameters,
    run: &RunFolder,
    examples: &Examples,
    resolved: &Resolved<'_>,
) -> Error {
    let TrainError::NotFinite { step, what, value, rows } = error else { return error.into() };
    let kept = run.last_good();
    if let Err(error) = artefact::save_tensors(parameters, &workshop::trained(parameters), &kept) {
        return error;
    }
    let lines: Vec<_> =
        rows.iter().take(8).map(|row| format!("line {}", examples.train[*row].line)).collect();
    let more = if rows.len() > lines.len() {
        format!(" and {} more", rows.len() - lines.len())
    } else {
        String::new()
    };
    let rows = format!("{}{more}", lines.join(", "));
    Error::NotFinite { data: resolved.train_path().to_path_buf(), step, what, value, rows, kept }
}
