//! Step two: from files to rows with labels and tokens, and what is to be said about them.

use std::path::{Path, PathBuf};

use retune_adapt::tasks::{ClassifierRows, LossOptions};
use retune_data::{
    DataProfile, Example, LabelMap, LabelReading, ProblemType, Strata, Table, duplicate_groups,
    labelled_examples, read_table, stratified_sample, stratified_split,
};

use crate::artefact::{Columns, absolute};
use crate::{Error, FileSettings, Result, TextModel, TrainSettings, labelling};

/// Below this many rows nothing is held back unless asked for: a tenth of them would say little.
const ENOUGH_TO_SPLIT: usize = 50;

/// The rows of a training, before tokens.
pub(crate) struct Examples {
    pub train: Vec<Example>,
    pub eval: Vec<Example>,
    /// The evaluation's own file, if it has one.
    pub eval_path: Option<PathBuf>,
    /// What the evaluation rows are, in words.
    pub eval_is: String,
    pub labels: LabelMap,
    /// What a label is.
    pub problem_type: ProblemType,
    pub columns: Columns,
    /// Sentences for the user: what was found, what was guessed, what looks odd.
    pub said: Vec<String>,
}

/// A file's labelled rows.
pub(crate) struct Labelled {
    pub examples: Vec<Example>,
    pub columns: retune_data::Columns,
    pub table: Table,
}

/// Reads a file of labelled rows. Its columns are those of `trained`, where it has them and the settings name no others;
/// `problem_type` says what the labels are once these are known, with the separator of several.
pub(crate) fn read_labelled(
    path: &Path,
    settings: &FileSettings,
    trained: Option<&Columns>,
    problem_type: impl FnOnce(&Table, &retune_data::Columns, Option<&str>) -> Result<ProblemType>,
) -> Result<Labelled> {
    let table = read_table(path, &settings.read_options()?)?;
    if settings.label_separator.as_deref() == Some("") {
        let message = "expected what stands between labels, such as ;, got nothing";
        return Err(Error::Setting { flag: "label-separator", message: message.into() });
    }
    let (columns, separator) = (settings.columns(&table, trained)?, settings.separator(trained));
    let problem_type = problem_type(&table, &columns, separator)?;
    let reading = LabelReading { problem_type, separator: separator.map(str::to_string) };
    Ok(Labelled { examples: labelled_examples(&table, &columns, &reading)?, columns, table })
}

/// What a file's reader noticed, and which columns were taken why.
pub(crate) fn said(table: &Table, columns: &retune_data::Columns) -> Vec<String> {
    let notices = table.notices().iter().map(ToString::to_string);
    let chosen = std::iter::once(&columns.text).chain(&columns.pair).chain(&columns.label);
    notices.chain(chosen.map(|choice| choice.why.clone())).collect()
}

