use retune_tensor::Parameters;
use retune_train::{Event, Observer, Outcome, Plan, Settings, TrainError, train};

use crate::linear::{Linear, values};

/// A training and all that was told of it.
pub(crate) struct Run {
    pub(crate) outcome: Result<Outcome, TrainError>,
    pub(crate) parameters: Parameters,
    pub(crate) events: Vec<Event>,
}

struct Ear {
    events: Vec<Event>,
    interrupt_after: Option<u64>,
}

impl Observer for Ear {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        self.events.push(event.clone());
        Ok(())
    }

    fn interrupted(&self) -> bool {
        let done = self.events.iter().rev().find_map(|event| match event {
            Event::Step { step, .. } | Event::Resume { step, .. } => Some(*step),
            _ => None,
        });
        self.interrupt_after.is_some_and(|after| done.unwrap_or(0) >= after)
    }
}

impl Run {
    pub(crate) fn of(workshop: &mut Linear, plan: &Plan, settings: &Settings) -> Self {
        Self::until(None, workshop, plan, settings)
    }

    /// A training that is interrupted after a step; it begins with the pretrained weights, as each process does.
    pub(crate) fn until(step: Option<u64>, workshop: &mut Linear, plan: &Plan, settings: &Settings) -> Self {
        let mut parameters = Linear::parameters();
        let mut ear = Ear { events: Vec::new(), interrupt_after: step };
        let outcome = train(&mut parameters, plan, workshop, settings, &mut ear);
        Run { outcome, parameters, events: ear.events }
    }

    pub(crate) fn outcome(&self) -> &Outcome {
        self.outcome.as_ref().unwrap()
    }

    pub(crate) fn values(&self) -> Vec<f32> {
        values(&self.parameters)
    }

    /// Of each step: loss, learning rate, norm of the gradient.
    pub(crate) fn steps(&self) -> Vec<[f64; 3]> {
        let told = |event: &Event| match event {
            Event::Step { loss, learning_rate, gradient_norm, .. } => {
                Some([*loss, *learning_rate, *gradient_norm])
            }
            _ => None,
        };
        self.events.iter().filter_map(told).collect()
    }

    /// What was told of the training itself, without the times that it took and without checkpoints.
    pub(crate) fn told(&self) -> Vec<Event> {
        let mut events: Vec<Event> = self
            .events
            .iter()
            .filter(|event| !matches!(event, Event::Checkpoint { .. } | Event::Resume { .. }))
            .cloned()
            .collect();
        for event in &mut events {
            match event {
                Event::Step { seconds, .. }
                | Event::Evaluation { seconds, .. }
                | Event::End { seconds, .. } => {
                    *seconds = 0.0;
                }
                _ => {}
            }
        }
        events
    }

    /// Of each evaluation: its step, and whether it was the best so far.
    pub(crate) fn evaluations(&self) -> Vec<(u64, bool)> {
        let told = |event: &Event| match event {
            Event::Evaluation { step, best, .. } => Some((*step, *best)),
            _ => None,
        };
        self.events.iter().filter_map(told).collect()
    }
}
