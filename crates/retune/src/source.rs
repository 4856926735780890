use std::path::PathBuf;

use retune_adapt::peft::{self, AdapterFiles, Method};
use retune_adapt::tasks::{self, Task};
use retune_data::{DataError, ProblemType};
use retune_model::families::{self, HeadKind};
use retune_model::formats::{HfConfig, LabelNames};

use crate::artefact::{self, Card};
use crate::listener::Told;
use crate::located::{Located, Origin};
use crate::{Error, Listener, ModelSettings, Result};

/// Where a model comes from: a folder with the whole of it, or an adapter and its base. What came from the hub lies in
/// its cache.
pub struct Source {
    /// The folder that was named.
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

impl Source {
    /// Finds out what lies at the place that `settings` name, and brings it here if that is the hub. Errors if it is no
    /// model, or an adapter whose base is gone or has changed.
    pub fn find(settings: &ModelSettings) -> Result<Self> {
        Self::check(Located::find(settings, &mut ())?, settings)
    }

    /// The same; `listener` is told of a download.
    pub fn fetch(settings: &ModelSettings, listener: &mut dyn Listener) -> Result<Self> {
        Self::check(Located::find(settings, &mut Told(listener))?, settings)
    }

    fn check(located: Located, settings: &ModelSettings) -> Result<Self> {
        let Located { folder, base, origin, adapter, card } = located;
        let source = Source { folder, base, origin, adapter, card };
        match source.adapter {
            Some(_) => source.check_base(settings)?,
            None => source.check_whole(settings)?,
        }
        Ok(source)
    }

    /// Errors if a base is given to a whole model, or its card and its configuration name other labels.
    fn check_whole(&self, settings: &ModelSettings) -> Result<()> {
        if let Some(base) = &settings.base {
            let message = format!(
                "{} is a whole model, so there is no base to give, got {}",
                self.folder.display(),
                base.display()
            );
            return Err(Error::Setting { flag: "base", message });
        }
        let Some(card) = &self.card else { return Ok(()) };
        let config = HfConfig::open(&self.folder)?;
        if config.label_names()?.is_some_and(|named| named.names != card.labels) {
            let message = format!(
                "its `id2label` has not the labels of {}: one of the two was changed, and which is right cannot be \
                 known; remove {} if the model was trained again since",
                Card::FILE,
                Card::FILE
            );
            return Err(Error::place(config.path(), message));
        }
        Ok(())
    }

    /// Errors if the base's weights are not those that the adapter was trained on, unless that is allowed.
    fn check_base(&self, settings: &ModelSettings) -> Result<()> {
        let Some(expected) = self.card.as_ref().map(|card| &card.base.sha256) else { return Ok(()) };
        if settings.allow_other_base == Some(true) {
            return Ok(());
        }
        let got = artefact::hash_weights(&self.base)?;
        if got == *expected {
            return Ok(());
        }
        let message = format!(
            "its weights are not those that {} was trained on: expected sha256 {expected}, got {got}; \
             --allow-other-base uses them all the same",
            self.folder.display()
        );
        Err(Error::place(&self.base, message))
    }

    /// The same place, opened again: a model takes its source with it.
    pub(crate) fn again(&self) -> Result<Self> {
        Ok(Source {
            folder: self.folder.clone(),
            base: self.base.clone(),
            origin: self.origin.clone(),
            adapter: self.adapter.is_some().then(|| peft::open_adapter(&self.folder)).transpose()?,
            card: self.card.clone(),
        })
    }

    /// What it was trained to do: by its card, or else by the class that its configuration names. None where nobody said,
    /// as of a model that was only pretrained.
    pub fn task(&self) -> Result<Option<&'static dyn Task>> {
        if let Some(card) = &self.card {
            return Ok(Some(tasks::find(&card.task)?));
        }
        let kind = |words: &str| {
            let named =
                |kind: &HeadKind| words == kind.peft_task_type() || words.ends_with(kind.class_suffix());
            HeadKind::ALL.into_iter().find(named)
        };
        let words = match &self.adapter {
            Some((_, files)) => {
                let words =
                    ["task_type", "model_class"].into_iter().find_map(|key| files.config.get(key)?.as_str());
                words.and_then(kind)
            }
            None => {
                let config = HfConfig::open(&self.base)?;
                let classes = config.raw.get("architectures").and_then(serde_json::Value::as_array);
                classes.and_then(|classes| classes.iter().filter_map(|class| class.as_str()).find_map(kind))
            }
        };
        Ok(words.and_then(tasks::with_head))
    }

    /// What its head was trained to say: by its card, or else by its configuration. None where nobody said.
    pub fn problem_type(&self) -> Result<Option<ProblemType>> {
        if self.task()?.is_some_and(|task| !task.has_problem_types()) {
            return Ok(None);
        }
        if let Some(card) = &self.card {
            return Ok(Some(card.problem_type.unwrap_or_default()));
        }
        let config = HfConfig::open(&self.base)?;
        let stated = config.optional_str("problem_type")?.map(str::parse).transpose();
        let stated: Option<ProblemType> = stated
            .map_err(|error: DataError| Error::place(config.path(), format!("`problem_type`: {error}")))?;
        let outputs = match &self.adapter {
            Some(_) => self.adapter_classes()?,
            None => config.label_names()?.map(|named| named.names.len()),
        };
        // One output is a number where nobody says otherwise, as transformers has it. What an adapter's base says is
        // of the base's own head.
        let number = outputs == Some(1);
        match stated {
            Some(stated) if self.adapter.is_none() || number == (stated == ProblemType::Regression) => {
                Ok(Some(stated))
            }
            _ => Ok(number.then_some(ProblemType::Regression)),
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
        if let Some(names) = self.adapter.as_ref().and_then(|(_, files)| files.labels()) {
            let placeholder = names.iter().enumerate().all(|(id, name)| *name == format!("LABEL_{id}"));
            if classes.is_none_or(|classes| classes == names.len()) {
                return Ok(Some(LabelNames { names, placeholder, conflict: None }));
            }
        }
        let named = HfConfig::open(&self.base)?.label_names()?;
        Ok(named.filter(|named| classes.is_none_or(|classes| classes == named.names.len())))
    }

    /// How many classes an adapter's head has, if it brings one and the family of its base is known.
    pub(crate) fn adapter_classes(&self) -> Result<Option<usize>> {
        let Some((_, files)) = &self.adapter else { return Ok(None) };
        let kind = self.task()?.unwrap_or(tasks::USUAL).head();
        let family = families::find(&HfConfig::open(&self.base)?);
        Ok(family.ok().and_then(|family| files.head_rows(family.head_name(kind))))
    }
}
