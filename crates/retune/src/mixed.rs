//! Several adapters of one base at once: each row names the one that it uses, and a batch mixes them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use retune_adapt::nearest;
use retune_adapt::tasks::{Answered, WantedProblemType};
use retune_data::{Example, Examples, Tokens, ending_of};
use retune_model::{Adapted, Batch, BatchRow, Forward, Mixture, share_base};
use retune_tensor::Tape;
use retune_train::Batching;

use crate::evaluate::TOKENS;
use crate::predict::{self, Done, Place, Prediction, Writing};
use crate::{Error, FileSettings, ModelSettings, Result, TextModel, artefact, inputs};

/// Adapters of one base, by the names that rows call them. The base's weights are in memory once.
pub struct Mixed {
    models: Vec<(String, TextModel)>,
}

/// The adapter and the folder that `NAME=DIR` names. Errors if it is of another form.
pub fn named(text: &str) -> Result<(String, PathBuf)> {
    match text.split_once('=') {
        Some((name, folder)) if !name.is_empty() && !folder.is_empty() => {
            Ok((name.to_string(), PathBuf::from(folder)))
        }
        _ => {
            let message =
                format!("expected a name and the adapter's folder, such as tickets=runs/lora, got `{text}`");
            Err(Error::Setting { flag: "adapter", message })
        }
    }
}

impl Mixed {
    /// Opens each adapter by its name. Errors if one is no adapter, or is of another base than the first.
    pub fn open(adapters: &[(String, ModelSettings)]) -> Result<Self> {
        let mut mixed = Mixed { models: Vec::new() };
        for (name, settings) in adapters {
            if mixed.models.iter().any(|(known, _)| known == name) {
                let message = format!("two adapters are called `{name}`; give each a name of its own");
                return Err(Error::Setting { flag: "adapter", message });
            }
            let mut model = TextModel::open(settings)?;
            if model.source.adapter.is_none() {
                let message = "expected an adapter, got a whole model: rows of one batch share their base";
                return Err(Error::place(&model.source.folder, message));
            }
            if let Some((_, first)) = mixed.models.first() {
                same_base(first, &model)?;
                if first.task.name() != model.task.name() {
                    let message = format!(
                        "expected an adapter for {}, got one for {}: rows of one file are read for one task",
                        first.task.name(),
                        model.task.name()
                    );
                    return Err(Error::place(&model.source.folder, message));
                }
                share_base(&mut model.parameters, &first.parameters);
            }
            mixed.models.push((name.clone(), model));
        }
        if mixed.models.is_empty() {
            return Err(none());
        }
        Ok(mixed)
    }

    /// The adapters, by name.
    pub fn models(&self) -> impl Iterator<Item = (&str, &TextModel)> {
        self.models.iter().map(|(name, model)| (name.as_str(), model))
    }

    /// The number of the adapter `name`; else what is wrong with that, in words.
    fn find(&self, name: &str) -> std::result::Result<usize, String> {
        let names = || self.models.iter().map(|(name, _)| name.as_str());
        names().position(|known| known == name).ok_or_else(|| {
            let near = nearest(name, names()).map(|near| format!(", did you mean `{near}`?"));
            let known = names().collect::<Vec<_>>().join(", ");
            format!("there is no adapter `{name}`{}; there are: {known}", near.unwrap_or_default())
        })
    }

