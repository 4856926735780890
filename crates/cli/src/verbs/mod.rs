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

/// Bytes of a thread's stack, and about what else it takes as it begins.
const STACK: usize = 2 << 20;
const BESIDE_STACK: usize = 256 << 10;

/// Gives the work this many threads; all cores where nothing is said. The result is the same for any number.
pub(crate) fn use_threads(threads: Option<usize>) -> Result<(), Failure> {
    if threads.is_some_and(|threads| threads == 0 || threads > 1024) {
        let threads = threads.unwrap_or_default();
        return Err(Failure::request(format!("--threads: expected 1 to 1024, got {threads}")));
    }
    let refused = |error: &dyn std::fmt::Display| {
        let threads = threads.map_or_else(|| "a thread for each core".into(), |n| format!("{n} threads"));
        Failure { message: format!("cannot start {threads}: {error}; give fewer with --threads"), code: 1 }
    };
    let count = threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    // A thread that finds no memory once it has begun ends the process without a word of ours, so it is asked for before.
    retune::memory::would_fit((count - 1) * (STACK + BESIDE_STACK)).map_err(|error| refused(&error))?;
    // Also where nothing is said: threads that cannot be had when they are first needed would be a panic. This thread is one of
    // them: what it asks for begins at once, and it works while it waits.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or_default())
        .stack_size(STACK)
        .use_current_thread()
        .build_global();
    pool.map_err(|error| refused(&error))
}
