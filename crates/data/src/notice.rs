//! What the user should hear although the work goes on.

use std::fmt;

use serde::Serialize;

/// A sentence about something that was guessed or looks odd, but stops nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Notice {
    /// The sentence, in lower case and without a full stop, as errors are.
    pub message: String,
}

impl Notice {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Notice { message: message.into() }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
