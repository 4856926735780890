//! What the trainer is told of this task and this disk.

use std::path::Path;

use retune_adapt::peft::{DuringTraining, Update};
use retune_adapt::tasks::{Scoring, TaskRows};
use retune_model::formats::Weights;
use retune_tensor::random::Key;
use retune_tensor::{Gradients, ParamId, Parameters, Tape, Tensor, Var, ops};
use retune_train::{Checkpoint, Evaluated, Optimiser, State, Workshop};

use crate::artefact::save_tensors;
use crate::checkpoints::Checkpoints;
use crate::evaluate::{self, Evaluation};
use crate::rates::Rates;
use crate::{Error, TextModel};

/// The training of one model for one task.
pub(crate) struct TaskWorkshop<'a> {
    pub model: &'a TextModel,
    pub train: &'a TaskRows,
    pub eval: Option<&'a TaskRows>,
    /// Where the best weights are kept, and all that the training needs to go on; nothing is kept without it.
    pub checkpoints: Option<Checkpoints>,
    /// The shares of the learning rate, where parameters differ in it.
    pub rates: Option<Rates>,
    /// What the method does beside having parameters.
    pub during: Option<Box<dyn DuringTraining>>,
    /// The evaluation of the latest weights.
    pub latest: Option<Evaluation>,
    /// That of the kept ones.
    pub kept: Option<Evaluation>,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

impl<'a> TaskWorkshop<'a> {
    /// The training of `model`, whose parameters the trainer holds.
    pub fn new(model: &'a TextModel, train: &'a TaskRows, eval: &'a TaskRows) -> Self {
        TaskWorkshop {
            model,
            train,
            eval: Some(eval).filter(|rows| !rows.tokens.is_empty()),
            checkpoints: None,
            rates: None,
            during: None,
            latest: None,
            kept: None,
        }
    }

    /// The loss of training rows; without a key there is no dropout.
    pub fn loss_of(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        rows: &[usize],
        denominator: f32,
        dropout: Option<Key>,
    ) -> retune_tensor::Result<Var> {
        let batch = self.train.tokens.batch(rows);
        let batch = batch.map_err(|error| retune_tensor::Error::Input(error.to_string()))?;
        let output = self.model.output(parameters, tape, &batch, dropout)?;
        self.train.targets.loss(&output, rows, denominator)
    }
}

impl Workshop for TaskWorkshop<'_> {
    fn denominator(&self, rows: &[usize]) -> f32 {
        self.train.targets.denominator(rows)
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
        let loss = self.loss_of(tape, parameters, rows, denominator, Some(dropout))?;
        let during = self.during.as_ref();
        let Some(penalty) = during.map(|during| during.penalty(tape, parameters)).transpose()?.flatten()
        else {
            return Ok(loss);
        };
        // Each batch of a step has its share of the one penalty, so that accumulation stays exact.
        ops::weighted_sum(tape, &[(loss, 1.0), (penalty, self.denominator(rows) / denominator)])
    }

    fn evaluate(&mut self, parameters: &Parameters) -> Result<Option<Evaluated>, AnyError> {
        let Some(rows) = self.eval else { return Ok(None) };
        let (evaluation, _) = evaluate::score(self.model, parameters, rows, None, Scoring::default())?;
        let score = evaluation.score(self.model.form.spec());
        let metrics = evaluation.metrics.values.clone();
        let evaluated = Evaluated { loss: evaluation.loss, score, metrics };
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
        let method = self.during.as_ref().map_or(1.0, |during| during.rate(name));
        self.rates.as_ref().map_or(1.0, |rates| rates.of(name)) * method
    }

    fn after_update(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        gradient_scale: f32,
        step: u64,
    ) -> Result<(), AnyError> {
        let Some(during) = &mut self.during else { return Ok(()) };
        Ok(during.after_update(parameters, Update { step, gradients, gradient_scale })?)
    }

    fn reads_gradients(&self) -> bool {
        self.during.as_ref().is_some_and(|during| during.reads_gradients())
    }

    fn group<'n>(&self, name: &'n str) -> &'n str {
        self.model.method.group(name)
    }

    fn save(&mut self, checkpoint: &Checkpoint<'_>) -> Result<(), AnyError> {
        let Some(checkpoints) = &mut self.checkpoints else { return Ok(()) };
        let state = self.during.as_mut().map(|during| during.state()).unwrap_or_default();
        Ok(checkpoints.save(checkpoint, &state)?)
    }

    fn load(
        &mut self,
        step: Option<u64>,
        parameters: &mut Parameters,
        optimiser: &mut Optimiser,
    ) -> Result<Option<State>, AnyError> {
        let Some(checkpoints) = &self.checkpoints else { return Ok(None) };
        let state = self.during.as_mut().map(|during| during.state()).unwrap_or_default();
        Ok(checkpoints.load(step, parameters, optimiser, state)?)
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
