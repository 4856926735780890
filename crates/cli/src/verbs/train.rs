use clap::ArgMatches;
use retune::Report;

use crate::failure::Failure;
use crate::job::Job;
use crate::output::{Output, bytes, duration, table, thousands};
use crate::progress::Progress;

/// Fine-tune a pretrained model on your labelled rows
///
/// Only --model, --train and --output must be given: columns, method and the rest are found or chosen, and said.
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune train --model DIR --train tickets.csv --output result
  retune train --model DIR --train tickets.csv --eval dev.csv --method lora --rank 16 --output result
  retune train --model DIR --train train.conll --output result        words and their tags: entities are found
  retune train --model DIR --train squad.json --output result         questions over texts
  retune train run.toml --seed 2 --output result-2        settings from a file, flags first
  retune train --resume --output result                   on with a run that was interrupted, however that was")]
pub(crate) struct Args {
    #[command(flatten)]
    job: Job,
}

pub(crate) fn run(args: &Args, matches: Option<&ArgMatches>, output: &Output) -> Result<(), Failure> {
    let settings = args.job.settings(matches)?;
    let mut progress = Progress::new(output);
    let report = retune::train(&settings, &mut progress).map_err(|error| match error {
        retune::Error::Interrupted { .. } => {
            Failure { message: error.to_string(), code: progress.signals.exit_code() }
        }
        error => error.into(),
    })?;
    output.result(&report, || text(&report))?;
    let folder = report.output.display();
    output.say("next:");
    if let Some(confused) = report.evaluation.as_ref().and_then(|evaluation| evaluation.most_confused.first())
    {
        let (gold, predicted, count) = confused;
        output.say(&format!(
            "  most often wrong: `{gold}` taken for `{predicted}` ({count} times); look at their rows first"
        ));
    }
    let test = match report.task {
        "token-classification" => "TEST.conll",
        "question-answering" => "TEST.json",
        "causal-lm" => "TEST.jsonl",
        _ => "TEST.csv",
    };
    output.say(&format!(
        "  retune evaluate --model {folder} --data {test}     on rows that no choice was made by"
    ));
    let pair = if report.pairs { " --pair \"...\"" } else { "" };
    output.say(&match report.task {
        "causal-lm" => format!("  retune chat --model {folder}         try it, a line a turn"),
        _ => format!("  retune predict --model {folder} --text \"...\"{pair}         try it"),
    });
    Ok(())
}

fn text(report: &Report) -> String {
    let share = 100.0 * report.trainable_parameters as f64 / report.total_parameters.max(1) as f64;
    let row = |name: &str, value: String| vec![name.to_string(), value];
    let mut rows = vec![
        row("method", report.method.into()),
        row(
            "trained",
            format!(
                "{} of {} parameters ({share:.2}%)",
                thousands(report.trainable_parameters),
                thousands(report.total_parameters)
            ),
        ),
        row(
            "rows",
            format!("{} to train, {} to evaluate", thousands(report.train_rows), thousands(report.eval_rows)),
        ),
        row("time", format!("{}, {:.0} tokens/s", duration(report.train_seconds), report.tokens_per_second)),
    ];
    rows.extend(report.peak_memory_bytes.map(|peak| row("peak of tensors", bytes(peak))));
    match &report.metrics {
        Some(metrics) => {
            for (_, words, value) in retune::shown(metrics) {
                rows.push(row(words, format!("{value:.4}")));
            }
            rows.push(row("weights", format!("of step {} of {}", report.kept_step, report.steps)));
        }
        None => rows.push(row("quality", "not measured: no evaluation rows".into())),
    }
    rows.push(row("result", report.output.display().to_string()));
    table(&rows)
}
