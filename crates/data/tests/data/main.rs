//! The crate's tests, a file an idea. They make the files that they read.

mod columns;
mod csv;
mod encodings;
mod files;
mod formats;
mod jsonl;
mod label_forms;
mod labels;
mod lessons;
mod profile;
mod question_windows;
mod questions;
mod sentences;
mod split;
