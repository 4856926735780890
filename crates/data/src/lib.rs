//! Load: from a file to rows, columns, labels, splits, statistics and tokens.
//!
//! The way through the crate is the order of its modules: bytes become text,
//! text becomes a [`Table`], [`choose_columns`] says which column is what and [`ProblemType::of_column`] what its
//! labels are, [`Examples`] makes an [`Example`] of a row when it is asked for, [`LabelMap`] numbers the labels,
//! [`stratified_split`] holds rows back for evaluation and [`DataProfile`] says what is in the data before any time is
//! spent on training.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use retune_data::{Examples, LabelMap, LabelReading, ReadOptions, choose_columns, read_table};
//!
//! # fn main() -> Result<(), retune_data::DataError> {
//! let table = Arc::new(read_table("train.csv".as_ref(), &ReadOptions::default())?);
//! let columns = choose_columns(&table, None, None, None)?;
//! let examples = Examples::labelled(Arc::clone(&table), &columns, &LabelReading::default())?;
//! let labels = LabelMap::from_examples(&examples, &table, &columns)?;
//! let classes = labels.encode(&examples, table.path())?;
//! # Ok(())
//! # }
//! ```
//!
//! A file that is not understood is an error that says where and what to do; nothing is guessed silently.
//! What was guessed, or looks odd, is a [`Notice`].

mod answers;
mod column_values;
mod columns;
mod error;
mod examples;
mod format;
mod input;
mod keys;
mod label;
mod labels;
mod lessons;
mod notice;
mod number_lists;
mod places;
mod problem_type;
mod profile;
mod questions;
mod random;
mod readers;
mod sentences;
mod spans;
mod split;
mod store;
mod strata;
mod table;
mod tags;
mod tokens;
mod windows;
mod wording;
mod words;

pub use answers::GoldAnswer;
pub use columns::{Choice, Columns, Named, Wanted, choose_columns, choose_wanted_columns};
pub use error::DataError;
pub use examples::{Example, Examples, labelled_examples, unlabelled_examples};
pub use format::Format;
pub use input::{CONLL_ENDINGS, ending_of, is_text_file, write_packed};
pub use keys::Keys;
pub use label::{Label, LabelReading};
pub use labels::{LabelMap, plain};
pub use lessons::{Beside, Lesson, LessonColumns, Turns, is_answer, role};
pub use notice::Notice;
pub use number_lists::NumberLists;
pub use problem_type::{FoundProblemType, ProblemType};
pub use profile::{ClassCount, DataProfile, Duplicates, Lengths, Numbers, Overlap};
pub use questions::{QuestionColumns, Questions};
pub use random::Random;
pub use readers::{ReadOptions, named_files, parse_table, read_head, read_table, read_tables};
pub use sentences::{SentenceColumns, Sentences};
pub use split::{Split, duplicate_groups, stratified_sample, stratified_split};
pub use strata::Strata;
pub use table::{Place, Row, Rows, Table};
pub use tags::{TagScheme, tag_parts};
pub use tokens::{Tokens, TokensError};
pub use windows::{TextWindow, TextWindows, windows};
pub use words::{Word, split_words};
