use std::path::PathBuf;

use retune::predict::{self, Done, Prediction};
use retune::{FileSettings, ModelSettings};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Output, duration, table, thousands};
use crate::progress::Progress;
use crate::verbs;

/// Labels for rows that have none: a file, or single texts
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune predict --model result --input new.csv --output labelled.csv
  retune predict --model result --text \"where is my parcel?\" --text \"cancel it\"")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelSettings,
    /// Rows to predict
    #[arg(long, value_name = "FILE", requires = "output")]
    input: Option<PathBuf>,
    /// One prediction a row, order kept: CSV or TSV if the name ends so, else JSONL
    #[arg(long, value_name = "FILE", requires = "input")]
    output: Option<PathBuf>,
    /// A text to predict; may be given several times
    #[arg(long, value_name = "TEXT", conflicts_with = "input", required_unless_present = "input")]
    text: Vec<String>,
    #[command(flatten)]
    file: FileSettings,
    /// Write the logits too, in the order of the labels
    #[arg(long)]
    logits: bool,
    /// Longer texts are cut to this many tokens [default: as in training]
    #[arg(long, value_name = "TOKENS")]
    max_length: Option<usize>,
    /// Threads; they change the speed and nothing else [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    done: Done,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    predictions: Vec<Prediction>,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    verbs::use_threads(args.threads)?;
    let local = retune::fetch(&args.model, &mut Progress::new(output))?;
    let answer = match (&args.input, &args.output) {
        (Some(from), Some(to)) => {
            let done = predict::file(&local, from, to, &args.file, args.max_length, args.logits)?;
            done.said.iter().for_each(|sentence| output.say(&format!("- {sentence}")));
            let seconds = duration(done.seconds);
            output.say(&format!("{} rows in {seconds}, written to {}", thousands(done.rows), to.display()));
            Answer { done, predictions: Vec::new() }
        }
        _ => {
            let (predictions, done) = predict::texts(&local, &args.text, args.max_length, args.logits)?;
            Answer { done, predictions }
        }
    };
    if answer.done.truncated > 0 {
        output.say(&format!("{} rows were cut to the length of the model", thousands(answer.done.truncated)));
    }
    output.result(&answer, || {
        let rows = answer.predictions.iter().map(|prediction| {
            let logits = prediction.logits.as_ref().map(|logits| format!("{logits:?}"));
            let cells =
                [prediction.label.clone(), format!("{:.3}", prediction.score), prediction.text.clone()];
            cells.into_iter().chain(logits).collect()
        });
        table(&rows.collect::<Vec<_>>())
    })
}
