use std::path::PathBuf;

use retune::merge::{Merged, merge};
use retune::{FileSettings, ModelSettings};

use crate::failure::Failure;
use crate::output::{Output, difference, table};
use crate::progress::Progress;
use crate::verbs;

/// An adapter and its base as one model, at no cost at inference
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune merge --model runs/lora --output runs/merged
  retune merge --model runs/lora --data test.csv --output runs/merged    how far it is from the adapter on these rows")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelSettings,
    /// The folder for the model
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Replace a result that is there
    #[arg(long)]
    overwrite: bool,
    /// Rows to measure the difference on; may be given several times [default: random tokens]
    #[arg(long, value_name = "FILE")]
    data: Vec<PathBuf>,
    #[command(flatten)]
    file: FileSettings,
    /// Threads; they change the speed and nothing else [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    verbs::use_threads(args.threads)?;
    let local = retune::fetch(&args.model, &mut Progress::new(output))?;
    let merged = merge(&local, &args.output, args.overwrite, &args.data, &args.file)?;
    output.result(&merged, || text(&merged))?;
    let folder = args.output.display();
    output.say("next:");
    output.say(&format!("  retune predict --model {folder} --text \"...\"    it needs its base no more"));
    Ok(())
}

fn text(merged: &Merged) -> String {
    let row = |name: &str, value: String| vec![name.to_string(), value];
    table(&[
        row("method", merged.method.to_string()),
        row("base", merged.base.display().to_string()),
        row(
            "max logit difference",
            difference(merged.max_logit_difference, merged.max_logit, &merged.measured_on),
        ),
        row("result", merged.output.display().to_string()),
    ])
}
