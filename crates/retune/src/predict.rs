//! Labels for rows that have none.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use retune_adapt::tasks::{Answer, Answered, WantedProblemType};
use retune_data::{Example, Examples, ending_of, write_packed};
use retune_model::formats::write_atomic;
use retune_tensor::Tape;
use serde::Serialize;

use crate::evaluate::batches;
use crate::{Error, FileSettings, ModelSettings, Result, TextModel, inputs};

/// The answer for one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The row's place in its file, counted from 0.
    pub row: u64,
    /// Which adapter was asked, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// The text.
    pub text: String,
    /// The second text, where there are two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair: Option<String>,
    /// What the model says: a class and its probability, labels and theirs, or a number.
    #[serde(flatten)]
    pub answer: Answer,
    /// One a label, in the labels' order; only where they are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

/// What a prediction of a file came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Done {
    /// How many rows.
    pub rows: usize,
    /// How many tokens.
    pub tokens: usize,
    /// How many rows were cut to the model's length.
    pub truncated: usize,
    /// From tokens to answers.
    pub seconds: f64,
    /// Sentences for the user: which columns were read, what looks odd.
    #[serde(skip)]
    pub said: Vec<String>,
}

/// What is written of the predictions of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Writing {
    /// The logits too.
    pub logits: bool,
    /// In the place of a file that is there.
    pub overwrite: bool,
}

/// Predicts every row of `input` into `output`, order kept: CSV, TSV, JSONL or a JSON array if its name ends so, also packed where
/// `.gz` or `.zst` follows, and the input's own form or else JSONL if it has no ending. A row has the columns that it has in the
/// input, and those of its prediction; of these, one that the input has already is called `predicted_...`.
///
/// Errors if there is an output that may not be replaced, or its name says a form that cannot be written.
pub fn file(
    settings: &ModelSettings,
    input: &[PathBuf],
    output: &Path,
    file: &FileSettings,
    max_length: Option<usize>,
    Writing { logits, overwrite }: Writing,
) -> Result<Done> {
    let place = Place::free(input, output, overwrite)?;
    let model = TextModel::open(settings)?;
    let reading = model.reading(file, WantedProblemType::default(), false)?;
    let read = model.task.read(input, &reading)?;
    check_name(output, &read.file.endings())?;
    model.check_columns(&read.columns, file, &inputs::together(input))?;
    read.file.check(ending_of(output).as_deref())?;
    let (predictions, mut done) = run(&model, &read.examples, max_length, logits)?;
    done.said.splice(0..0, read.said);
    done.said.extend(predictions.first().and_then(|first| read.file.said_of(first)));
    place.write_as(output, |ending, writer| read.file.write(&predictions, ending, writer))?;
    Ok(done)
}

/// Where predictions go: a file, which is replaced whole, or something that can only be written to.
pub enum Place {
    /// A file.
    File(PathBuf),
    /// A pipe or a device.
    Stream(PathBuf),
}

impl Place {
    /// The place of `output`. Errors if it is the input, or there is a file that may not be replaced.
    pub fn free(input: &[PathBuf], output: &Path, overwrite: bool) -> Result<Self> {
        if inputs::is_among(output, input) {
            let message =
                format!("{} is the input, which it would replace; give another file", output.display());
            return Err(Error::Setting { flag: "output", message });
        }
        let place = Place::find(output)?;
        // As with folders of runs, what is empty is free.
        let is_there = |path: &PathBuf| path.metadata().is_ok_and(|file| file.len() > 0);
        if !overwrite && matches!(&place, Place::File(path) if is_there(path)) {
            return Err(Error::place(
                output,
                "there is such a file; give another --output, or --overwrite to replace it",
            ));
        }
        Ok(place)
    }

    /// Errors if the folder is not there, so that nobody learns it when the work is done.
    fn find(output: &Path) -> Result<Self> {
        if let Ok(there) = output.canonicalize() {
            // Behind a link lies what is to be replaced, and a pipe or a device cannot be.
            return match there.is_dir() {
                true => Err(Error::place(output, "expected a file to write to, got a folder")),
                false if there.is_file() => Ok(Place::File(there)),
                false => Ok(Place::Stream(there)),
            };
        }
        // A link to a pipe has no path at its end, such as /dev/stdout in a pipeline, and can be written to all the same.
        if std::fs::metadata(output).is_ok() {
            return Ok(Place::Stream(output.to_path_buf()));
        }
        if output.is_symlink() {
            return Err(Error::place(output, "it is a link to what is not there; give the file itself"));
        }
        match output.parent() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
                Err(Error::place(output, "its folder is not there; make it first"))
            }
            _ => Ok(Place::File(output.to_path_buf())),
        }
    }

    /// The same in the form that the name of `output` says; `content` is told how that ends.
    pub(crate) fn write_as(
        &self,
        output: &Path,
        content: impl FnOnce(Option<&str>, &mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let ending = ending_of(output);
        self.write(|writer| write_packed(output, writer, |writer| content(ending.as_deref(), writer)))
    }

    /// Writes all of what `content` writes, or nothing where it is a file. Errors with the place.
    pub fn write(&self, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
        match self {
            Place::File(path) => Ok(write_atomic(path, content)?),
            Place::Stream(path) => {
                let file = OpenOptions::new().write(true).open(path);
                let write = |file| {
                    let mut writer = BufWriter::new(file);
                    content(&mut writer)?;
                    writer.flush()
                };
                file.and_then(write).map_err(|error| Error::write(path, "write", error))
            }
        }
    }
}

