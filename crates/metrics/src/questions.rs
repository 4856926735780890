//! How good the answers to many questions are: exact match and F1, and when it is better to give none.

use serde::Serialize;

use crate::answers::AnswerScore;
use crate::{Bootstrap, Intervals, MetricError, Tally};

/// One question, as it was answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuestionScore {
    /// Whether it has an answer.
    pub has_answer: bool,
    /// The best answer that is one, beside what is right.
    pub answer: AnswerScore,
    /// By how much no answer is likelier than that one: from a threshold on, none is given.
    pub null_score: f64,
}

/// The scores of questions: 32 bytes each are kept.
#[derive(Debug, Clone, Default)]
pub struct QuestionScores {
    rows: Vec<QuestionScore>,
}

/// What is said of many questions; all of it is 0 where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct QuestionReport {
    /// The share that is answered as is right, but for case, punctuation and articles.
    pub exact_match: f64,
    /// The mean F1.
    pub f1: f64,
    /// Exact match of the questions that have an answer; the four are there where some have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_answer_exact_match: Option<f64>,
    /// F1 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_answer_f1: Option<f64>,
    /// Exact match of the questions that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_answer_exact_match: Option<f64>,
    /// F1 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_answer_f1: Option<f64>,
}

impl QuestionScore {
    /// What it comes to where no answer is given above `threshold`.
    pub fn at(&self, threshold: f64) -> AnswerScore {
        if self.null_score > threshold {
            let right = f64::from(u8::from(!self.has_answer));
            return AnswerScore { exact: right, f1: right };
        }
        self.answer
    }

    /// Its part in the mean F1 and in the share of exact answers, for a comparison of two models.
    pub fn tally(&self, threshold: f64) -> Tally {
        let AnswerScore { exact, f1 } = self.at(threshold);
        [f1, exact, 1.0, 0.0]
    }
}

impl QuestionScores {
    /// Adds a question.
    pub fn record(&mut self, row: QuestionScore) {
        self.rows.push(row);
    }

    /// How many there are.
    pub fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// What all come to where no answer is given above `threshold`; an infinite one always gives one.
    pub fn report(&self, threshold: f64) -> QuestionReport {
        let mean = |of: Option<bool>| {
            let rows = self.rows.iter().filter(|row| of.is_none_or(|has| has == row.has_answer));
            let mut sum = [0.0; 3];
            rows.for_each(|row| {
                let AnswerScore { exact, f1 } = row.at(threshold);
                sum.iter_mut().zip([exact, f1, 1.0]).for_each(|(sum, more)| *sum += more);
            });
            [sum[0] / sum[2].max(1.0), sum[1] / sum[2].max(1.0)]
        };
        let [exact_match, f1] = mean(None);
        let some_have_none = self.rows.iter().any(|row| !row.has_answer);
        let part = |has| mean(Some(has)).map(|score| some_have_none.then_some(score));
        let ([has_answer_exact_match, has_answer_f1], [no_answer_exact_match, no_answer_f1]) =
            (part(true), part(false));
        QuestionReport {
            exact_match,
            f1,
            has_answer_exact_match,
            has_answer_f1,
            no_answer_exact_match,
            no_answer_f1,
        }
    }

