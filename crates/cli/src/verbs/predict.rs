use std::path::PathBuf;

use retune::predict::{self, Done, Prediction, Writing};
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
  retune predict --model result --text \"where is my parcel?\" --text \"cancel it\"
  retune predict --model ner-result --input new.conll --output tagged.conll
  retune predict --model result --text \"a man sleeps\" --pair \"nobody is awake\"")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelSettings,
    /// Rows to predict: a file, a folder or a pattern; may be given several times
    #[arg(long, value_name = "FILE", requires = "output")]
    input: Vec<PathBuf>,
    /// The rows with their columns and, behind them, the prediction's; order kept: CSV or TSV if the name ends so, else JSONL,
    /// or CoNLL's form where the input has it
    #[arg(long, value_name = "FILE", requires = "input", conflicts_with = "text")]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long, requires = "output")]
    overwrite: bool,
    /// A text to predict; may be given several times
    #[arg(long, value_name = "TEXT", conflicts_with = "input", required_unless_present = "input")]
    text: Vec<String>,
    /// The second text that goes with a --text, where the model was trained on pairs; as many as these, in their order
    #[arg(long, value_name = "TEXT", requires = "text", conflicts_with = "input")]
    pair: Vec<String>,
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
    let answer = match (args.input.as_slice(), &args.output) {
        (from @ [_, ..], Some(to)) => {
            let writing = Writing { logits: args.logits, overwrite: args.overwrite };
            let done = predict::file(&local, from, to, &args.file, args.max_length, writing)?;
            done.said.iter().for_each(|sentence| output.say(&format!("- {sentence}")));
            let seconds = duration(done.seconds);
            output.say(&format!("{} rows in {seconds}, written to {}", thousands(done.rows), to.display()));
            Answer { done, predictions: Vec::new() }
        }
        _ => {
            let (predictions, done) = match args.pair.as_slice() {
                [] => predict::texts(&local, &args.text, args.max_length, args.logits)?,
                pairs if pairs.len() == args.text.len() => {
                    let both = args.text.iter().cloned().zip(pairs.iter().cloned()).collect::<Vec<_>>();
                    predict::pairs(&local, &both, args.max_length, args.logits)?
                }
                pairs => {
                    let (texts, pairs) = (args.text.len(), pairs.len());
                    return Err(Failure::request(format!(
                        "--pair: expected one for each --text, got {pairs} for {texts}"
                    )));
                }
            };
            Answer { done, predictions }
        }
    };
    if answer.done.truncated > 0 {
        output.say(&format!("{} rows were cut to the length of the model", thousands(answer.done.truncated)));
    }
    output.result(&answer, || {
        let rows = answer.predictions.iter().map(|prediction| {
            let logits = prediction.logits.as_ref().map(|logits| format!("{logits:?}"));
            let texts = std::iter::once(&prediction.text).chain(&prediction.pair).cloned();
            said(&prediction.answer).into_iter().chain(texts).chain(logits).collect()
        });
        table(&rows.collect::<Vec<_>>())
    })
}

/// What a person reads: labels with their probabilities, or the number.
fn said(answer: &retune::Answer) -> Vec<String> {
    match answer {
        retune::Answer::Class { label, score } => vec![label.clone(), format!("{score:.3}")],
        retune::Answer::Labels { labels, .. } if labels.is_empty() => vec!["(none)".into()],
        retune::Answer::Labels { labels, scores } => {
            let each = labels.iter().zip(scores).map(|(label, score)| format!("{label} {score:.3}"));
            vec![each.collect::<Vec<_>>().join(", ")]
        }
        retune::Answer::Number { score } => vec![format!("{score:.4}")],
        retune::Answer::Entities { entities, .. } if entities.is_empty() => vec!["(none)".into()],
        retune::Answer::Entities { entities, .. } => {
            let each =
                entities.iter().map(|entity| format!("{} {} {:.3}", entity.text, entity.kind, entity.score));
            vec![each.collect::<Vec<_>>().join(", ")]
        }
    }
}
