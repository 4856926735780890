use std::path::PathBuf;

use retune_data::{DataError, TokensError};
use retune_model::ModelError;

/// What cannot be adjusted as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdaptError {
    /// An option that the method does not have, or whose value it cannot take.
    #[error("--{option}: {message}")]
    Option {
        /// Its name on the command line.
        option: String,
        /// What was expected, what came, what to do.
        message: String,
    },
    /// A name that no registry has.
    #[error("{kind} `{name}` is not known{hint}; there are: {known}")]
    Unknown {
        /// A method, a task.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// The near miss, if there is one.
        hint: String,
        /// Those there are.
        known: String,
    },
    /// An adapter on disk that does not fit, or is of a kind that is not read.
    #[error("{}: {message}", .path.display())]
    Adapter {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// A method whose result is no other weight of the model.
    #[error("the method `{method}` cannot be merged into the base: {why}")]
    Merge {
        /// Its name.
        method: String,
        /// What it is instead.
        why: String,
    },
    /// The rows.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model below.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine below.
    #[error(transparent)]
    Tensor(#[from] retune_tensor::Error),
}

impl From<TokensError> for AdaptError {
    fn from(error: TokensError) -> Self {
        match error {
            TokensError::Model(error) => error.into(),
            TokensError::Data(error) => error.into(),
        }
    }
}
