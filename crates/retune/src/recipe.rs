//! The five steps of fine-tuning: prepare, load, adjust, train, evaluate and save.

use std::collections::BTreeMap;
use std::path::PathBuf;

use retune_adapt::peft::{Applied, DuringTraining};
use retune_adapt::tasks::{LossOptions, Task, TaskRows};
use retune_data::ProblemType;
use retune_tensor::{Parameters, memory};
use retune_train::Plan;
use serde::Serialize;

use crate::dataset::{self, Examples};
use crate::evaluate::Evaluation;
use crate::listener::{Listener, Silent};
use crate::model::Adjustment;
use crate::resolved::Resolved;
use crate::resume::{self, Record};
use crate::run_folder::{self, RunFolder, Told};
use crate::workshop::TaskWorkshop;
use crate::{
    Card, Device, Result, Source, TextModel, TrainSettings, artefact, doctor, inputs, stopped, workshop,
};

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
    /// What a label is, where the task has several kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem_type: Option<ProblemType>,
    /// The labels, in the order of the logits.
    pub labels: Vec<String>,
    /// Whether a row has two texts.
    #[serde(skip)]
    pub pairs: bool,
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
    /// The most that tensors held at any moment; none where an earlier process trained.
    pub peak_memory_bytes: Option<usize>,
    /// The most that the process held beyond its start, where the system tells.
    pub peak_resident_bytes: Option<usize>,
    /// The loss of the last step.
    pub last_loss: f64,
    /// How good the result is on the evaluation rows; none without any.
    pub metrics: Option<BTreeMap<String, f64>>,
    /// The same in full.
    #[serde(skip)]
    pub evaluation: Option<Evaluation>,
}

/// Everything that a training needs, but for the training: what `plan` and `doctor` look at too.
pub(crate) struct Prepared<'a> {
    pub task: &'static dyn Task,
    pub resolved: Resolved<'a>,
    pub examples: Examples,
    pub model: TextModel,
    /// Longer texts are cut to this many tokens.
    pub max_length: usize,
    pub train_rows: TaskRows,
    pub eval_rows: TaskRows,
    /// Which rows are seen when.
    pub plan: Plan,
    keep_head: bool,
}

/// The first three steps, and the plan of the fourth; `source` was found by [`Source::fetch`]. Writes nothing.
pub(crate) fn prepare<'a>(
    settings: &'a TrainSettings,
    source: Source,
    device: Device,
    listener: &mut dyn Listener,
) -> Result<Prepared<'a>> {
    // 1. Prepare the pretrained model.
    let (task, why) = dataset::task(settings)?;
    why.iter().for_each(|sentence| listener.say(sentence));
    let mut resolved = Resolved::new(settings, &source, listener)?;

    // 2. Load the task's data.
    let known = source.sound_labels()?;
    // A head that nobody understands is made anew.
    let head = source.problem_type().unwrap_or_default();
    let examples = dataset::load(task, settings, known.clone(), head)?;
    examples.said.iter().for_each(|sentence| listener.say(sentence));
    let keep_head = resolved.keeps_head(known.as_deref(), head, &examples, &source)?;

    // 3. Adjust its structure: the task's head, the method's parameters.
    let model = adjust(source, device, &resolved, &examples, keep_head)?;
    resolved.choose_head_rate(&model, listener);
    let max_length = model.max_length(settings.max_length)?;
    let encode = |rows, path, loss| dataset::rows(rows, path, &model, max_length, loss);
    let train_path = resolved.train_path();
    let eval_path = resolved.eval().map_or_else(|| train_path.clone(), inputs::together);
    let train_rows = encode(&examples.train, &train_path, resolved.loss)?;
    let eval_rows = encode(&examples.eval, &eval_path, LossOptions::default())?;
    let profile = dataset::profile(&examples, &train_rows, max_length)?;
    profile.lines().iter().for_each(|sentence| listener.say(sentence));
    train_rows.targets.said().iter().for_each(|sentence| listener.say(sentence));
    model.sentences().iter().for_each(|sentence| listener.say(sentence));
    let plan = resolved.plan(&train_rows)?;
    resolved.choose_epochs(&plan, listener);
    Ok(Prepared { task, resolved, examples, model, max_length, train_rows, eval_rows, plan, keep_head })
}

