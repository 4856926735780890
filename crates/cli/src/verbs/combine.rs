use std::path::PathBuf;

use retune::combine::{Report, Request, combine};
use retune::{Combination, ModelSettings, nearest};

use crate::failure::Failure;
use crate::output::{Output, difference, table};
use crate::progress::Progress;
use crate::verbs::{self, Made};

/// A weighted sum of LoRAs of one base, as one LoRA
///
/// The sums are those of peft's add_weighted_adapter. linear, ties, dare-linear, dare-ties and magnitude-prune add the factors A
/// and B by themselves, which is an approximation, and take adapters of one rank; with -svd they add whole changes of weights, as
/// in the papers, and cut the sum to a rank; svd does it for the plain sum; cat is the sum itself, at the ranks of all
/// together. Heads are not added: the result has that of one of the adapters.
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune combine runs/a=0.7 runs/b=0.3 --output runs/both
  retune combine runs/a runs/b --combination ties-svd --density 0.3 --head runs/b --output runs/both
  retune combine runs/tuned runs/unwanted=-0.5 --combination cat --data test.csv --output runs/without")]
pub(crate) struct Args {
    /// The adapters, each with its weight; 1 where none is given
    #[arg(value_name = "DIR[=WEIGHT]", required = true)]
    adapters: Vec<String>,
    /// How: linear, cat, svd, ties, dare-linear, dare-ties, magnitude-prune, and the last four with -svd behind
    #[arg(long, value_name = "NAME", default_value = "svd")]
    combination: String,
    /// Share of the numbers that stay, where some are dropped [default: 0.5]
    #[arg(long, value_name = "SHARE")]
    density: Option<f64>,
    /// The rank of the result, for svd and its like [default: the largest of the adapters']
    #[arg(long, value_name = "N")]
    rank: Option<usize>,
    /// What the majority of signs is, for ties and its like: total or frequency [default: total]
    #[arg(long, value_name = "NAME")]
    majority_sign: Option<String>,
    /// Draws what dare drops
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The adapter whose head the result has [default: the first]
    #[arg(long, value_name = "DIR")]
    head: Option<String>,
    /// The base of the adapters, where it is no longer at the place that they name
    #[arg(long, value_name = "DIR|ID")]
    base: Option<PathBuf>,
    /// Use adapters on a base whose weights are not those they were trained on
    #[arg(long)]
    allow_other_base: bool,
    #[command(flatten)]
    made: Made,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    let made = &args.made;
    verbs::use_threads(made.threads)?;
    let weighted: Vec<(String, f64)> =
        args.adapters.iter().map(|text| weighted(text)).collect::<Result<_, _>>()?;
    let head = match &args.head {
        None => 0,
        Some(head) => place(head, &weighted)?,
    };
    let combination = Combination::new(
        &args.combination,
        args.density,
        args.majority_sign.as_deref(),
        args.rank,
        args.seed,
    )
    .map_err(retune::Error::from)?;
    let mut progress = Progress::new(output);
    let adapters: Vec<(ModelSettings, f64)> = weighted
        .iter()
        .map(|(folder, weight)| {
            let settings = ModelSettings {
                model: Some(folder.into()),
                base: args.base.clone(),
                allow_other_base: args.allow_other_base.then_some(true),
                ..ModelSettings::default()
            };
            Ok((retune::fetch(&settings, &mut progress)?, *weight))
        })
        .collect::<Result<_, Failure>>()?;
    let request = Request {
        adapters: &adapters,
        combination: &combination,
        name: &args.combination,
        head,
        output: &made.output,
        overwrite: made.overwrite,
    };
    let report = combine(&request, &made.data, &made.file)?;
    output.say(&format!("- the head is that of {}: heads are not added", report.head.display()));
    if !report.left_out.is_empty() {
        let names = report.left_out.join(", ");
        output.say(&format!("- of the other adapters these are left out: {names}"));
    }
    output.result(&report, || text(&report))?;
    let folder = made.output.display();
    output.say("next:");
    output.say(&format!("  retune evaluate --model {folder} --data TEST.csv    nobody knows how good it is"));
    Ok(())
}

/// A folder and its weight.
fn weighted(text: &str) -> Result<(String, f64), Failure> {
    let Some((folder, weight)) = text.rsplit_once('=') else { return Ok((text.to_string(), 1.0)) };
    match weight.parse::<f64>() {
        Ok(weight) if (weight as f32).is_finite() && weight != 0.0 => Ok((folder.to_string(), weight)),
        _ => Err(Failure::request(format!(
            "{text}: expected the adapter's folder and, behind the last =, a weight other than 0, such as runs/a=0.7, got \
             `{weight}`"
        ))),
    }
}

/// Which of the adapters `head` is.
fn place(head: &str, adapters: &[(String, f64)]) -> Result<usize, Failure> {
    let same = |folder: &str| folder.trim_end_matches('/') == head.trim_end_matches('/');
    adapters.iter().position(|(folder, _)| same(folder)).ok_or_else(|| {
        let names = || adapters.iter().map(|(folder, _)| folder.as_str());
        let near = nearest(head, names()).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        let known = names().collect::<Vec<_>>().join(", ");
        Failure::request(format!("--head: `{head}` is none of the adapters{near}; there are: {known}"))
    })
}

fn text(report: &Report) -> String {
    let row = |name: &str, value: String| vec![name.to_string(), value];
    table(&[
        row("combination", report.combination.clone()),
        row("rank", report.rank.to_string()),
        row("head", format!("of {}", report.head.display())),
        row(
            "max logit difference",
            format!(
                "{}, from the weighted sum itself",
                difference(report.max_logit_difference, report.max_logit, &report.measured_on)
            ),
        ),
        row("result", report.output.display().to_string()),
    ])
}
