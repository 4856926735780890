//! What a training will cost, before it is begun: its own batches on [`Device::Meta`], where nothing is computed and
//! every byte is counted, and a few of its steps on the processor for the time.

use std::time::Instant;

use retune_adapt::peft::Applied;
use retune_tensor::backend::meta;
use retune_tensor::{Parameters, Tape, memory};
use retune_train::{Batching, EvalEvery, OnSpike, Optimiser, Plan, Settings, Step, rehearse};
use serde::Serialize;

use crate::evaluate;
use crate::recipe::{Prepared, prepare};
use crate::workshop::TaskWorkshop;
use crate::{Device, Listener, Result, Source, TextModel, TrainSettings, choices};

/// What a training will cost: the JSON of `plan`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// What is trained.
    pub method: &'static str,
    /// How many numbers are trained.
    pub trainable_parameters: usize,
    /// How many there are.
    pub total_parameters: usize,
    /// Rows to train on.
    pub train_rows: usize,
    /// Rows to evaluate on.
    pub eval_rows: usize,
    /// Updates of the weights.
    pub steps: u64,
    /// How often the rows are seen.
    pub epochs: f64,
    /// Tokens of all steps; none of them is padding.
    pub real_tokens: u64,
    /// Of the products of all steps and evaluations.
    pub flops: u64,
    /// The most that tensors will hold at any moment: what the engine's counter will say.
    pub peak_memory_bytes: usize,
    /// How much of it is there because gradients are clipped, about: so much less takes a training with `max_grad_norm` 0,
    /// which frees each gradient as soon as it is used.
    pub clipping_bytes: usize,
    /// The most that the process will hold beyond its start: tensors, rows, tokenizer, buffers of the kernels.
    pub peak_resident_bytes: usize,
    /// What can be had now, where the system tells.
    pub available_bytes: Option<usize>,
    /// How long the training will take, evaluations included; none where it does not fit and could not be tried.
    pub seconds: Option<f64>,
    /// The files of the result.
    pub result_bytes: u64,
    /// The most on disk while it runs: the result, and what is kept on the way.
    pub disk_bytes: u64,
    /// What was asked to fit in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<usize>,
    /// The largest batch that fits there, in rows or tokens as the settings gather them; 0 if not even one row does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_batch: Option<usize>,
    /// How batches are gathered.
    pub batching: Batching,
}

/// Says what the training of `settings` will cost; nothing is written. With `memory` the largest batch is found whose
/// training holds no more bytes than that.
pub fn plan(settings: &TrainSettings, memory: Option<usize>, listener: &mut dyn Listener) -> Result<Cost> {
    let start = memory::resident();
    let mut prepared = prepare(settings, Source::fetch(&settings.model, listener)?, Device::Meta, listener)?;
    let run = prepared.resolved.train_settings(!prepared.examples.eval.is_empty())?;
    // Rows and tokenizer are here as they will be in the training; of the model there are only shapes.
    let around = match (start, memory::resident()) {
        (Some(start), Some(now)) => now.current.saturating_sub(start.current),
        _ => 0,
    };
    let (total_parameters, trainable_parameters) = prepared.model.parameters.count();
    let (result_bytes, disk_bytes) = (result_bytes(&prepared)?, disk_bytes(&prepared)?);
    let mut parameters = std::mem::take(&mut prepared.model.parameters);
    let rehearsed = rehearsal(&prepared, &mut parameters, &prepared.plan, &run)?;
    let clipping_bytes = clipping_bytes(&prepared, &mut parameters, &run)?;
    let resident = |touched: usize| touched + around + memory::kernel_buffers();
    let peak_resident_bytes = resident(rehearsed.touched);
    let available_bytes = choices::available_memory();

    let largest_batch = match memory {
        None => None,
        Some(memory) => {
            Some(largest(&prepared, &mut parameters, &run, &|touched| resident(touched) <= memory)?)
        }
    };
    let seconds = if available_bytes.is_some_and(|available| peak_resident_bytes > available) {
        listener.say("time: not tried, as it does not fit in the memory that is free now");
        None
    } else {
        Some(calibrate(&prepared, &mut parameters, &run, rehearsed.flops)?)
    };
    Ok(Cost {
        method: prepared.resolved.method.name(),
        trainable_parameters,
        total_parameters,
        train_rows: prepared.examples.train.len(),
        eval_rows: prepared.examples.eval.len(),
        steps: rehearsed.steps,
        epochs: run.epochs,
        real_tokens: rehearsed.tokens,
        flops: rehearsed.flops,
        peak_memory_bytes: rehearsed.peak,
        clipping_bytes,
        peak_resident_bytes,
        available_bytes,
        seconds,
        result_bytes,
        disk_bytes,
        memory_bytes: memory,
        largest_batch,
        batching: prepared.resolved.batching,
    })
}