fn adjust(
    source: Source,
    device: Device,
    resolved: &Resolved<'_>,
    examples: &Examples,
    keep_head: bool,
) -> Result<TextModel> {
    let adjustment = Adjustment {
        device,
        method: resolved.method,
        options: &resolved.options,
        train_also: &resolved.train_also,
        train_pooler: resolved.train_pooler,
        task: examples.task,
        form: resolved.form(examples)?,
        keep_head,
        dropout: resolved.dropout,
        seed: resolved.train.seed,
        dtype: resolved.dtype,
        base_precision: resolved.base_precision,
        recompute: resolved.recompute,
        finished: false,
    };
    TextModel::build(source, adjustment)
}

impl Prepared<'_> {
    /// What the trainer is given for `parameters`, but for a place to keep weights.
    pub fn workshop(&self, parameters: &Parameters) -> Result<TaskWorkshop<'_>> {
        let Prepared { resolved, examples, model, plan, .. } = self;
        let steps = plan.total_steps(resolved.train_settings(!examples.eval.is_empty())?.epochs);
        let during = during_training(model, parameters, resolved, steps)?;
        Ok(TaskWorkshop { during, ..TaskWorkshop::new(model, &self.train_rows, &self.eval_rows) })
    }

    /// The same model on another device.
    pub fn model_on(&self, device: Device) -> Result<TextModel> {
        adjust(self.model.source.again()?, device, &self.resolved, &self.examples, self.keep_head)
    }
}

/// What the method does beside the trainer's own work in a training of so many steps.
fn during_training(
    model: &TextModel,
    parameters: &Parameters,
    resolved: &Resolved<'_>,
    steps: u64,
) -> Result<Option<Box<dyn DuringTraining>>> {
    match &model.applied {
        Applied::Adapter(adapter) => {
            Ok(model.method.during_training(adapter, parameters, &resolved.options, steps)?)
        }
        Applied::Model => Ok(None),
    }
}

/// What else is wrong with a training whose output folder is: the rows and settings are looked at as if it were not, or
/// their mistakes would come to light one by one, each after another folder. Nothing is fetched for it.
fn look_further(settings: &TrainSettings) -> Result<()> {
    if settings.resume == Some(true) || settings.model.model.as_ref().is_some_and(|model| !model.is_dir()) {
        return Ok(());
    }
    let prepared = prepare(settings, Source::find(&settings.model)?, Device::Meta, &mut Silent)?;
    prepared.resolved.train_settings(!prepared.examples.eval.is_empty())?;
    Ok(())
}

