//! Where the files of a model are: in the folder that was named, or in the cache, where they are brought from the hub.

use std::path::{Path, PathBuf};

use retune_adapt::peft::{self, AdapterFiles, Method};
use retune_model::ModelError;
use retune_model::formats::is_gguf;
use retune_model::hub::{self, HubId, HubSettings, Watch};

use crate::artefact::{Card, DataCard};
use crate::{Error, Listener, ModelSettings, Result};

/// A model of the hub, as a result names its base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `owner/name`
    pub id: String,
    /// The commit that the files are of.
    pub commit: String,
}

/// A model on this machine, not yet looked at.
pub(crate) struct Located {
    /// What was named.
    pub folder: PathBuf,
    /// The folder with the weights, which is the same but for adapters.
    pub base: PathBuf,
    /// Where the base came from, if that was the hub.
    pub origin: Option<Origin>,
    /// What lies in an adapter's folder, and the method that reads it.
    pub adapter: Option<(&'static dyn Method, AdapterFiles)>,
    /// What an earlier run wrote of itself.
    pub card: Option<Card>,
}

/// Brings what `settings` name here, so that nothing of it needs the network: the same settings, with folders in the place
/// of ids.
pub fn fetch(settings: &ModelSettings, listener: &mut dyn Listener) -> Result<ModelSettings> {
    let located = Located::find(settings, &mut crate::listener::Told(listener))?;
    Ok(ModelSettings {
        model: Some(located.folder),
        base: located.adapter.is_some().then_some(located.base).or(settings.base.clone()),
        revision: None,
        ..settings.clone()
    })
}

impl Located {
    /// Finds the model and, of an adapter, its base. Errors if there is no model where they should be.
    pub fn find(settings: &ModelSettings, watch: &mut dyn Watch) -> Result<Self> {
        let Some(name) = &settings.model else {
            let message = "which model? give a folder with config.json, model.safetensors and tokenizer.json, a \
                           GGUF file, or an id of the hub, owner/name";
            return Err(Error::Setting { flag: "model", message: message.into() });
        };
        let (folder, origin) = place(name, settings.revision.as_deref(), settings, watch)?;
        if settings.revision.is_some() && origin.is_none() {
            let message = format!("{} is a folder here, which has no revisions", name.display());
            return Err(Error::Setting { flag: "revision", message });
        }
        if !folder.join(AdapterFiles::CONFIG).is_file() {
            if !is_model(&folder) {
                return Err(Error::place(&folder, what_is_wrong(&folder)));
            }
            let card = if is_gguf(&folder) { None } else { Card::open(&folder)? };
            return Ok(Located { base: folder.clone(), folder, origin, adapter: None, card });
        }
        let adapter = peft::open_adapter(&folder)?;
        let card = Card::open(&folder)?;
        let (base, origin) =
            base(&folder, &adapter.1, card.as_ref().map(|card| &card.base), settings, watch)?;
        if !is_model(&base) {
            return Err(Error::place(&base, what_is_wrong(&base)));
        }
        Ok(Located { folder, base, origin, adapter: Some(adapter), card })
    }
}

/// The base of the adapter in `folder`: as the settings say, else its card, else its configuration.
fn base(
    folder: &Path,
    files: &AdapterFiles,
    card: Option<&DataCard>,
    settings: &ModelSettings,
    watch: &mut dyn Watch,
) -> Result<(PathBuf, Option<Origin>)> {
    if let Some(base) = &settings.base {
        return place(base, None, settings, watch);
    }
    let named = card.map(|card| (card.path.clone(), card.revision.clone()));
    let Some((name, revision)) = named.or_else(|| {
        let revision = files.config.get("revision").and_then(serde_json::Value::as_str);
        Some((PathBuf::from(files.base()?), revision.map(str::to_string)))
    }) else {
        return Err(Error::place(folder, "it names no base; give its folder with --base"));
    };
    // A path in a file may be meant from the folder of that file.
    let local = [name.clone(), folder.join(&name)].into_iter().find(|path| is_model(path));
    if let Some(local) = local {
        return Ok((local, None));
    }
    if HubId::parse(&name).is_none() {
        let message = format!("its base `{}` is not there; give its folder with --base", name.display());
        return Err(Error::place(folder, message));
    }
    watch.say(&format!("the base is {}, as the adapter says", name.display()));
    place(&name, revision.as_deref(), settings, watch)
}

/// The folder `name`, or that of the model on the hub which is called so. A folder always comes first, and what has not the
/// form of an id asks nobody.
fn place(
    name: &Path,
    revision: Option<&str>,
    settings: &ModelSettings,
    watch: &mut dyn Watch,
) -> Result<(PathBuf, Option<Origin>)> {
    if name.exists() {
        return Ok((name.to_path_buf(), None));
    }
    let Some(id) = HubId::parse(name).filter(|_| !is_among_results(name)) else {
        return Ok((name.to_path_buf(), None));
    };
    let id = match revision {
        Some(revision) => id.at(revision)?,
        None => id,
    };
    watch.say(&format!(
        "there is no folder {} here: it is taken for the id of a model on the hub",
        name.display()
    ));
    let hub = settings.hub.clone().map_or_else(HubSettings::from_env, Ok)?;
    let snapshot =
        hub::fetch(&id, &[Card::FILE], &hub, watch).map_err(|error| match (error, neighbour(name)) {
            (ModelError::Hub { id, message }, Some(near)) => {
                ModelError::Hub { id, message: format!("{message}; or did you mean the folder `{near}`?") }
            }
            (error, _) => error,
        })?;
    Ok((snapshot.folder, Some(Origin { id: id.id().to_string(), commit: snapshot.commit })))
}

/// Whether the folder that `name` would be in holds results of trainings: then it is a place, and not the id of a model.
fn is_among_results(name: &Path) -> bool {
    let folder = name.parent().filter(|parent| !parent.as_os_str().is_empty());
    let entries = folder.and_then(|folder| std::fs::read_dir(folder).ok());
    entries
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| [Card::FILE, "events.jsonl"].iter().any(|file| entry.path().join(file).is_file()))
}

/// Whether a whole model is there: a folder with a configuration, or a GGUF file.
fn is_model(path: &Path) -> bool {
    is_gguf(path) || path.join("config.json").is_file()
}

/// What is there and called nearly so.
fn neighbour(name: &Path) -> Option<String> {
    let folder = name.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let names: Vec<String> = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter(|entry| entry.path().is_dir() || is_gguf(&entry.path()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let near = retune_adapt::nearest(name.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(name.with_file_name(near).display().to_string())
}

fn what_is_wrong(folder: &Path) -> String {
    if !folder.exists() {
        if let Some(near) = neighbour(folder) {
            return format!("there is no such folder; did you mean `{near}`?");
        }
        if folder.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) {
            return "there is no such file".into();
        }
        let one_word = folder.components().count() == 1 && folder.is_relative();
        let hint = if one_word { "; the id of a model on the hub has two parts, owner/name" } else { "" };
        return format!("there is no such folder{hint}");
    }
    if !folder.is_dir() {
        return "expected a model's folder or a GGUF file, got another file".into();
    }
    if folder.join("events.jsonl").is_file() {
        return "expected a model, got a run that was not finished; `retune train --resume --output` goes on with it"
            .into();
    }
    "expected a model's folder, with config.json, model.safetensors and tokenizer.json; config.json is missing".into()
}
