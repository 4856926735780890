use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{AdamWSettings, Schedule, Shape, Workshop};

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
    /// When to write a checkpoint; one is written at an interruption whatever this says.
    pub save_every: SaveEvery,
    /// What a loss far above the recent ones does; see [`RecentLosses`](crate::RecentLosses) for how far.
    pub on_spike: OnSpike,
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

/// When a checkpoint is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveEvery {
    /// At interruptions only.
    Never,
    /// After this many steps.
    Steps(u64),
    /// When this much time has gone since the last.
    Time(Duration),
}

/// What a loss spike does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnSpike {
    /// It is told, and the training goes on.
    #[default]
    Tell,
    /// The update of its step is dropped.
    Skip,
    /// The training stops before its step, with a checkpoint.
    Stop,
    /// Weights and moments go back to the last checkpoint that [`SaveEvery::Steps`] made, and the rows seen since are
    /// passed over (Chowdhery et al. 2022, PaLM, section 5.1). A checkpoint made by time or by an interruption is no
    /// such place: the result would depend on when it came.
    Rewind,
}

impl Settings {
    /// Whether a step of so many batches changes each parameter within the backward pass, as soon as its gradient is
    /// complete, and frees the gradient: all of them are then never in memory at once. The bits are those of a pass of
    /// its own. It takes that no norm over all gradients is asked for, that there is nothing to accumulate and that the
    /// workshop does not read them either.
    pub fn updates_in_backward(&self, batches: usize, workshop: &dyn Workshop) -> bool {
        self.max_grad_norm.is_none() && batches == 1 && !workshop.reads_gradients()
    }

    pub(crate) fn schedule(&self, total_steps: u64) -> Schedule {
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
