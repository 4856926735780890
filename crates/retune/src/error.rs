use std::path::{Path, PathBuf};

use retune_adapt::AdaptError;
use retune_data::DataError;
use retune_model::ModelError;
use retune_train::TrainError;

/// The result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in words that need no other.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The rows.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The task or the method.
    #[error(transparent)]
    Adapt(#[from] AdaptError),
    /// The training.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The engine.
    #[error(transparent)]
    Tensor(#[from] retune_tensor::Error),
    /// A setting that cannot be.
    #[error("--{flag}: {message}")]
    Setting {
        /// Its flag.
        flag: &'static str,
        /// What was expected, what came, what to do.
        message: String,
    },
    /// A folder or file that is not what the request needs.
    #[error("{}: {message}", .path.display())]
    Place {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// The training met a loss that is no number; what is still good was kept.
    #[error("{}: step {step}: the {what} is {value}; rows of this step: {rows}. {kept}. try a lower \
             --learning-rate, or look at these rows", .data.display())]
    NotFinite {
        /// The training file.
        data: PathBuf,
        /// The step, counted from 1.
        step: u64,
        /// The loss or the gradient's norm.
        what: &'static str,
        /// What it is.
        value: f64,
        /// The lines of the rows, in words.
        rows: String,
        /// Where the last good weights are, in words.
        kept: String,
    },
    /// A loss far above the recent ones stopped the training before its step.
    #[error("{}: step {step}: the loss is {loss:.4}, far above the usual {usual:.4}; rows of this step: {rows}. look at \
             them; `{go_on} --on-spike skip` goes on without them", .data.display())]
    Spike {
        /// The training file.
        data: PathBuf,
        /// The step, counted from 1.
        step: u64,
        /// Its loss.
        loss: f64,
        /// The median of the losses before.
        usual: f64,
        /// The lines of the rows, in words.
        rows: String,
        /// The command that goes on.
        go_on: String,
    },
    /// Whoever listened interrupted the training. A checkpoint is written.
    #[error("interrupted after step {step}, with a checkpoint; to go on: {go_on}")]
    Interrupted {
        /// Steps done.
        step: u64,
        /// The command that goes on.
        go_on: String,
    },
    /// The system could not write.
    #[error("{}: cannot {action}: {error}", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
}

impl Error {
    /// What the process should end with: 2 where the request or its input is wrong, 1 for anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Data(error) if error.system => 1,
            Error::Tensor(_) | Error::Write { .. } | Error::Interrupted { .. } => 1,
            Error::Model(ModelError::Tensor(_) | ModelError::Network { .. })
            | Error::Adapt(AdaptError::Tensor(_)) => 1,
            Error::Model(ModelError::Io { action, .. }) if !matches!(*action, "read" | "open" | "map") => 1,
            Error::Train(TrainError::Tensor(_) | TrainError::Workshop(_)) => 1,
            _ => 2,
        }
    }

    pub(crate) fn place(path: &Path, message: impl Into<String>) -> Self {
        Error::Place { path: path.to_path_buf(), message: message.into() }
    }

    pub(crate) fn write(path: &Path, action: &'static str, error: std::io::Error) -> Self {
        Error::Write { path: path.to_path_buf(), action, error }
    }
}
