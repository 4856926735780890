//! How good is it: plain slices in, numbers out.
//!
//! A metric is a small accumulator: rows are recorded as they are predicted and a few bytes of each are kept, or only
//! counts, so that an evaluation never holds its logits. Every number is defined on every input of numbers: where the
//! definition divides by zero, it is 0 and never NaN.
//!
//! ```
//! use retune_metrics::{Bootstrap, ConfusionMatrix};
//!
//! let matrix = ConfusionMatrix::from_pairs(&[0, 1, 2, 2], &[0, 2, 2, 2], 3)?;
//! assert_eq!(matrix.accuracy(), 0.75);
//! assert_eq!(matrix.most_confused(1), [(1, 2, 1)]);
//! let intervals = Bootstrap::default().intervals(&matrix)?;
//! let accuracy = intervals.scores["accuracy"];
//! assert!(accuracy.low <= 0.75 && 0.75 <= accuracy.high);
//! # Ok::<(), retune_metrics::MetricError>(())
//! ```

mod answers;
mod bootstrap;
mod classification;
mod entities;
mod multi_label;
mod paired;
mod perplexity;
mod punctuation;
mod questions;
mod ratio;
mod regression;

use std::fmt;

pub use answers::{AnswerScore, Segmentation};
pub use bootstrap::{Bootstrap, Interval, Intervals};
pub use classification::{ClassScore, ClassificationReport, ConfusionMatrix};
pub use entities::{Entity, EntityCounts, EntityReport, Prefix, Strictness, Tag, entities, strict_entities};
pub use multi_label::{MultiLabelCounts, MultiLabelReport, best_threshold};
pub use paired::{Paired, Tally, paired};
pub use perplexity::{SurpriseCounts, SurpriseReport};
pub use questions::{QuestionReport, QuestionScore, QuestionScores};
pub use regression::{RegressionPairs, RegressionReport};

/// Why a metric could not be computed.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricError {
    /// A label is not one of the classes.
    ClassOutOfRange {
        /// Which label of the row: `"gold"` or `"predicted"`.
        label: &'static str,
        /// The row, counted from 0 over what was recorded.
        row: u64,
        /// The class that came.
        class: usize,
        /// How many classes there are.
        classes: usize,
    },
    /// The gold and the predicted labels are not as many.
    LengthMismatch {
        /// Number of gold labels.
        gold: usize,
        /// Number of predicted labels.
        predicted: usize,
    },
    /// What is added is over another number of classes.
    ClassesDiffer {
        /// Classes of what is added to.
        expected: usize,
        /// Classes of what came.
        actual: usize,
    },
    /// A bootstrap was asked of no rows.
    NoRows,
    /// A bootstrap was asked for no resamples.
    NoResamples,
    /// A confidence that is not strictly between 0 and 1.
    Confidence(f64),
}

impl fmt::Display for MetricError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClassOutOfRange { label, row, class, classes } => {
                write!(
                    f,
                    "confusion matrix: {label} class {class} of row {row} (from 0) is not below {classes}, the number of classes"
                )
            }
            Self::LengthMismatch { gold, predicted } => {
                write!(
                    f,
                    "confusion matrix: expected one prediction a row, got {gold} gold labels and {predicted} predicted"
                )
            }
            Self::ClassesDiffer { expected, actual } => {
                write!(f, "expected to add what has {expected} classes, got {actual}")
            }
            Self::NoRows => write!(f, "bootstrap: expected at least one row to resample, got none"),
            Self::NoResamples => write!(f, "bootstrap: expected at least one resample, got 0"),
            Self::Confidence(confidence) => {
                write!(f, "bootstrap: expected a confidence between 0 and 1 such as 0.95, got {confidence}")
            }
        }
    }
}

impl std::error::Error for MetricError {}
