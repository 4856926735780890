//! The command line: one file a verb, all work in the library.

mod failure;
mod job;
mod output;
mod progress;
mod run_file;
mod signals;
mod size;
mod verbs;

use std::num::{ParseFloatError, ParseIntError};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::failure::Failure;
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
  retune doctor --model DIR --train tickets.csv                    what is wrong with it?
  retune plan --model DIR --train tickets.csv                      what would it cost?
  retune evaluate --model result --data test.csv                   how good is it?
  retune predict --model result --input new.csv --output out.csv   labels for new rows
  retune generate --model smollm2 --prompt \"Once upon a time\"       text from a decoder
  retune chat --model smollm2                                      a conversation with one
  retune merge --model lora-result --output merged                 an adapter and its base as one model
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
    Train(Box<verbs::train::Args>),
    Plan(Box<verbs::plan::Args>),
    Doctor(Box<verbs::doctor::Args>),
    Evaluate(Box<verbs::evaluate::Args>),
    Predict(Box<verbs::predict::Args>),
    Generate(Box<verbs::generate::Args>),
    Chat(Box<verbs::chat::Args>),
    Merge(Box<verbs::merge::Args>),
    Combine(Box<verbs::combine::Args>),
    Inspect(verbs::inspect::Args),
    Methods(verbs::methods::Args),
    Bench(verbs::bench::Args),
}

fn main() -> ExitCode {
    let matches = match job::with_method_options(Cli::command()).try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return unread(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return unread(&error),
    };
    let output = Output::new(cli.json);
    let done = match cli.verb {
        Verb::Train(args) => verbs::train::run(&args, matches.subcommand_matches("train"), &output),
        Verb::Plan(args) => verbs::plan::run(&args, matches.subcommand_matches("plan"), &output),
        Verb::Doctor(args) => verbs::doctor::run(&args, matches.subcommand_matches("doctor"), &output),
        Verb::Evaluate(args) => verbs::evaluate::run(&args, &output),
        Verb::Predict(args) => verbs::predict::run(&args, &output),
        Verb::Generate(args) => verbs::generate::run(&args, &output),
        Verb::Chat(args) => verbs::chat::run(&args, &output),
        Verb::Merge(args) => verbs::merge::run(&args, &output),
        Verb::Combine(args) => verbs::combine::run(&args, &output),
        Verb::Inspect(args) => verbs::inspect::run(&args, &output),
        Verb::Methods(args) => verbs::methods::run(&args, &output),
        Verb::Bench(args) => verbs::bench::run(&args, &output),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure, &output),
    }
}

fn failed(failure: &Failure, output: &Output) -> ExitCode {
    output.failure(failure);
    ExitCode::from(failure.code)
}

/// A command line that is no request. Help and versions come this way too, and are no error.
fn unread(error: &clap::Error) -> ExitCode {
    // Whoever asked for JSON gets it, although nothing of the line was understood.
    let output = Output::new(std::env::args_os().any(|argument| argument == "--json"));
    if let Some(message) = no_number(error).or_else(|| name_of_peft(error)) {
        output.failure(&Failure::request(message));
        return ExitCode::from(2);
    }
    let printed = error.print();
    if !error.use_stderr() {
        return printed
            .map_or_else(|error| failed(&error.into(), &Output::new(false)), |()| ExitCode::SUCCESS);
    }
    let words = error.to_string();
    let message = words.strip_prefix("error: ").unwrap_or(&words).trim_end();
    output.document(&Failure::request(message));
    ExitCode::from(2)
}

/// Which flag is meant by one that is called as `peft` calls a method's option, with the method before it.
fn name_of_peft(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return None };
    if error.kind() != clap::error::ErrorKind::UnknownArgument {
        return None;
    }
    let meant = match argument.strip_prefix("--lora-").or_else(|| argument.strip_prefix("--lora_"))? {
        "r" | "rank" => "rank",
        "alpha" => "alpha",
        "dropout" => "dropout",
        _ => return None,
    };
    Some(format!("{argument}: no such flag; a method's options have no name before them: `--{meant}`"))
}

/// What was expected of a flag that takes a number and has none: the parser tells what Rust could not read.
fn no_number(error: &clap::Error) -> Option<String> {
    let source = std::error::Error::source(error)?;
    let expected = match source.downcast_ref::<ParseIntError>() {
        Some(_) => "a whole number from 0 on, such as 3",
        None => source.downcast_ref::<ParseFloatError>().map(|_| "a number, such as 3 or 0.5")?,
    };
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (argument, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let flag = argument.split_whitespace().next()?;
    Some(format!("{flag}: expected {expected}, got `{value}`"))
}
