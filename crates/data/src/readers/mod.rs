//! From text to a table: one file a format.

pub(crate) mod csv;
pub(crate) mod jsonl;