/// Reads what the settings name, numbers the labels (as `known`, the model's own, where the data has no others) and
/// holds rows back for evaluation. `head` is what the model's own head says, if it says anything.
pub(crate) fn load(
    settings: &TrainSettings,
    known: Option<Vec<String>>,
    head: Option<ProblemType>,
) -> Result<Examples> {
    let Some(path) = &settings.train else {
        let message = "which rows? give a CSV, TSV or JSONL file with a text and a label column";
        return Err(Error::Setting { flag: "train", message: message.into() });
    };
    for path in [Some(path), settings.eval.as_ref()].into_iter().flatten() {
        // Its hash goes into the result, so it is read twice; a pipe would be empty by then.
        if path.exists() && !path.is_file() && !path.is_dir() {
            return Err(Error::place(
                path,
                "expected a file, got a pipe or a device; save its rows in a file first",
            ));
        }
    }
    let asked = settings.model.asked_problem_type()?;
    let (mut problem_type, mut why) = (ProblemType::default(), None);
    let decide = |table: &Table, columns: &retune_data::Columns, separator: Option<&str>| {
        let found = labelling::problem_type(table, columns, separator, asked, head)?;
        (problem_type, why) = (found.problem_type, found.why);
        Ok(problem_type)
    };
    let file = read_labelled(path, &settings.file, None, decide)?;
    let mut said = said(&file.table, &file.columns);
    said.extend(why);
    let found = LabelMap::from_examples(&file.examples, &file.table, &file.columns)?;
    said.extend(found.notices().iter().map(ToString::to_string));
    let labels = match known {
        Some(known)
            if problem_type != ProblemType::Regression
                && found.names().iter().all(|name| known.contains(name)) =>
        {
            said.push(format!("labels: the {} that the model was trained on, in its order", known.len()));
            LabelMap::new(known)?
        }
        _ => found,
    };
    let columns = Columns {
        text: file.columns.text.name.clone(),
        pair: file.columns.pair.as_ref().map(|choice| choice.name.clone()),
        label: file.columns.label.as_ref().map(|choice| choice.name.clone()),
        label_separator: settings.file.label_separator.clone(),
    };

    let mut train = file.examples;
    if let Some(limit) = settings.limit {
        let strata = Strata::of(&train, &labels, path)?;
        let chosen = stratified_sample(&strata.of_row, strata.count, limit, seed(settings))?;
        said.push(format!("--limit: {} of {} rows, {}", chosen.len(), train.len(), strata.by));
        train = pick(&train, &chosen);
    }
    let (eval, eval_path, eval_is) = match (&settings.eval, settings.eval_split) {
        (Some(_), Some(share)) if share > 0.0 => {
            let message = "it holds training rows back, and --eval names rows already; give one of them";
            return Err(Error::Setting { flag: "eval-split", message: message.into() });
        }
        (Some(path), _) => {
            // The same columns as training's, so that one file's odd names are not guessed differently.
            let mut same = settings.file.clone();
            same.text_column = same.text_column.or(Some(columns.text.clone()));
            same.label_column = same.label_column.or(columns.label.clone());
            same.pair_column = same.pair_column.or(columns.pair.clone());
            let eval = read_labelled(path, &same, None, |_, _, _| Ok(problem_type))?.examples;
            (eval, Some(path.clone()), absolute(path).display().to_string())
        }
        (None, share) => {
            let usual = if train.len() < ENOUGH_TO_SPLIT { 0.0 } else { 0.1 };
            let strata = Strata::of(&train, &labels, path)?;
            let (kept, held) = match split(&train, &strata, share.unwrap_or(usual), seed(settings)) {
                // Nobody asked for it, so it need not be.
                Err(_) if share.is_none() => {
                    said.push("evaluation: no row can be held back, as rows with the same text must stay together and \
                               every label must stay in training".into());
                    (train.clone(), Vec::new())
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
            train = kept;
            let eval_is = format!("{} rows held back from {}", held.len(), absolute(path).display());
            (held, None, eval_is)
        }
    };
    Ok(Examples { train, eval, eval_path, eval_is, labels, problem_type, columns, said })
}

fn split(
    examples: &[Example],
    strata: &Strata,
    share: f64,
    seed: u64,
) -> Result<(Vec<Example>, Vec<Example>)> {
    if share == 0.0 {
        return Ok((examples.to_vec(), Vec::new()));
    }
    let split = stratified_split(&strata.of_row, &duplicate_groups(examples), strata.count, share, seed)?;
    Ok((pick(examples, &split.train), pick(examples, &split.eval)))
}

fn pick(examples: &[Example], chosen: &[usize]) -> Vec<Example> {
    chosen.iter().map(|index| examples[*index].clone()).collect()
}

pub(crate) fn seed(settings: &TrainSettings) -> u64 {
    settings.seed.unwrap_or(1)
}

/// Rows with tokens and targets. Errors if a label is not one of the model's, or a loss option has no meaning.
pub(crate) fn rows(
    examples: &[Example],
    path: &Path,
    model: &TextModel,
    max_length: usize,
    options: LossOptions,
) -> Result<ClassifierRows> {
    let targets = model.form.targets(examples, path, options)?;
    Ok(ClassifierRows { tokens: model.tokens(examples, max_length)?, targets })
}

/// What is worth knowing before any time is spent.
pub(crate) fn profile(examples: &Examples, train: &ClassifierRows, max_length: usize) -> Result<DataProfile> {
    let lengths = train.tokens.full_lengths();
    let profile =
        DataProfile::new(&examples.train, Some(&examples.labels)).with_lengths(&lengths, max_length)?;
    Ok(profile.with_eval(&examples.train, &examples.eval))
}
