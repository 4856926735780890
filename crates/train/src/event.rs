use std::collections::BTreeMap;

use serde::Serialize;

/// What happens in a run, as it happens: what a progress bar shows and `events.jsonl` keeps.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Before the first step.
    Start {
        /// Steps to come.
        total_steps: u64,
        /// Rows to train on.
        rows: usize,
        /// What is trained.
        trainable_parameters: usize,
    },
    /// An update of the weights.
    Step {
        /// Counted from 1.
        step: u64,
        /// Which epoch it belongs to, counted from 1.
        epoch: u64,
        /// The mean loss of its rows, before the update.
        loss: f64,
        /// Of this step.
        learning_rate: f64,
        /// The gradient's, before clipping.
        gradient_norm: f64,
        /// Rows in it.
        rows: usize,
        /// Tokens in it, all of them real.
        tokens: usize,
        /// Since the start of the training, evaluations left out.
        seconds: f64,
    },
    /// An evaluation.
    Evaluation {
        /// After this step.
        step: u64,
        /// After this part of all epochs, such as 1.5.
        epoch: f64,
        /// The mean loss.
        loss: f64,
        /// By name.
        metrics: BTreeMap<String, f64>,
        /// Whether it is the best so far.
        best: bool,
        /// How long it took.
        seconds: f64,
    },
    /// The training ends before its last step.
    EarlyStop {
        /// After this step.
        step: u64,
        /// Evaluations since the best.
        evaluations: u64,
    },
    /// The training is over.
    End {
        /// Steps done.
        steps: u64,
        /// The step whose weights are the result.
        kept_step: u64,
        /// Evaluations left out.
        seconds: f64,
        /// All tokens of all steps.
        tokens: u64,
    },
}

/// Who is told.
pub trait Observer {
    /// Something happened. An error stops the training.
    fn event(&mut self, event: &Event) -> std::io::Result<()>;
}

impl<F: FnMut(&Event) -> std::io::Result<()>> Observer for F {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        self(event)
    }
}
