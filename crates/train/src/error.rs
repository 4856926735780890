/// Why a training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The loss, or the gradient that follows from it, is no number.
    #[error(
        "step {step}: the {what} is {value}, on the rows {rows:?}; {}. try a lower --learning-rate, or look at these rows",
        kept(*changed)
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// The loss, or the gradient's norm.
        what: &'static str,
        /// What it is.
        value: f64,
        /// The rows of the step, counted from 0 in the training data.
        rows: Vec<usize>,
        /// How many parameters have the step's update already: where updates are made in the backward, those above the
        /// first whose gradient was no number.
        changed: usize,
    },
    /// A loss far above the recent ones, where that should stop it. The step was not made, and a checkpoint is written.
    #[error("step {step}: the loss is {loss:.4}, far above the usual {usual:.4}, on the rows {rows:?}")]
    Spike {
        /// The step, counted from 1.
        step: u64,
        /// Its loss.
        loss: f64,
        /// The median of the losses before.
        usual: f64,
        /// The rows of the step, counted from 0 in the training data.
        rows: Vec<usize>,
    },
    /// The observer asked for it. A checkpoint is written.
    #[error("interrupted after step {step}")]
    Interrupted {
        /// Steps done.
        step: u64,
    },
    /// Settings that contradict each other or the data.
    #[error("{0}")]
    Settings(String),
    /// What an evaluation, a checkpoint or an observer could not do.
    #[error(transparent)]
    Workshop(#[from] Box<dyn std::error::Error + Send + Sync>),
    /// The engine below.
    #[error(transparent)]
    Tensor(#[from] retune_tensor::Error),
}

fn kept(changed: usize) -> String {
    match changed {
        0 => "the weights of the step before are kept".into(),
        changed => {
            format!("{changed} tensors have this step's update, the others are those of the step before")
        }
    }
}
