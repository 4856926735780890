//! The settings against what is usual, and against the machine.

use retune_model::families::HeadKind;
use retune_tensor::memory;
use retune_train::rehearse;

use super::rows::found;
use super::{Examination, Finding, Machine, percent};
use crate::recipe::Prepared;
use crate::{Device, Result, plan};

pub(super) fn examine(examination: &mut Examination<'_, '_>) -> Result<()> {
    let prepared = examination.prepared;
    examination.check("learning-rate", rate(prepared));
    examination.check("order-of-rows", order(prepared));
    examination.check("steps", steps(prepared));
    let Machine { memory, disk } = examination.machine;
    examination.check("memory", held(prepared, memory)?);
    examination.check("disk", written(prepared, disk)?);
    Ok(())
}

fn rate(prepared: &Prepared<'_>) -> Vec<Finding> {
    const FAR: f64 = 30.0;
    let (given, usual) = (prepared.resolved.train.learning_rate, prepared.resolved.method.learning_rate());
    let times = given / usual;
    if (1.0 / FAR..=FAR).contains(&times) {
        return Vec::new();
    }
    let name = prepared.resolved.method.name();
    let (what, why) = if times > 1.0 {
        (
            format!("{times:.0} times"),
            "steps this large throw away what the model knows: the loss stays high or is no number",
        )
    } else {
        (
            format!("a {:.0}th of", 1.0 / times),
            "steps this small change next to nothing in the time that was given",
        )
    };
    found(
        "learning-rate",
        format!("{given} is {what} the usual {usual} of {name}"),
        "--learning-rate",
        Vec::new(),
        why,
        format!("--learning-rate {usual}, or leave it out"),
    )
}

/// Batches that see one label only: each step unlearns the last.
fn order(prepared: &Prepared<'_>) -> Vec<Finding> {
    if prepared.resolved.shuffle {
        return Vec::new();
    }
    let (keys, tokens) = (&prepared.examples.train_keys, &prepared.train_rows.tokens);
    let label = |row: &usize| keys.label(tokens.example(*row));
    let steps = prepared.plan.epoch(0);
    let of_one = |step: &Vec<Vec<usize>>| {
        let mut rows = step.iter().flatten();
        let first = rows.next().map(label);
        step.iter().map(Vec::len).sum::<usize>() >= 4 && rows.all(|row| Some(label(row)) == first)
    };
    let single = steps.iter().filter(|step| of_one(step)).count();
    let total = steps.len();
    let one_label = (1..keys.len()).all(|row| keys.same_label(0, row));
    if one_label || single * 4 < total || single < 2 {
        return Vec::new();
    }
    found(
        "order-of-rows",
        format!("{} of the steps see rows of one label only", percent(single, total)),
        "--shuffle false",
        Vec::new(),
        "each step then teaches the model to say one label, and the next to say another: nothing stays",
        "leave --shuffle out, or mix the rows of the file".into(),
    )
}

fn steps(prepared: &Prepared<'_>) -> Vec<Finding> {
    const FEW: u64 = 20;
    let total = prepared.plan.total_steps(prepared.resolved.train.epochs);
    if total >= FEW {
        return Vec::new();
    }
    found(
        "steps",
        format!("the weights are changed {total} times only"),
        "--epochs and --batch-size",
        Vec::new(),
        match prepared.model.task.head() {
            HeadKind::Language => "what is new is hardly learnt in so few updates",
            _ => "a new head needs a few hundred updates, however good the model under it is",
        },
        "leave --epochs out, or give a smaller --batch-size".into(),
    )
}

/// The memory of the step with the most tokens, which no other exceeds by much.
fn held(prepared: &Prepared<'_>, available: Option<usize>) -> Result<Vec<Finding>> {
    let Some(available) = available else { return Ok(Vec::new()) };
    let tokens = |step: &Vec<Vec<usize>>| -> usize {
        step.iter().flatten().map(|row| prepared.train_rows.tokens.length(*row)).sum()
    };
    let Some(largest) = prepared.plan.epoch(0).into_iter().max_by_key(tokens) else { return Ok(Vec::new()) };
    let mut model = prepared.model_on(Device::Meta)?;
    let mut parameters = std::mem::take(&mut model.parameters);
    let shop = crate::workshop::TaskWorkshop { model: &model, ..prepared.workshop(&parameters)? };
    memory::reset_peak(Device::Meta);
    rehearse(&mut parameters, [largest], &shop, &prepared.resolved.train, &mut |_| {})?;
    let needed = memory::usage(Device::Meta).touched + memory::kernel_buffers();
    // The weights are there already, where this runs.
    let more = needed.saturating_sub(memory::usage(Device::Cpu).current);
    if more <= available {
        return Ok(Vec::new());
    }
    let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    Ok(found(
        "memory",
        format!("training needs {:.1} GiB more, and {:.1} GiB are free", gib(more), gib(available)),
        "this machine",
        Vec::new(),
        "the system would end the run, or slow it down a hundred times",
        "--method lora, a smaller --batch-size with --accumulation, or a lower --max-length; `retune plan` tells what fits"
            .into(),
    ))
}

/// What the run leaves on the disk at its fullest.
fn written(prepared: &Prepared<'_>, free: Option<u64>) -> Result<Vec<Finding>> {
    let Some(output) = prepared.resolved.output() else { return Ok(Vec::new()) };
    let Some(free) = free else { return Ok(Vec::new()) };
    let needed = plan::disk_bytes(prepared)?;
    if needed <= free {
        return Ok(Vec::new());
    }
    let mib = |bytes: u64| bytes / (1 << 20);
    Ok(found(
        "disk",
        format!("result and checkpoints need {} MiB, and {} MiB are free", mib(needed), mib(free)),
        &output.display().to_string(),
        Vec::new(),
        "the run would end when it saves, after all of its time",
        "free some space, or give an --output elsewhere".into(),
    ))
}
