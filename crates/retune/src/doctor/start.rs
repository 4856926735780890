//! The start of the training itself: its first loss, its first gradients, and whether a few rows can be learnt at all.

use std::collections::BTreeMap;

use retune_adapt::tasks::HeadOutput;
use retune_tensor::{Gradients, Parameters, Tape, Tensor, Var};
use retune_train::{Optimiser, Workshop};

use super::rows::found;
use super::{Examination, Finding, labels};
use crate::recipe::Prepared;
use crate::workshop::TaskWorkshop;
use crate::{Device, Result};

/// Rows whose gradients are looked at.
const FEW: usize = 16;

/// Rows for the first loss: of a head that was trained, enough of each label that its most frequent answer means something;
/// a new one knows nothing of any, and every training waits for this.
fn enough(prepared: &Prepared<'_>) -> usize {
    if prepared.model.has_fresh_head() { FEW } else { (5 * prepared.model.labels().len()).clamp(64, 512) }
}

/// The check that needs training steps.
pub(super) const OVERFIT: &str = "overfit";

/// Gives the starting loss, and what it should be.
pub(super) fn examine(examination: &mut Examination<'_, '_>) -> Result<(f64, Option<f64>)> {
    let prepared = examination.prepared;
    let parameters = &prepared.model.parameters;
    let shop = prepared.workshop(parameters)?;
    let rows = few(prepared, enough(prepared));
    if let Some(vocabulary) = prepared.model.network.encoder().head().vocabulary {
        // A language model's head is its own, and the rows are ones that it may know.
        let loss = first_loss(&shop, parameters, &rows)?;
        let nothing = (vocabulary.size as f64).ln();
        let start = Start { loss, nothing, constant: nothing, fresh: false };
        examination.check(STARTING_LOSS, start.findings(&prepared.model.source.folder.display().to_string()));
        examination.check(GRADIENTS, gradients(prepared, &shop)?);
        return Ok((loss, None));
    }
    let outputs = prepared.model.labels().len();
    let fresh = prepared.model.has_fresh_head();
    // A new head's rows are those whose gradients are looked at, so one pass is for both.
    let tape = if fresh { Tape::recording() } else { Tape::inference() };
    let (mean, logits) = loss_and_logits(&shop, &tape, parameters, &rows)?;
    let loss = number(&mean);
    let start = Start {
        loss,
        nothing: loss_of(&shop, &rows, outputs, &vec![0.0; logits.len()])?,
        constant: loss_of(&shop, &rows, outputs, &means(&logits, outputs))?,
        fresh,
    };
    examination.check(STARTING_LOSS, start.findings(&prepared.model.source.folder.display().to_string()));
    if !fresh {
        examination.check("swapped-labels", labels::swapped(prepared, &rows, &logits)?);
    }
    let found = if fresh { reached_by(prepared, &shop, tape, &mean)? } else { gradients(prepared, &shop)? };
    examination.check(GRADIENTS, found);
    Ok((loss, fresh.then_some(start.nothing)))
}

/// `count` rows of `len`, evenly over the file.
fn spread(len: usize, count: usize) -> Vec<usize> {
    (0..len.min(count)).map(|place| place * len / len.min(count)).collect()
}

/// The same, of a language model as many as have few tokens: each row of it is a whole text to learn.
fn few(prepared: &Prepared<'_>, count: usize) -> Vec<usize> {
    const TOKENS: usize = 2048;
    let tokens = &prepared.train_rows.tokens;
    let mut rows = spread(tokens.len(), count);
    if prepared.model.network.encoder().head().vocabulary.is_some() {
        let mut sum = 0;
        rows.retain(|row| {
            let fits = sum == 0 || sum + tokens.length(*row) <= TOKENS;
            sum += if fits { tokens.length(*row) } else { 0 };
            fits
        });
    }
    rows
}

fn number(loss: &Var) -> f64 {
    loss.value().item().map_or(f64::NAN, f64::from)
}

/// The mean loss without dropout.
fn first_loss(shop: &TaskWorkshop<'_>, parameters: &Parameters, rows: &[usize]) -> Result<f64> {
    Ok(number(&shop.loss_of(&Tape::inference(), parameters, rows, shop.denominator(rows), None)?))
}

