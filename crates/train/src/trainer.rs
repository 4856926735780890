use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use retune_tensor::random::Key;
use retune_tensor::{Gradients, Parameters, Tape, Tensor, Var};

use crate::{AdamWSettings, Event, Observer, Optimiser, Plan, Schedule, Shape, TrainError};

/// How a training goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How often all rows are seen; a part is allowed, such as 0.5.
    pub epochs: f64,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// After the warm-up.
    pub schedule: Shape,
    /// Below 1 a share of all steps, from 1 on a number of steps.
    pub warmup: f64,
    /// Of the optimiser.
    pub adamw: AdamWSettings,
    /// Longer gradients are cut to this norm; none leaves them.
    pub max_grad_norm: Option<f64>,
    /// Draws dropout.
    pub seed: u64,
    /// When to evaluate; never without an evaluation set.
    pub eval_every: EvalEvery,
    /// Stop after this many evaluations without a better one.
    pub patience: Option<u64>,
    /// Whether the best evaluated weights are the result, or the last.
    pub keep_best: bool,
}

/// When an evaluation is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvalEvery {
    /// Never.
    Never,
    /// After each epoch.
    Epoch,
    /// After this many steps, and at the end.
    Steps(u64),
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// The mean loss.
    pub loss: f64,
    /// What decides which weights are best: higher is better.
    pub score: f64,
    /// All that is said of it.
    pub metrics: BTreeMap<String, f64>,
}

/// An error of a part that the trainer does not know.
type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// What is trained, and where its best weights are kept: all that the trainer is told of a task, a method or a disk.
pub trait Workshop {
    /// What the sum of the rows' losses is divided by: their number, or the sum of their weights.
    fn denominator(&self, rows: &[usize]) -> f32;

    /// How many tokens these rows have.
    fn tokens(&self, rows: &[usize]) -> usize;

    /// The loss of `rows`, divided by `denominator`; `dropout` keys the draws of this epoch.
    fn loss(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        rows: &[usize],
        denominator: f32,
        dropout: Key,
    ) -> retune_tensor::Result<Var>;

    /// Evaluates; `None` where there is nothing to evaluate on.
    fn evaluate(&mut self, parameters: &Parameters) -> Result<Option<Evaluated>, AnyError>;

    /// Keeps the trained parameters as the best so far.
    fn keep(&mut self, parameters: &Parameters) -> Result<(), AnyError>;

    /// Brings back what was kept.
    fn restore(&mut self, parameters: &mut Parameters) -> Result<(), AnyError>;
}

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

/// Trains `parameters` on the rows of `plan`.
///
/// Every step divides by one denominator for all of its batches, so a step in k batches is the step in one. Errors if
/// the loss or the gradient is not finite: the parameters are then those of the step before.
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
    let schedule = settings.schedule(total_steps);
    let rows = plan.epoch(0).iter().flatten().map(Vec::len).sum();
    let mut tell = |event: Event| observer.event(&event).map_err(|error| TrainError::Workshop(error.into()));
    tell(Event::Start { total_steps, rows, trainable_parameters: parameters.count().1 })?;

    let optimiser = Optimiser::new(parameters, settings.adamw)?;
    let mut run = Run { step: 0, tokens: 0, last_loss: 0.0, rows: Vec::new(), optimiser };
    let mut best: Option<f64> = None;
    let mut kept: Option<(u64, Evaluated)> = None;
    let mut since_best = 0;
    let mut stopped_early = false;
    let mut evaluating = Duration::ZERO;
    let start = Instant::now();

    'epochs: for epoch in 0.. {
        let steps = plan.epoch(epoch);
        let in_epoch = steps.len() as u64;
        for (index, batches) in steps.into_iter().enumerate() {
            if run.step == total_steps {
                break 'epochs;
            }
            let mut event = run.step(parameters, workshop, settings, &schedule, epoch, &batches)?;
            if let Event::Step { seconds, .. } = &mut event {
                *seconds = (start.elapsed() - evaluating).as_secs_f64();
            }
            tell(event)?;

            let last = run.step == total_steps;
            let due = match settings.eval_every {
                EvalEvery::Never => false,
                EvalEvery::Epoch => last || index as u64 + 1 == in_epoch,
                EvalEvery::Steps(every) => last || run.step.is_multiple_of(every.max(1)),
            };
            if !due {
                continue;
            }
            let before = Instant::now();
            let Some(evaluated) = workshop.evaluate(parameters)? else { continue };
            // Weights that give no number are no result, however many rows they happen to get right.
            let better = evaluated.loss.is_finite() && best.is_none_or(|best| evaluated.score > best);
            if better && settings.keep_best && !last {
                workshop.keep(parameters)?;
            }
            let spent = before.elapsed();
            evaluating += spent;
            tell(Event::Evaluation {
                step: run.step,
                epoch: epoch as f64 + (index + 1) as f64 / in_epoch as f64,
                loss: evaluated.loss,
                metrics: evaluated.metrics.clone(),
                best: better,
                seconds: spent.as_secs_f64(),
            })?;
            since_best = if better { 0 } else { since_best + 1 };
            best = if better { Some(evaluated.score) } else { best };
            if better || !settings.keep_best || (last && kept.is_none()) {
                kept = Some((run.step, evaluated));
            }
            if !last && settings.patience.is_some_and(|patience| since_best >= patience) {
                tell(Event::EarlyStop { step: run.step, evaluations: since_best })?;
                stopped_early = true;
                break 'epochs;
            }
        }
    }

    // No later loss would tell what the last update did.
    if kept.as_ref().is_none_or(|(step, _)| *step == run.step) {
        let (what, value) = match &kept {
            Some((_, evaluated)) if !evaluated.loss.is_finite() => {
                ("loss of the evaluation after it", evaluated.loss)
            }
            _ => ("norm of the weights after it", norm(parameters)),
        };
        if !value.is_finite() {
            return Err(TrainError::NotFinite { step: run.step, what, value, rows: run.rows });
        }
    }
    let seconds = (start.elapsed() - evaluating).as_secs_f64();
    let kept_step = match &kept {
        Some((step, _)) if settings.keep_best => *step,
        _ => run.step,
    };
    if kept_step != run.step {
        workshop.restore(parameters)?;
    }
    tell(Event::End { steps: run.step, kept_step, seconds, tokens: run.tokens })?;
    Ok(Outcome {
        steps: run.step,
        kept_step,
        seconds,
        tokens: run.tokens,
        last_loss: run.last_loss,
        evaluated: kept.filter(|(step, _)| *step == kept_step).map(|(_, evaluated)| evaluated),
        stopped_early,
    })
}

