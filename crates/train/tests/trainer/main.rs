//! The trainer on a linear classifier.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod linear;
mod resume;
mod run;
mod spikes;
mod steps;
mod tables;
