//! One file a verb.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod combine;
pub(crate) mod doctor;
pub(crate) mod evaluate;
pub(crate) mod generate;
pub(crate) mod inspect;
pub(crate) mod merge;
pub(crate) mod methods;
pub(crate) mod plan;
pub(crate) mod predict;
pub(crate) mod train;

use std::path::PathBuf;

use retune::FileSettings;

use crate::failure::Failure;

/// What is said of a model that is made of others: where it goes, and what it is held to them on.
#[derive(clap::Args)]
pub(crate) struct Made {
    /// The folder for the result
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Replace a result that is there
    #[arg(long)]
    overwrite: bool,
    /// Rows to measure the difference on; may be given several times [default: random tokens]
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    #[command(flatten)]
    file: FileSettings,
    /// Threads; they change the speed and nothing else [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

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
