use clap::ArgMatches;
use retune::Diagnosis;
use retune::doctor::SampleToken;

use crate::failure::Failure;
use crate::job::Job;
use crate::output::{Output, table, thousands};
use crate::progress::Progress;

/// What is wrong with a training, before it costs anything; nothing is written
///
/// Takes what `train` takes, looks at its rows, its settings and its first steps, and says for each finding where it is,
/// why it matters and what to do. `train` makes the quick ones of these checks by itself.
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune doctor --model DIR --train tickets.csv
  retune doctor --model DIR --train tickets.csv --eval dev.csv --method lora --strict    exit 2 on any finding")]
pub(crate) struct Args {
    #[command(flatten)]
    job: Job,
}

pub(crate) fn run(args: &Args, matches: Option<&ArgMatches>, output: &Output) -> Result<(), Failure> {
    let settings = args.job.settings(matches)?;
    let diagnosis = retune::doctor(&settings, &mut Progress::new(output))?;
    diagnosis.findings.iter().for_each(|finding| output.say(&finding.text()));
    output.result(&diagnosis, || text(&diagnosis))?;
    if diagnosis.findings.is_empty() {
        output.say("next:");
        output.say("  retune plan ...the same flags     what it will cost");
        output.say("  retune train ...the same flags    train");
    }
    Ok(retune::doctor::refuse(&diagnosis.findings, settings.strict == Some(true))?)
}

fn text(diagnosis: &Diagnosis) -> String {
    let Diagnosis { findings, checks, counts, starting_loss, expected_loss, sample } = diagnosis;
    let row = |name: &str, value: String| vec![name.to_string(), value];
    let expected =
        expected_loss.map_or(String::new(), |loss| format!(", {loss:.3} for a head that knows nothing"));
    let found = match findings.len() {
        0 => "nothing".to_string(),
        1 => "1 finding, see above".to_string(),
        n => format!("{n} findings, see above"),
    };
    let mut rows = vec![
        row("rows to learn from", thousands(counts.supervised_rows)),
        row(
            "cut",
            format!(
                "{} rows, {} of {} tokens",
                thousands(counts.truncated_rows),
                thousands(counts.truncated_tokens),
                thousands(counts.tokens + counts.truncated_tokens)
            ),
        ),
        row("starting loss", format!("{starting_loss:.3}{expected}")),
        row("checks", format!("{}: {}", checks.len(), checks.join(", "))),
        row("found", found),
    ];
    if !sample.is_empty() {
        rows.push(row("a row, [learnt]", told(sample)));
    }
    table(&rows)
}

/// Tokens as the tokenizer writes them, those that are learnt in brackets; of a long row both ends.
fn told(sample: &[SampleToken]) -> String {
    const ENDS: usize = 150;
    let parts = |tokens: &[SampleToken]| {
        let runs = tokens.chunk_by(|one, next| one.learnt == next.learnt);
        let text = |run: &[SampleToken]| {
            let tokens: Vec<&str> = run.iter().map(|token| token.token.as_str()).collect();
            let text = tokens.join(" ");
            if run.first().is_some_and(|token| token.learnt) { format!("[{text}]") } else { text }
        };
        runs.map(text).collect::<Vec<_>>().join(" ")
    };
    match sample.len().checked_sub(2 * ENDS) {
        None | Some(0) => parts(sample),
        Some(more) => {
            let (first, last) = (&sample[..ENDS], &sample[sample.len() - ENDS..]);
            format!("{} ... {more} tokens ... {}", parts(first), parts(last))
        }
    }
}
