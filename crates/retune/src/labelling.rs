//! What the settings say of labels: what one is, and when it is given.

use retune_adapt::tasks::{AnswerSearch, LanguageSettings, QuestionSettings, Task, ThresholdUse, Thresholds};
use retune_data::{Example, Examples, Label, ProblemType};
use retune_tensor::DType;

use crate::{Error, ModelSettings, Result};

/// What a user says of thresholds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum AskedThresholds {
    /// Those that an evaluation found.
    Tuned,
    /// The same for every label, or the one of no answer.
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

    /// The thresholds, where they were said. Errors if they are none of what `task` and `problem_type` have thresholds
    /// for.
    pub(crate) fn asked_thresholds(
        &self,
        task: &dyn Task,
        problem_type: ProblemType,
    ) -> Result<Option<AskedThresholds>> {
        let Some(asked) = self.thresholds.as_deref() else { return Ok(None) };
        let number = asked.parse::<f32>();
        match task.thresholds(problem_type) {
            ThresholdUse::Nothing if task.has_problem_types() => Err(wrong_thresholds(format!(
                "they say which of several labels a row gets, and the problem type is {problem_type}; leave them out"
            ))),
            ThresholdUse::Nothing => Err(wrong_thresholds(format!(
                "they say which of several labels a row gets, and the task is {}; leave them out",
                task.name()
            ))),
            _ if asked == "tuned" => Ok(Some(AskedThresholds::Tuned)),
            ThresholdUse::Labels => match number {
                Ok(share) if share > 0.0 && share < 1.0 => Ok(Some(AskedThresholds::Same(share))),
                _ => Err(wrong_thresholds(format!(
                    "expected tuned, or a number between 0 and 1, got `{asked}`"
                ))),
            },
            ThresholdUse::NoAnswer => match number {
                Ok(number) if number.is_finite() => Ok(Some(AskedThresholds::Same(number))),
                _ => Err(wrong_thresholds(format!(
                    "expected tuned, or a number such as 0: by how much no answer must be likelier than the best, got \
                     `{asked}`"
                ))),
            },
        }
    }

    /// What is learnt of text: as asked, else as `trained`. Errors if a word is none.
    pub(crate) fn language(&self, trained: Option<LanguageSettings>) -> Result<LanguageSettings> {
        let known = trained.unwrap_or_default();
        let loss_on = self.loss_on.as_deref().map(str::parse).transpose();
        let chat_template = match self.chat_template.as_deref() {
            None => known.chat_template,
            Some("own") => true,
            Some("none") => false,
            Some(other) => {
                let message = format!("expected own or none, got `{other}`");
                return Err(Error::Setting { flag: "chat-template", message });
            }
        };
        Ok(LanguageSettings {
            loss_on: loss_on
                .map_err(|message| Error::Setting { flag: "loss-on", message })?
                .unwrap_or(known.loss_on),
            chat_template,
        })
    }

    /// How texts are read in windows and answers looked for: as asked, else as `trained`. Errors if a number is none.
    pub(crate) fn questions(&self, trained: Option<QuestionSettings>) -> Result<QuestionSettings> {
        let known = trained.unwrap_or_default();
        let at_least_one = |given: Option<usize>, known: usize, flag: &'static str| match given {
            Some(0) => Err(Error::Setting { flag, message: "expected at least 1, got 0".into() }),
            given => Ok(given.unwrap_or(known)),
        };
        let n_best = at_least_one(self.n_best, known.search.n_best, "n-best")?;
        let length = known.search.max_answer_length;
        let max_answer_length = at_least_one(self.max_answer_length, length, "max-answer-length")?;
        Ok(QuestionSettings {
            doc_stride: self.doc_stride.unwrap_or(known.doc_stride),
            search: AnswerSearch { n_best, max_answer_length },
        })
    }
}

/// How many thresholds there are, and what each is where nobody says.
pub(crate) fn usual_thresholds(used: ThresholdUse, labels: usize) -> Vec<f32> {
    match used {
        ThresholdUse::Nothing | ThresholdUse::Labels => vec![0.5; labels],
        // There is always an answer.
        ThresholdUse::NoAnswer => vec![f32::INFINITY],
    }
}

/// The thresholds of a finished model: those asked for, else its own, else the usual ones. `tuned` are its own.
pub(crate) fn thresholds(
    asked: Option<AskedThresholds>,
    tuned: Option<&[f32]>,
    usual: Vec<f32>,
) -> Result<Thresholds> {
    match (asked, tuned) {
        (Some(AskedThresholds::Same(share)), _) => Ok(Thresholds::Set(vec![share; usual.len()])),
        (Some(AskedThresholds::Tuned), None) => Err(wrong_thresholds(
            "none were tuned when the model was trained; give a number such as 0.5".into(),
        )),
        (_, Some(tuned)) => Ok(Thresholds::Set(tuned.to_vec())),
        (None, None) => Ok(Thresholds::Set(usual)),
    }
}

/// Whether some of these questions have no answer.
pub(crate) fn has_unanswerable(examples: &Examples) -> Result<bool> {
    let answers = |example: &Example| match &example.label {
        Some(Label::Answers(answers)) => Some(answers.len()),
        _ => None,
    };
    // Rows of another task are not gone over.
    if examples.get(0)?.as_ref().and_then(answers).is_none() {
        return Ok(false);
    }
    for example in examples.iter() {
        if answers(&example?) == Some(0) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn wrong_thresholds(message: String) -> Error {
    Error::Setting { flag: "thresholds", message }
}

/// The thresholds of a model that is to be trained: those asked for, else to be tuned. `untunable` says what keeps them from
/// that.
pub(crate) fn thresholds_to_train(
    asked: Option<AskedThresholds>,
    thresholds: usize,
    untunable: Option<&str>,
) -> Result<Thresholds> {
    match (asked, untunable) {
        (Some(AskedThresholds::Same(share)), _) => Ok(Thresholds::Set(vec![share; thresholds])),
        (Some(AskedThresholds::Tuned), Some(why)) => {
            Err(wrong_thresholds(format!("{why}; give other rows with --eval FILE or --eval-split 0.1")))
        }
        _ => Ok(Thresholds::Tune),
    }
}
