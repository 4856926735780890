use std::collections::BTreeMap;

use serde::Serialize;

use crate::OnSpike;

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
        /// All numbers of the model.
        total_parameters: usize,
    },
    /// Instead of a start: a training goes on from a checkpoint.
    Resume {
        /// Steps done.
        step: u64,
        /// All steps, those done included.
        total_steps: u64,
        /// Those steps' time.
        seconds: f64,
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
        /// Of all steps until now; evaluations and checkpoints are no part of it.
        seconds: f64,
    },
    /// A loss far above the recent ones.
    Spike {
        /// Its step.
        step: u64,
        /// It.
        loss: f64,
        /// The median of the losses before.
        usual: f64,
        /// What is done about it.
        action: OnSpike,
        /// The step whose weights are brought back, where that is done.
        #[serde(skip_serializing_if = "Option::is_none")]
        rewound_to: Option<u64>,
        /// The rows of the step, counted from 0 in the training data.
        rows: Vec<usize>,
    },
    /// A number that is none; the training ends with an error.
    Overflow {
        /// Its step.
        step: u64,
        /// The loss, the gradient's norm, or what else it is.
        what: &'static str,
        /// In words: `NaN` or `inf`.
        value: String,
        /// The rows of the step, counted from 0 in the training data.
        rows: Vec<usize>,
    },
    /// Something is trained and has no gradient: in the first step parts of the model, after an epoch single parameters
    /// in all of its steps.
    DeadGradients {
        /// After this step.
        step: u64,
        /// Of the parts or the parameters.
        names: Vec<String>,
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
    /// A checkpoint is about to be written.
    Checkpoint {
        /// After this step.
        step: u64,
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

    /// Whether the training should write a checkpoint and stop, asked after each step.
    fn interrupted(&self) -> bool {
        false
    }
}

impl<F: FnMut(&Event) -> std::io::Result<()>> Observer for F {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        self(event)
    }
}