/// Fine-tunes a pretrained model as `settings` say, and leaves the result in their output folder.
///
/// Errors before the first step write nothing. A loss that is no number stops the training, and the last good
/// weights, if an update has not broken them, are kept in the folder. When the listener interrupts it, a checkpoint is
/// written, and the same settings with `resume` go on to the result that there would have been.
pub fn train(settings: &TrainSettings, listener: &mut dyn Listener) -> Result<Report> {
    let start = memory::resident();
    // An earlier process may have begun it, and may even be done with it.
    let settings = &settings.resumed()?;
    let output =
        run_folder::check(settings).map_err(|error| look_further(settings).err().unwrap_or(error))?;
    if let Some(report) = resume::finished(settings, &output)? {
        RunFolder::tidy(&output)?;
        listener.say("the run is finished: there is nothing to go on with, this is its report");
        return Ok(report);
    }

    // 1. Prepare the pretrained model; 2. load the task's data; 3. adjust the model's structure.
    let source = Source::fetch(&settings.model, listener)?;
    run_folder::check_apart(&output, &source)?;
    // Meanwhile: large weights take a while, and nothing else needs them to be known before the first step.
    let base = source.base.clone();
    let base_hash = std::thread::spawn(move || artefact::hash_weights(&base));
    let prepared = prepare(settings, source, Device::Cpu, listener)?;
    let run_settings = prepared.resolved.train_settings(!prepared.examples.eval.is_empty())?;
    doctor::first_look(&prepared, settings.strict == Some(true), listener)?;
    let base_hash =
        base_hash.join().unwrap_or_else(|_| artefact::hash_weights(&prepared.model.source.base))?;
    let mut card = Card::of(&prepared, base_hash)?;
    let begun = resume::record(settings, &output)?;
    begun.iter().try_for_each(|record| record.check(&card, &output))?;

    // 4. Train all parameters, or few.
    let Prepared { task, resolved, examples, mut model, train_rows, eval_rows, plan, .. } = prepared;
    let mut checkpoints = RunFolder::checkpoints(&output, &card, resolved.keep_checkpoints);
    let record = Record::new(settings, &card);
    let mut run = match begun {
        Some(_) => RunFolder::reopen(&output, &record, &mut checkpoints, listener)?,
        None => RunFolder::create(settings, &record)?,
    };
    let (total_parameters, trainable_parameters) = model.parameters.count();
    memory::reset_peak(Device::Cpu);
    let mut parameters = std::mem::take(&mut model.parameters);
    let unsound = workshop::not_finite(&parameters);
    let best = checkpoints.best();
    let steps = plan.total_steps(run_settings.epochs);
    let during = during_training(&model, &parameters, &resolved, steps)?;
    let mut shop = TaskWorkshop {
        rates: Some(resolved.rates(&model, &parameters)),
        checkpoints: Some(checkpoints),
        during,
        ..TaskWorkshop::new(&model, &train_rows, &eval_rows)
    };
    let mut told = Told { run: &mut run, listener };
    let trained = retune_train::train(&mut parameters, &plan, &mut shop, &run_settings, &mut told);
    let (evaluation, during) = (shop.latest.take(), shop.during.take());
    model.parameters = parameters;
    let outcome = match trained {
        Ok(outcome) => outcome,
        Err(error) => {
            return Err(stopped::explain(error, model, unsound, &run, &best, &train_rows.tokens, &card));
        }
    };

    if let (Some(during), Applied::Adapter(adapter)) = (during, &mut model.applied) {
        during.finish(adapter);
    }

    // 5. Evaluate, and save what can be deployed.
    let peak_memory_bytes = memory::usage(Device::Cpu).peak;
    artefact::save_model(&model, &output)?;
    if let Some(evaluation) = evaluation.as_ref().filter(|_| resolved.tunes_thresholds(&examples)) {
        listener.say(&evaluation.tuning_said());
        card.thresholds.clone_from(&evaluation.thresholds);
    }
    card.receipt = outcome.evaluated.as_ref().map(|evaluated| crate::Receipt {
        step: outcome.kept_step,
        on: examples.eval_is.clone(),
        rows: Some(examples.eval.len()),
        loss: evaluated.loss,
        metrics: evaluated.metrics.clone(),
    });
    card.save(&output)?;
    run.finish()?;
    Ok(Report {
        output,
        task: task.name(),
        method: resolved.method.name(),
        trainable_parameters,
        total_parameters,
        train_rows: examples.train.len(),
        eval_rows: examples.eval.len(),
        problem_type: model.form.spec().problem_type,
        labels: model.labels().names().to_vec(),
        pairs: examples.columns.pair.is_some(),
        steps: outcome.steps,
        kept_step: outcome.kept_step,
        train_seconds: outcome.seconds,
        real_tokens: outcome.tokens,
        tokens_per_second: outcome.tokens as f64 / outcome.seconds.max(1e-9),
        peak_memory_bytes: Some(peak_memory_bytes),
        peak_resident_bytes: start
            .zip(memory::resident())
            .map(|(start, end)| end.peak.saturating_sub(start.current)),
        last_loss: outcome.last_loss,
        metrics: outcome.evaluated.map(|evaluated| evaluated.metrics),
        evaluation,
    })
}