/// What a run on [`Device::Meta`] came to.
struct Rehearsed {
    peak: usize,
    /// With what lies unused between.
    touched: usize,
    steps: u64,
    tokens: u64,
    /// Of steps and evaluations.
    flops: u64,
}

fn rehearsal(
    prepared: &Prepared<'_>,
    parameters: &mut Parameters,
    plan: &Plan,
    run: &Settings,
) -> Result<Rehearsed> {
    let Prepared { model, eval_rows, .. } = prepared;
    let total_steps = plan.total_steps(run.epochs);
    let shop = prepared.workshop(parameters)?;
    memory::reset_peak(Device::Meta);
    meta::take_flops();
    let (mut steps, mut tokens) = (0, 0);
    let all = plan.steps().take(usize::try_from(total_steps).unwrap_or(usize::MAX));
    let optimiser = rehearse(parameters, all, &shop, run, &mut |step| {
        steps += 1;
        tokens += step as u64;
    })?;
    let mut flops = meta::take_flops();
    let evaluations = match run.eval_every {
        EvalEvery::Never => 0,
        EvalEvery::Epoch => run.epochs.ceil() as u64,
        EvalEvery::Steps(every) => total_steps.div_ceil(every.max(1)),
    };
    if evaluations > 0 {
        for batch in evaluate::batches(&eval_rows.tokens) {
            let (tape, batch) = (Tape::inference(), eval_rows.tokens.batch(&batch)?);
            eval_rows.targets.scored(&model.output(parameters, &tape, &batch, None)?)?;
        }
        flops += evaluations * meta::take_flops();
    }
    drop(optimiser);
    let memory::Usage { peak, touched, .. } = memory::usage(Device::Meta);
    Ok(Rehearsed { peak, touched, steps, tokens, flops })
}

/// What the step with the most tokens takes more with clipping than without.
fn clipping_bytes(prepared: &Prepared<'_>, parameters: &mut Parameters, run: &Settings) -> Result<usize> {
    let tokens = |step: &Step| -> usize {
        step.iter().flatten().map(|row| prepared.train_rows.tokens.length(*row)).sum()
    };
    let largest = prepared.plan.epoch(0).into_iter().max_by_key(tokens).unwrap_or_default();
    let shop = prepared.workshop(parameters)?;
    let without = Settings { max_grad_norm: None, ..run.clone() };
    if run.max_grad_norm.is_none() || !without.updates_in_backward(largest.len(), &shop) {
        return Ok(0);
    }
    let mut peak = |settings: &Settings| -> Result<usize> {
        memory::reset_peak(Device::Meta);
        rehearse(parameters, [largest.clone()], &shop, settings, &mut |_| {})?;
        Ok(memory::usage(Device::Meta).peak)
    };
    Ok(peak(run)?.saturating_sub(peak(&without)?))
}

/// The largest batch that fits.
fn largest(
    prepared: &Prepared<'_>,
    parameters: &mut Parameters,
    run: &Settings,
    fits: &dyn Fn(usize) -> bool,
) -> Result<usize> {
    let once = Settings { epochs: run.epochs.min(1.0), ..run.clone() };
    let fits = |size: usize, all: bool| -> Result<bool> {
        let batching = match prepared.resolved.batching {
            Batching::Rows(_) => Batching::Rows(size),
            Batching::Tokens(_) => Batching::Tokens(size),
        };
        let run = if all { run } else { &once };
        Ok(fits(rehearsal(prepared, parameters, &prepared.plan.with_batching(batching)?, run)?.touched))
    };
    let most = match prepared.resolved.batching {
        Batching::Rows(_) => prepared.train_rows.tokens.len(),
        Batching::Tokens(_) => prepared.train_rows.tokens.total(),
    };
    largest_size(most, fits)
}

/// The largest size up to `most` that fits, 0 where none does, by bisection; `fits` is asked about the first epoch or
/// about all. What is given back fits in all, though a larger one may too: batches are drawn anew for each epoch, so that
/// a larger size takes less now and then.
fn largest_size(most: usize, mut fits: impl FnMut(usize, bool) -> Result<bool>) -> Result<usize> {
    // The first epoch tells nearly all, in a part of the time.
    let first = bisect(most, most + 1, &mut |size| fits(size, false))?;
    if first == 0 || fits(first, true)? {
        return Ok(first);
    }
    bisect(most, first, &mut |size| fits(size, true))
}

fn bisect(most: usize, mut bad: usize, fits: &mut dyn FnMut(usize) -> Result<bool>) -> Result<usize> {
    let mut good = 0;
    while bad - good > 1 {
        // Doubled while it fits, halved between what fits and what does not.
        let size = if bad > most { (2 * good).clamp(1, most) } else { good + (bad - good) / 2 };
        if fits(size)? {
            good = size;
        } else {
            bad = size;
        }
    }
    Ok(good)
}

