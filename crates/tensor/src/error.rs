//! What an op refuses, in words that name the op, what it expected and what came.

/// The result of an engine call.
pub type Result<T> = std::result::Result<T, Error>;

/// An engine call that cannot be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Sizes that do not fit together.
    #[error("{op}: expected {expected}, got {got}")]
    Shape {
        /// The op that was called.
        op: &'static str,
        /// What it would have taken.
        expected: String,
        /// What it was given.
        got: String,
    },
    /// An id, a label or an offset beyond its table.
    #[error("{op}: {what} {index} is out of range, expected less than {len}")]
    Index {
        /// The op that was called.
        op: &'static str,
        /// What the index counts.
        what: &'static str,
        /// The index.
        index: usize,
        /// The size of what it points into.
        len: usize,
    },
    /// Tensors of two devices in one op.
    #[error("{op}: tensors of two devices, {left:?} and {right:?}")]
    Device {
        /// The op that was called.
        op: &'static str,
        /// One of them.
        left: crate::Device,
        /// The other.
        right: crate::Device,
    },
    /// A tensor that someone else still reads was to be written.
    #[error("{op}: the tensor is still in use elsewhere, so it cannot be written in place")]
    Shared {
        /// The op that was called.
        op: &'static str,
    },
    /// The system gave no memory.
    #[error("out of memory: {bytes} bytes asked for, {live} bytes in use by tensors ({source})")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
        /// What tensors hold already.
        live: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// The pass has come to the first lookup, where its tape ends (`Tape::until_lookup`).
    #[error("the tape ends at the first lookup")]
    Lookup,
    /// What the engine was to be fed could not be read.
    #[error("{0}")]
    Input(String),
    /// A name that is not there, or is there twice.
    #[error("parameter `{name}` {problem}")]
    Parameter {
        /// Its full name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Error {
    pub(crate) fn shape(op: &'static str, expected: impl Into<String>, got: impl std::fmt::Debug) -> Self {
        Error::Shape { op, expected: expected.into(), got: format!("{got:?}") }
    }
}
