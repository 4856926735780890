use std::path::{Path, PathBuf};

use retune::mixed::{self, Mixed};
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
  retune predict --model result --text \"a man sleeps\" --pair \"nobody is awake\"
  retune predict --adapter topic=runs/topic --adapter mood=runs/mood --input new.csv --output labelled.csv
      rows of several adapters of one base, each by the one that its column `adapter` names")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelSettings,
    /// An adapter, and the name that rows call it by; given several times, these share their base, and a batch mixes their rows.
    /// A --text is answered by each. --model is then the base, where the adapters do not say it
    #[arg(long, value_name = "NAME=DIR", help_heading = "Model")]
    adapter: Vec<String>,
    /// The column of --input that names the adapter of each row [default: adapter]
    #[arg(long, value_name = "NAME", requires = "adapter", requires = "input", help_heading = "Data")]
    adapter_column: Option<String>,
    /// Rows to predict: a file, a folder or a pattern; may be given several times
    #[arg(long, value_name = "FILE", requires = "output")]
    input: Vec<PathBuf>,
    /// The rows with their columns and, behind them, the prediction's; order kept: CSV, TSV, JSONL or a JSON array as the name
    /// ends, also with .gz or .zst behind it; without an ending CoNLL's form or SQuAD's where the input has it, else JSONL
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
    if !args.adapter.is_empty() {
        return told(output, &mixed(args, output)?);
    }
    let local = retune::fetch(&args.model, &mut Progress::new(output))?;
    let answer = match (args.input.as_slice(), &args.output) {
        (from @ [_, ..], Some(to)) => {
            let writing = Writing { logits: args.logits, overwrite: args.overwrite };
            let done = predict::file(&local, from, to, &args.file, args.max_length, writing)?;
            written(done, to, output)
        }
        _ => {
            args.check_texts()?;
            let (predictions, done) = match args.pair.as_slice() {
                [] => predict::texts(&local, &args.text, args.max_length, args.logits)?,
                pairs => {
                    let both = args.text.iter().cloned().zip(pairs.iter().cloned()).collect::<Vec<_>>();
                    predict::pairs(&local, &both, args.max_length, args.logits)?
                }
            };
            Answer { done, predictions }
        }
    };
    told(output, &answer)
}

impl Args {
    /// Errors if there are pairs, and not one for each text; or flags about files, of which there are none.
    fn check_texts(&self) -> Result<(), Failure> {
        if let Some(flag) = self.file.given().next() {
            return Err(Failure::request(format!(
                "--{flag}: it says how --input is read, and there is none: leave it out"
            )));
        }
        let (texts, pairs) = (self.text.len(), self.pair.len());
        if pairs > 0 && pairs != texts {
            return Err(Failure::request(format!(
                "--pair: expected one for each --text, got {pairs} for {texts}"
            )));
        }
        Ok(())
    }
}

/// Says what was written, where a file was.
fn written(done: Done, to: &Path, output: &Output) -> Answer {
    done.said.iter().for_each(|sentence| output.say(&format!("- {sentence}")));
    let seconds = duration(done.seconds);
    output.say(&format!("{} rows in {seconds}, written to {}", thousands(done.rows), to.display()));
    Answer { done, predictions: Vec::new() }
}

/// By several adapters, of which each row names one.
fn mixed(args: &Args, output: &Output) -> Result<Answer, Failure> {
    let mut progress = Progress::new(output);
    let adapters: Vec<(String, ModelSettings)> = args
        .adapter
        .iter()
        .map(|text| {
            let (name, folder) = mixed::named(text)?;
            let base = args.model.model.clone().or(args.model.base.clone());
            let settings = ModelSettings { model: Some(folder), base, ..args.model.clone() };
            Ok((name, retune::fetch(&settings, &mut progress)?))
        })
        .collect::<Result<_, Failure>>()?;
    let mixed = Mixed::open(&adapters)?;
    let (from @ [_, ..], Some(to)) = (args.input.as_slice(), &args.output) else {
        args.check_texts()?;
        let (predictions, done) = mixed.texts(&args.text, &args.pair, args.max_length, args.logits)?;
        return Ok(Answer { done, predictions });
    };
    let column = args.adapter_column.as_deref().unwrap_or("adapter");
    let writing = Writing { logits: args.logits, overwrite: args.overwrite };
    let done = mixed.file((from, to), column, &args.file, args.max_length, writing)?;
    Ok(written(done, to, output))
}

fn told(output: &Output, answer: &Answer) -> Result<(), Failure> {
    if answer.done.truncated > 0 {
        output.say(&format!("{} rows were cut to the length of the model", thousands(answer.done.truncated)));
    }
    output.result(answer, || {
        let rows = answer.predictions.iter().map(|prediction| {
            let logits = prediction.logits.as_ref().map(|logits| format!("{logits:?}"));
            let texts = std::iter::once(&prediction.text).chain(&prediction.pair).cloned();
            let adapter = prediction.adapter.clone();
            adapter.into_iter().chain(said(&prediction.answer)).chain(texts).chain(logits).collect()
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
        retune::Answer::Span { answer, score, .. } if answer.is_empty() => {
            vec!["(no answer)".into(), format!("{score:.3}")]
        }
        retune::Answer::Span { answer, score, .. } => vec![answer.clone(), format!("{score:.3}")],
        retune::Answer::Entities { entities, .. } if entities.is_empty() => vec!["(none)".into()],
        retune::Answer::Entities { entities, .. } => {
            let each =
                entities.iter().map(|entity| format!("{} {} {:.3}", entity.text, entity.kind, entity.score));
            vec![each.collect::<Vec<_>>().join(", ")]
        }
    }
}
