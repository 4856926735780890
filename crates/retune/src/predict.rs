//! Labels for rows that have none.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use retune_adapt::tasks::Classified;
use retune_data::{Example, Tokens, read_table, unlabelled_examples};
use retune_model::formats::write_atomic;
use retune_tensor::Tape;
use serde::Serialize;

use crate::evaluate::by_tokens;
use crate::{FileSettings, ModelSettings, Result, TextModel};

/// The answer for one row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The row's place in its file, counted from 0.
    pub row: u64,
    /// The text.
    pub text: String,
    /// The most probable label.
    pub label: String,
    /// Its probability.
    pub score: f32,
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
}

/// Predicts every row of `input` into `output`, one line each, order kept: CSV if its name ends so, else JSONL.
pub fn file(
    settings: &ModelSettings,
    input: &Path,
    output: &Path,
    file: &FileSettings,
    max_length: Option<usize>,
    logits: bool,
) -> Result<Done> {
    let model = TextModel::open(settings)?;
    let table = read_table(input, &file.read_options()?)?;
    let columns = model.file_settings(file, &table).columns(&table)?;
    let (predictions, done) = run(&model, &unlabelled_examples(&table, &columns), max_length, logits)?;
    let as_csv = output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    write_atomic(output, |writer| {
        if as_csv { write_csv(writer, &predictions) } else { write_jsonl(writer, &predictions) }
    })?;
    Ok(done)
}

/// Predicts single texts.
pub fn texts(
    settings: &ModelSettings,
    texts: &[String],
    max_length: Option<usize>,
    logits: bool,
) -> Result<(Vec<Prediction>, Done)> {
    let model = TextModel::open(settings)?;
    let examples: Vec<Example> = (0..)
        .zip(texts)
        .map(|(row, text)| Example { row, line: row + 1, text: text.clone(), pair: None, label: None })
        .collect();
    run(&model, &examples, max_length, logits)
}

fn run(
    model: &TextModel,
    examples: &[Example],
    max_length: Option<usize>,
    logits: bool,
) -> Result<(Vec<Prediction>, Done)> {
    let tokens = Tokens::new(&model.tokenizer, examples, model.max_length(max_length)?)?;
    let start = Instant::now();
    let lengths: Vec<usize> = (0..tokens.len()).map(|row| tokens.length(row)).collect();
    let truncated = tokens.full_lengths().iter().zip(&lengths).filter(|(full, cut)| full > cut).count();
    let mut predictions = Vec::with_capacity(examples.len());
    for batch in by_tokens(&lengths) {
        let values = model.logits(&Tape::inference(), &tokens.batch(&batch), None)?;
        let answers = Classified::decode(values.value().f32(), model.labels.len());
        for (answer, example) in answers.zip(batch.iter().map(|row| &examples[*row])) {
            predictions.push(Prediction {
                row: example.row,
                text: example.text.clone(),
                label: model.labels.name(answer.class).unwrap_or_default().to_string(),
                score: answer.score,
                logits: logits.then_some(answer.logits),
            });
        }
    }
    let done = Done {
        rows: examples.len(),
        tokens: tokens.total(),
        truncated,
        seconds: start.elapsed().as_secs_f64(),
    };
    Ok((predictions, done))
}

fn write_jsonl(writer: &mut dyn Write, predictions: &[Prediction]) -> std::io::Result<()> {
    for prediction in predictions {
        serde_json::to_writer(&mut *writer, prediction)?;
        writer.write_all(b"\n")?;
    }
    Ok(())
}

fn write_csv(writer: &mut dyn Write, predictions: &[Prediction]) -> std::io::Result<()> {
    let mut csv = csv::Writer::from_writer(writer);
    let with_logits = predictions.iter().any(|prediction| prediction.logits.is_some());
    let header = ["row", "text", "label", "score"].into_iter().chain(with_logits.then_some("logits"));
    csv.write_record(header)?;
    for Prediction { row, text, label, score, logits } in predictions {
        let fields = [row.to_string(), text.clone(), label.clone(), score.to_string()];
        let logits = logits.as_ref().map(serde_json::to_string).transpose()?;
        csv.write_record(fields.into_iter().chain(logits))?;
    }
    csv.flush()
}
