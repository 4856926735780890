use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use retune_tensor::random::Key;
use retune_tensor::{Gradient, Gradients, Parameters, Tape, Var};

use crate::trainer::Training;
use crate::{Event, OnSpike, TrainError};

/// What forward and backward of a step came to.
struct Pass {
    loss: f64,
    gradient_norm: f64,
    /// The median of the recent losses, if the loss is a spike among them.
    usual: Option<f64>,
    /// Empty where the updates were made in the backward.
    gradients: Gradients,
    updated: bool,
}

impl Training<'_> {
    /// One step: forward, backward and update, unless its loss is a spike and that says otherwise.
    pub(crate) fn step(&mut self, batches: &[Vec<usize>]) -> Result<(), TrainError> {
        let start = Instant::now();
        let (step, rows) = (self.state.step + 1, batches.concat());
        let learning_rate = self.schedule.at(self.state.step);
        let pass = if self.settings.updates_in_backward(batches.len(), self.workshop) {
            self.pass_with_updates(step, &rows, learning_rate)?
        } else {
            self.pass(step, batches, &rows)?
        };
        let Pass { loss, gradient_norm, usual, gradients, updated } = pass;
        let action = self.settings.on_spike;
        if let (Some(usual), OnSpike::Stop) = (usual, action) {
            self.save()?;
            let told = rows.clone();
            self.tell(&Event::Spike { step, loss, usual, action, rewound_to: None, rows: told })?;
            return Err(TrainError::Spike { step, loss, usual, rows });
        }
        let dead = self.dead_groups(step);
        let mut rewound_to = None;
        if self.is_followed(usual) {
            self.state.recent.push(loss);
            let scale = match self.settings.max_grad_norm {
                // As PyTorch does it, so that losses can be compared.
                Some(most) => (most / (gradient_norm + 1e-6)).min(1.0) as f32,
                None => 1.0,
            };
            if !updated {
                self.optimiser.step(self.parameters, &gradients, learning_rate, scale)?;
            }
            self.workshop.after_update(self.parameters, &gradients, scale, step)?;
        } else if action == OnSpike::Rewind {
            rewound_to = Some(self.rewind()?);
        }
        let tokens = self.workshop.tokens(&rows);
        let count = rows.len();
        self.state.step = step;
        self.state.index += 1;
        self.state.tokens = self.state.tokens.saturating_add(tokens as u64);
        self.state.last_loss = loss;
        self.state.rows.clone_from(&rows);
        self.state.seconds += start.elapsed().as_secs_f64();
        let (epoch, seconds) = (self.state.epoch + 1, self.state.seconds);
        self.tell(&Event::Step {
            step,
            epoch,
            loss,
            learning_rate,
            gradient_norm,
            rows: count,
            tokens,
            seconds,
        })?;
        if let Some(usual) = usual {
            self.tell(&Event::Spike { step, loss, usual, action, rewound_to, rows })?;
        }
        if !dead.is_empty() {
            self.tell(&Event::DeadGradients { step, names: dead })?;
        }
        Ok(())
    }

    /// Whether the weights are updated, whatever the loss.
    fn is_followed(&self, usual: Option<f64>) -> bool {
        usual.is_none() || self.settings.on_spike == OnSpike::Tell
    }

    /// The loss of the step's rows and its gradient. Errors if one of them is no number.
    fn pass(&mut self, step: u64, batches: &[Vec<usize>], rows: &[usize]) -> Result<Pass, TrainError> {
        let mut gradients = Gradients::new();
        let mut loss = 0.0;
        for batch in batches {
            let (tape, value, part) = self.forward(step, batch, rows)?;
            loss += part;
            tape.backward(&value, &mut gradients)?;
        }
        let gradient_norm = gradients.norm();
        self.check(step, "norm of the gradient", gradient_norm, rows, 0)?;
        for (id, gradient) in gradients.iter() {
            heard(&mut self.state.silent, &self.parameters.get(id).name, gradient);
        }
        Ok(Pass { loss, gradient_norm, usual: self.state.recent.spike(loss), gradients, updated: false })
    }

    /// The same for a step in one batch, each parameter updated as soon as its gradient is complete. From the first
    /// gradient on that is no number nothing is.
    fn pass_with_updates(
        &mut self,
        step: u64,
        rows: &[usize],
        learning_rate: f64,
    ) -> Result<Pass, TrainError> {
        let (tape, value, loss) = self.forward(step, rows, rows)?;
        let usual = self.state.recent.spike(loss);
        let updated = self.is_followed(usual);
        let mut update = updated.then(|| self.optimiser.begin(learning_rate, 1.0));
        let (parameters, silent) = (&mut *self.parameters, &mut self.state.silent);
        let mut squares = BTreeMap::new();
        let (mut finite, mut changed) = (true, 0);
        tape.backward_each(&value, |id, gradient| {
            let sum = gradient.sum_of_squares();
            squares.insert(id, sum);
            heard(silent, &parameters.get(id).name, &gradient);
            finite &= sum.is_finite();
            match &mut update {
                Some(update) if finite => {
                    changed += 1;
                    update.apply(parameters, id, &gradient)
                }
                _ => Ok(()),
            }
        })?;
        // In the order of the parameters, as where all gradients are there.
        let gradient_norm = squares.values().sum::<f64>().sqrt();
        self.check(step, "norm of the gradient", gradient_norm, rows, changed)?;
        Ok(Pass { loss, gradient_norm, usual, gradients: Gradients::new(), updated })
    }

    /// The part of the step's loss that `batch` has, on its tape and as a number. Errors if it is none.
    fn forward(
        &mut self,
        step: u64,
        batch: &[usize],
        rows: &[usize],
    ) -> Result<(Tape, Var, f64), TrainError> {
        let denominator = self.workshop.denominator(rows);
        let dropout = Key::new(self.settings.seed).with_name("dropout").with(self.state.epoch);
        let workshop = &*self.workshop;
        let pass = |tape: &Tape, parameters: &Parameters| {
            workshop.loss(tape, parameters, batch, denominator, dropout)
        };
        self.optimiser.refresh(self.parameters, pass)?;
        let tape = Tape::recording();
        let value = pass(&tape, self.parameters)?;
        let loss = value.value().item().map_or(f64::NAN, f64::from);
        self.check(step, "loss", loss, rows, 0)?;
        Ok((tape, value, loss))
    }

    /// Weights, moments and what losses are compared with as they were at the last scheduled checkpoint; the rows and
    /// the schedule go on. The step of that checkpoint.
    fn rewind(&mut self) -> Result<u64, TrainError> {
        let Some(step) = self.state.rewind_to else {
            return Err(TrainError::Settings("there is no checkpoint to rewind to".into()));
        };
        let loaded = self.workshop.load(Some(step), self.parameters, &mut self.optimiser)?;
        let Some(then) = loaded else {
            let message = format!("the checkpoint of step {step}, to rewind to, is gone");
            return Err(TrainError::Workshop(message.into()));
        };
        self.state.recent = then.recent;
        Ok(step)
    }

    /// What should have a gradient by now and has none: after the first step parts of the model, after an epoch single
    /// parameters.
    fn dead_groups(&self, step: u64) -> Vec<String> {
        if step == 1 {
            let group = |name: &String| self.workshop.group(name).to_string();
            let all = self.parameters.trainable().map(|(_, parameter)| &parameter.name);
            let alive: BTreeSet<String> =
                all.filter(|name| !self.state.silent.contains(*name)).map(group).collect();
            let silent: BTreeSet<String> = self.state.silent.iter().map(group).collect();
            return silent.difference(&alive).cloned().collect();
        }
        // What lies behind a matrix that begins as zero, as LoRA's A does, has a gradient from the second update on, and the
        // first one's rate is 0 where it warms up.
        let last_of_epoch = self.state.index + 1 == self.steps_in_epoch();
        if last_of_epoch && step > 2 { self.state.silent.iter().cloned().collect() } else { Vec::new() }
    }
}

/// A parameter whose gradient is not 0 is not silent any more.
fn heard(silent: &mut BTreeSet<String>, name: &str, gradient: &Gradient) {
    if silent.contains(name) && !gradient.is_zero() {
        silent.remove(name);
    }
}
