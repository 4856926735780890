//! What the trainer is told of this task and this disk.

use std::path::Path;

use retune_adapt::tasks::ClassifierRows;
use retune_model::formats::Weights;
use retune_tensor::random::Key;
use retune_tensor::{ParamId, Parameters, Tape, Tensor, Var, ops};
use retune_train::{Checkpoint, Evaluated, Optimiser, State, Workshop};

use crate::artefact::{self, save_tensors};
use crate::checkpoints::Checkpoints;
use crate::evaluate::{self, Evaluation};
use crate::layer_rates::LayerRates;
use crate::resolved::Resolved;
use crate::{Error, TextModel};

/// The training of one classifier.
pub(crate) struct ClassifierWorkshop<'a> {
    pub model: &'a TextModel,
    pub train: &'a ClassifierRows,
    pub eval: Option<&'a ClassifierRows>,
    /// A weight for each class.
    pub class_weights: Option<Vec<f32>>,
    pub label_smoothing: f32,
    /// Where the best weights are kept, and all that the training needs to go on; nothing is kept without it.
    pub checkpoints: Option<Checkpoints>,
    /// The shares of the learning rate, where layers differ in it.
    pub rates: Option<LayerRates>,
    /// The evaluation of the latest weights.
    pub latest: Option<Evaluation>,
    /// That of the kept ones.
    pub kept: Option<Evaluation>,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

impl<'a> ClassifierWorkshop<'a> {
    /// The training of `model`, whose parameters the trainer holds.
    pub fn new(
        model: &'a TextModel,
        resolved: &Resolved<'_>,
        train: &'a ClassifierRows,
        eval: &'a ClassifierRows,
    ) -> Result<Self, Error> {
        let class_weights =
            class_weights(resolved.class_weights.as_deref(), &train.targets, model.labels.len())?;
        Ok(ClassifierWorkshop {
            model,
            train,
            eval: Some(eval).filter(|rows| !rows.tokens.is_empty()),
            class_weights,
            label_smoothing: resolved.label_smoothing,
            checkpoints: None,
            rates: None,
            latest: None,
            kept: None,
        })
    }

    /// The loss of training rows, and the logits that it comes from; without a key there is no dropout.
    pub fn loss_and_logits(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        rows: &[usize],
        denominator: f32,
        dropout: Option<Key>,
    ) -> retune_tensor::Result<(Var, Var)> {
        let batch = self.train.tokens.batch(rows);
        let logits = self.model.logits_with(parameters, tape, &batch, dropout)?;
        let options = ops::CrossEntropyOptions {
            class_weights: self.class_weights.as_deref(),
            label_smoothing: self.label_smoothing,
            denominator,
        };
        let loss = ops::cross_entropy(tape, &logits, &self.train.targets(rows), options)?;
        Ok((loss, logits))
    }
}

impl Workshop for ClassifierWorkshop<'_> {
    fn denominator(&self, rows: &[usize]) -> f32 {
        match &self.class_weights {
            None => rows.len() as f32,
            Some(weights) => rows.iter().map(|row| weights[self.train.targets[*row] as usize]).sum(),
        }
    }

    fn tokens(&self, rows: &[usize]) -> usize {
        rows.iter().map(|row| self.train.tokens.length(*row)).sum()
    }

    fn loss(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        rows: &[usize],
        denominator: f32,
        dropout: Key,
    ) -> retune_tensor::Result<Var> {
        Ok(self.loss_and_logits(tape, parameters, rows, denominator, Some(dropout))?.0)
    }

    fn evaluate(&mut self, parameters: &Parameters) -> Result<Option<Evaluated>, AnyError> {
        let Some(rows) = self.eval else { return Ok(None) };
        let evaluation = evaluate::score(self.model, parameters, rows)?;
        let metrics = artefact::metrics(&evaluation.report);
        let evaluated = Evaluated { loss: evaluation.loss, score: evaluation.report.accuracy, metrics };
        self.latest = Some(evaluation);
        Ok(Some(evaluated))
    }

    fn keep(&mut self, parameters: &Parameters) -> Result<(), AnyError> {
        self.kept.clone_from(&self.latest);
        let Some(checkpoints) = &self.checkpoints else { return Ok(()) };
        Ok(save_tensors(parameters, &trained(parameters), &checkpoints.best())?)
    }

    fn restore(&mut self, parameters: &mut Parameters) -> Result<(), AnyError> {
        let Some(checkpoints) = &self.checkpoints else { return Ok(()) };
        restore(parameters, &checkpoints.best())?;
        self.latest = self.kept.take();
        if self.latest.is_none() {
            // It was made by a process that is gone, of which only the numbers are left.
            self.evaluate(parameters)?;
        }
        Ok(())
    }

    fn rate(&self, name: &str) -> f64 {
        self.rates.as_ref().map_or(1.0, |rates| rates.of(name))
    }

    fn group<'n>(&self, name: &'n str) -> &'n str {
        // The two sides of a low-rank branch: one of them has no gradient as long as the other is 0.
        let site = name.split_once(".lora_").map(|(site, _)| site);
        site.or(name.rsplit_once('.').map(|(layer, _)| layer)).unwrap_or(name)
    }

    fn save(&mut self, checkpoint: &Checkpoint<'_>) -> Result<(), AnyError> {
        let Some(checkpoints) = &mut self.checkpoints else { return Ok(()) };
        Ok(checkpoints.save(checkpoint)?)
    }

    fn load(
        &mut self,
        step: Option<u64>,
        parameters: &mut Parameters,
        optimiser: &mut Optimiser,
    ) -> Result<Option<State>, AnyError> {
        let Some(checkpoints) = &self.checkpoints else { return Ok(None) };
        Ok(checkpoints.load(step, parameters, optimiser)?)
    }
}

/// How many trained values are no numbers.
pub(crate) fn not_finite(parameters: &Parameters) -> usize {
    let count = |value: &Tensor| value.f32().iter().filter(|x| !x.is_finite()).count();
    parameters.trainable().map(|(_, parameter)| count(&parameter.value)).sum()
}

/// Brings back trained parameters that were kept at `path`.
pub(crate) fn restore(parameters: &mut Parameters, path: &Path) -> Result<(), Error> {
    let kept = Weights::open(path)?;
    for (name, id) in trained(parameters) {
        kept.read_f32_into(&name, parameters.get_mut(id).value.f32_mut()?)?;
    }
    Ok(())
}

/// The trained parameters, by name.
pub(crate) fn trained(parameters: &Parameters) -> Vec<(String, ParamId)> {
    parameters.trainable().map(|(id, parameter)| (parameter.name.clone(), id)).collect()
}

/// A weight for each class by what `--class-weights` says: `balanced` gives rows / (classes * rows of the class), as
/// scikit-learn.
pub(crate) fn class_weights(
    name: Option<&str>,
    targets: &[u32],
    classes: usize,
) -> Result<Option<Vec<f32>>, Error> {
    match name {
        None | Some("none") => Ok(None),
        Some("balanced") => {
            let mut counts = vec![0usize; classes];
            targets.iter().for_each(|target| counts[*target as usize] += 1);
            let weight = |count: &usize| targets.len() as f32 / (classes * (*count).max(1)) as f32;
            Ok(Some(counts.iter().map(weight).collect()))
        }
        Some(other) => {
            let message = format!("expected none or balanced, got `{other}`");
            Err(Error::Setting { flag: "class-weights", message })
        }
    }
}
