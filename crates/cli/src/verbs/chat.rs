use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use retune::generate::{Chat, Generation, Took};
use retune::{GenerateSettings, ModelSettings};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::Output;
use crate::verbs::{self, generate};

/// A conversation with a decoder, a line a turn
#[derive(clap::Args)]
#[command(after_help = "\
examples:
  retune chat --model smollm2
  retune chat --model runs/shop --system \"You work in a shop.\" --temperature 0.7
  printf 'Hello\\n/adapter off\\nHello\\n' | retune chat --model runs/shop

in it:
  /adapter on|off    with the adapter or as the base alone, the turns as they are
  /system TEXT       another beginning, and nothing said yet
  /reset             nothing said yet
  /quit              the end, as Ctrl-D
  //TEXT             a turn that begins with /")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelSettings,
    /// An adapter of --model
    #[arg(long, value_name = "DIR", requires = "model", help_heading = "Model")]
    adapter: Option<PathBuf>,
    /// What stands before all turns
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    answer: GenerateSettings,
    /// Threads; they change the speed and nothing else [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Default, Serialize)]
struct Answer {
    #[serde(flatten)]
    took: Took,
    turns: Vec<Generation>,
}

const COMMANDS: [&str; 5] = ["/adapter", "/system", "/reset", "/quit", "/help"];

pub(crate) fn run(args: &Args, output: &Output) -> Result<(), Failure> {
    verbs::use_threads(args.threads)?;
    args.answer.sampling()?;
    let generator = generate::open(&args.model, args.adapter.as_deref(), output)?;
    let mut chat = Chat::new(generator, args.answer.clone(), args.system.clone())?;
    let terminal = io::stdin().is_terminal();
    if terminal {
        output.say("a line is a turn; /help says what else there is, Ctrl-D ends it");
    }
    let mut answer = Answer::default();
    let mut lines = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        if terminal {
            output.mark("> ");
        }
        line.clear();
        let read = lines.read_until(b'\n', &mut line);
        if read.map_err(|error| Failure { message: format!("stdin: cannot read: {error}"), code: 1 })? == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line).trim().to_string();
        match turn(&mut chat, &text, output, &mut answer) {
            Ok(true) => {}
            Ok(false) => break,
            // Who types may type something else; a script has to know.
            Err(failure) if terminal && failure.code == 2 => output.say(&format!("error: {failure}")),
            Err(failure) => return Err(failure),
        }
    }
    output.result(&answer, String::new)?;
    if !answer.turns.is_empty() {
        output.say(&generate::speed(&answer.took));
    }
    Ok(())
}

/// What a line asks for; false at the end.
fn turn(chat: &mut Chat, text: &str, output: &Output, answer: &mut Answer) -> Result<bool, Failure> {
    let (command, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    match (command, rest) {
        ("", _) => {}
        ("/quit", "") => return Ok(false),
        ("/reset", "") => chat.reset(),
        ("/help", "") => output.say(
            "/adapter on|off, /system TEXT, /reset, /quit; a turn that begins with / is written with two of them",
        ),
        ("/system", "") => chat.set_system(None),
        ("/system", system) => chat.set_system(Some(system.to_string())),
        ("/adapter", "on" | "off") => {
            chat.use_adapter(rest == "on")?;
            output.say(&format!("the adapter is {rest}"));
        }
        ("/adapter", other) => {
            return Err(Failure::request(format!("/adapter: expected on or off, got `{other}`")));
        }
        (command, _) if command.starts_with('/') && !command.starts_with("//") => {
            let near = retune::nearest(command, COMMANDS);
            let near = near.map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
            let known = COMMANDS.join(", ");
            return Err(Failure::request(format!(
                "there is no `{command}`{near}; there are {known}, and a turn that begins with / is written with two of them"
            )));
        }
        _ => {
            let text = if text.starts_with("//") { &text[1..] } else { text };
            let mut written = Ok(());
            let (generation, took) = chat.say(text, &mut |piece| {
                written = output.piece(piece);
                written.is_ok()
            })?;
            written?;
            output.piece("\n")?;
            answer.took.add(took);
            answer.turns.push(generation);
        }
    }
    Ok(true)
}
