use std::collections::BTreeSet;
use std::time::Instant;

use retune_tensor::random::Key;
use retune_tensor::{Gradients, Tape};

use crate::trainer::Training;
use crate::{Event, OnSpike, TrainError};

impl Training<'_> {
    /// One step: forward, backward and update, unless its loss is a spike and that says otherwise.
    pub(crate) fn step(&mut self, batches: &[Vec<usize>]) -> Result<(), TrainError> {
        let start = Instant::now();
        let (step, rows) = (self.state.step + 1, batches.concat());
        let (loss, gradients) = self.gradients(step, batches, &rows)?;
        let gradient_norm = gradients.norm();
        self.check(step, "norm of the gradient", gradient_norm, &rows)?;
        let usual = self.state.recent.spike(loss);
        let action = self.settings.on_spike;
        if let (Some(usual), OnSpike::Stop) = (usual, action) {
            self.save()?;
            let told = rows.clone();
            self.tell(&Event::Spike { step, loss, usual, action, rewound_to: None, rows: told })?;
            return Err(TrainError::Spike { step, loss, usual, rows });
        }
        let dead = self.dead_groups(step, &gradients);
        let learning_rate = self.schedule.at(self.state.step);
        let mut rewound_to = None;
        match (usual, action) {
            (None, _) | (Some(_), OnSpike::Tell | OnSpike::Stop) => {
                self.state.recent.push(loss);
                let scale = match self.settings.max_grad_norm {
                    // As PyTorch does it, so that losses can be compared.
                    Some(most) => (most / (gradient_norm + 1e-6)).min(1.0) as f32,
                    None => 1.0,
                };
                self.optimiser.step(self.parameters, &gradients, learning_rate, scale)?;
                self.workshop.after_update(self.parameters, &gradients, scale, step)?;
            }
            (Some(_), OnSpike::Skip) => {}
            (Some(_), OnSpike::Rewind) => rewound_to = Some(self.rewind()?),
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

    /// The loss of the step's rows and its gradient. Errors if the loss is no number.
    fn gradients(
        &mut self,
        step: u64,
        batches: &[Vec<usize>],
        rows: &[usize],
    ) -> Result<(f64, Gradients), TrainError> {
        let denominator = self.workshop.denominator(rows);
        let dropout = Key::new(self.settings.seed).with_name("dropout").with(self.state.epoch);
        let mut gradients = Gradients::new();
        let mut loss = 0.0;
        for batch in batches {
            let tape = Tape::recording();
            let value = self.workshop.loss(&tape, self.parameters, batch, denominator, dropout)?;
            let part = value.value().item().map_or(f64::NAN, f64::from);
            self.check(step, "loss", part, rows)?;
            loss += part;
            tape.backward(&value, &mut gradients)?;
        }
        Ok((loss, gradients))
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
    fn dead_groups(&mut self, step: u64, gradients: &Gradients) -> Vec<String> {
        let (parameters, silent) = (&*self.parameters, &mut self.state.silent);
        if !silent.is_empty() {
            for (id, gradient) in gradients.iter() {
                let name = &parameters.get(id).name;
                if silent.contains(name) && gradient.f32().iter().any(|x| *x != 0.0) {
                    silent.remove(name);
                }
            }
        }
        if step == 1 {
            let group = |name: &String| self.workshop.group(name).to_string();
            let all = parameters.trainable().map(|(_, parameter)| &parameter.name);
            let alive: BTreeSet<String> =
                all.filter(|name| !self.state.silent.contains(*name)).map(group).collect();
            let silent: BTreeSet<String> = self.state.silent.iter().map(group).collect();
            return silent.difference(&alive).cloned().collect();
        }
        let last_of_epoch = self.state.index + 1 == self.steps_in_epoch();
        if last_of_epoch { self.state.silent.iter().cloned().collect() } else { Vec::new() }
    }
}
