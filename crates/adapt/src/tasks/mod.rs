//! The tasks: one file each, one line in [`TASKS`]: how its files are read, which head it has, and its forms, which say
//! what the logits mean: labels, loss, decoding and metrics. The recipe sees a [`Task`] and a [`Form`] and never asks
//! which.

mod alignment;
mod answer_spans;
mod causal_lm;
mod entity_tags;
mod extractive;
mod form;
mod head;
mod mistakes;
mod multi_label;
mod next_token;
mod question_answering;
mod reading;
mod regression;
mod rows;
mod sentence_file;
mod single_label;
mod table_file;
mod taught;
mod text_classification;
mod token_classification;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use retune_data::{LabelMap, ProblemType, ReadOptions};
use retune_model::families::HeadKind;

pub use answer_spans::AnswerSearch;
pub use causal_lm::{LanguageSettings, LossOn};
pub use form::{
    About, Answer, Answered, Candidate, Cell, Decode, EntityAnswer, Form, FormSpec, LabelScore, LossOptions,
    Measured, Metrics, Mistake, Score, Scoring, Targets, TaskRows, serialize_counts,
};
pub use head::{EncoderWithHead, HeadOutput};
pub use multi_label::{Thresholds, tunable_labels};
pub use question_answering::QuestionSettings;
pub use reading::{ColumnNames, Corpus, Reading, RowFile, WantedProblemType};
pub use taught::{Asked, Teacher, answers_in};

use crate::{AdaptError, nearest};

/// Every task.
pub static TASKS: &[&dyn Task] = &[
    &text_classification::TextClassification,
    &question_answering::QuestionAnswering,
    &token_classification::TokenClassification,
    &causal_lm::CausalLm,
];

/// The task where nothing says which.
pub static USUAL: &dyn Task = &text_classification::TextClassification;

/// What a pretrained model is trained to do.
pub trait Task: Debug + Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What it does, in one line.
    fn summary(&self) -> &'static str;

    /// What its head reads, and what transformers and `peft` call it.
    fn head(&self) -> HeadKind;

    /// The flags that say something of its rows or answers, and nothing of those of every other task.
    fn own_flags(&self) -> &'static [&'static str];

    /// What its outputs may mean.
    fn forms(&self) -> &'static [&'static FormSpec];

    /// Whether its labels may be of several kinds, which a problem type names.
    fn has_problem_types(&self) -> bool {
        self.forms().iter().any(|form| form.problem_type.is_some())
    }

    /// Whether the file at `path` looks like its rows and no other task's, and by what.
    fn recognises(&self, path: &Path, options: &ReadOptions) -> Option<String> {
        let _ = (path, options);
        None
    }

    /// Reads all files that are named, as [`read_tables`](retune_data::read_tables) finds them. Errors with the place if one is
    /// none of the task's, or rows lack what is asked for.
    fn read(&self, named: &[PathBuf], reading: &Reading<'_>) -> Result<Corpus, AdaptError>;

    /// What its logits mean. Errors if a setting does not belong to it.
    fn form(&self, settings: FormSettings) -> Result<Box<dyn Form>, AdaptError>;

    /// Whether its outputs are always the same ones, whatever a model calls them.
    fn fixed_outputs(&self) -> bool {
        false
    }

    /// What thresholds decide where labels are of this kind.
    fn thresholds(&self, problem_type: ProblemType) -> ThresholdUse {
        match problem_type {
            ProblemType::MultiLabel if self.has_problem_types() => ThresholdUse::Labels,
            _ => ThresholdUse::Nothing,
        }
    }

    /// The longest row, in tokens, where nobody says otherwise.
    fn usual_max_length(&self) -> usize {
        512
    }

    /// Errors, with what is wrong, if a head of so many outputs cannot be one of this kind.
    fn fits(&self, problem_type: ProblemType, outputs: usize) -> Result<(), String> {
        let _ = (problem_type, outputs);
        Ok(())
    }
}

/// What a form is made of.
#[derive(Debug, Clone)]
pub struct FormSettings {
    /// What a label is, where a task has several kinds.
    pub problem_type: ProblemType,
    /// The labels, in the order of the logits.
    pub labels: LabelMap,
    /// As [`Task::thresholds`] says.
    pub thresholds: Thresholds,
    /// Of questions over texts.
    pub questions: QuestionSettings,
    /// Of text to learn.
    pub language: LanguageSettings,
}

/// What thresholds decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThresholdUse {
    /// Nothing.
    Nothing,
    /// From which probability on a row is given each label; one for each.
    Labels,
    /// By how much no answer must be likelier than the best to be given: one. It is infinite where there is always one.
    NoAnswer,
}