/// The Euclidean norm of all trained weights; no number if one of them is none.
fn norm(parameters: &Parameters) -> f64 {
    let squares = |value: &Tensor| value.device().backend().sum_of_squares(value.f32());
    parameters.trainable().map(|(_, parameter)| squares(&parameter.value)).sum::<f64>().sqrt()
}

impl Settings {
    fn schedule(&self, total_steps: u64) -> Schedule {
        let warmup_steps = if self.warmup < 1.0 {
            (self.warmup * total_steps as f64).ceil() as u64
        } else {
            self.warmup as u64
        };
        // The rate of a first step of warm-up is 0: a training of one step would else be none.
        let warmup_steps = warmup_steps.min(total_steps.saturating_sub(1));
        Schedule { shape: self.schedule, learning_rate: self.learning_rate, warmup_steps, total_steps }
    }
}

/// What changes from step to step.
struct Run {
    step: u64,
    tokens: u64,
    last_loss: f64,
    /// Those of the latest step.
    rows: Vec<usize>,
    optimiser: Optimiser,
}

impl Run {
    /// Forward, backward and update.
    fn step(
        &mut self,
        parameters: &mut Parameters,
        workshop: &dyn Workshop,
        settings: &Settings,
        schedule: &Schedule,
        epoch: u64,
        batches: &[Vec<usize>],
    ) -> Result<Event, TrainError> {
        let rows = batches.concat();
        let denominator = workshop.denominator(&rows);
        let dropout = Key::new(settings.seed).with_name("dropout").with(epoch);
        let mut gradients = Gradients::new();
        let mut loss = 0.0;
        let check = |what, value: f64| match value.is_finite() {
            true => Ok(()),
            false => Err(TrainError::NotFinite { step: self.step + 1, what, value, rows: rows.clone() }),
        };
        for batch in batches {
            let tape = Tape::recording();
            let value = workshop.loss(&tape, parameters, batch, denominator, dropout)?;
            let part = value.value().item().map_or(f64::NAN, f64::from);
            check("loss", part)?;
            loss += part;
            tape.backward(&value, &mut gradients)?;
        }
        let norm = gradients.norm();
        check("norm of the gradient", norm)?;
        let scale = match settings.max_grad_norm {
            // As PyTorch does it, so that losses can be compared.
            Some(most) => (most / (norm + 1e-6)).min(1.0) as f32,
            None => 1.0,
        };
        let learning_rate = schedule.at(self.step);
        self.optimiser.step(parameters, &gradients, learning_rate, scale)?;
        let tokens = workshop.tokens(&rows);
        self.step += 1;
        self.tokens += tokens as u64;
        self.last_loss = loss;
        let count = rows.len();
        self.rows = rows;
        Ok(Event::Step {
            step: self.step,
            epoch: epoch + 1,
            loss,
            learning_rate,
            gradient_norm: norm,
            rows: count,
            tokens,
            seconds: 0.0,
        })
    }
}
