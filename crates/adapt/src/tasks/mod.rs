//! The tasks: one file each (head, labels, loss, decode, metrics), one line in [`TASKS`].

mod text_classification;

pub use text_classification::{ClassificationScore, Classified, ClassifierRows, TextClassifier};

use crate::{AdaptError, nearest};

/// What is known of a task before it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What decides between two checkpoints: higher is better.
    pub metric: &'static str,
}

/// Every task.
pub static TASKS: &[Task] = &[text_classification::TASK];

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