/// The metrics that people are shown, with their words: those of the form that `metrics`, by name, are of.
pub fn shown(metrics: &BTreeMap<String, f64>) -> Vec<(&'static str, &'static str, f64)> {
    let forms = TASKS.iter().flat_map(|task| task.forms());
    let all = |form: &FormSpec| -> Option<Vec<_>> {
        let shown = form.shown.iter().map(|(name, words)| Some((*name, *words, *metrics.get(*name)?)));
        shown.collect()
    };
    forms.copied().find_map(all).unwrap_or_default()
}

/// Errors if one of the flags `given` is for other tasks than `task`, and would say nothing.
pub fn check_flags(task: &dyn Task, given: impl IntoIterator<Item = &'static str>) -> Result<(), AdaptError> {
    for flag in given {
        let of: Vec<&dyn Task> =
            TASKS.iter().copied().filter(|task| task.own_flags().contains(&flag)).collect();
        if !of.is_empty() && !of.iter().any(|of| of.name() == task.name()) {
            let names: Vec<&str> = of.iter().map(|task| task.name()).collect();
            let message =
                format!("it is for {}, and the task is {}: leave it out", names.join(" and "), task.name());
            return Err(AdaptError::Option { option: flag.into(), message });
        }
    }
    Ok(())
}

/// The task `name`. Errors if there is none, with the near miss.
pub fn find(name: &str) -> Result<&'static dyn Task, AdaptError> {
    let names = || TASKS.iter().map(|task| task.name());
    TASKS.iter().copied().find(|task| task.name() == name).ok_or_else(|| AdaptError::Unknown {
        kind: "task",
        name: name.to_string(),
        hint: nearest(name, names()).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default(),
        known: names().collect::<Vec<_>>().join(", "),
    })
}

/// The task that the file at `path` looks like, and by what; none where it may be any.
pub fn recognise(path: &Path, options: &ReadOptions) -> Option<(&'static dyn Task, String)> {
    TASKS.iter().find_map(|task| Some((*task, task.recognises(path, options)?)))
}

/// The task that has this kind of head.
pub fn with_head(kind: HeadKind) -> Option<&'static dyn Task> {
    TASKS.iter().copied().find(|task| task.head() == kind)
}

#[cfg(test)]
mod tests {
    use super::form::testing::{class, form_of, labels, rows, targets_of};
    use super::*;
    use retune_data::Label;

    #[test]
    fn flags_of_other_tasks_are_refused_with_their_names() {
        let entities = find("token-classification").unwrap();
        for (flag, words) in [
            (
                "doc-stride",
                "--doc-stride: it is for question-answering, and the task is token-classification",
            ),
            ("pair-column", "--pair-column: it is for text-classification and question-answering, and"),
            ("label-separator", "--label-separator: it is for text-classification, and"),
            ("chat-template", "--chat-template: it is for causal-lm, and"),
        ] {
            let error = check_flags(entities, [flag]).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
        assert!(check_flags(entities, ["text-column", "tag-scheme", "format"]).is_ok());
    }

    #[test]
    fn tallies_add_up_to_the_metric_that_decides() {
        let logits = [0.5, -2.0, 1.5, 0.1, 0.2, -0.3, 2.0, -1.0, -0.5, -0.1, 1.0, 0.7];
        let classes = ["a", "b", "a", "b"].map(class);
        let sets = [&["a", "c"][..], &[], &["b"], &["a", "b", "c"]].map(labels);
        // Far from 0, where squares would lose their differences.
        let numbers = [1.5, -0.25, 2.0, 0.5].map(|x| Label::Number(x + 1e7));
        for (problem_type, names, targets, metric) in [
            (ProblemType::SingleLabel, &["a", "b", "c"][..], &classes, "accuracy"),
            // Too few rows to tune thresholds on: they are at a half, as the tallies have them.
            (ProblemType::MultiLabel, &["a", "b", "c"], &sets, "f1_micro"),
            (ProblemType::Regression, &["LABEL_0"], &numbers, "r2"),
        ] {
            let form = form_of(problem_type, names);
            let targets = targets_of(&*form, &rows(targets), LossOptions::default()).unwrap();
            let logits = &logits[..4 * names.len()];
            let mut score = targets.score(Scoring { tallies: true, mistakes: 0 });
            score.add(&[0, 1, 2, 3], logits).unwrap();
            let measured = score.measure(None);
            let expected = measured.metrics.get(metric).unwrap();
            let mut sum = [0.0; 4];
            for tally in &measured.tallies {
                sum.iter_mut().zip(tally).for_each(|(sum, more)| *sum += more);
            }
            let found = (form.spec().decided)(&sum);
            assert!(
                (found - expected).abs() < 1e-9 * expected.abs() && found != 0.0,
                "{metric}: {found} for {expected}"
            );
        }
    }
}