/// The same, and the logits.
fn loss_and_logits(
    shop: &TaskWorkshop<'_>,
    tape: &Tape,
    parameters: &Parameters,
    rows: &[usize],
) -> Result<(Var, Vec<f32>)> {
    let batch = shop.train.tokens.batch(rows)?;
    let logits = shop.model.output(parameters, tape, &batch, None)?.logits()?;
    let values = logits.value().f32().to_vec();
    let output = HeadOutput::of_logits(tape, &batch, logits);
    Ok((shop.train.targets.loss(&output, rows, shop.denominator(rows))?, values))
}

/// The loss that `logits`, `[n, outputs]`, would have.
fn loss_of(shop: &TaskWorkshop<'_>, rows: &[usize], outputs: usize, logits: &[f32]) -> Result<f64> {
    let shape = [logits.len() / outputs.max(1), outputs];
    let logits = Var::constant(Tensor::from_slice(Device::Cpu, &shape, logits)?);
    let (tape, batch) = (Tape::inference(), shop.train.tokens.batch(rows)?);
    let output = HeadOutput::of_logits(&tape, &batch, logits);
    Ok(number(&shop.train.targets.loss(&output, rows, shop.denominator(rows))?))
}

/// The mean logits in the place of those of each row.
fn means(logits: &[f32], labels: usize) -> Vec<f32> {
    let rows = logits.len() / labels.max(1);
    let mean = |label: usize| {
        let sum: f64 = logits.iter().skip(label).step_by(labels).map(|x| f64::from(*x)).sum();
        (sum / rows.max(1) as f64) as f32
    };
    let means: Vec<f32> = (0..labels).map(mean).collect();
    means.repeat(rows)
}

const STARTING_LOSS: &str = "starting-loss";
const GRADIENTS: &str = "gradients";

/// The first loss, and what it is held to. All are losses of the same rows, so class weights, several labels and
/// the size of numbers are in all of them.
struct Start {
    loss: f64,
    /// Of logits that are all 0, which a new head has but for its small weights: ln(classes), ln 2 a label, the mean square
    /// of numbers.
    nothing: f64,
    /// Of the same answer for each row, the mean of the model's own.
    constant: f64,
    /// Whether the head was drawn anew.
    fresh: bool,
}

impl Start {
    fn findings(&self, place: &str) -> Vec<Finding> {
        let Start { loss, nothing, constant, fresh } = *self;
        let finding =
            |what: String, why, fix: &str| found(STARTING_LOSS, what, place, Vec::new(), why, fix.into());
        let high = 1.5 * nothing + 0.5;
        // Where most rows have one label, a new head that happens to lean to it is no wonder, so what each row gets must
        // be better than what all of them would.
        let low = 0.5 * nothing.min(constant);
        if !loss.is_finite() {
            finding(
                format!("the loss of the first rows is {loss} before any training"),
                "weights that are no numbers, or too large, cannot be trained",
                "start from another copy of the model",
            )
        } else if fresh && loss > high {
            finding(
                format!("the loss starts at {loss:.2}, and a head that knows nothing has {nothing:.2}"),
                "new weights are too large, or the hidden states under them are",
                "check that config.json belongs to these weights; look at numbers that are far from 0, if they are the labels",
            )
        } else if fresh && loss < low {
            finding(
                format!(
                    "the loss starts at {loss:.3}, far below the {nothing:.2} of a head that knows nothing"
                ),
                "a new head cannot know the labels: what it is given tells them, so the training would measure nothing",
                "look at rows of each label: what else do their texts have in common? check that config.json belongs to \
                 these weights",
            )
        } else if !fresh && loss > high {
            finding(
                format!(
                    "the trained head starts with a loss of {loss:.2}, worse than the {nothing:.2} of knowing nothing"
                ),
                "it gives other labels than these rows have: its labels or those of the data are mixed up",
                "compare the predictions of a few rows with their labels: `retune predict`",
            )
        } else {
            Vec::new()
        }
    }
}

/// Every group of trained parameters gets a gradient, and no other does.
fn gradients(prepared: &Prepared<'_>, shop: &TaskWorkshop<'_>) -> Result<Vec<Finding>> {
    let rows = few(prepared, FEW);
    let tape = Tape::recording();
    let loss = shop.loss_of(&tape, &prepared.model.parameters, &rows, shop.denominator(&rows), None)?;
    reached_by(prepared, shop, tape, &loss)
}

