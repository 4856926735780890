//! What is free on a machine.

use std::path::Path;

use crate::choices;

/// What a training may take of the machine that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Bytes of memory that are free; none where that is not known.
    pub memory: Option<usize>,
    /// Bytes that can be written where the result goes; none where that is not known.
    pub disk: Option<u64>,
}

impl Machine {
    /// The one that this runs on, as it is now; `output` is where the result goes.
    pub fn here(output: Option<&Path>) -> Self {
        Machine { memory: choices::available_memory(), disk: output.and_then(free_space) }
    }
}

/// Bytes that can be written at `path`, or where it will be.
#[cfg(unix)]
fn free_space(path: &Path) -> Option<u64> {
    let there = std::path::absolute(path).ok()?.ancestors().find(|path| path.exists())?.to_path_buf();
    let status = rustix::fs::statvfs(&there).ok()?;
    Some(status.f_bavail * status.f_frsize)
}

#[cfg(not(unix))]
fn free_space(_: &Path) -> Option<u64> {
    None
}
