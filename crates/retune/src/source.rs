use std::path::{Path, PathBuf};

use retune_adapt::peft::{self, AdapterFiles, Method};
use retune_model::families;
use retune_model::formats::{HfConfig, LabelNames};

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
        if let Some(card) = &card {
            let config = HfConfig::open(&folder)?;
            if config.label_names()?.is_some_and(|named| named.names != card.labels) {
                let message = format!(
                    "its `id2label` has not the labels of {}: one of the two was changed, and which is right cannot be \
                     known; remove {} if the model was trained again since",
                    Card::FILE,
                    Card::FILE
                );
                return Err(Error::place(config.path(), message));
            }
        }
        Ok(Source { base: folder.clone(), folder, adapter: None, card })
    }

    /// The same place, opened again: a model takes its source with it.
    pub(crate) fn again(&self) -> Result<Self> {
        Ok(Source {
            folder: self.folder.clone(),
            base: self.base.clone(),
            adapter: self.adapter.is_some().then(|| peft::open_adapter(&self.folder)).transpose()?,
            card: self.card.clone(),
        })
    }

    /// Errors if the head was made for another task than one of several classes.
    pub(crate) fn check_task(&self) -> Result<()> {
        let config = HfConfig::open(&self.base)?;
        match config.optional_str("problem_type")? {
            None | Some("single_label_classification") => Ok(()),
            Some(other) if self.adapter.is_none() => Err(Error::place(
                config.path(),
                format!(
                    "`problem_type`: expected `single_label_classification`, got `{other}`, which is not predicted"
                ),
            )),
            Some(_) => Ok(()),
        }
    }

    /// The labels that its head was trained for, in the order of the logits: of its card, or else of its configuration.
    /// None where nobody named them, and where an adapter's head has another number of classes. Errors if the names
    /// contradict themselves.
    pub fn labels(&self) -> Result<Option<Vec<String>>> {
        let named = self.named()?;
        if let Some(conflict) = named.as_ref().and_then(|named| named.conflict.clone()) {
            return Err(Error::place(&self.base.join("config.json"), conflict));
        }
        Ok(named.map(|named| named.names))
    }

    /// The same where they need not be sound, as in a training that may make the head anew: names that contradict
    /// themselves are then as good as none.
    pub(crate) fn sound_labels(&self) -> Result<Option<Vec<String>>> {
        Ok(self.named()?.filter(|named| named.conflict.is_none()).map(|named| named.names))
    }

    fn named(&self) -> Result<Option<LabelNames>> {
        if let Some(card) = &self.card {
            return Ok(Some(LabelNames { names: card.labels.clone(), placeholder: false, conflict: None }));
        }
        let classes = self.adapter_classes()?;
        let named = HfConfig::open(&self.base)?.label_names()?;
        Ok(named.filter(|named| classes.is_none_or(|classes| classes == named.names.len())))
    }

    /// How many classes an adapter's head has, if it brings one and the family of its base is known.
    pub(crate) fn adapter_classes(&self) -> Result<Option<usize>> {
        let Some((_, files)) = &self.adapter else { return Ok(None) };
        let family = families::find(&HfConfig::open(&self.base)?);
        Ok(family.ok().and_then(|family| files.head_rows(family.head_name())))
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
        return "expected a model, got a run that was not finished; `retune train --resume --output` goes on with it".into();
    }
    "expected a model's folder, with config.json, model.safetensors and tokenizer.json; config.json is missing".into()
}