    /// Predicts every row of `input` into `output` as [`predict::file`] does, each by the adapter that it names in `column`.
    ///
    /// Errors, with the line, if a row names none of them.
    pub fn file(
        &self,
        (input, output): (&[PathBuf], &Path),
        column: &str,
        file: &FileSettings,
        max_length: Option<usize>,
        writing: Writing,
    ) -> Result<Done> {
        let place = Place::free(input, output, writing.overwrite)?;
        let together = inputs::together(input);
        let Some((_, first)) = self.models.first() else { return Err(none()) };
        let reading = first.reading(file, WantedProblemType::default(), false)?;
        let read = first.task.read(input, &reading)?;
        predict::check_name(output, &read.file.endings())?;
        let names = read.file.columns();
        let Some(at) = names.iter().position(|name| name == column) else {
            let near = nearest(column, names.iter().map(String::as_str));
            let message = format!(
                "no column `{column}` that says which adapter a row uses{}: the columns are {}; --adapter-column names it",
                near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default(),
                names.join(", ")
            );
            return Err(Error::place(&together, message));
        };
        let asked = read.file.column(at)?;
        let which = read.examples.iter().map(|example| {
            let example = example?;
            let asked = usize::try_from(example.row).ok().and_then(|row| asked.get(row));
            self.find(asked.map_or("", String::as_str)).map_err(|message| {
                read.examples.error_at(&example, &together, format!("column `{column}`: {message}")).into()
            })
        });
        let which: Vec<usize> = which.collect::<Result<_>>()?;
        for (adapter, (_, model)) in self.models.iter().enumerate() {
            if which.contains(&adapter) {
                model.check_columns(&read.columns, file, &together)?;
            }
        }
        read.file.check(ending_of(output).as_deref())?;
        let (predictions, mut done) = self.predict(&read.examples, &which, max_length, writing.logits)?;
        done.said.splice(0..0, read.said);
        for first in (0..self.models.len()).filter_map(|one| which.iter().position(|other| *other == one)) {
            let said = predictions.get(first).and_then(|first| read.file.said_of(first));
            done.said.extend(said.filter(|said| !done.said.contains(said)));
        }
        place.write_as(output, |ending, writer| read.file.write(&predictions, ending, writer))?;
        Ok(done)
    }

    /// Predicts each of some texts, or of some pairs where there is one to each, by every adapter.
    pub fn texts(
        &self,
        texts: &[String],
        pairs: &[String],
        max_length: Option<usize>,
        logits: bool,
    ) -> Result<(Vec<Prediction>, Done)> {
        for (_, model) in &self.models {
            model.check_pair(!pairs.is_empty(), if pairs.is_empty() { "text" } else { "pair" })?;
        }
        let count = self.models.len();
        let texts = texts.iter().enumerate().map(|(place, text)| (text, pairs.get(place)));
        let each = texts.flat_map(|text| (0..count).map(move |adapter| (text, adapter)));
        let (examples, which): (Vec<Example>, Vec<usize>) = (0..)
            .zip(each)
            .map(|(row, ((text, pair), adapter))| (predict::example(row, text, pair), adapter))
            .unzip();
        let (answers, done) = self.predict(&examples.clone().into(), &which, max_length, logits)?;
        let predictions =
            examples.into_iter().zip(answers).zip(&which).map(|((example, answered), adapter)| {
                let adapter = self.models.get(*adapter).map(|(name, _)| name.clone());
                // Answers for one text have its number.
                Prediction {
                    row: example.row / count as u64,
                    adapter,
                    ..predict::prediction(example, answered)
                }
            });
        Ok((predictions.collect(), done))
    }

    /// Predicts rows, of which each uses the adapter that `which` says.
    fn predict(
        &self,
        examples: &Examples,
        which: &[usize],
        max_length: Option<usize>,
        logits: bool,
    ) -> Result<(Vec<Answered>, Done)> {
        // Adapters cut rows at different lengths, and read them in different ways: the tokens of each are its own.
        let rows_of = |adapter: usize| (0..examples.len()).filter(move |row| which[*row] == adapter);
        let narrow = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
        let own: Vec<Examples> = (0..self.models.len())
            .map(|adapter| examples.pick(&rows_of(adapter).map(narrow).collect::<Vec<_>>()))
            .collect();
        let mut tokens = Vec::new();
        for ((_, model), own) in self.models.iter().zip(&own) {
            tokens.push(model.tokens(own, model.max_length(max_length)?)?);
        }
        let start = Instant::now();
        let mut readers = Vec::new();
        for (((_, model), own), tokens) in self.models.iter().zip(&own).zip(&tokens) {
            readers.push((model.form.decode(own, tokens)?, Vec::new()));
        }
        for batch in batches(&tokens) {
            for part in self.logits(&tokens, &batch)? {
                let Some((reader, answers)) = readers.get_mut(part.adapter) else { continue };
                answers.extend(reader.add(&part.rows, &part.logits)?);
            }
        }
        // Each adapter's answers are in the order of its rows.
        let mut answers: Vec<_> = readers.into_iter().map(|(_, answers)| answers.into_iter()).collect();
        let answers = which.iter().filter_map(|adapter| answers.get_mut(*adapter)?.next());
        let answers = answers.map(|one| Answered { logits: one.logits.filter(|_| logits), ..one }).collect();
        let said = self.models.iter().zip(&tokens).flat_map(|((name, model), tokens)| {
            model.said_of(tokens).map(move |said| format!("{name}: {said}"))
        });
        let done = Done {
            rows: examples.len(),
            tokens: tokens.iter().map(Tokens::total).sum(),
            truncated: tokens.iter().map(Tokens::truncated).sum(),
            said: said.collect(),
            seconds: start.elapsed().as_secs_f64(),
        };
        Ok((answers, done))
    }