/// The same of a loss that is there, recorded by `tape`.
fn reached_by(
    prepared: &Prepared<'_>,
    shop: &TaskWorkshop<'_>,
    tape: Tape,
    loss: &Var,
) -> Result<Vec<Finding>> {
    let parameters = &prepared.model.parameters;
    let mut gradients = Gradients::new();
    tape.backward(loss, &mut gradients)?;
    let place = prepared.model.source.folder.display().to_string();
    Ok(reached(parameters, &gradients, |name| shop.group(name), &place))
}

/// Where gradients should have come and did not, and the other way round; `group` names the part that a parameter
/// belongs to.
fn reached<'p>(
    parameters: &'p Parameters,
    gradients: &Gradients,
    group: impl Fn(&'p str) -> &'p str,
    place: &str,
) -> Vec<Finding> {
    let mut groups: BTreeMap<&str, bool> = BTreeMap::new();
    for (id, parameter) in parameters.trainable() {
        let reached = gradients.get(id).is_some_and(|gradient| !gradient.is_zero());
        *groups.entry(group(&parameter.name)).or_default() |= reached;
    }
    let dead: Vec<_> = groups.iter().filter(|(_, reached)| !**reached).map(|(name, _)| *name).collect();
    let mut all = Vec::new();
    if let Some(first) = dead.first() {
        let more = if dead.len() > 1 { format!(" and {} more", dead.len() - 1) } else { String::new() };
        all.extend(found(
            GRADIENTS,
            format!("no gradient reaches {first}{more}: training will never change it"),
            place,
            Vec::new(),
            "an adapter that is all zeros, or a part that the loss does not see, stays as it is for the whole run",
            "start the adapter anew from its base, or leave this part out of what is trained".into(),
        ));
    }
    let frozen = gradients.iter().find(|(id, _)| !parameters.get(*id).trainable);
    if let Some((id, _)) = frozen {
        all.extend(found(
            GRADIENTS,
            format!("{} is frozen and gets a gradient", parameters.get(id).name),
            "the engine",
            Vec::new(),
            "time and memory go into what is not wanted",
            "please report this: it is a fault of retune".into(),
        ));
    }
    all
}

/// A few rows are learnt by heart in a few steps, with the run's own method and rates; the weights of `prepared` are used up.
pub(super) fn overfit(prepared: &mut Prepared<'_>) -> Result<Vec<Finding>> {
    const STEPS: usize = 40;
    // Methods that begin far from the answer, such as a prefix, take longer: as long as the loss still falls.
    const MOST: usize = 200;
    const FALLS: f64 = 0.98;
    const LEARNT: f64 = 0.7;
    let rows = few(prepared, 8);
    let mut parameters = std::mem::take(&mut prepared.model.parameters);
    let rates = prepared.resolved.rates(&prepared.model, &parameters);
    let shop = TaskWorkshop { rates: Some(rates), ..prepared.workshop(&parameters)? };
    let settings = &prepared.resolved.train;
    let mut optimiser =
        Optimiser::new(&parameters, settings.adamw)?.with_rates(&parameters, |name| shop.rate(name));
    let start = first_loss(&shop, &parameters, &rows)?;
    let (mut last, mut before, mut steps) = (start, start, 0);
    while steps < STEPS || (steps < MOST && (steps % STEPS != 0 || last < FALLS * before)) {
        if steps % STEPS == 0 {
            before = last;
        }
        steps += 1;
        let tape = Tape::recording();
        let loss = shop.loss_of(&tape, &parameters, &rows, shop.denominator(&rows), None)?;
        let mut gradients = Gradients::new();
        tape.backward(&loss, &mut gradients)?;
        let scale = settings.max_grad_norm.map_or(1.0, |most| (most / (gradients.norm() + 1e-6)).min(1.0));
        optimiser.step(&mut parameters, &gradients, settings.learning_rate, scale as f32)?;
        last = first_loss(&shop, &parameters, &rows)?;
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
            "{} rows cannot be learnt by heart: in {steps} steps their loss went from {start:.2} to {last:.2}",
            rows.len()
        ),
        "the training itself",
        Vec::new(),
        "a training that cannot learn eight rows will not learn thousands",
        format!(
            "try the usual rate of {} ({}){}; look at the other findings first",
            prepared.resolved.method.name(),
            prepared.resolved.method.learning_rate(),
            if prepared.resolved.layer_decay < 1.0 { ", and a --layer-decay nearer to 1" } else { "" }
        ),
    ))
}

