//! Train: the loop, its optimiser, schedules and batches. The trainer sees trainable parameters and a [`Workshop`]; it
//! names no method and no task.

mod batches;
mod error;
mod event;
mod optimiser;
mod rehearsal;
mod schedule;
mod trainer;

pub use batches::{Batching, Plan, Step};
pub use error::TrainError;
pub use event::{Event, Observer};
pub use optimiser::{AdamWSettings, Optimiser};
pub use rehearsal::rehearse;
pub use schedule::{Schedule, Shape};
pub use trainer::{EvalEvery, Evaluated, Outcome, Settings, Workshop, train};
