use clap::ArgMatches;
use retune::Cost;

use crate::failure::Failure;
use crate::job::Job;
use crate::output::{Output, bytes, duration, table, thousands};
use crate::progress::Progress;
use crate::size::size;

/// What a training will cost: memory, time, disk; nothing is trained or written
///
/// Takes what `train` takes. The training's own batches are gone through without computing them, which gives the exact
/// peak of its tensors; a few steps are tried for the time.
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune plan --model DIR --train tickets.csv --method full
  retune plan --model DIR --train tickets.csv --method lora --memory 2GiB    the largest batch that fits")]
pub(crate) struct Args {
    #[command(flatten)]
    job: Job,
    /// Find the largest batch whose training fits in this much memory, such as 900MiB or 4GB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<usize>,
}

pub(crate) fn run(args: &Args, matches: Option<&ArgMatches>, output: &Output) -> Result<(), Failure> {
    let settings = args.job.settings(matches)?;
    let cost = retune::plan(&settings, args.memory, &mut Progress::new(output))?;
    output.result(&cost, || text(&cost))?;
    if cost.available_bytes.is_some_and(|available| cost.peak_resident_bytes > available) {
        output.say("next:");
        output.say("  it does not fit: try --method lora, a smaller --batch-size with --accumulation, or --max-length 128");
    }
    Ok(())
}

fn text(cost: &Cost) -> String {
    let share = 100.0 * cost.trainable_parameters as f64 / cost.total_parameters.max(1) as f64;
    let row = |name: &str, value: String| vec![name.to_string(), value];
    let mut rows = vec![
        row("method", cost.method.into()),
        row(
            "trained",
            format!(
                "{} of {} parameters ({share:.2}%)",
                thousands(cost.trainable_parameters),
                thousands(cost.total_parameters)
            ),
        ),
        row(
            "rows",
            format!("{} to train, {} to evaluate", thousands(cost.train_rows), thousands(cost.eval_rows)),
        ),
        row(
            "steps",
            format!(
                "{}, {} epochs, {} tokens",
                cost.steps,
                cost.epochs,
                thousands(cost.real_tokens as usize)
            ),
        ),
        row("work", format!("{:.1} TFLOP", cost.flops as f64 / 1e12)),
        row("peak of tensors", bytes(cost.peak_memory_bytes)),
        row("peak of the process", format!("about {}", bytes(cost.peak_resident_bytes))),
    ];
    if 20 * cost.clipping_bytes > cost.peak_memory_bytes {
        rows.push(row(
            "of it for clipping",
            format!("about {}; none with --max-grad-norm 0", bytes(cost.clipping_bytes)),
        ));
    }
    if let Some(available) = cost.available_bytes {
        let enough = if cost.peak_resident_bytes <= available { "enough" } else { "too little" };
        rows.push(row("free memory now", format!("{}, {enough}", bytes(available))));
    }
    let time = cost.seconds.map_or("not tried".into(), |seconds| format!("about {}", duration(seconds)));
    rows.push(row("time", time));
    rows.push(row(
        "result",
        format!(
            "{} on disk, {} meanwhile",
            bytes(cost.result_bytes as usize),
            bytes(cost.disk_bytes as usize)
        ),
    ));
    if let (Some(memory), Some(largest)) = (cost.memory_bytes, cost.largest_batch) {
        let flag = match cost.batching {
            retune::Batching::Rows(_) => "--batch-size",
            retune::Batching::Tokens(_) => "--batch-tokens",
        };
        let largest = match largest {
            0 => "none: not even a batch of one row fits".into(),
            size => format!("{flag} {size}"),
        };
        let fits = if cost.peak_resident_bytes <= memory { "fits" } else { "does not fit" };
        rows.push(row(&format!("in {}", bytes(memory)), fits.into()));
        rows.push(row("largest that fits", largest));
    }
    table(&rows)
}
