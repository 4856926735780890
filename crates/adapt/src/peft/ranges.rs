//! What the numbers of a method may be.

use super::sites;
use crate::{AdaptError, Kind, OptionSpec};

/// The most that a rank may be: beyond it, it is a slip.
const MOST_RANK: usize = 4096;

/// Which layers: an option of every method of linear layers.
pub(super) const TARGET_MODULES: OptionSpec = OptionSpec {
    name: sites::TARGET_MODULES,
    kind: Kind::List,
    default: "all linear layers",
    help: "which linear layers, by the ends of their names, such as query,value, or all-linear",
};

/// Errors if it is no rank.
pub(super) fn rank(option: &str, rank: usize) -> Result<(), AdaptError> {
    expect(option, (1..=MOST_RANK).contains(&rank), &format!("1 to {MOST_RANK}"), rank)
}

/// Errors if it is nothing to scale with, in f32.
pub(super) fn positive(option: &str, value: f64) -> Result<(), AdaptError> {
    expect(option, (value as f32).is_finite() && value as f32 > 0.0, "a number above 0", value)
}

/// Errors if it is no chance to lose a value and keep others.
pub(super) fn dropout(option: &str, value: f64) -> Result<(), AdaptError> {
    expect(option, is_rate(value), "at least 0 and below 1", value)
}

/// Errors with what was `wanted` if it is not `right`.
pub(super) fn expect(
    option: &str,
    right: bool,
    wanted: &str,
    got: impl std::fmt::Display,
) -> Result<(), AdaptError> {
    if right {
        return Ok(());
    }
    Err(AdaptError::Option { option: option.into(), message: format!("expected {wanted}, got {got}") })
}

/// Whether it is a dropout: in f32, where 0.99999999 is 1 and nothing would be left to scale up.
pub(super) fn is_rate(value: f64) -> bool {
    (0.0..1.0).contains(&(value as f32))
}
