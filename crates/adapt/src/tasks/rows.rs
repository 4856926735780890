//! What the forms of one answer a row have in common.

use retune_metrics::{Bootstrap, Tally};

use super::{Answer, Answered, Decode, Measured, Score, Scoring};

/// Reads each row's logits by itself.
pub(super) struct EachRow<F> {
    /// Logits of a row.
    pub outputs: usize,
    /// What they say.
    pub answer: F,
}

impl<F: Fn(&[f32]) -> Answer> Decode for EachRow<F> {
    fn add(&mut self, _: &[usize], logits: &[f32]) -> Vec<Answered> {
        let rows = logits.chunks_exact(self.outputs.max(1));
        rows.map(|logits| Answered { answer: (self.answer)(logits), logits: Some(logits.to_vec()) }).collect()
    }
}

/// An evaluation that looks at each row by itself too, where that was asked for.
pub(super) struct RowByRow<S, F> {
    inner: S,
    scoring: Scoring,
    outputs: usize,
    tally: F,
    tallies: Vec<Tally>,
}

impl<S: Score, F: Fn(usize, &[f32]) -> Tally> RowByRow<S, F> {
    /// `tally` says what a row with these logits, `[outputs]`, adds to the metric that decides.
    pub fn new(inner: S, scoring: Scoring, outputs: usize, tally: F) -> Self {
        RowByRow { inner, scoring, outputs, tally, tallies: Vec::new() }
    }
}

impl<S: Score, F: Fn(usize, &[f32]) -> Tally> Score for RowByRow<S, F> {
    fn add(&mut self, rows: &[usize], logits: &[f32]) {
        self.inner.add(rows, logits);
        if self.scoring.tallies {
            let each = rows.iter().zip(logits.chunks_exact(self.outputs.max(1)));
            self.tallies.extend(each.map(|(row, logits)| (self.tally)(*row, logits)));
        }
    }

    fn measure(self: Box<Self>, bootstrap: Option<Bootstrap>) -> Measured {
        let RowByRow { inner, tallies, .. } = *self;
        Measured { tallies, ..Box::new(inner).measure(bootstrap) }
    }
}
