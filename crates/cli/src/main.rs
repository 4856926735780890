//! The command line: one file a verb, all work in the library.

mod failure;
mod output;
mod progress;
mod run_file;
mod verbs;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::output::Output;

/// Fine-tune pretrained language models: one binary, no Python, on the machine you have.
#[derive(Parser)]
#[command(
    name = "retune",
    version,
    max_term_width = 110,
    after_help = "\
examples:
  retune train --model DIR --train tickets.csv --output result    fine-tune on your rows
  retune evaluate --model result --data test.csv                   how good is it?
  retune predict --model result --input new.csv --output out.csv   labels for new rows
  retune methods                                                   what can be trained of a model"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// One JSON document on stdout and nothing else there
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Verb {
    Train(verbs::train::Args),
    Evaluate(verbs::evaluate::Args),
    Predict(verbs::predict::Args),
    Inspect(verbs::inspect::Args),
    Methods(verbs::methods::Args),
}

fn main() -> ExitCode {
    let matches = match verbs::train::with_method_options(Cli::command()).try_get_matches() {
        Ok(matches) => matches,
        // Help and versions come this way too, and are no error.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(2);
        }
    };
    let output = Output::new(cli.json);
    let done = match cli.verb {
        Verb::Train(args) => verbs::train::run(args, matches.subcommand_matches("train"), &output),
        Verb::Evaluate(args) => verbs::evaluate::run(&args, &output),
        Verb::Predict(args) => verbs::predict::run(&args, &output),
        Verb::Inspect(args) => verbs::inspect::run(&args, &output),
        Verb::Methods(args) => verbs::methods::run(&args, &output),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}
