use std::path::{Path, PathBuf};

use retune_adapt::peft::{self, AdapterFiles, Method};
use retune_adapt::tasks::TextClassifier;
use retune_model::formats::HfConfig;

use crate::artefact::{self, Card};
use crate::{Error, ModelSettings, Result};

/// Where a model comes from: a folder with the whole of it, or an adapter and its base.
pub struct Source {
    /// The folder that was named.
    pub folder: PathBuf,
    /// The folder with the weights, which is the same but for adapters.
    pub base: PathBuf,
    /// What lies in an adapter's folder, and the method that reads it.
    pub adapter: Option<(&'static dyn Method, AdapterFiles)>,
    /// What an earlier run wrote of itself.
    pub card: Option<Card>,
}

impl Source {
    /// Finds out what lies at the place that `settings` name. Errors if it is no model, or an adapter whose base is gone
    /// or has changed.
    pub fn find(settings: &ModelSettings) -> Result<Self> {
        let Some(folder) = settings.model.clone() else {
            let message = "which model? give a folder with config.json, model.safetensors and tokenizer.json";
            return Err(Error::Setting { flag: "model", message: message.into() });
        };
        if folder.join(AdapterFiles::CONFIG).is_file() {
            return Self::adapter(folder, settings);
        }
        if !folder.join("config.json").is_file() {
            return Err(Error::place(&folder, what_is_wrong(&folder)));
        }
        if let Some(base) = &settings.base {
            let message = format!(
                "{} is a whole model, so there is no base to give, got {}",
                folder.display(),
                base.display()
            );
            return Err(Error::Setting { flag: "base", message });
        }
        let card = Card::open(&folder)?;
        Ok(Source { base: folder.clone(), folder, adapter: None, card })
    }

    /// The labels that its head was trained for, in the order of the logits: of its card, or else of its configuration.
    /// None where nobody named them, and where an adapter's head has another number of classes.
    pub fn labels(&self) -> Result<Option<Vec<String>>> {
        if let Some(card) = &self.card {
            return Ok(Some(card.labels.clone()));
        }
        let config = HfConfig::open(&self.base)?;
        let Some(named) = config.label_names()? else { return Ok(None) };
        if let Some(conflict) = named.conflict {
            return Err(Error::place(config.path(), conflict));
        }
        let classes = self.adapter.as_ref().and_then(|(_, files)| files.head_rows(TextClassifier::HEAD));
        Ok(Some(named.names).filter(|names| classes.is_none_or(|classes| classes == names.len())))
    }

    fn adapter(folder: PathBuf, settings: &ModelSettings) -> Result<Self> {
        let adapter = peft::open_adapter(&folder)?;
        let card = Card::open(&folder)?;
        let named = card.as_ref().map(|card| card.base.path.clone());
        let named = named.or_else(|| adapter.1.base().map(PathBuf::from));
        let base = match (&settings.base, named) {
            (Some(base), _) => base.clone(),
            // A path in a file may be meant from the folder of that file.
            (None, Some(named)) => [named.clone(), folder.join(&named)]
                .into_iter()
                .find(|path| path.join("config.json").is_file())
                .ok_or_else(|| {
                    let message =
                        format!("its base `{}` is not there; give its folder with --base", named.display());
                    Error::place(&folder, message)
                })?,
            (None, None) => {
                return Err(Error::place(&folder, "it names no base; give its folder with --base"));
            }
        };
        if !base.join("config.json").is_file() {
            return Err(Error::place(&base, what_is_wrong(&base)));
        }
        if let Some(expected) = card.as_ref().map(|card| &card.base.sha256)
            && settings.allow_other_base != Some(true)
        {
            let got = artefact::hash_weights(&base)?;
            if got != *expected {
                let message = format!(
                    "its weights are not those that {} was trained on: expected sha256 {expected}, got {got}; \
                     --allow-other-base uses them all the same",
                    folder.display()
                );
                return Err(Error::place(&base, message));
            }
        }
        Ok(Source { folder, base, adapter: Some(adapter), card })
    }
}

fn what_is_wrong(folder: &Path) -> String {
    if !folder.exists() {
        let names_hub = folder.components().count() == 2 && folder.is_relative();
        let hint = if names_hub { "; models are read from local folders, none is downloaded" } else { "" };
        return format!("there is no such folder{hint}");
    }
    if !folder.is_dir() {
        return "expected a model's folder, got a file".into();
    }
    if folder.join("events.jsonl").is_file() {
        return "expected a model, got a run that was not finished".into();
    }
    "expected a model's folder, with config.json, model.safetensors and tokenizer.json; config.json is missing".into()
}
