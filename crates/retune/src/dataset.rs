//! Step two: from files to rows with labels and tokens, and what is to be said about them.

use std::path::Path;

use retune_adapt::AdaptError;
use retune_adapt::tasks::{self, ColumnNames, LossOptions, Task, TaskRows, ThresholdUse, WantedProblemType};
use retune_data::{
    DataProfile, Keys, LabelMap, ProblemType, Strata, named_files, stratified_sample, stratified_split,
};

use crate::artefact::absolute;
use crate::labelling::has_unanswerable;
use crate::{Error, Result, TextModel, TrainSettings, inputs};

/// Below this many rows nothing is held back unless asked for: a tenth of them would say little.
const ENOUGH_TO_SPLIT: usize = 50;

/// The rows of a training, before tokens.
pub(crate) struct Examples {
    /// What is learnt of them.
    pub task: &'static dyn Task,
    pub train: retune_data::Examples,
    pub eval: retune_data::Examples,
    /// What makes their rows alike.
    pub train_keys: Keys,
    pub eval_keys: Keys,
    /// What the evaluation rows are, in words.
    pub eval_is: String,
    pub labels: LabelMap,
    /// What a label is, where the task has several kinds.
    pub problem_type: ProblemType,
    pub columns: ColumnNames,
    /// Whether some questions have no answer, of the training and of the evaluation.
    unanswerable: [bool; 2],
    /// Sentences for the user: what was found, what was guessed, what looks odd.
    pub said: Vec<String>,
}

impl Examples {
    /// The threshold of no answer where nobody names one; none where the evaluation is to find it.
    pub fn no_answer(&self) -> Option<f32> {
        match self.unanswerable {
            // Nothing says when to give none, so there is always an answer.
            [false, _] => Some(f32::INFINITY),
            // Where every question has an answer the best threshold is the highest.
            [true, false] => Some(0.0),
            [true, true] => None,
        }
    }

    /// What keeps thresholds from being tuned on the evaluation rows, in words.
    pub fn untunable(&self) -> Option<&'static str> {
        let of_questions = self.task.thresholds(self.problem_type) == ThresholdUse::NoAnswer;
        match (self.eval.is_empty(), self.unanswerable) {
            (true, _) => Some("there are no evaluation rows to tune them on"),
            (false, [_, false]) if of_questions => {
                Some("every question of the evaluation rows has an answer")
            }
            _ => None,
        }
    }
}

/// The task: as asked, else by what the training file looks like. The sentence says by what.
pub(crate) fn task(settings: &TrainSettings) -> Result<(&'static dyn Task, Option<String>)> {
    if let Some(name) = &settings.task {
        return Ok((tasks::find(name)?, None));
    }
    // Whatever is wrong with what is named, reading it will say.
    let files = named_files(settings.train.as_deref().unwrap_or_default()).unwrap_or_default();
    let Some(path) = files.first().filter(|path| path.is_file()) else {
        return Ok((tasks::USUAL, None));
    };
    Ok(match tasks::recognise(path, &settings.file.read_options()?) {
        Some((task, why)) => (task, Some(format!("task {}: {why}; --task decides otherwise", task.name()))),
        None => (tasks::USUAL, None),
    })
}

