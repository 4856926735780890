//! What a training is told on the command line, for the verbs that train, plan and look for faults.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};
use retune::{Kind, OptionSpec, TrainSettings};
use serde_json::Value;

use crate::failure::Failure;
use crate::run_file::{self, Layer};
use crate::verbs;

/// The verbs that are told this.
const VERBS: [&str; 3] = ["train", "plan", "doctor"];

/// The settings of a training, from a file and from flags.
#[derive(clap::Args)]
pub(crate) struct Job {
    /// A file with settings, in TOML; flags are stronger
    #[arg(value_name = "RUN.toml")]
    run_file: Option<PathBuf>,
    /// A setting by its name in a run file, such as epochs=5
    #[arg(long, value_name = "KEY=VALUE", hide_short_help = true)]
    set: Vec<String>,
    #[command(flatten)]
    settings: TrainSettings,
}

impl Job {
    /// The run file, `--set` over it, flags over both; `matches` has the methods' own flags. The threads are set.
    pub fn settings(&self, matches: Option<&ArgMatches>) -> Result<TrainSettings, Failure> {
        let file = self.run_file.as_deref().map(run_file::read).transpose()?.unwrap_or_default();
        let set = self.set.iter().map(|text| run_file::set(text)).collect::<Result<_, _>>()?;
        let mut layer = Layer::new();
        for one in [file, set, given(&self.settings)] {
            layer.extend(keep_number(one)?);
        }
        for option in retune::METHODS.iter().flat_map(|method| method.options()) {
            if let Some(value) = matches.and_then(|matches| matches.get_one::<String>(option.name)) {
                layer.insert(option.name.into(), Value::from(value.as_str()));
            }
        }
        let settings = run_file::settings(layer)?.resumed()?;
        verbs::use_threads(settings.threads)?;
        Ok(settings)
    }
}

/// The flags of the methods, which the registry knows: a new method brings its own.
pub(crate) fn with_method_options(command: Command) -> Command {
    VERBS.iter().fold(command, |command, verb| command.mut_subcommand(verb, add_method_options))
}

fn add_method_options(mut verb: Command) -> Command {
    for method in retune::METHODS {
        for option in method.options() {
            if verb.get_arguments().any(|known| known.get_id() == option.name) {
                continue;
            }
            let help = help(option);
            let value = match option.kind {
                Kind::Integer | Kind::Number => "N",
                Kind::Flag => "true|false",
                Kind::Name => "NAME",
                Kind::List => "NAMES",
                Kind::Text => "TEXT",
            };
            let flag = Arg::new(option.name).long(option.name).value_name(value).help(help);
            verb = verb.arg(flag.help_heading("Method").hide_short_help(true));
        }
    }
    verb
}

/// `keep` with a whole number says how many checkpoints stay, and is the setting that has that name.
fn keep_number(mut layer: Layer) -> Result<Layer, Failure> {
    const CHECKPOINTS: &str = "keep-checkpoints";
    let number = layer.get("keep").and_then(Value::as_str).and_then(|keep| keep.parse::<u64>().ok());
    let Some(number) = number else { return Ok(layer) };
    layer.remove("keep");
    match layer.insert(CHECKPOINTS.into(), number.into()) {
        Some(other) if other != number => Err(Failure::request(format!(
            "--keep {number} and --{CHECKPOINTS} {other} both say how many checkpoints stay; give one of them"
        ))),
        _ => Ok(layer),
    }
}

/// What an option does, which methods have it, and what it is if nobody says: first in the first of them.
fn help(option: &OptionSpec) -> String {
    let same = |other: &&OptionSpec| other.name == option.name;
    let owners: Vec<_> = retune::METHODS
        .iter()
        .filter_map(|method| Some((method.name(), method.options().iter().find(same)?.default)))
        .collect();
    let names: Vec<_> = owners.iter().map(|(name, _)| *name).collect();
    let others = owners.iter().filter(|(_, default)| *default != option.default);
    let others: String = others.map(|(name, default)| format!("; {name}: {default}")).collect();
    format!("{} ({}) [default: {}{others}]", option.help, names.join(", "), option.default)
}

/// The settings that are there.
fn given(settings: &TrainSettings) -> Layer {
    let all = serde_json::to_value(settings).unwrap_or_default();
    all.as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}
