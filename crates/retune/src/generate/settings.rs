use retune_model::Sampling;

use crate::{Error, Result};

/// How a text goes on.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct GenerateSettings {
    /// The longest answer [default: 256]
    #[cfg_attr(
        feature = "clap",
        arg(long, visible_alias = "max-tokens", value_name = "TOKENS", help_heading = "Answer")
    )]
    pub max_new_tokens: Option<usize>,
    /// How far from the likeliest token the draws may go; 0 takes it each time, and draws nothing [default: 0; 1 where --top-k,
    /// --top-p or --min-p is given]
    #[cfg_attr(feature = "clap", arg(long, value_name = "T", help_heading = "Answer"))]
    pub temperature: Option<f32>,
    /// Draw from so many of the likeliest tokens [default: 0, all]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Answer"))]
    pub top_k: Option<usize>,
    /// Draw from the likeliest tokens that together have this probability [default: 1]
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE", help_heading = "Answer"))]
    pub top_p: Option<f32>,
    /// Draw from tokens that are at least this share as likely as the likeliest [default: 0]
    #[cfg_attr(feature = "clap", arg(long, value_name = "SHARE", help_heading = "Answer"))]
    pub min_p: Option<f32>,
    /// What tokens lose that were there before, the prompt's included; 1 is nothing, 1.1 a little [default: 1]
    #[cfg_attr(feature = "clap", arg(long, value_name = "FACTOR", help_heading = "Answer"))]
    pub repetition_penalty: Option<f32>,
    /// A text that ends the answer before it; may be given several times
    #[cfg_attr(feature = "clap", arg(long, value_name = "TEXT", help_heading = "Answer"))]
    pub stop: Vec<String>,
    /// Draws the tokens: the same seed gives the same text, whatever the threads and the batch [default: 1]
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Answer"))]
    pub seed: Option<u64>,
}

impl GenerateSettings {
    /// The longest answer. Errors if it is empty.
    pub(crate) fn most(&self) -> Result<usize> {
        match self.max_new_tokens {
            Some(0) => Err(wrong("max-new-tokens", "at least 1", "0")),
            most => Ok(most.unwrap_or(256)),
        }
    }

    /// How tokens are drawn. Errors if a number is out of range.
    pub fn sampling(&self) -> Result<Sampling> {
        let usual = Sampling::default();
        let draws = self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        let sampling = Sampling {
            repetition_penalty: self.repetition_penalty.unwrap_or(usual.repetition_penalty),
            temperature: self.temperature.unwrap_or(if draws { 1.0 } else { usual.temperature }),
            top_k: self.top_k.unwrap_or(usual.top_k),
            top_p: self.top_p.unwrap_or(usual.top_p),
            min_p: self.min_p.unwrap_or(usual.min_p),
        };
        let Sampling { repetition_penalty, temperature, top_p, min_p, .. } = sampling;
        for (flag, value, fits, expected) in [
            ("temperature", temperature, temperature >= 0.0 && temperature.is_finite(), "a number from 0 on"),
            ("top-p", top_p, top_p > 0.0 && top_p <= 1.0, "more than 0 and at most 1"),
            ("min-p", min_p, (0.0..=1.0).contains(&min_p), "0 to 1"),
            (
                "repetition-penalty",
                repetition_penalty,
                repetition_penalty > 0.0 && repetition_penalty.is_finite(),
                "a number above 0",
            ),
        ] {
            if !fits {
                return Err(wrong(flag, expected, &value.to_string()));
            }
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(wrong("stop", "a text", "nothing"));
        }
        Ok(sampling)
    }
}

fn wrong(flag: &'static str, expected: &str, got: &str) -> Error {
    Error::Setting { flag, message: format!("expected {expected}, got {got}") }
}
