//! The start of the training itself: its first loss, its first gradients, and whether a few rows can be learnt at all.

use std::collections::BTreeMap;

use retune_adapt::tasks::Answer;
use retune_data::Label;
use retune_tensor::{Gradients, Parameters, Tape};
use retune_train::{Optimiser, Workshop};

use super::rows::found;
use super::{Examination, Finding};
use crate::Result;
use crate::recipe::Prepared;
use crate::workshop::ClassifierWorkshop;

/// Rows for the first loss: of a head that was trained, enough of each label that its most frequent answer means something.
fn enough(prepared: &Prepared<'_>) -> usize {
    let labels = if prepared.model.has_fresh_head() { 0 } else { prepared.model.labels().len() };
    (5 * labels).clamp(64, 512)
}

/// The check that needs training steps.
pub(super) const OVERFIT: &str = "overfit";

/// Gives the starting loss, and what it should be.
pub(super) fn examine(examination: &mut Examination<'_, '_>) -> Result<(f64, Option<f64>)> {
    let prepared = examination.prepared;
    let shop = prepared.workshop();
    let parameters = &prepared.model.parameters;
    let rows = spread(prepared.train_rows.tokens.len(), enough(prepared));
    let (loss, logits) = first_loss(&shop, parameters, &rows)?;
    let nothing_known = prepared.model.form.uninformed_loss();
    let fresh = prepared.model.has_fresh_head();
    let expected = nothing_known.filter(|_| fresh);
    examination.check("starting-loss", starting_loss(prepared, loss, expected, nothing_known));
    if !fresh {
        examination.check("swapped-labels", swapped(prepared, &rows, &logits));
    }
    examination.check("labels-decode", labels_decode(prepared));
    examination.check("gradients", gradients(prepared, &shop)?);
    Ok((loss, expected))
}

/// `count` rows of `len`, evenly over the file.
fn spread(len: usize, count: usize) -> Vec<usize> {
    (0..len.min(count)).map(|place| place * len / len.min(count)).collect()
}

/// The mean loss without dropout, and the logits.
fn first_loss(
    shop: &ClassifierWorkshop<'_>,
    parameters: &Parameters,
    rows: &[usize],
) -> Result<(f64, Vec<f32>)> {
    let tape = Tape::inference();
    let (loss, logits) = shop.loss_and_logits(&tape, parameters, rows, shop.denominator(rows), None)?;
    Ok((loss.value().item().map_or(f64::NAN, f64::from), logits.value().f32().to_vec()))
}

fn starting_loss(
    prepared: &Prepared<'_>,
    loss: f64,
    expected: Option<f64>,
    nothing_known: Option<f64>,
) -> Vec<Finding> {
    let place = prepared.model.source.folder.display().to_string();
    if !loss.is_finite() {
        return found(
            "starting-loss",
            format!("the loss of the first rows is {loss} before any training"),
            &place,
            Vec::new(),
            "weights that are no numbers, or too large, cannot be trained",
            "start from another copy of the model".into(),
        );
    }
    match (expected, nothing_known) {
        // A new head says nothing yet; what is far above is a head or a norm of the wrong scale.
        (Some(expected), _) if loss > 1.5 * expected + 0.5 => found(
            "starting-loss",
            format!("the loss starts at {loss:.2}, and a head that knows nothing has {expected:.2}"),
            &place,
            Vec::new(),
            "new weights are too large, or the hidden states under them are",
            "check that config.json belongs to these weights".into(),
        ),
        (None, Some(nothing_known)) if loss > 1.5 * nothing_known + 0.5 => found(
            "starting-loss",
            format!(
                "the trained head starts with a loss of {loss:.2}, worse than the {nothing_known:.2} of knowing nothing"
            ),
            &place,
            Vec::new(),
            "it gives other labels than these rows have: its labels or those of the data are mixed up",
            "compare the predictions of a few rows with their labels: `retune predict`".into(),
        ),
        _ => Vec::new(),
    }
}

/// A trained head whose answers fit the labels well, but under other names.
fn swapped(prepared: &Prepared<'_>, rows: &[usize], logits: &[f32]) -> Vec<Finding> {
    let labels = prepared.model.labels();
    let mut taken: BTreeMap<usize, BTreeMap<usize, usize>> = BTreeMap::new();
    let mut right = 0;
    for (row, logits) in rows.iter().zip(logits.chunks_exact(labels.len())) {
        // Several labels and numbers have no one name that could be another's.
        let Answer::Class { label, .. } = prepared.model.form.answer(logits) else { return Vec::new() };
        let Label::Class(name) = prepared.train_rows.targets.label(*row) else { return Vec::new() };
        let (Some(target), Some(class)) = (labels.index(&name), labels.index(&label)) else { continue };
        *taken.entry(target).or_default().entry(class).or_default() += 1;
        right += usize::from(class == target);
    }
    let majority =
        |by: &BTreeMap<usize, usize>| by.iter().max_by_key(|(_, count)| **count).map(|(c, n)| (*c, *n));
    let mapped: usize = taken.values().filter_map(majority).map(|(_, count)| count).sum();
    // With few rows a label, any answer is the most frequent one of its label.
    if rows.len() < 3 * taken.len() || mapped * 10 < rows.len() * 6 || right * 2 > mapped {
        return Vec::new();
    }
    let name = |class: usize| labels.name(class).unwrap_or_default();
    let pairs = taken.iter().filter_map(|(target, by)| Some((*target, majority(by)?.0)));
    let pairs: Vec<_> = pairs
        .filter(|(a, b)| a != b)
        .take(3)
        .map(|(a, b)| format!("`{}` is called `{}`", name(a), name(b)))
        .collect();
    found(
        "swapped-labels",
        format!("the model tells the labels apart, but under other names: {}", pairs.join(", ")),
        &prepared.model.source.folder.display().to_string(),
        Vec::new(),
        "its label names are in another order than its logits, so every prediction would carry a wrong name",
        "put the `id2label` of its config.json (and the labels of its retune.json) right".into(),
    )
}

