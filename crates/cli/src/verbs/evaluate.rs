use std::path::PathBuf;

use retune::evaluate::{Comparison, Evaluation};
use retune::{FileSettings, GenerateSettings, ModelSettings};

use crate::failure::Failure;
use crate::output::{Output, duration, table, thousands};
use crate::progress::Progress;
use crate::verbs;

/// How good a model is on a file, with confidence intervals
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune evaluate --model result --data test.csv
  retune evaluate --model result --data test.csv --compare other-result    is the difference more than chance?
  retune evaluate --model chat-result --data test.jsonl --exact-match \"#### (\\\\S+)\"    what do its answers say?
  retune evaluate --model result --data test.csv --json")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelSettings,
    /// Rows with texts and labels: a file, a folder or a pattern; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    file: FileSettings,
    /// Another model, for the same rows: how far apart the two are, and whether that may be chance
    #[arg(long, value_name = "DIR")]
    compare: Option<PathBuf>,
    /// Generate an answer for each row of a language model, and tell how often this pattern finds in it what it finds in the right one;
    /// of its first group, if it has one: "#### (\S+)" for GSM8K. It takes far longer than the loss
    #[arg(long, value_name = "PATTERN", conflicts_with = "compare")]
    exact_match: Option<String>,
    /// The longest such answer [default: 256]
    #[arg(long, visible_alias = "max-tokens", value_name = "TOKENS", requires = "exact_match")]
    max_new_tokens: Option<usize>,
    /// Longer texts are cut to this many tokens [default: as in training]
    #[arg(long, value_name = "TOKENS")]
    max_length: Option<usize>,
    /// Threads; they change the speed and nothing else [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    verbs::use_threads(args.threads)?;
    let local = retune::fetch(&args.model, &mut Progress::new(output))?;
    let other = args.compare.as_ref().map(|other| {
        // All but the place is as for the first, or the two would not be equal.
        let other =
            ModelSettings { model: Some(other.clone()), base: None, revision: None, ..args.model.clone() };
        retune::fetch(&other, &mut Progress::new(output))
    });
    let other = other.transpose()?;
    let mut evaluation =
        retune::evaluate::evaluate(&local, other.as_ref(), &args.data, &args.file, args.max_length)?;
    if let Some(pattern) = &args.exact_match {
        let answer = GenerateSettings { max_new_tokens: args.max_new_tokens, ..GenerateSettings::default() };
        let (data, file) = (&args.data, &args.file);
        retune::generate::exact_match(&local, data, file, pattern, &answer, &mut evaluation)?;
    }
    evaluation.said.iter().for_each(|sentence| output.say(&format!("- {sentence}")));
    output.result(&evaluation, || text(&evaluation))?;
    output.say("next:");
    let model = model(&args.model);
    output.say(&match evaluation.metrics.values.contains_key("perplexity") {
        true => format!("  retune chat --model {model}         try it, a line a turn"),
        false => format!("  retune predict --model {model} --input NEW.csv --output LABELLED.csv"),
    });
    Ok(())
}

/// A text on one line of a table.
fn short(text: &str) -> String {
    const MOST: usize = 48;
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

fn model(settings: &ModelSettings) -> String {
    settings.model.as_ref().map(|folder| folder.display().to_string()).unwrap_or_default()
}

fn text(evaluation: &Evaluation) -> String {
    let metrics = &evaluation.metrics;
    let within = |name: &str| {
        let interval = metrics.intervals.as_ref().and_then(|intervals| intervals.scores.get(name));
        // Rows that are all alike say nothing of others.
        let spread = interval.filter(|ends| ends.low < ends.high);
        spread.map(|ends| format!("({:.4} to {:.4} in 95 of 100)", ends.low, ends.high)).unwrap_or_default()
    };
    let row = |words: &str, value: f64, more: String| vec![words.to_string(), format!("{value:.4}"), more];
    let shown = retune::shown(&metrics.values).into_iter();
    let mut rows: Vec<_> = shown.map(|(name, words, value)| row(words, value, within(name))).collect();
    let generated = metrics.values.get("exact_match").filter(|_| metrics.values.contains_key("perplexity"));
    rows.extend(generated.map(|share| row("exact match", *share, within("exact_match"))));
    if !metrics.values.contains_key("loss") {
        rows.push(row("loss", evaluation.loss, String::new()));
    }
    let mut text = table(&rows);
    let seconds = duration(evaluation.seconds);
    text.push_str(&format!("{} rows in {seconds}\n", thousands(evaluation.rows)));
    if let Some(Comparison { other, metric, paired }) = &evaluation.comparison {
        // Of five rows the rarest of all throws comes once in sixteen.
        let chance = match paired.p_value {
            _ if evaluation.rows < 6 => "too few rows to tell",
            p if p < 0.05 => "more than chance",
            _ => "may be chance",
        };
        text.push_str(&format!(
            "\n{metric} beside {}: {:.4} and {:.4}, difference {:+.4} ({:+.4} to {:+.4} in 95 of 100), p = {:.4}: {chance}\n",
            other.display(), paired.first, paired.second, paired.difference, paired.interval.low, paired.interval.high,
            paired.p_value
        ));
    }
    if !evaluation.most_confused.is_empty() {
        text.push_str("\nmost often confused (label, taken for, times)\n");
        let confused = evaluation.most_confused.iter().take(5);
        let rows: Vec<_> = confused
            .map(|(gold, predicted, count)| vec![gold.clone(), predicted.clone(), count.to_string()])
            .collect();
        text.push_str(&table(&rows));
    }
    if !evaluation.mistakes.is_empty() {
        text.push_str("\nsurest mistakes (line, text, right, predicted, probability)\n");
        let nothing = |text: &str| if text.is_empty() { "(nothing)".to_string() } else { short(text) };
        let rows: Vec<_> = evaluation
            .mistakes
            .iter()
            .take(5)
            .map(|mistake| {
                let expected = nothing(mistake.expected.first().map_or("", String::as_str));
                let file = mistake.file.as_ref().map(|file| format!("{}:", file.display()));
                let line = format!("{}{}", file.unwrap_or_default(), mistake.line);
                let score = format!("{:.3}", mistake.score);
                vec![line, short(&mistake.text), expected, nothing(&mistake.predicted), score]
            })
            .collect();
        text.push_str(&table(&rows));
    }
    let mut weakest: Vec<_> = evaluation.labels.iter().filter(|label| label.support > 0).collect();
    weakest.sort_by(|a, b| a.f1.total_cmp(&b.f1));
    if weakest.len() > 2 {
        text.push_str("\nweakest labels (precision, recall, F1, how many)\n");
        let number = |value: f64| format!("{value:.3}");
        let rows: Vec<_> = weakest
            .iter()
            .take(5)
            .map(|label| {
                let numbers = [
                    number(label.precision),
                    number(label.recall),
                    number(label.f1),
                    label.support.to_string(),
                ];
                std::iter::once(label.label.clone()).chain(numbers).collect()
            })
            .collect();
        text.push_str(&table(&rows));
    }
    text
}
