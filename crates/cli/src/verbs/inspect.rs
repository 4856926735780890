use std::path::PathBuf;

use retune::inspect::{self, Inspected};

use crate::failure::Failure;
use crate::output::{Output, table, thousands};

/// What a model, an adapter or a run is
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune inspect result
  retune inspect ~/models/all-MiniLM-L6-v2 --json")]
pub(crate) struct Args {
    /// The folder
    path: PathBuf,
    /// The base of an adapter, where it is no longer at the place that the adapter names
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let inspected = inspect::inspect(&args.path, args.base.as_deref())?;
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
    if let Some(labels) = &inspected.labels {
        let shown: Vec<_> = labels.iter().take(6).map(String::as_str).collect();
        let more = if labels.len() > shown.len() { " ..." } else { "" };
        rows.push(row("labels", format!("{}: {}{more}", labels.len(), shown.join(", "))));
    }
    if let Some(card) = &inspected.card {
        rows.push(row("task", card.task.clone()));
        rows.push(row("method", card.method.clone()));
        rows.push(row("trained on", card.train.path.display().to_string()));
        if let Some(receipt) = &card.receipt {
            let metrics =
                ["accuracy", "f1_macro"].map(|name| receipt.metrics.get(name).copied().unwrap_or_default());
            let on = &receipt.on;
            rows.push(row(
                "evaluation",
                format!("accuracy {:.4}, macro F1 {:.4} on {on}", metrics[0], metrics[1]),
            ));
        }
    }
    table(&rows)
}
