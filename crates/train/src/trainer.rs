use std::collections::BTreeSet;
use std::time::Instant;

use retune_tensor::{Parameters, Tensor};

use crate::{
    Checkpoint, EvalEvery, Evaluated, Event, Kept, Observer, OnSpike, Optimiser, Plan, SaveEvery, Schedule,
    Settings, State, Step, TrainError, Workshop,
};

/// How a training went.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps done.
    pub steps: u64,
    /// The step whose weights the parameters hold now.
    pub kept_step: u64,
    /// Without evaluations.
    pub seconds: f64,
    /// Tokens of all steps, all of them real.
    pub tokens: u64,
    /// The mean loss of the last step's rows.
    pub last_loss: f64,
    /// The evaluation of the kept weights, if there was one.
    pub evaluated: Option<Evaluated>,
    /// Whether it ended before its last step.
    pub stopped_early: bool,
}

/// Trains `parameters` on the rows of `plan`, from the newest checkpoint that the workshop has, or from the beginning.
///
/// Every step divides by one denominator for all of its batches, so a step in k batches is the step in one. However
/// often it is interrupted and called again with the same arguments, the result has the same bits. Errors if
/// the loss or the gradient is not finite: the parameters are then those of the step before, or some of them those after it
/// where updates are made in the backward (see [`Settings::updates_in_backward`]).
pub fn train(
    parameters: &mut Parameters,
    plan: &Plan,
    workshop: &mut dyn Workshop,
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    let total_steps = plan.total_steps(settings.epochs);
    if total_steps == 0 {
        return Err(TrainError::Settings(format!(
            "{} epochs are no step; give --epochs more",
            settings.epochs
        )));
    }
    if settings.on_spike == OnSpike::Rewind && !matches!(settings.save_every, SaveEvery::Steps(_)) {
        let message =
            "to rewind there must be checkpoints after a number of steps; give --save-every 100, for example";
        return Err(TrainError::Settings(message.into()));
    }
    let mut optimiser =
        Optimiser::new(parameters, settings.adamw)?.lazy().with_rates(parameters, |name| workshop.rate(name));
    let resumed = workshop.load(None, parameters, &mut optimiser)?;
    let saved = resumed.as_ref().map(|state| state.step);
    let state = resumed.unwrap_or_default();
    let steps = plan.epoch(state.epoch);
    if !state.is_within(total_steps) || state.index > steps.len() as u64 {
        let message = format!(
            "the checkpoint is of step {} and step {} of its epoch, and there are {total_steps} and {}; it is another \
             training's",
            state.step,
            state.index,
            steps.len()
        );
        return Err(TrainError::Settings(message));
    }
    let mut training = Training {
        schedule: settings.schedule(total_steps),
        saved_at: Instant::now(),
        parameters,
        plan,
        workshop,
        settings,
        observer,
        optimiser,
        state,
        steps,
        saved,
    };
    training.begin()?;
    let stopped_early = training.run();
    // However it ended: the weights are looked at.
    training.optimiser.flush(training.parameters)?;
    training.end(stopped_early?)
}

/// A training between two of its steps.
pub(crate) struct Training<'a> {
    pub(crate) parameters: &'a mut Parameters,
    plan: &'a Plan,
    pub(crate) workshop: &'a mut dyn Workshop,
    pub(crate) settings: &'a Settings,
    observer: &'a mut dyn Observer,
    pub(crate) schedule: Schedule,
    pub(crate) optimiser: Optimiser,
    pub(crate) state: State,
    /// Those of the state's epoch.
    steps: Vec<Step>,
    /// The step of the newest checkpoint.
    saved: Option<u64>,
    saved_at: Instant,
}

