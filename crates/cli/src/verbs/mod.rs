//! One file a verb.

pub(crate) mod bench;
pub(crate) mod doctor;
pub(crate) mod evaluate;
pub(crate) mod inspect;
pub(crate) mod methods;
pub(crate) mod plan;
pub(crate) mod predict;
pub(crate) mod train;

use crate::failure::Failure;

/// Gives the work this many threads; all cores where nothing is said. The result is the same for any number.
pub(crate) fn use_threads(threads: Option<usize>) -> Result<(), Failure> {
    let Some(threads) = threads else { return Ok(()) };
    if threads == 0 || threads > 1024 {
        return Err(Failure::request(format!("--threads: expected 1 to 1024, got {threads}")));
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.map_err(|error| Failure { message: format!("cannot start {threads} threads: {error}"), code: 1 })
}
