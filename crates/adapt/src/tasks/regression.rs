//! A number for each row: one output and the squared error.

use std::path::Path;

use retune_data::{Example, Examples, Label, LabelMap, ProblemType, Tokens};
use retune_metrics::{Bootstrap, RegressionPairs, Tally};
use retune_tensor::{Result as TensorResult, Var, ops};

use super::form::{Answer, Decode, Form, FormSpec, LossOptions, Measured, Metrics, Score, Scoring, Targets};
use super::head::HeadOutput;
use super::rows::{EachRow, JudgeRow, RowByRow};
use crate::AdaptError;

pub(super) static SPEC: FormSpec = FormSpec {
    problem_type: Some(ProblemType::Regression),
    summary: "a number for each row",
    // It falls with the squared error. A correlation would keep weights of an early step, whose numbers are in the right
    // order and of the wrong size.
    decides: "r2",
    // Squared errors, numbers from their mean, the squares of these, rows. Numbers that do not vary have no spread to
    // explain: R2 is then as in the report.
    decided: |[errors, sum, squares, rows]| match squares - sum * sum / rows.max(1.0) {
        // What rounding leaves of the spread of equal numbers is no spread.
        spread if spread > 1e-12 * squares => 1.0 - errors / spread,
        _ if *errors > 0.0 => 0.0,
        _ => 1.0,
    },
    shown: &[
        ("pearson", "Pearson"),
        ("spearman", "Spearman"),
        ("mse", "mean squared error"),
        ("mae", "mean absolute error"),
        ("r2", "R2"),
    ],
};

#[derive(Debug)]
pub(super) struct Regression {
    labels: LabelMap,
}

impl Regression {
    pub fn new() -> Self {
        Regression { labels: LabelMap::of_number() }
    }

    /// What the logits of one row say: `[labels]`.
    fn answer(&self, logits: &[f32]) -> Answer {
        Answer::Number { score: logits.first().copied().unwrap_or(f32::NAN) }
    }
}

impl Form for Regression {
    fn spec(&self) -> &'static FormSpec {
        &SPEC
    }

    fn labels(&self) -> &LabelMap {
        &self.labels
    }

    fn targets(
        &self,
        examples: &Examples,
        _: &Tokens,
        _: &Path,
        options: LossOptions,
    ) -> Result<Box<dyn Targets>, AdaptError> {
        options.refuse_balanced("it weighs classes, and the labels are numbers; leave it out")?;
        options
            .refuse_smoothing("it spreads a target over classes, and the labels are numbers; leave it out")?;
        // Reading has made numbers of all of them; what is none would show in the loss.
        let number = |example: Example| match example.label {
            Some(Label::Number(number)) => number,
            _ => f64::NAN,
        };
        let numbers = examples.iter().map(|example| example.map(number)).collect::<Result<Vec<f64>, _>>()?;
        let mean = numbers.iter().sum::<f64>() / (numbers.len() as f64).max(1.0);
        Ok(Box::new(Numbers { numbers, mean }))
    }

    fn decode<'a>(&'a self, _: &'a Examples, _: &'a Tokens) -> Result<Box<dyn Decode + 'a>, AdaptError> {
        Ok(Box::new(EachRow { outputs: self.labels.len(), answer: |logits: &[f32]| self.answer(logits) }))
    }
}

/// The number of each row, as it stands in the file: so losses are those of other trainers.
#[derive(Debug)]
struct Numbers {
    numbers: Vec<f64>,
    /// What tallies count from: sums of squares of large numbers would lose their spread.
    mean: f64,
}

impl JudgeRow for Numbers {
    fn tally(&self, row: usize, logits: &[f32]) -> Tally {
        let (number, predicted) = (self.numbers[row], logits.first().map_or(f64::NAN, |x| f64::from(*x)));
        let apart = number - self.mean;
        [(number - predicted).powi(2), apart, apart * apart, 1.0]
    }
}

impl Targets for Numbers {
    fn denominator(&self, rows: &[usize]) -> f32 {
        rows.len() as f32
    }

    fn loss(&self, output: &HeadOutput<'_>, rows: &[usize], denominator: f32) -> TensorResult<Var> {
        let (tape, logits) = (output.tape(), &output.logits()?);
        let targets: Vec<f32> = rows.iter().map(|row| self.numbers[*row] as f32).collect();
        ops::squared_error(tape, logits, &targets, denominator)
    }

    fn score(&self, scoring: Scoring) -> Box<dyn Score + '_> {
        let counts = NumberScores { targets: self, pairs: RegressionPairs::default() };
        Box::new(RowByRow::new(counts, scoring, 1, self))
    }
}

struct NumberScores<'a> {
    targets: &'a Numbers,
    pairs: RegressionPairs,
}

impl Score for NumberScores<'_> {
    fn add(&mut self, rows: &[usize], logits: &[f32]) -> Result<(), AdaptError> {
        for (row, predicted) in rows.iter().zip(logits) {
            self.pairs.record(self.targets.numbers[*row], f64::from(*predicted));
        }
        Ok(())
    }

    fn measure(self: Box<Self>, bootstrap: Option<Bootstrap>) -> Measured {
        let (report, rows) = (self.pairs.report(), self.pairs.rows());
        let intervals = bootstrap.map(|bootstrap| self.pairs.intervals(&bootstrap));
        Measured {
            loss: report.mse,
            metrics: Metrics::of(&report, rows, intervals),
            labels: Vec::new(),
            matrix: None,
            thresholds: None,
            tallies: Vec::new(),
            mistakes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::form::testing::{rows, targets_of};

    #[test]
    fn the_loss_is_the_mean_squared_error() {
        let examples = rows(&[Label::Number(2.5), Label::Number(-1.0)]);
        let targets = targets_of(&Regression::new(), &examples, LossOptions::default()).unwrap();
        let mut score = targets.score(Scoring::default());
        score.add(&[1, 0], &[1.0, 2.0]).unwrap();
        let measured = score.measure(Some(Bootstrap::default()));
        assert!((measured.loss - (4.0 + 0.25) / 2.0).abs() < 1e-12);
        assert!((measured.metrics.get("mae").unwrap() - 1.25).abs() < 1e-12);
        assert!(measured.metrics.intervals.is_some());
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        for (balanced, label_smoothing, flag) in
            [(true, 0.0, "--class-weights: "), (false, 0.2, "--label-smoothing: ")]
        {
            let options = LossOptions { balanced, label_smoothing };
            let error = targets_of(&Regression::new(), &Vec::new().into(), options).unwrap_err();
            assert!(error.to_string().starts_with(flag), "{error}");
        }
    }
}