    /// The threshold with the highest mean F1, the lowest of several, and that F1. Between two questions it lies in the
    /// middle, so that those of other files are not judged by the last bit of one of these.
    pub fn best_threshold(&self) -> (f64, f64) {
        let mut order: Vec<&QuestionScore> =
            self.rows.iter().filter(|row| !row.null_score.is_nan()).collect();
        order.sort_by(|a, b| a.null_score.total_cmp(&b.null_score));
        let unanswered = order.iter().filter(|row| !row.has_answer).count() as f64;
        let Some(lowest) = order.first() else { return (0.0, 0.0) };
        // Below all of them nothing is answered.
        let (mut best, mut sum) = ((lowest.null_score - 1.0, unanswered), unanswered);
        let mut next = order.chunk_by(|a, b| a.null_score >= b.null_score).peekable();
        while let Some(equal) = next.next() {
            for row in equal {
                sum += row.answer.f1 - f64::from(u8::from(!row.has_answer));
            }
            // What rounding adds is no better threshold.
            if sum > best.1 + 1e-9
                && let Some(last) = equal.last()
            {
                let above = next.peek().and_then(|rows| rows.first()).map(|row| row.null_score);
                let above = above.filter(|above| above.is_finite());
                let middle =
                    above.map_or(last.null_score + 1.0, |above| f64::midpoint(last.null_score, above));
                best = (if middle > last.null_score { middle } else { last.null_score }, sum);
            }
        }
        (best.0, best.1 / (order.len() as f64))
    }

    /// The intervals of exact match and F1 at `threshold`.
    ///
    /// # Errors
    /// If there are no rows, no resamples, or the confidence is not strictly between 0 and 1.
    pub fn intervals(&self, threshold: f64, bootstrap: &Bootstrap) -> Result<Intervals, MetricError> {
        let scores: Vec<AnswerScore> = self.rows.iter().map(|row| row.at(threshold)).collect();
        let ends = bootstrap.over_rows(scores.len(), |drawn| {
            let mut sums = [0.0; 2];
            for score in drawn.iter().filter_map(|row| scores.get(*row)) {
                sums[0] += score.exact;
                sums[1] += score.f1;
            }
            sums.map(|sum| sum / drawn.len() as f64)
        })?;
        Ok(bootstrap.named(["exact_match", "f1"], ends))
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the expected values are exact in binary")]
mod tests {
    use super::*;

    fn scores(rows: &[(bool, f64, f64)]) -> QuestionScores {
        let mut scores = QuestionScores::default();
        for (has_answer, f1, null_score) in rows.iter().copied() {
            let answer = AnswerScore { exact: f1.floor(), f1 };
            scores.record(QuestionScore { has_answer, answer, null_score });
        }
        scores
    }

    #[test]
    fn the_threshold_is_the_best_of_all() {
        let rows = [
            (true, 1.0, -5.0),
            (false, 0.0, -2.0),
            (true, 0.5, -2.0),
            (true, 0.75, 1.0),
            (false, 0.0, 3.0),
            (true, 0.25, 4.0),
            (false, 0.0, 4.0),
        ];
        let scores = scores(&rows);
        let (threshold, f1) = scores.best_threshold();
        assert_eq!(scores.report(threshold).f1, f1);
        // Answered: the first four. 1 + 0 + 0.5 + 0.75 and two right silences.
        assert_eq!((threshold, f1), (2.0, 4.25 / 7.0));
        for candidate in rows.iter().flat_map(|row| [row.2 - 0.1, row.2, row.2 + 0.1]) {
            assert!(scores.report(candidate).f1 <= f1);
        }
        let report = scores.report(threshold);
        assert_eq!(report.no_answer_f1, Some(2.0 / 3.0));
        assert_eq!(report.has_answer_exact_match, Some(0.25));
    }

    #[test]
    fn edges() {
        assert_eq!(scores(&[]).best_threshold(), (0.0, 0.0));
        assert_eq!(scores(&[]).report(0.0).f1, 0.0);
        // Nothing is worth answering, or everything.
        assert_eq!(scores(&[(false, 0.0, 2.0), (true, 0.5, 3.0)]).best_threshold(), (1.0, 0.5));
        let all = scores(&[(true, 0.5, 2.0), (true, 0.5, 3.0)]);
        assert_eq!(all.best_threshold(), (4.0, 0.5));
        assert_eq!(all.report(f64::INFINITY).has_answer_f1, None);
        assert!(scores(&[]).intervals(0.0, &Bootstrap::default()).is_err());
        let ends = all.intervals(4.0, &Bootstrap::default()).unwrap().scores["f1"];
        assert_eq!((ends.low, ends.high), (0.5, 0.5));
    }
}
