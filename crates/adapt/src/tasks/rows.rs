//! What the forms of one answer a row have in common.

use retune_metrics::{Bootstrap, Tally};

use super::mistakes::Mistakes;
use super::{Answer, Answered, Decode, Measured, Mistake, Score, Scoring};
use crate::AdaptError;

/// Reads each row's logits by itself.
pub(super) struct EachRow<F> {
    /// Logits of a row.
    pub outputs: usize,
    /// What they say.
    pub answer: F,
}

impl<F: Fn(&[f32]) -> Answer> Decode for EachRow<F> {
    fn add(&mut self, _: &[usize], logits: &[f32]) -> Result<Vec<Answered>, AdaptError> {
        let rows = logits.chunks_exact(self.outputs.max(1));
        let each = |logits: &[f32]| Answered { answer: (self.answer)(logits), logits: Some(logits.to_vec()) };
        Ok(rows.map(each).collect())
    }
}

/// What a row by itself comes to.
pub(super) trait JudgeRow {
    /// What a row with these logits, `[outputs]`, adds to the metric that decides.
    fn tally(&self, row: usize, logits: &[f32]) -> Tally;

    /// What is wrong with what they say; none if it is right, or no matter of right and wrong.
    fn mistake(&self, row: usize, logits: &[f32]) -> Option<Mistake> {
        let _ = (row, logits);
        None
    }
}

/// An evaluation that looks at each row by itself too, where that was asked for.
pub(super) struct RowByRow<'a, S> {
    inner: S,
    scoring: Scoring,
    outputs: usize,
    judge: &'a dyn JudgeRow,
    tallies: Vec<Tally>,
    mistakes: Mistakes,
}

impl<'a, S: Score> RowByRow<'a, S> {
    /// `outputs` are the logits of a row.
    pub fn new(inner: S, scoring: Scoring, outputs: usize, judge: &'a dyn JudgeRow) -> Self {
        let mistakes = Mistakes::new(scoring.mistakes);
        RowByRow { inner, scoring, outputs, judge, tallies: Vec::new(), mistakes }
    }
}

impl<S: Score> Score for RowByRow<'_, S> {
    fn add(&mut self, rows: &[usize], logits: &[f32]) -> Result<(), AdaptError> {
        self.inner.add(rows, logits)?;
        for (row, logits) in rows.iter().zip(logits.chunks_exact(self.outputs.max(1))) {
            if self.scoring.tallies {
                self.tallies.push(self.judge.tally(*row, logits));
            }
            if self.scoring.mistakes > 0
                && let Some(mistake) = self.judge.mistake(*row, logits)
            {
                self.mistakes.add(mistake);
            }
        }
        Ok(())
    }

    fn measure(self: Box<Self>, bootstrap: Option<Bootstrap>) -> Measured {
        let RowByRow { inner, tallies, mistakes, .. } = *self;
        Measured { tallies, mistakes: mistakes.sorted(), ..Box::new(inner).measure(bootstrap) }
    }
}
