//! Adjust: what a task puts on top of a pretrained model ([`tasks`]: head, labels, loss, decode, metrics), and what a
//! method trains of it ([`peft`]: everything, the head, biases, low-rank branches ...).
//!
//! Both are registries: a new task or method is one file and one line.

mod error;
mod options;
pub mod peft;
pub mod tasks;

pub use error::AdaptError;
pub use options::{Kind, OptionSpec, Options, nearest};
