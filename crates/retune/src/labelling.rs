//! What the settings say of labels: what one is, and when it is given.

use retune_adapt::tasks::{Task, Thresholds};
use retune_data::ProblemType;
use retune_tensor::DType;

use crate::{Error, ModelSettings, Result};

/// What a user says of thresholds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum AskedThresholds {
    /// Those that an evaluation found.
    Tuned,
    /// The same for every label.
    Same(f32),
}

impl ModelSettings {
    /// What a label is, where that was said.
    pub(crate) fn asked_problem_type(&self) -> Result<Option<ProblemType>> {
        let parsed = self.problem_type.as_deref().map(str::parse).transpose();
        parsed.map_err(|error: retune_data::DataError| Error::Setting {
            flag: "problem-type",
            message: error.to_string(),
        })
    }

    /// What flows through the model. Errors if that is no type.
    pub(crate) fn asked_precision(&self) -> Result<DType> {
        let parsed = self.precision.as_deref().map_or(Ok(DType::F32), str::parse);
        parsed.map_err(|message| Error::Setting { flag: "precision", message })
    }

    /// From which probability on a label is given, where that was said. Errors if it is no probability, or rows of
    /// `task` and `problem_type` have no several labels.
    pub(crate) fn asked_thresholds(
        &self,
        task: &dyn Task,
        problem_type: ProblemType,
    ) -> Result<Option<AskedThresholds>> {
        let Some(asked) = self.thresholds.as_deref() else { return Ok(None) };
        if !task.has_problem_types() {
            return Err(wrong_thresholds(format!(
                "they say which of several labels a row gets, and the task is {}; leave them out",
                task.name()
            )));
        }
        if problem_type != ProblemType::MultiLabel {
            return Err(wrong_thresholds(format!(
                "they say which of several labels a row gets, and the problem type is {problem_type}; leave them out"
            )));
        }
        match asked.parse() {
            _ if asked == "tuned" => Ok(Some(AskedThresholds::Tuned)),
            Ok(share) if share > 0.0 && share < 1.0 => Ok(Some(AskedThresholds::Same(share))),
            _ => Err(wrong_thresholds(format!("expected tuned, or a number between 0 and 1, got `{asked}`"))),
        }
    }
}

/// The thresholds of a finished model: those asked for, else its own, else a half. `tuned` are its own.
pub(crate) fn thresholds(
    asked: Option<AskedThresholds>,
    tuned: Option<&[f32]>,
    labels: usize,
) -> Result<Thresholds> {
    match (asked, tuned) {
        (Some(AskedThresholds::Same(share)), _) => Ok(Thresholds::Set(vec![share; labels])),
        (Some(AskedThresholds::Tuned), None) => Err(wrong_thresholds(
            "none were tuned when the model was trained; give a number such as 0.5".into(),
        )),
        (_, Some(tuned)) => Ok(Thresholds::Set(tuned.to_vec())),
        (None, None) => Ok(Thresholds::Set(vec![0.5; labels])),
    }
}

fn wrong_thresholds(message: String) -> Error {
    Error::Setting { flag: "thresholds", message }
}

/// The thresholds of a model that is to be trained: those asked for, else to be tuned where there are rows for it.
pub(crate) fn thresholds_to_train(
    asked: Option<AskedThresholds>,
    labels: usize,
    evaluates: bool,
) -> Result<Thresholds> {
    match asked {
        Some(AskedThresholds::Same(share)) => Ok(Thresholds::Set(vec![share; labels])),
        Some(AskedThresholds::Tuned) if !evaluates => Err(wrong_thresholds(
            "there are no evaluation rows to tune them on; give --eval FILE or --eval-split 0.1".into(),
        )),
        _ => Ok(Thresholds::Tune),
    }
}