/// Every label comes back from its number.
fn labels_decode(prepared: &Prepared<'_>) -> Vec<Finding> {
    let targets = &prepared.train_rows.targets;
    let mut rows = (0..).zip(&prepared.examples.train);
    let wrong = rows.find(|(row, example)| example.label.as_ref() != Some(&targets.label(*row)));
    let Some((_, example)) = wrong else { return Vec::new() };
    found(
        "labels-decode",
        "a row's label does not come back from its number".into(),
        &prepared.resolved.train_path().display().to_string(),
        vec![example.line],
        "the model would learn another label than the file says",
        "please report this: it is a fault of retune".into(),
    )
}

/// Every group of trained parameters gets a gradient, and no other does.
fn gradients(prepared: &Prepared<'_>, shop: &ClassifierWorkshop<'_>) -> Result<Vec<Finding>> {
    let parameters = &prepared.model.parameters;
    let rows = spread(prepared.train_rows.tokens.len(), 16);
    let tape = Tape::recording();
    let (loss, _) = shop.loss_and_logits(&tape, parameters, &rows, shop.denominator(&rows), None)?;
    let mut gradients = Gradients::new();
    tape.backward(&loss, &mut gradients)?;
    let mut groups: BTreeMap<&str, bool> = BTreeMap::new();
    for (id, parameter) in parameters.trainable() {
        let reached = gradients.get(id).is_some_and(|gradient| gradient.f32().iter().any(|x| *x != 0.0));
        *groups.entry(shop.group(&parameter.name)).or_default() |= reached;
    }
    let dead: Vec<_> = groups.iter().filter(|(_, reached)| !**reached).map(|(name, _)| *name).collect();
    let mut all = Vec::new();
    if let Some(first) = dead.first() {
        let more = if dead.len() > 1 { format!(" and {} more", dead.len() - 1) } else { String::new() };
        all.extend(found(
            "gradients",
            format!("no gradient reaches {first}{more}: training will never change it"),
            &prepared.model.source.folder.display().to_string(),
            Vec::new(),
            "an adapter that is all zeros, or a part that the loss does not see, stays as it is for the whole run",
            "start the adapter anew from its base, or leave this part out of what is trained".into(),
        ));
    }
    let frozen = gradients.iter().find(|(id, _)| !parameters.get(*id).trainable);
    if let Some((id, _)) = frozen {
        all.extend(found(
            "gradients",
            format!("{} is frozen and gets a gradient", parameters.get(id).name),
            "the engine",
            Vec::new(),
            "time and memory go into what is not wanted",
            "please report this: it is a fault of retune".into(),
        ));
    }
    Ok(all)
}

/// A few rows are learnt by heart in a few steps, with the run's own method and rate; the weights of `prepared` are used up.
pub(super) fn overfit(prepared: &mut Prepared<'_>) -> Result<Vec<Finding>> {
    const STEPS: usize = 40;
    const LEARNT: f64 = 0.7;
    let mut parameters = std::mem::take(&mut prepared.model.parameters);
    let shop = prepared.workshop();
    let rows = spread(prepared.train_rows.tokens.len(), 8);
    let settings = &prepared.resolved.train;
    let mut optimiser = Optimiser::new(&parameters, settings.adamw)?;
    let (start, _) = first_loss(&shop, &parameters, &rows)?;
    let mut last = start;
    for _ in 0..STEPS {
        let tape = Tape::recording();
        let (loss, _) = shop.loss_and_logits(&tape, &parameters, &rows, shop.denominator(&rows), None)?;
        let mut gradients = Gradients::new();
        tape.backward(&loss, &mut gradients)?;
        let scale = settings.max_grad_norm.map_or(1.0, |most| (most / (gradients.norm() + 1e-6)).min(1.0));
        optimiser.step(&mut parameters, &gradients, settings.learning_rate, scale as f32)?;
        last = first_loss(&shop, &parameters, &rows)?.0;
        if !last.is_finite() || last < LEARNT * start {
            break;
        }
    }
    if last < LEARNT * start || start < 0.1 {
        return Ok(Vec::new());
    }
    Ok(found(
        OVERFIT,
        format!(
            "{} rows cannot be learnt by heart: in {STEPS} steps their loss went from {start:.2} to {last:.2}",
            rows.len()
        ),
        "the training itself",
        Vec::new(),
        "a training that cannot learn eight rows will not learn thousands",
        format!(
            "try the usual rate of {} ({}); look at the other findings first",
            prepared.resolved.method.name(),
            prepared.resolved.method.learning_rate()
        ),
    ))
}