#[cfg(test)]
mod tests {
    use retune_tensor::ops;

    use super::*;

    fn found_at(loss: f64, nothing: f64, constant: f64, fresh: bool) -> Option<String> {
        let findings = Start { loss, nothing, constant, fresh }.findings("model");
        assert!(findings.len() < 2);
        findings.first().map(|finding| finding.what.clone())
    }

    #[test]
    fn a_new_head_starts_where_nothing_is_known() {
        let three = 3f64.ln();
        for loss in [0.6 * three, three, 1.4 * three] {
            assert_eq!(found_at(loss, three, three, true), None, "{loss}");
        }
        assert!(found_at(0.5, three, three, true).unwrap().contains("far below the 1.10"));
        assert!(found_at(2.2, three, three, true).unwrap().contains("starts at 2.20"));
        assert!(found_at(f64::NAN, three, three, true).unwrap().contains("NaN"));
        // Nearly all rows have one label, and the head leans to it.
        assert_eq!(found_at(0.3, std::f64::consts::LN_2, 0.31, true), None);
        // Numbers around 30, and around 0.
        assert_eq!(found_at(880.0, 900.0, 881.0, true), None);
        assert_eq!(found_at(0.4, 0.01, 0.4, true), None);
    }

    #[test]
    fn a_trained_head_may_start_low_and_not_high() {
        let three = 3f64.ln();
        assert_eq!(found_at(0.001, three, three, false), None);
        assert_eq!(found_at(2.0, three, three, false), None);
        assert!(found_at(2.2, three, three, false).unwrap().contains("the trained head"));
    }

    #[test]
    fn mean_logits_are_each_labels_own() {
        assert_eq!(means(&[1.0, 10.0, 3.0, -20.0, 2.0, 1.0], 2), [2.0, -3.0, 2.0, -3.0, 2.0, -3.0]);
        assert!(means(&[], 3).is_empty());
    }

    #[test]
    fn gradients_are_where_they_should_be_and_nowhere_else() {
        let mut parameters = Parameters::new();
        let [used, other, aside] =
            ["used.weight", "other.lora_A.weight", "other.lora_B.weight"].map(|name| {
                let value = Tensor::from_slice(Device::Cpu, &[2, 1], &[2.0, -1.0]).unwrap();
                let id = parameters.add(name, value).unwrap();
                parameters.get_mut(id).trainable = true;
                id
            });
        let gradients = |parameters: &Parameters, seen: &[_]| {
            let mut gradients = Gradients::new();
            for id in seen {
                let tape = Tape::recording();
                let loss =
                    ops::squared_error(&tape, &tape.parameter(parameters, *id), &[0.5, 0.5], 2.0).unwrap();
                tape.backward(&loss, &mut gradients).unwrap();
            }
            gradients
        };
        let found = |parameters: &Parameters, gradients: &Gradients| {
            let group = |name| <str>::split_once(name, '.').map_or(name, |(group, _)| group);
            let findings = reached(parameters, gradients, group, "model");
            findings.into_iter().map(|finding| finding.what).collect::<Vec<_>>()
        };
        // One side of a branch may be without.
        let sound = gradients(&parameters, &[used, aside]);
        assert_eq!(found(&parameters, &sound), Vec::<String>::new());
        let dead = gradients(&parameters, &[used]);
        assert_eq!(found(&parameters, &dead), ["no gradient reaches other: training will never change it"]);
        // Trained by what it has recorded, frozen by what is asked.
        parameters.get_mut(used).trainable = false;
        assert_eq!(found(&parameters, &sound), ["used.weight is frozen and gets a gradient"]);
        parameters.get_mut(other).trainable = false;
        assert_eq!(found(&parameters, &sound), ["used.weight is frozen and gets a gradient"]);
    }
}