/// Seconds of the whole, from a few steps of the training itself on the processor: those of middling size, the first
/// not counted.
fn calibrate(
    prepared: &Prepared<'_>,
    parameters: &mut Parameters,
    run: &Settings,
    whole: u64,
) -> Result<f64> {
    const STEPS: usize = 4;
    let mut by_size = prepared.plan.epoch(0);
    by_size.sort_by_key(|step| {
        step.iter().flatten().map(|row| prepared.train_rows.tokens.length(*row)).sum::<usize>()
    });
    let first = by_size.len().saturating_sub(STEPS) / 2;
    let mut steps: Vec<_> = by_size.into_iter().skip(first).take(STEPS).collect();
    // Where there is but one step, it is its own warm-up.
    steps.insert(0, steps.first().cloned().unwrap_or_default());

    let mut model = prepared.model_on(Device::Cpu)?;
    let mut flops = Vec::new();
    let mut ends = Vec::new();
    let shop = prepared.workshop(parameters)?;
    meta::take_flops();
    let counted = &mut |_| flops.push(meta::take_flops());
    rehearse(parameters, steps.iter().cloned(), &shop, run, counted)?;
    let mut parameters = std::mem::take(&mut model.parameters);
    let shop = TaskWorkshop { model: &model, ..shop };
    let timed = &mut |_| ends.push(Instant::now());
    rehearse(&mut parameters, steps, &shop, run, timed)?;
    let seconds = match (ends.first(), ends.last()) {
        (Some(first), Some(last)) => (*last - *first).as_secs_f64(),
        _ => 0.0,
    };
    let tried: u64 = flops.iter().skip(1).sum();
    Ok(seconds * whole as f64 / tried.max(1) as f64)
}

/// The weights that a result of this training holds; configuration and tokenizer are small beside them.
fn result_bytes(prepared: &Prepared<'_>) -> Result<u64> {
    let TextModel { method, parameters, hooks, applied, .. } = &prepared.model;
    let values: usize = match applied {
        Applied::Model => parameters.count().0,
        Applied::Adapter(adapter) => {
            let file = method.file(adapter, hooks, parameters)?;
            file.tensors.iter().map(|(_, value)| value.len()).sum()
        }
    };
    Ok(4 * values as u64)
}

/// The most on disk while it runs: the result beside all checkpoints that are kept and the one being written, each with
/// weights, two moments, what the method keeps beside them and, as links to older files take their place too, the best
/// weights of its time.
pub(crate) fn disk_bytes(prepared: &Prepared<'_>) -> Result<u64> {
    let Prepared { resolved, examples, model, .. } = prepared;
    let run = resolved.train_settings(!examples.eval.is_empty())?;
    // The one to rewind to stays beside those that are kept.
    let checkpoints = resolved.keep_checkpoints as u64 + 1 + u64::from(run.on_spike == OnSpike::Rewind);
    let (_, trained) = model.parameters.count();
    let parameters = &prepared.model_on(Device::Meta)?.parameters;
    let optimiser = Optimiser::new(parameters, run.adamw)?;
    let moments: usize = optimiser.moments().map(|(_, _, tensor)| tensor.len()).sum();
    let weights = if run.keep_best { 2 * trained } else { trained };
    let mut during = prepared.workshop(parameters)?.during;
    let state = during.as_mut().map(|during| during.state()).unwrap_or_default();
    let state: usize = state.iter().map(|(_, tensor)| tensor.len()).sum();
    // Any number may be asked to be kept.
    let kept = checkpoints.saturating_mul(4 * (weights + moments + state) as u64);
    Ok(result_bytes(prepared)?.saturating_add(kept))
}

#[cfg(test)]
mod tests {
    use super::largest_size;

    #[test]
    fn the_largest_size_fits_in_every_epoch() {
        // The later epochs take a little more than the first.
        let fits = |size: usize, all: bool| size * if all { 108 } else { 100 } <= 9000;
        for (most, expected) in [(7, 7), (83, 83), (84, 83), (90, 83), (1000, 83)] {
            assert_eq!(largest_size(most, |size, all| Ok(fits(size, all))).unwrap(), expected, "{most}");
        }
        assert_eq!(largest_size(1000, |_, all| Ok(!all)).unwrap(), 0);
        assert_eq!(largest_size(1000, |_, _| Ok(false)).unwrap(), 0);
        // Where nothing is missing, all epochs are gone through once.
        let mut whole = 0;
        let counted = |size: usize, all: bool| {
            whole += usize::from(all);
            Ok(size <= 321)
        };
        assert_eq!((largest_size(1000, counted).unwrap(), whole), (321, 1));
    }
}
