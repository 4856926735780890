//! The one form of language models: which token comes next, for each that is to be learnt.

use std::path::Path;

use retune_data::{DataError, Example, Examples, LabelMap, Tokens};
use retune_metrics::{Bootstrap, SurpriseCounts, Tally};
use retune_model::Batch;
use retune_model::tokenizer::Tokenizer;
use retune_tensor::{Result as TensorResult, Tensor, Var};

use super::causal_lm::LanguageSettings;
use super::form::{Decode, Form, FormSpec, LossOptions, Measured, Metrics, Score, Scoring, Targets};
use super::head::HeadOutput;
use super::taught::Teacher;
use crate::AdaptError;

pub(super) static SPEC: FormSpec = FormSpec {
    problem_type: None,
    summary: "the next token of each that is to be learnt",
    decides: "log_likelihood",
    // The surprise, and tokens.
    decided: |[surprise, tokens, ..]| -surprise / tokens.max(1.0),
    shown: &[("loss", "loss"), ("perplexity", "perplexity")],
};

#[derive(Debug)]
pub(super) struct NextToken {
    labels: LabelMap,
    settings: LanguageSettings,
}

impl NextToken {
    pub fn new(labels: LabelMap, settings: LanguageSettings) -> Self {
        NextToken { labels, settings }
    }
}

impl Form for NextToken {
    fn spec(&self) -> &'static FormSpec {
        &SPEC
    }

    fn labels(&self) -> &LabelMap {
        &self.labels
    }

    /// The type of a token says whether it is to be learnt.
    fn tokens(
        &self,
        examples: &Examples,
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<Tokens, AdaptError> {
        let teacher = Teacher::new(tokenizer, self.settings, max_length)?;
        let mut tokens = Tokens::default();
        for example in examples.iter() {
            let example = example?;
            let parts = teacher.teach(&example)?;
            // Each part but the first begins with a token of the part before.
            tokens.add_example(
                parts.iter().map(|part| part.ids.len() + part.cut).sum::<usize>() + 1 - parts.len(),
            );
            for (number, row) in (0..).zip(parts) {
                if row.ids.is_empty() {
                    return Err(error(&example, "it gives no token, and no special token is added"));
                }
                tokens.add_part((&row.ids, row.learnt), row.cut, &example, number)?;
            }
        }
        Ok(tokens)
    }

    fn targets(
        &self,
        _: &Examples,
        tokens: &Tokens,
        path: &Path,
        options: LossOptions,
    ) -> Result<Box<dyn Targets>, AdaptError> {
        options.refuse_balanced("it weighs classes, and what is learnt are tokens; leave it out")?;
        options.refuse_smoothing(
            "it spreads a target over classes, and there are as many as tokens; leave it out",
        )?;
        let count = |row| {
            let batch = tokens.batch(&[row])?;
            Ok::<_, AdaptError>(u32::try_from(told(&batch).1.len()).unwrap_or(u32::MAX))
        };
        let counts = (0..tokens.len()).map(count).collect::<Result<Vec<_>, _>>()?;
        if !counts.is_empty() && counts.iter().all(|count| *count == 0) {
            let message = "expected tokens to learn, got none in any row: there are no answers, or they begin behind --max-length";
            return Err(DataError::new(message).in_file(path).into());
        }
        let empty = counts.iter().enumerate().filter(|(_, count)| **count == 0);
        let empty = empty.take(5).map(|(row, _)| tokens.line(row)).collect();
        Ok(Box::new(Learnt { counts, empty }))
    }

    /// Errors: answers are no logits.
    fn decode<'a>(&'a self, _: &'a Examples, _: &'a Tokens) -> Result<Box<dyn Decode + 'a>, AdaptError> {
        let message = "a language model answers with text and not with labels: `generate` writes its answers, and `evaluate` \
                       says how well it tells a text";
        Err(AdaptError::Option { option: "task".into(), message: message.into() })
    }
}

/// An error of an example's line.
pub(super) fn error(example: &Example, message: impl Into<String>) -> AdaptError {
    DataError::new(message).at_line(example.line).into()
}

