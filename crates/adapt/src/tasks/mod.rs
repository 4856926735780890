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
    Answer, Cell, Form, FormSpec, LabelScore, LossOptions, Measured, Metrics, Score, Targets,
    serialize_counts,
};
pub use multi_label::{Thresholds, tunable_labels};
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

#[cfg(test)]
mod tests {
    use super::form::testing::{class, form_of, labels, rows};
    use super::*;
    use retune_data::Label;
    use std::path::Path;

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
            let targets = form.targets(&rows(targets), Path::new("file"), LossOptions::default()).unwrap();
            let logits = &logits[..4 * names.len()];
            let mut score = targets.score();
            score.add(&[0, 1, 2, 3], logits);
            let expected = score.measure(None).metrics.get(metric).unwrap();
            let mut sum = [0.0; 4];
            for (row, logits) in logits.chunks_exact(names.len()).enumerate() {
                sum.iter_mut().zip(targets.tally(row, logits)).for_each(|(sum, more)| *sum += more);
            }
            let found = (form.spec().decided)(&sum);
            assert!(
                (found - expected).abs() < 1e-9 * expected.abs() && found != 0.0,
                "{metric}: {found} for {expected}"
            );
        }
    }
}