/// Errors if the name of `output` says a form that is none of `endings`, which can be written.
pub(crate) fn check_name(output: &Path, endings: &[&str]) -> Result<()> {
    match ending_of(output) {
        Some(ending) if !endings.contains(&ending.as_str()) => {
            let known: Vec<String> = endings.iter().map(|ending| format!(".{ending}")).collect();
            let message = format!(
                "expected a name that ends in {}, or in one of these and .gz or .zst, or that has no ending, got `.{ending}`: what \
                 is written is what the name says",
                known.join(", ")
            );
            Err(Error::place(output, message))
        }
        _ => Ok(()),
    }
}

/// Predicts single texts. Errors if the model was trained on two a row.
pub fn texts(
    settings: &ModelSettings,
    texts: &[String],
    max_length: Option<usize>,
    logits: bool,
) -> Result<(Vec<Prediction>, Done)> {
    let model = TextModel::open(settings)?;
    model.check_pair(false, "text")?;
    let examples: Vec<Example> = (0..).zip(texts).map(|(row, text)| example(row, text, None)).collect();
    each(&model, &examples.into(), max_length, logits)
}

/// Predicts pairs of texts. Errors if the model was trained on one text a row.
pub fn pairs(
    settings: &ModelSettings,
    pairs: &[(String, String)],
    max_length: Option<usize>,
    logits: bool,
) -> Result<(Vec<Prediction>, Done)> {
    let model = TextModel::open(settings)?;
    model.check_pair(true, "pair")?;
    let pairs = (0..).zip(pairs);
    let examples: Vec<Example> = pairs.map(|(row, (text, pair))| example(row, text, Some(pair))).collect();
    each(&model, &examples.into(), max_length, logits)
}

pub(crate) fn example(row: u64, text: &str, pair: Option<&String>) -> Example {
    Example { row, line: row + 1, text: text.to_string(), pair: pair.cloned(), label: None }
}

fn each(
    model: &TextModel,
    examples: &Examples,
    max_length: Option<usize>,
    logits: bool,
) -> Result<(Vec<Prediction>, Done)> {
    let (answers, done) = run(model, examples, max_length, logits)?;
    let predictions =
        examples.iter().zip(answers).map(|(example, answered)| Ok(prediction(example?, answered)));
    Ok((predictions.collect::<Result<_>>()?, done))
}

pub(crate) fn prediction(example: Example, Answered { answer, logits }: Answered) -> Prediction {
    let Example { row, text, pair, .. } = example;
    Prediction { row, adapter: None, text, pair, answer, logits }
}

fn run(
    model: &TextModel,
    examples: &Examples,
    max_length: Option<usize>,
    logits: bool,
) -> Result<(Vec<Answered>, Done)> {
    if logits && model.task.head().reads_tokens() {
        let message = format!(
            "there are some for each token, and a row of {} has one answer; leave it out: each answer has its score",
            model.task.name()
        );
        return Err(Error::Setting { flag: "logits", message });
    }
    let tokens = model.tokens(examples, model.max_length(max_length)?)?;
    let start = Instant::now();
    let mut predictions = Vec::with_capacity(examples.len());
    let mut decode = model.form.decode(examples, &tokens)?;
    for batch in batches(&tokens) {
        let values = model.logits(&Tape::inference(), &tokens.batch(&batch)?, None)?;
        if values.value().f32().iter().any(|logit| !logit.is_finite()) {
            return Err(Error::place(
                &model.source.folder,
                "its answers are no numbers: the weights are broken",
            ));
        }
        let answers = decode.add(&batch, values.value().f32())?;
        predictions
            .extend(answers.into_iter().map(|one| Answered { logits: one.logits.filter(|_| logits), ..one }));
    }
    let done = Done {
        rows: examples.len(),
        tokens: tokens.total(),
        truncated: tokens.truncated(),
        said: model.said_of(&tokens).collect(),
        seconds: start.elapsed().as_secs_f64(),
    };
    Ok((predictions, done))
}
