//! What a training is told on the command line, for the verbs that train, plan and look for faults.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};
use retune::{Kind, TrainSettings};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::{run_file, verbs};

/// The verbs that are told this.
const VERBS: [&str; 3] = ["train", "plan", "doctor"];

/// The settings of a training, from a file and from flags.
#[derive(clap::Args)]
pub(crate) struct Job {
    /// A file with settings, in TOML; flags are stronger
    #[arg(value_name = "RUN.toml")]
    run_file: Option<PathBuf>,
    /// A setting by its name in a run file, such as epochs=5
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    settings: TrainSettings,
}

impl Job {
    /// The run file, `--set` over it, flags over both; `matches` has the methods' own flags. The threads are set.
    pub fn settings(&self, matches: Option<&ArgMatches>) -> Result<TrainSettings, Failure> {
        let mut layer = self.run_file.as_deref().map(run_file::read).transpose()?.unwrap_or_default();
        for text in &self.set {
            let (name, value) = run_file::set(text)?;
            layer.insert(name, value);
        }
        layer.extend(given(&self.settings));
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
            let help = format!("{} ({}) [default: {}]", option.help, method.name(), option.default);
            let value = match option.kind {
                Kind::Integer | Kind::Number => "N",
                Kind::Flag => "true|false",
                Kind::Name => "NAME",
                Kind::List => "NAMES",
                Kind::Text => "TEXT",
            };
            verb = verb.arg(Arg::new(option.name).long(option.name).value_name(value).help(help));
        }
    }
    verb
}

/// The settings that are there.
fn given(settings: &TrainSettings) -> Map<String, Value> {
    let all = serde_json::to_value(settings).unwrap_or_default();
    all.as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}