/// Which tokens of a batch tell one that is to be learnt, and what that is: each token tells the next of its row.
pub(super) fn told(batch: &Batch) -> (Vec<usize>, Vec<u32>) {
    let ends = batch.layout.cu_seqlens().windows(2);
    let all = ends.flat_map(|ends| ends[0] + 1..ends[1]);
    all.filter(|token| batch.token_type_ids[*token] == 1)
        .map(|token| (token - 1, batch.input_ids[token]))
        .unzip()
}

/// How many tokens of each row are to be learnt.
#[derive(Debug)]
struct Learnt {
    counts: Vec<u32>,
    /// The lines of the first rows without any.
    empty: Vec<u64>,
}

impl Targets for Learnt {
    fn denominator(&self, rows: &[usize]) -> f32 {
        let tokens: u64 = rows.iter().map(|row| u64::from(self.counts[*row])).sum();
        // Rows that teach nothing have no loss, whatever it is divided by.
        tokens.max(1) as f32
    }

    fn loss(&self, output: &HeadOutput<'_>, _: &[usize], denominator: f32) -> TensorResult<Var> {
        let (tokens, targets) = told(output.batch());
        output.vocabulary_loss(&tokens, &targets, denominator)
    }

    /// The surprise of each row.
    fn scored(&self, output: &HeadOutput<'_>) -> TensorResult<Tensor> {
        let (tokens, targets) = told(output.batch());
        let losses = output.vocabulary_losses(&tokens, &targets)?;
        let layout = &output.batch().layout;
        let mut sums = vec![0.0; layout.rows()];
        for (token, loss) in tokens.iter().zip(losses.f32()) {
            let row = layout.cu_seqlens().partition_point(|start| start <= token) - 1;
            sums[row] += f64::from(*loss);
        }
        let sums: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
        Tensor::from_slice(losses.device(), &[sums.len()], &sums)
    }

    fn score(&self, scoring: Scoring) -> Box<dyn Score + '_> {
        Box::new(Surprised { targets: self, scoring, counts: SurpriseCounts::default(), tallies: Vec::new() })
    }

    fn said(&self) -> Vec<String> {
        let empty = self.counts.iter().filter(|count| **count == 0).count();
        let tokens: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let mut said = vec![format!("{tokens} tokens are learnt")];
        if empty > 0 {
            let (rows, have) = if empty == 1 { ("row", "has") } else { ("rows", "have") };
            let named: Vec<String> = self.empty.iter().map(u64::to_string).collect();
            let (lines, more) = (named.join(", "), if empty > named.len() { ", ..." } else { "" });
            let line = if empty == 1 { "line" } else { "lines" };
            said.push(format!("{empty} {rows} {have} no token to learn ({line} {lines}{more}): no answer, or it begins behind --max-length"));
        }
        said
    }
}

struct Surprised<'a> {
    targets: &'a Learnt,
    scoring: Scoring,
    counts: SurpriseCounts,
    tallies: Vec<Tally>,
}

impl Score for Surprised<'_> {
    fn add(&mut self, rows: &[usize], surprise: &[f32]) -> Result<(), AdaptError> {
        for (row, surprise) in rows.iter().zip(surprise) {
            let (surprise, tokens) = (f64::from(*surprise), self.targets.counts[*row]);
            self.counts.record(surprise, tokens);
            if self.scoring.tallies {
                self.tallies.push([surprise, f64::from(tokens), 1.0, 0.0]);
            }
        }
        Ok(())
    }

    fn measure(self: Box<Self>, bootstrap: Option<Bootstrap>) -> Measured {
        let report = self.counts.report();
        let intervals = bootstrap.map(|bootstrap| self.counts.intervals(&bootstrap));
        Measured {
            loss: report.loss,
            metrics: Metrics::of(&report, self.counts.rows(), intervals),
            labels: Vec::new(),
            matrix: None,
            thresholds: None,
            tallies: self.tallies,
            mistakes: Vec::new(),
        }
    }
}