/// Reads what the settings name, numbers the labels (as `known`, the model's own, where the data has no others) and
/// holds rows back for evaluation. `head` is what the model's own head says, if it says anything.
pub(crate) fn load(
    task: &'static dyn Task,
    settings: &TrainSettings,
    known: Option<Vec<String>>,
    head: Option<ProblemType>,
) -> Result<Examples> {
    let Some(named) = settings.train.as_deref().filter(|named| !named.is_empty()) else {
        let message =
            "which rows? give a file with a text and a label column: CSV, TSV, JSONL, JSON or Parquet";
        return Err(Error::Setting { flag: "train", message: message.into() });
    };
    inputs::check_lasting(named)?;
    settings.eval.as_deref().map(inputs::check_lasting).transpose()?;
    let path = &inputs::together(named);
    let asked = settings.model.asked_problem_type()?;
    settings.model.check_task(task)?;
    let wanted = WantedProblemType::Found { asked, head };
    let file = task.read(named, &settings.file.reading(task, None, wanted, true)?)?;
    let mut said = file.said;
    let problem_type = file.problem_type.unwrap_or_default();
    let found = file.file.labels(&file.examples)?;
    said.extend(found.notices().iter().map(ToString::to_string));
    let labels = match known {
        Some(known)
            if file.problem_type != Some(ProblemType::Regression)
                && found.names().iter().all(|name| known.contains(name)) =>
        {
            said.push(format!("labels: the {} that the model was trained on, in its order", known.len()));
            LabelMap::new(known)?
        }
        _ => found,
    };
    let columns = file.columns;
    let mut train = file.examples;
    if let Some(limit) = settings.limit {
        let strata = Strata::of(&train, &labels, path)?;
        let chosen = stratified_sample(&strata.of_row, strata.count, limit, seed(settings))?;
        said.push(format!("--limit: {} of {} rows, {}", chosen.len(), train.len(), strata.by));
        train = train.pick(&chosen);
    }
    let mut train_keys = Keys::of(&train)?;
    let (eval, eval_keys, eval_is) = match (&settings.eval, settings.eval_split) {
        (Some(_), Some(share)) if share > 0.0 => {
            let message = "it holds training rows back, and --eval names rows already; give one of them";
            return Err(Error::Setting { flag: "eval-split", message: message.into() });
        }
        (Some(named), _) => {
            // The same columns as training's, so that one file's odd names are not guessed differently.
            let mut same = settings.file.clone();
            same.text_column = same.text_column.or(Some(columns.text.clone()));
            same.label_column = same.label_column.or(columns.label.clone());
            same.pair_column = same.pair_column.or(columns.pair.clone());
            same.label_separator = same.label_separator.or(columns.label_separator.clone());
            let known = WantedProblemType::Known(problem_type);
            let eval = task.read(named, &same.reading(task, Some(&columns), known, true)?)?.examples;
            let eval_keys = Keys::of(&eval)?;
            (eval, eval_keys, absolute(&inputs::together(named)).display().to_string())
        }
        (None, share) => {
            let usual = if train.len() < ENOUGH_TO_SPLIT { 0.0 } else { 0.1 };
            let strata = Strata::of(&train, &labels, path)?;
            let (kept, held) = match split(&train_keys, &strata, share.unwrap_or(usual), seed(settings)) {
                // Nobody asked for it, so it need not be.
                Err(_) if share.is_none() => {
                    said.push("evaluation: no row can be held back, as rows with the same text must stay together and \
                               every label must stay in training".into());
                    (None, Vec::new())
                }
                split => split?,
            };
            if held.is_empty() {
                said.push("no evaluation rows: the last weights are the result, and nothing is known of their quality; \
                           give --eval FILE or --eval-split 0.1".into());
            } else {
                said.push(format!(
                    "evaluation: {} of {} rows held back, {}; --eval FILE or --eval-split changes that",
                    held.len(),
                    train.len(),
                    strata.by
                ));
            }
            let (eval, eval_keys) = (train.pick(&held), train_keys.pick(&held));
            if let Some(kept) = kept {
                (train, train_keys) = (train.pick(&kept), train_keys.pick(&kept));
            }
            let eval_is = format!("{} rows held back from {}", held.len(), absolute(path).display());
            (eval, eval_keys, eval_is)
        }
    };
    let unanswerable = [has_unanswerable(&train)?, has_unanswerable(&eval)?];
    if unanswerable == [false, true] {
        said.push("every question of the training has an answer, so there is always one, also where the evaluation has \
                   none; --thresholds decides otherwise".into());
    }
    Ok(Examples {
        task,
        train,
        eval,
        train_keys,
        eval_keys,
        eval_is,
        labels,
        problem_type,
        columns,
        unanswerable,
        said,
    })
}

/// The rows that stay in training, all of them where that is not said, and those that are held back.
fn split(keys: &Keys, strata: &Strata, share: f64, seed: u64) -> Result<(Option<Vec<u32>>, Vec<u32>)> {
    if share == 0.0 {
        return Ok((None, Vec::new()));
    }
    let split = stratified_split(&strata.of_row, &keys.groups(), strata.count, share, seed)?;
    Ok((Some(split.train), split.eval))
}

pub(crate) fn seed(settings: &TrainSettings) -> u64 {
    settings.seed.unwrap_or(1)
}

/// Rows with tokens and targets. Errors if a label is not one of the model's, or a loss option has no meaning.
pub(crate) fn rows(
    examples: &retune_data::Examples,
    path: &Path,
    model: &TextModel,
    max_length: usize,
    options: LossOptions,
) -> Result<TaskRows> {
    let tokens = model.tokens(examples, max_length).map_err(|error| match error {
        // Rows know their lines; which file these are of is known here.
        Error::Adapt(AdaptError::Data(error)) if error.path.is_none() => error.in_file(path).into(),
        other => other,
    })?;
    let targets = model.form.targets(examples, &tokens, path, options)?;
    Ok(TaskRows { tokens, targets })
}

/// What is worth knowing before any time is spent.
pub(crate) fn profile(examples: &Examples, train: &TaskRows, max_length: usize) -> Result<DataProfile> {
    // What is read in windows loses nothing.
    let max_length = if train.tokens.windows().is_empty() { max_length } else { usize::MAX };
    let profile = DataProfile::new(&examples.train, &examples.train_keys, Some(&examples.labels))?;
    let profile = profile.with_lengths(train.tokens.full_lengths(), max_length)?;
    Ok(profile.with_eval(&examples.train_keys, &examples.eval_keys))
}
