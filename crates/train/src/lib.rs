//! Train: the loop, its optimiser, schedules and batches. The trainer sees trainable parameters and a [`Workshop`]; it
//! names no method and no task.

mod batches;
mod error;
mod event;
mod lazy_table;
mod moments;
mod number;
mod optimiser;
mod rehearsal;
mod schedule;
mod settings;
mod spike;
mod state;
mod step;
mod trainer;
mod workshop;

pub use batches::{Batching, Plan, Step};
pub use error::TrainError;
pub use event::{Event, Observer};
pub use moments::MomentKind;
pub use optimiser::{AdamWSettings, Optimiser, Update};
pub use rehearsal::rehearse;
pub use schedule::{Schedule, Shape};
pub use settings::{EvalEvery, OnSpike, SaveEvery, Settings};
pub use spike::RecentLosses;
pub use state::{Checkpoint, Kept, State};
pub use trainer::{Outcome, train};
pub use workshop::{Evaluated, Workshop};