    /// The logits of a batch, for each adapter with rows in it: one pass for all of them. Errors if they are no numbers.
    fn logits(&self, tokens: &[Tokens], rows: &[(usize, usize)]) -> Result<Vec<Part>> {
        let single = rows.iter().map(|(adapter, row)| tokens[*adapter].batch(&[*row]));
        let single: Vec<Batch> = single.collect::<std::result::Result<_, _>>()?;
        let batch = Batch::new(single.iter().map(|single| BatchRow {
            id: single.layout.row_ids()[0],
            input_ids: &single.input_ids,
            token_type_ids: &single.token_type_ids,
        }));
        let models = self.models.iter();
        let adapted: Vec<Adapted<'_>> =
            models.map(|(_, model)| Adapted { parameters: &model.parameters, hooks: &model.hooks }).collect();
        let which: Vec<usize> = rows.iter().map(|(adapter, _)| *adapter).collect();
        let mixture = Mixture::new(&adapted, &which, &batch)?;
        let tape = Tape::inference();
        let Some((_, first)) = self.models.first() else { return Err(none()) };
        let forward = Forward::mixed(&tape, &mixture, &batch, first.dtype);
        let mut logits = Vec::new();
        for (own, part) in mixture.rows().zip(first.network.logits_of_each(&forward)?) {
            let Some(adapter) = own.first().and_then(|place| which.get(*place)) else { continue };
            let values = part.value().f32().to_vec();
            if values.iter().any(|logit| !logit.is_finite()) {
                let folder = &self.models[*adapter].1.source.folder;
                return Err(Error::place(folder, "its answers are no numbers: the weights are broken"));
            }
            let rows = own.iter().map(|place| rows[*place].1).collect();
            logits.push(Part { adapter: *adapter, rows, logits: values });
        }
        Ok(logits)
    }
}

/// What a batch has of one adapter.
struct Part {
    adapter: usize,
    /// Which of its rows.
    rows: Vec<usize>,
    /// Theirs, one's after the other's.
    logits: Vec<f32>,
}

/// The rows of all adapters in batches, those of each in their order, mixed as they stand in the file.
fn batches(tokens: &[Tokens]) -> Vec<Vec<(usize, usize)>> {
    let mut rows = Vec::new();
    for (adapter, tokens) in tokens.iter().enumerate() {
        // Lines begin again with each file, and no row may pass those before it.
        let mut line = 0;
        for row in 0..tokens.len() {
            line = tokens.line(row).max(line);
            rows.push((line, adapter, row));
        }
    }
    rows.sort_unstable();
    let rows: Vec<(usize, usize)> = rows.into_iter().map(|(_, adapter, row)| (adapter, row)).collect();
    let length = |place: usize| tokens[rows[place].0].length(rows[place].1);
    let batches = Batching::Tokens(TOKENS).gather(0..rows.len(), length);
    batches.into_iter().map(|places| places.into_iter().map(|place| rows[place]).collect()).collect()
}

fn none() -> Error {
    let message = "expected at least one adapter, as NAME=DIR";
    Error::Setting { flag: "adapter", message: message.into() }
}

/// Errors if two adapters are not of the same base.
fn same_base(first: &TextModel, other: &TextModel) -> Result<()> {
    let [one, two] = [first, other].map(|model| &model.source.base);
    if artefact::same_base(one, two)? {
        return Ok(());
    }
    let message = format!(
        "expected an adapter of {}, as {} is one, got one of {}: rows of one batch share their base",
        one.display(),
        first.source.folder.display(),
        two.display()
    );
    Err(Error::place(&other.source.folder, message))
}
