//! One file a verb.

pub(crate) mod bench;
pub(crate) mod combine;
pub(crate) mod doctor;
pub(crate) mod evaluate;
pub(crate) mod inspect;
pub(crate) mod merge;
pub(crate) mod methods;
pub(crate) mod plan;
pub(crate) mod predict;
pub(crate) mod train;

use crate::failure::Failure;

/// Gives the work this many threads; all cores where nothing is said. The result is the same for any number.
pub(crate) fn use_threads(threads: Option<usize>) -> Result<(), Failure> {
    if threads.is_some_and(|threads| threads == 0 || threads > 1024) {
        let threads = threads.unwrap_or_default();
        return Err(Failure::request(format!("--threads: expected 1 to 1024, got {threads}")));
    }
    // Also where nothing is said: threads that cannot be had when they are first needed would be a panic.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or_default()).build_global();
    pool.map_err(|error| {
        let threads = threads.map_or_else(|| "a thread for each core".into(), |n| format!("{n} threads"));
        Failure { message: format!("cannot start {threads}: {error}; give fewer with --threads"), code: 1 }
    })
}
