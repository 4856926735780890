//! The five steps of fine-tuning on one screen: prepare, load, adjust, train, evaluate and save.

use std::collections::BTreeMap;
use std::path::PathBuf;

use retune_adapt::tasks;
use retune_tensor::memory;
use retune_train::{Observer, TrainError};
use serde::Serialize;

use crate::dataset::{self, Examples};
use crate::evaluate::Evaluation;
use crate::listener::Listener;
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

/// Fine-tunes a pretrained model as `settings` say, and leaves the result in their output folder.
///
/// Errors before the first step write nothing. A loss that is no number stops the training, and the last good
/// weights, if an update has not broken them, are kept in the folder.
pub fn train(settings: &TrainSettings, listener: &mut dyn Listener) -> Result<Report> {
    let output = run_folder::check(settings.output.as_deref(), settings.overwrite == Some(true))?;
    let task = tasks::find(settings.task.as_deref().unwrap_or("text-classification"))?;

    // 1. Prepare the pretrained model.
    let source = Source::fetch(&settings.model, listener)?;
    run_folder::check_apart(&output, &source)?;
    let mut resolved = Resolved::new(settings, &source, listener)?;

    // 2. Load the task's data.
    let known = source.sound_labels()?;
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
    let encode = |rows, path| dataset::rows(rows, path, &model, max_length);
    let train_rows = encode(&examples.train, resolved.train_path())?;
    let eval_rows = encode(&examples.eval, examples.eval_path.as_deref().unwrap_or(resolved.train_path()))?;
    let profile = dataset::profile(&examples, &train_rows, max_length)?;
    profile.lines().iter().for_each(|sentence| listener.say(sentence));
    model.sentences().iter().for_each(|sentence| listener.say(sentence));

    // 4. Train all parameters, or few.
    let plan = resolved.plan(&train_rows)?;
    resolved.choose_epochs(&plan, listener);
    let run_settings = resolved.train_settings(!examples.eval.is_empty())?;
    let mut card = card(&model, &examples, &resolved, max_length, task.name)?;
    let mut run = RunFolder::create(&output, settings.overwrite == Some(true))?;
    let (total_parameters, trainable_parameters) = model.parameters.count();
    memory::reset_peak(Device::Cpu);
    let mut parameters = std::mem::take(&mut model.parameters);
    let unsound = workshop::not_finite(&parameters);
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
        Err(error) => {
            model.parameters = parameters;
            return Err(stopped(error, model, unsound, &run, &examples, &card));
        }
    };
    model.parameters = parameters;

    // 5. Evaluate, and save what can be deployed.
    let peak_memory_bytes = memory::usage(Device::Cpu).peak;
    artefact::save_model(&model, &output)?;
    card.receipt = outcome.evaluated.as_ref().map(|evaluated| crate::Receipt {
        step: outcome.kept_step,
        on: examples.eval_is.clone(),
        loss: evaluated.loss,
        metrics: evaluated.metrics.clone(),
    });
    card.save(&output)?;
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

/// What is known of the result before it is there: taken before the training, as the files may change meanwhile.
fn card(
    model: &TextModel,
    examples: &Examples,
    resolved: &Resolved<'_>,
    max_length: usize,
    task: &str,
) -> Result<Card> {
    let file = |path: &std::path::Path, rows| {
        let sha256 = artefact::hash_file(path)?;
        Ok::<_, Error>(crate::DataCard {
            path: artefact::absolute(path),
            revision: None,
            sha256,
            rows: Some(rows),
        })
    };
    let base = &model.source.base;
    let (path, revision) = artefact::named(&model.source);
    Ok(Card {
        format_version: Card::VERSION,
        retune_version: env!("CARGO_PKG_VERSION").into(),
        task: task.into(),
        method: resolved.method.name().into(),
        labels: model.labels.names().to_vec(),
        max_length,
        columns: examples.columns.clone(),
        base: crate::DataCard { path, revision, sha256: artefact::hash_weights(base)?, rows: None },
        train: file(resolved.train_path(), examples.train.len())?,
        eval: examples.eval_path.as_deref().map(|path| file(path, examples.eval.len())).transpose()?,
        settings: resolved.as_json(max_length),
        receipt: None,
    })
}

/// A loss that is no number: the rows are named by their lines, and the last weights that are known to be good are kept
/// as a model that opens again. Those are the best evaluated ones; without an evaluation, those before the step, unless an
/// update has broken them.
fn stopped(
    error: TrainError,
    mut model: TextModel,
    unsound: usize,
    run: &RunFolder,
    examples: &Examples,
    card: &Card,
) -> Error {
    let TrainError::NotFinite { step, what, value, rows } = error else { return error.into() };
    let keep = |model: &mut TextModel| -> Result<Option<PathBuf>> {
        if run.best().is_file() {
            workshop::restore(&mut model.parameters, &run.best())?;
        } else if workshop::not_finite(&model.parameters) > unsound {
            return Ok(None);
        }
        let folder = run.last_good()?;
        artefact::save_model(model, &folder)?;
        card.save(&folder)?;
        Ok(Some(folder))
    };
    let kept = match keep(&mut model) {
        Ok(kept) => kept,
        Err(error) => return error,
    };
    let lines: Vec<_> =
        rows.iter().take(8).map(|row| format!("line {}", examples.train[*row].line)).collect();
    let more = if rows.len() > lines.len() {
        format!(" and {} more", rows.len() - lines.len())
    } else {
        String::new()
    };
    let kept = match kept {
        Some(folder) => format!("the last good weights are in {}", folder.display()),
        None => "no good weights were left: an earlier update broke them".into(),
    };
    Error::NotFinite {
        data: card.train.path.clone(),
        step,
        what,
        value,
        rows: format!("{}{more}", lines.join(", ")),
        kept,
    }
}
