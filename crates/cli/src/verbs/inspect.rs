use std::path::PathBuf;

use retune::ModelSettings;
use retune::inspect::{self, Inspected};

use crate::failure::Failure;
use crate::output::{Output, table, thousands};
use crate::progress::Progress;

/// What a model, an adapter or a run is
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune inspect result
  retune inspect ~/models/all-MiniLM-L6-v2 --json")]
pub(crate) struct Args {
    /// The folder, or a model's id on the hub
    path: PathBuf,
    /// The base of an adapter, where it is no longer at the place that the adapter names
    #[arg(long, value_name = "DIR|ID")]
    base: Option<PathBuf>,
    /// The branch, tag or commit of a model on the hub [default: main]
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let settings = ModelSettings {
        model: Some(args.path.clone()),
        base: args.base.clone(),
        revision: args.revision.clone(),
        ..ModelSettings::default()
    };
    let local = retune::fetch(&settings, &mut Progress::new(output))?;
    let inspected = inspect::inspect(local.model.as_deref().unwrap_or(&args.path), local.base.as_deref())?;
    output.result(&inspected, || text(&inspected))
}

fn text(inspected: &Inspected) -> String {
    let row = |name: &str, value: String| vec![name.to_string(), value];
    let mut rows = vec![
        row("what", inspected.what.to_string()),
        row("model", inspected.model_type.clone()),
        row("parameters", thousands(inspected.parameters)),
        row("tensors", format!("{} ({})", inspected.tensors.len(), inspected.dtypes.join(", "))),
    ];
    rows.extend(inspected.sizes.iter().map(|(name, value)| row(name, value.to_string())));
    if let Some(base) = &inspected.base {
        rows.push(row("base", base.display().to_string()));
    }
    if let Some(problem_type) = inspected.problem_type {
        rows.push(row("problem type", problem_type.to_string()));
    }
    let speaks = inspected.card.as_ref().is_some_and(|card| card.task == "causal-lm");
    if let Some(labels) = inspected.labels.as_ref().filter(|_| !speaks) {
        let shown: Vec<_> = labels.iter().take(6).map(String::as_str).collect();
        let more = if labels.len() > shown.len() { " ..." } else { "" };
        rows.push(row("labels", format!("{}: {}{more}", labels.len(), shown.join(", "))));
    }
    if let Some(card) = &inspected.card {
        rows.push(row("task", card.task.clone()));
        rows.push(row("method", card.method.clone()));
        rows.push(row("trained on", card.train.path.display().to_string()));
        if let Some(receipt) = &card.receipt {
            let shown = retune::shown(&receipt.metrics).into_iter().take(2);
            let shown: Vec<_> = shown.map(|(_, words, value)| format!("{words} {value:.4}")).collect();
            rows.push(row("evaluation", format!("{} on {}", shown.join(", "), receipt.on)));
        }
    }
    table(&rows)
}
