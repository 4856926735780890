//! The tasks: one file each for the head, one line in [`TASKS`]; and their forms, one file each for labels, loss, decoding
//! and metrics. The recipe sees a [`Form`] and never asks which.

mod form;
mod multi_label;
mod regression;
mod single_label;
mod text_classification;

use std::collections::BTreeMap;

use retune_data::{LabelMap, ProblemType};

pub use form::{
    Answer, Form, FormSpec, LabelScore, LossOptions, Measured, Metrics, Score, Targets, serialize_counts,
};
pub use multi_label::Thresholds;
pub use text_classification::{ClassifierRows, TextClassifier};

use crate::{AdaptError, nearest};

/// What is known of a task before it is built.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What its outputs may mean.
    pub forms: &'static [&'static FormSpec],
}

/// Every task.
pub static TASKS: &[Task] = &[text_classification::TASK];

/// The form of a problem type. `thresholds` are of several labels a row.
pub fn form(problem_type: ProblemType, labels: LabelMap, thresholds: Thresholds) -> Box<dyn Form> {
    match problem_type {
        ProblemType::SingleLabel => Box::new(single_label::SingleLabel::new(labels)),
        ProblemType::MultiLabel => Box::new(multi_label::MultiLabel::new(labels, thresholds)),
        ProblemType::Regression => Box::new(regression::Regression::new()),
    }
}

/// The metrics that people are shown, with their words: those of the form that `metrics`, by name, are of.
pub fn shown(metrics: &BTreeMap<String, f64>) -> Vec<(&'static str, &'static str, f64)> {
    let forms = TASKS.iter().flat_map(|task| task.forms);
    let all = |form: &FormSpec| -> Option<Vec<_>> {
        let shown = form.shown.iter().map(|(name, words)| Some((*name, *words, *metrics.get(*name)?)));
        shown.collect()
    };
    forms.copied().find_map(all).unwrap_or_default()
}

/// The task `name`. Errors if there is none, with the near miss.
pub fn find(name: &str) -> Result<Task, AdaptError> {
    let names = || TASKS.iter().map(|task| task.name);
    TASKS.iter().find(|task| task.name == name).copied().ok_or_else(|| AdaptError::Unknown {
        kind: "task",
        name: name.to_string(),
        hint: nearest(name, names()).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default(),
        known: names().collect::<Vec<_>>().join(", "),
    })
}
