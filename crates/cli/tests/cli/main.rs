//! The binary as a person or a script meets it: what it prints where, what it ends with, what it leaves behind.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

#[path = "../../../retune/tests/tiny/mod.rs"]
mod tiny;

mod bad_input;
mod command;
mod compose;
mod doctor;
#[cfg(unix)]
mod faults;
mod generate;
mod help;
mod json;
mod layers;
mod malformed;
mod plan;
mod real_model;
#[cfg(unix)]
mod signals;
