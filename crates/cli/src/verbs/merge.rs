use retune::ModelSettings;
use retune::merge::{Merged, merge};

use crate::failure::Failure;
use crate::output::{Output, difference, table};
use crate::progress::Progress;
use crate::verbs::{self, Made};

/// An adapter and its base as one model, at no cost at inference
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune merge --model runs/lora --output runs/merged
  retune merge --model runs/lora --data test.csv --output runs/merged    how far it is from the adapter on these rows")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelSettings,
    #[command(flatten)]
    made: Made,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let made = &args.made;
    verbs::use_threads(made.threads)?;
    let local = retune::fetch(&args.model, &mut Progress::new(output))?;
    let merged = merge(&local, &made.output, made.overwrite, &made.data, &made.file)?;
    output.result(&merged, || text(&merged))?;
    let folder = made.output.display();
    output.say("next:");
    output.say(&match merged.task {
        "causal-lm" => format!("  retune chat --model {folder}    it needs its base no more"),
        _ => format!("  retune predict --model {folder} --text \"...\"    it needs its base no more"),
    });
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
