//! The five steps on a tiny random BERT, from its folder and a CSV to a result that opens again.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "../tiny/mod.rs"]
mod tiny;

#[path = "../../../model/tests/hub/server.rs"]
mod server;

mod adapters;
mod bad_input;
mod choices;
mod compose;
mod doctor;
mod entities;
mod families;
mod faults;
mod gguf;
mod going_on;
mod hub;
mod label_forms;
mod language;
mod no_number;
mod output;
mod questions;
mod resume;
mod resume_same;
mod round_trip;
mod run;
mod same_bits;