impl Training<'_> {
    fn begin(&mut self) -> Result<(), TrainError> {
        let total_steps = self.schedule.total_steps;
        if self.saved.is_some() {
            let State { step, seconds, .. } = self.state;
            self.tell(&Event::Resume { step, total_steps, seconds })?;
        } else {
            let rows = self.plan.epoch(0).iter().flatten().map(Vec::len).sum();
            let (total_parameters, trainable_parameters) = self.parameters.count();
            self.tell(&Event::Start { total_steps, rows, trainable_parameters, total_parameters })?;
            self.state.silent = self.trained();
        }
        // There must be a place to go back to before the first one that is due.
        if self.settings.on_spike == OnSpike::Rewind && self.state.rewind_to.is_none() {
            self.state.rewind_to = Some(self.state.step);
            self.save()?;
        }
        Ok(())
    }

    /// All steps; whether it ended before the last.
    fn run(&mut self) -> Result<bool, TrainError> {
        loop {
            let step = self.state.step;
            // Before the evaluation, which may take longer than whoever interrupts will wait; it is then made on resuming.
            if self.observer.interrupted() {
                if self.saved != Some(step) {
                    self.save()?;
                }
                return Err(TrainError::Interrupted { step });
            }
            let last = step == self.schedule.total_steps;
            if self.evaluation_is_due(last) && self.state.evaluated_at != Some(step) {
                self.evaluate(last)?;
                let evaluations = self.state.since_best;
                if !last && self.settings.patience.is_some_and(|patience| evaluations >= patience) {
                    self.tell(&Event::EarlyStop { step, evaluations })?;
                    return Ok(true);
                }
            }
            if last {
                return Ok(false);
            }
            if self.checkpoint_is_due() {
                self.save()?;
            }
            if self.state.index == self.steps_in_epoch() {
                self.state.epoch += 1;
                self.state.index = 0;
                self.state.silent = self.trained();
                self.steps = self.plan.epoch(self.state.epoch);
            }
            let batches = self.steps.get(self.state.index as usize).cloned().unwrap_or_default();
            self.step(&batches)?;
        }
    }

    fn evaluation_is_due(&self, last: bool) -> bool {
        let State { step, index, .. } = self.state;
        step > 0
            && match self.settings.eval_every {
                EvalEvery::Never => false,
                EvalEvery::Epoch => last || index == self.steps_in_epoch(),
                EvalEvery::Steps(every) => last || step.is_multiple_of(every.max(1)),
            }
    }

    fn checkpoint_is_due(&self) -> bool {
        self.saved != Some(self.state.step)
            && match self.settings.save_every {
                SaveEvery::Never => false,
                SaveEvery::Steps(_) => self.is_scheduled(),
                SaveEvery::Time(every) => self.state.step > 0 && self.saved_at.elapsed() >= every,
            }
    }

    /// Whether a checkpoint after this step is one in every run with these settings.
    fn is_scheduled(&self) -> bool {
        let step = self.state.step;
        matches!(self.settings.save_every, SaveEvery::Steps(every) if step > 0 && step.is_multiple_of(every.max(1)))
    }

    fn evaluate(&mut self, last: bool) -> Result<(), TrainError> {
        let before = Instant::now();
        self.optimiser.flush(self.parameters)?;
        let Some(evaluated) = self.workshop.evaluate(self.parameters)? else { return Ok(()) };
        let state = &mut self.state;
        state.evaluated_at = Some(state.step);
        // Weights that give no number are no result, however many rows they happen to get right.
        let is_number = evaluated.loss.is_finite();
        let higher = is_number && state.best.is_none_or(|best| evaluated.score > best);
        // Of equally good ones those with less loss: a metric of found things is 0 for long.
        let same = state.best.is_some_and(|best| evaluated.score >= best);
        let less = state.kept.as_ref().is_some_and(|kept| evaluated.loss < kept.evaluated.loss);
        let better = higher || (self.settings.keep_best && same && less);
        if better && self.settings.keep_best && !last {
            self.workshop.keep(self.parameters)?;
        }
        state.since_best = if higher { 0 } else { state.since_best + 1 };
        state.best = if higher { Some(evaluated.score) } else { state.best };
        if better || !self.settings.keep_best || (last && state.kept.is_none()) {
            state.kept = Some(Kept { step: state.step, evaluated: evaluated.clone() });
        }
        let event = Event::Evaluation {
            step: state.step,
            epoch: state.epoch as f64 + state.index as f64 / self.steps.len() as f64,
            loss: evaluated.loss,
            metrics: evaluated.metrics,
            best: better,
            seconds: before.elapsed().as_secs_f64(),
        };
        self.tell(&event)
    }

    /// Writes a checkpoint.
    pub(crate) fn save(&mut self) -> Result<(), TrainError> {
        if self.is_scheduled() {
            self.state.rewind_to = Some(self.state.step);
        }
        // Told before, so that what was told until here is on the disk when the checkpoint is.
        self.tell(&Event::Checkpoint { step: self.state.step })?;
        self.state.updates = self.optimiser.steps();
        self.optimiser.flush(self.parameters)?;
        let checkpoint =
            Checkpoint { state: &self.state, parameters: self.parameters, optimiser: &self.optimiser };
        self.workshop.save(&checkpoint)?;
        self.saved = Some(self.state.step);
        self.saved_at = Instant::now();
        Ok(())
    }

    fn end(mut self, stopped_early: bool) -> Result<Outcome, TrainError> {
        let State { step, tokens, seconds, last_loss, .. } = self.state;
        let kept = self.state.kept.take();
        // No later loss would tell what the last update did.
        if kept.as_ref().is_none_or(|kept| kept.step == step) {
            let (what, value) = match &kept {
                Some(kept) if !kept.evaluated.loss.is_finite() => {
                    ("loss of the evaluation after it", kept.evaluated.loss)
                }
                _ => ("norm of the weights after it", norm(self.parameters)),
            };
            let rows = std::mem::take(&mut self.state.rows);
            self.check(step, what, value, &rows, 0)?;
        }
        let kept_step = match &kept {
            Some(kept) if self.settings.keep_best => kept.step,
            _ => step,
        };
        if kept_step != step {
            self.workshop.restore(self.parameters)?;
        }
        self.tell(&Event::End { steps: step, kept_step, seconds, tokens })?;
        Ok(Outcome {
            steps: step,
            kept_step,
            seconds,
            tokens,
            last_loss,
            evaluated: kept.filter(|kept| kept.step == kept_step).map(|kept| kept.evaluated),
            stopped_early,
        })
    }

    pub(crate) fn tell(&mut self, event: &Event) -> Result<(), TrainError> {
        self.observer.event(event).map_err(|error| TrainError::Workshop(error.into()))
    }

    /// Errors, and tells it, if `value` is no number; so many parameters have the step's update already.
    pub(crate) fn check(
        &mut self,
        step: u64,
        what: &'static str,
        value: f64,
        rows: &[usize],
        changed: usize,
    ) -> Result<(), TrainError> {
        if value.is_finite() {
            return Ok(());
        }
        self.tell(&Event::Overflow { step, what, value: value.to_string(), rows: rows.to_vec() })?;
        Err(TrainError::NotFinite { step, what, value, rows: rows.to_vec(), changed })
    }

    /// How many there are in the state's epoch.
    pub(crate) fn steps_in_epoch(&self) -> u64 {
        self.steps.len() as u64
    }

    fn trained(&self) -> BTreeSet<String> {
        self.parameters.trainable().map(|(_, parameter)| parameter.name.clone()).collect()
    }
}

/// The Euclidean norm of all trained weights; no number if one of them is none.
fn norm(parameters: &Parameters) -> f64 {
    let squares = |value: &Tensor| value.device().backend().sum_of_squares(value.f32());
    parameters.trainable().map(|(_, parameter)| squares(&parameter.value)).sum::<f64>().sqrt()
}
