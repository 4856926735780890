/// Why a training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The loss, or the gradient that follows from it, is no number.
    #[error(
        "step {step}: the {what} is {value}, on the rows {rows:?}; the weights of the step before are kept. try a \
         lower --learning-rate, or look at these rows"
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
