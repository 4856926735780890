use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};
use retune::{Kind, Report, TrainSettings};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::output::{Output, bytes, duration, table, thousands};
use crate::progress::Progress;
use crate::{run_file, verbs};

/// Fine-tune a pretrained model on your labelled rows
///
/// Only --model, --train and --output must be given: columns, method and the rest are found or chosen, and said.
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune train --model DIR --train tickets.csv --output result
  retune train --model DIR --train tickets.csv --eval dev.csv --method lora --rank 16 --output result
  retune train run.toml --seed 2 --output result-2        settings from a file, flags first")]
pub(crate) struct Args {
    /// A file with settings, in TOML; flags are stronger
    #[arg(value_name = "RUN.toml")]
    run_file: Option<PathBuf>,
    /// A setting by its name in a run file, such as epochs=5
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    settings: TrainSettings,
}

/// The flags of the methods, which the registry knows: a new method brings its own.
pub(crate) fn with_method_options(command: Command) -> Command {
    command.mut_subcommand("train", |mut train| {
        for method in retune::METHODS {
            for option in method.options() {
                if train.get_arguments().any(|known| known.get_id() == option.name) {
                    continue;
                }
                let help = format!("{} ({}) [default: {}]", option.help, method.name(), option.default);
                let value = match option.kind {
                    Kind::Integer | Kind::Number => "N",
                    Kind::Flag => "true|false",
                    Kind::List => "NAMES",
                };
                train = train.arg(Arg::new(option.name).long(option.name).value_name(value).help(help));
            }
        }
        train
    })
}

pub(crate) fn run(args: &Args, matches: Option<&ArgMatches>, output: &Output) -> Result<(), Failure> {
    let settings = layered(args, matches)?;
    verbs::use_threads(settings.threads)?;
    let report = retune::train(&settings, &mut Progress::new(output))?;
    output.result(&report, || text(&report))?;
    let folder = report.output.display();
    output.say("next:");
    if let Some(confused) = report.evaluation.as_ref().and_then(|evaluation| evaluation.most_confused.first())
    {
        let (gold, predicted, count) = confused;
        output.say(&format!(
            "  most often wrong: `{gold}` taken for `{predicted}` ({count} rows); look at their rows first"
        ));
    }
    output.say(&format!(
        "  retune evaluate --model {folder} --data TEST.csv     on rows that no choice was made by"
    ));
    output.say(&format!("  retune predict --model {folder} --text \"...\"         try it"));
    Ok(())
}

/// The run file, `--set` over it, flags over both.
fn layered(args: &Args, matches: Option<&ArgMatches>) -> Result<TrainSettings, Failure> {
    let mut layer = args.run_file.as_deref().map(run_file::read).transpose()?.unwrap_or_default();
    for text in &args.set {
        let (name, value) = run_file::set(text)?;
        layer.insert(name, value);
    }
    layer.extend(given(&args.settings));
    for option in retune::METHODS.iter().flat_map(|method| method.options()) {
        if let Some(value) = matches.and_then(|matches| matches.get_one::<String>(option.name)) {
            layer.insert(option.name.into(), Value::from(value.as_str()));
        }
    }
    run_file::settings(layer)
}

/// The settings that are there.
fn given(settings: &TrainSettings) -> Map<String, Value> {
    let all = serde_json::to_value(settings).unwrap_or_default();
    all.as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
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
        row("peak of tensors", bytes(report.peak_memory_bytes)),
    ];
    match &report.metrics {
        Some(metrics) => {
            for (name, words) in
                [("accuracy", "accuracy"), ("f1_macro", "macro F1"), ("matthews", "Matthews")]
            {
                if let Some(value) = metrics.get(name) {
                    rows.push(row(words, format!("{value:.4}")));
                }
            }
            rows.push(row("weights", format!("of step {} of {}", report.kept_step, report.steps)));
        }
        None => rows.push(row("quality", "not measured: no evaluation rows".into())),
    }
    rows.push(row("result", report.output.display().to_string()));
    table(&rows)
}
