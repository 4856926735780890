use std::io::{self, Read};
use std::path::{Path, PathBuf};

use retune::generate::{Asking, Generation, Prompt, ROWS, Took};
use retune::{FileSettings, GenerateSettings, Generator, ModelSettings};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Output, duration, thousands};
use crate::progress::Progress;
use crate::verbs;

/// Text from a decoder: prompts go on token by token
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune generate --model smollm2 --prompt \"Once upon a time\" --max-new-tokens 64
  retune generate --model smollm2 --chat --prompt \"Where is my parcel?\" --temperature 0.7 --top-p 0.9
  retune generate --model runs/shop --input questions.jsonl --output answers.jsonl
  retune generate --model smollm2 --adapter runs/shop --chat --prompt \"Where is my parcel?\"
  echo \"Once upon a time\" | retune generate --model smollm2 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelSettings,
    /// An adapter of --model
    #[arg(long, value_name = "DIR", requires = "model", help_heading = "Model")]
    adapter: Option<PathBuf>,
    /// A text to go on from; may be given several times [default: what comes from stdin]
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// Rows to answer: prompts, conversations up to their last answer, or texts; a file, a folder or a pattern; may be given several
    /// times
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    input: Vec<PathBuf>,
    /// The answers as JSON lines, in the order of the prompts
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long, requires = "output")]
    overwrite: bool,
    /// Ask a text as a turn of a chat, as the model's own template writes it; conversations always are
    #[arg(long)]
    chat: bool,
    /// What stands before all turns of a chat; it makes turns of texts
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    answer: GenerateSettings,
    #[command(flatten)]
    file: FileSettings,
    /// Prompts that go on at once; it changes the speed and the memory, and no text
    #[arg(long, value_name = "ROWS", default_value_t = ROWS)]
    batch_size: usize,
    /// Threads; they change the speed and nothing else [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Serialize)]
struct Answer {
    /// Of a single prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(flatten)]
    took: Took,
    generations: Vec<Generation>,
}

/// The model of `settings`, with `adapter` on it where there is one.
pub(super) fn open(
    settings: &ModelSettings,
    adapter: Option<&Path>,
    output: &Output,
) -> Result<Generator, Failure> {
    let mut settings = settings.clone();
    if let Some(adapter) = adapter {
        settings.base = settings.model.replace(adapter.to_path_buf());
    }
    let local = retune::fetch(&settings, &mut Progress::new(output))?;
    Ok(Generator::open(&local)?)
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    verbs::use_threads(args.threads)?;
    if args.batch_size == 0 {
        return Err(Failure::request("--batch-size: expected at least 1, got 0"));
    }
    args.answer.sampling()?;
    let place = args
        .output
        .as_ref()
        .map(|to| retune::generate::place(&args.input, to, args.overwrite))
        .transpose()?;
    let generator = open(&args.model, args.adapter.as_deref(), output)?;
    let piped = if args.prompt.is_empty() && args.input.is_empty() { vec![stdin()?] } else { Vec::new() };
    let prompt = match args.input.as_slice() {
        [] if args.prompt.is_empty() => Prompt::Texts(&piped),
        [] => Prompt::Texts(&args.prompt),
        files => Prompt::Files(files, &args.file),
    };
    let asking = Asking { chat: args.chat, system: args.system.clone() };
    let (asked, said) = generator.ask(&prompt, &asking)?;
    said.iter().for_each(|sentence| output.say(&format!("- {sentence}")));
    // One answer is written as it comes; several would be mixed.
    let alone = asked.len() == 1 && place.is_none();
    let mut written = Ok(());
    let (generations, took) = generator.generate(&asked, &args.answer, args.batch_size, &mut |_, text| {
        if alone {
            written = output.piece(text);
        }
        written.is_ok()
    })?;
    written?;
    let count = generations.len();
    if let (Some(place), Some(to)) = (&place, &args.output) {
        retune::generate::write(place, to, &generations)?;
    }
    let text = match generations.as_slice() {
        [one] => Some(one.text.clone()),
        _ => None,
    };
    let kept = if place.is_some() { Vec::new() } else { generations };
    let answer = Answer { text, took, generations: kept };
    output.result(&answer, || match (alone, &place) {
        (true, _) => "\n".into(),
        (_, Some(_)) => String::new(),
        _ => answer.generations.iter().map(|one| format!("> {}\n{}\n\n", one.prompt, one.text)).collect(),
    })?;
    output.say(&speed(&took));
    if let Some(to) = &args.output {
        output.say(&format!("{} answers, written to {}", thousands(count), to.display()));
    }
    output.say("next:");
    let model = args.adapter.as_ref().or(args.model.model.as_ref());
    output.say(&format!(
        "  retune chat --model {}",
        model.map(|model| model.display().to_string()).unwrap_or_default()
    ));
    Ok(())
}

/// What comes from stdin, without the end of its last line.
fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text).map_err(|error| {
        Failure::request(format!("stdin: expected a prompt in UTF-8: {error}; or give it with --prompt"))
    })?;
    let text = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&text);
    if text.is_empty() {
        return Err(Failure::request("stdin: expected a prompt, got nothing; or give it with --prompt"));
    }
    Ok(text.to_string())
}

/// How fast it went, in words.
pub(super) fn speed(took: &Took) -> String {
    format!(
        "{} tokens in {}, {:.1} tokens/s behind {} tokens of prompts in {}",
        thousands(took.tokens),
        duration(took.seconds),
        took.tokens_per_second,
        thousands(took.prompt_tokens),
        duration(took.prompt_seconds)
    )
}
