use std::path::PathBuf;

use clap::Subcommand;
use retune::DType;
use retune::bench::{Products, StepCost, StepSettings};

use crate::failure::Failure;
use crate::output::{Output, bytes, table, thousands};
use crate::verbs::use_threads;

/// How fast this machine trains, and what it could do at most
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune bench step --shape bert --method lora --batch 16 --length 128
  retune bench gemm")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A training step on random weights of a real shape: forward, backward and AdamW, every row full
    #[command(after_help = "\
examples:
  retune bench step --shape bert --method full --batch 16 --length 128
  retune bench step --shape minilm --method lora --batch 32 --length 128 --threads 2 --json
  retune bench step --shape smollm2 --method lora --precision bf16 --batch 2 --length 512")]
    Step {
        /// bert, minilm, gpt2 or smollm2
        #[arg(long, default_value = "minilm", value_name = "NAME")]
        shape: String,
        /// What is trained: one of those that `retune methods` lists
        #[arg(long, default_value = "full", value_name = "NAME")]
        method: String,
        /// What activations and frozen matrices are kept as: f32 or bf16
        #[arg(long, default_value = "f32", value_name = "TYPE")]
        precision: DType,
        /// Keep nothing of a block but what goes into it, and compute it once more on the way back
        #[arg(long)]
        recompute: bool,
        /// adamw or adamw-8bit
        #[arg(long, default_value = "adamw", value_name = "NAME")]
        optimizer: String,
        /// Rows a step
        #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        batch: u32,
        /// Tokens a row
        #[arg(long, default_value_t = 128, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        length: u32,
        /// Steps that are timed, after one that is not
        #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
        /// Time each kernel too, and show a table; with a FILE write their calls there for a trace viewer
        #[arg(long, value_name = "FILE", num_args = 0..=1)]
        profile: Option<Option<PathBuf>>,
        /// Threads [default: one a processor]
        #[arg(long, value_name = "N")]
        threads: Option<usize>,
    },
    /// This machine's ceilings, and how near the products of linear layers come to them
    #[command(after_help = "\
example:
  retune bench gemm --threads 2")]
    Gemm {
        /// What is multiplied: f32 or bf16
        #[arg(long, default_value = "f32", value_name = "TYPE")]
        precision: DType,
        /// Threads [default: one a processor]
        #[arg(long, value_name = "N")]
        threads: Option<usize>,
    },
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    match &args.what {
        What::Step {
            shape,
            method,
            precision,
            recompute,
            optimizer,
            batch,
            length,
            steps,
            profile,
            threads,
        } => {
            use_threads(*threads)?;
            let settings = StepSettings {
                shape: shape.clone(),
                method: method.clone(),
                precision: *precision,
                recompute: *recompute,
                optimizer: optimizer.clone(),
                batch: *batch as usize,
                length: *length as usize,
                steps: *steps as usize,
                profile: profile.is_some(),
                trace: profile.clone().flatten(),
            };
            let cost = retune::bench::step(&settings)?;
            output.result(&cost, || step_text(&cost))
        }
        What::Gemm { precision, threads } => {
            use_threads(*threads)?;
            let found = retune::bench::products(*precision)?;
            output.result(&found, || products_text(&found))
        }
    }
}

fn step_text(cost: &StepCost) -> String {
    let row = |name: &str, value: String| vec![name.to_string(), value];
    let share = 100.0 * cost.flops_per_second / cost.ceiling_flops_per_second;
    let summary = table(&[
        row(
            "step",
            format!(
                "{} {} {}{}, {} x {} tokens",
                cost.shape,
                cost.method,
                cost.precision,
                if cost.recompute { " recomputed" } else { "" },
                cost.batch,
                cost.length
            ),
        ),
        row("time", format!("{:.3} s a step, {} threads", cost.seconds_per_step, cost.threads)),
        row("speed", format!("{} tokens/s", thousands(cost.tokens_per_second as usize))),
        row(
            "work",
            format!(
                "{:.1} GFLOP/s, {share:.0}% of the ceiling of {:.1}",
                cost.flops_per_second / 1e9,
                cost.ceiling_flops_per_second / 1e9
            ),
        ),
        row("peak of tensors", bytes(cost.peak_memory_bytes)),
        row("peak of the process", bytes(cost.peak_rss_bytes)),
        row("trained", format!("{} parameters", thousands(cost.trainable_parameters))),
    ]);
    if cost.kernels.is_empty() {
        return summary;
    }
    let heads = ["kernel", "calls", "ms a step", "share", "GFLOP/s", "of the ceiling", "GB/s"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for kernel in &cost.kernels {
        let flops = kernel.flops_per_second;
        let of_products = |text: String| if flops > 0.0 { text } else { String::new() };
        rows.push(vec![
            kernel.name.clone(),
            kernel.calls.to_string(),
            format!("{:.1}", 1e3 * kernel.seconds),
            format!("{:.1}%", 100.0 * kernel.share),
            of_products(format!("{:.1}", flops / 1e9)),
            of_products(format!("{:.0}%", 100.0 * flops / cost.ceiling_flops_per_second)),
            format!("{:.1}", kernel.bytes_per_second / 1e9),
        ]);
    }
    format!("{summary}\n{}", table(&rows))
}

fn products_text(found: &Products) -> String {
    let (ceiling, copied) = (found.ceiling_flops_per_second, found.ceiling_bytes_per_second);
    let heads = ["product", "m", "n", "k", "GFLOP/s", "of the ceiling", "GB/s", "of copied"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for speed in &found.products {
        rows.push(vec![
            speed.role.to_string(),
            speed.m.to_string(),
            speed.n.to_string(),
            speed.k.to_string(),
            format!("{:.1}", speed.flops_per_second / 1e9),
            format!("{:.0}%", 100.0 * speed.flops_per_second / ceiling),
            format!("{:.1}", speed.bytes_per_second / 1e9),
            format!("{:.0}%", 100.0 * speed.bytes_per_second / copied),
        ]);
    }
    format!(
        "ceiling: {:.1} GFLOP/s in registers, {:.1} GB/s copied, {} threads\n\n{}",
        ceiling / 1e9,
        copied / 1e9,
        found.threads,
        table(&rows)
    )
}
