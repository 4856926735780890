//! How well the next token was told.

use serde::Serialize;

use crate::bootstrap::{Bootstrap, Intervals};
use crate::{MetricError, ratio::ratio};

/// The surprise of each row: the sum over its tokens of minus the logarithm of what the model thought of each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SurpriseCounts {
    surprise: Vec<f64>,
    tokens: Vec<u32>,
}

/// What rows came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SurpriseReport {
    /// The mean surprise of a token, in nats.
    pub loss: f64,
    /// e to the power of that: among how many equal tokens the model was undecided, as it were.
    pub perplexity: f64,
    /// The mean logarithm of what the model thought of a token: higher is better.
    pub log_likelihood: f64,
    /// Tokens that were to be told.
    pub tokens: u64,
}

impl SurpriseCounts {
    /// Records a row: the sum over so many tokens.
    pub fn record(&mut self, surprise: f64, tokens: u32) {
        self.surprise.push(surprise);
        self.tokens.push(tokens);
    }

    /// Rows recorded.
    pub fn rows(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// The scores. Of no tokens the loss is 0.
    pub fn report(&self) -> SurpriseReport {
        self.of(0..self.tokens.len())
    }

    /// The intervals of loss, perplexity and log-likelihood.
    ///
    /// # Errors
    /// As [`Bootstrap::over_rows`].
    pub fn intervals(&self, bootstrap: &Bootstrap) -> Result<Intervals, MetricError> {
        let ends = bootstrap.over_rows(self.tokens.len(), |drawn| {
            let SurpriseReport { loss, perplexity, log_likelihood, .. } = self.of(drawn.iter().copied());
            [loss, perplexity, log_likelihood]
        })?;
        Ok(bootstrap.named(["loss", "perplexity", "log_likelihood"], ends))
    }

    fn of(&self, rows: impl Iterator<Item = usize>) -> SurpriseReport {
        let (mut surprise, mut tokens) = (0.0, 0);
        for row in rows {
            surprise += self.surprise.get(row).copied().unwrap_or_default();
            tokens += u64::from(self.tokens.get(row).copied().unwrap_or_default());
        }
        let loss = ratio(surprise, tokens as f64);
        SurpriseReport { loss, perplexity: loss.exp(), log_likelihood: -loss, tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_count_alike_whatever_row_they_are_in() {
        let mut counts = SurpriseCounts::default();
        counts.record(6.0, 2);
        counts.record(0.0, 0);
        counts.record(3.0, 4);
        let report = counts.report();
        assert!((report.loss - 1.5).abs() < 1e-12 && report.tokens == 6 && counts.rows() == 3);
        assert!((report.perplexity - 1.5f64.exp()).abs() < 1e-12);
        let intervals = counts.intervals(&Bootstrap::default()).unwrap();
        let loss = intervals.scores["loss"];
        assert!(loss.low <= 1.5 && 1.5 <= loss.high && loss.high <= 3.0);
        let none = SurpriseCounts::default();
        assert!(none.report().loss.abs() < 1e-12 && none.intervals(&Bootstrap::default()).is_err());
    }
}
