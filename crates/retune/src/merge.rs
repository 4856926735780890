//! An adapter and its base as one model.

use std::path::{Path, PathBuf};

use retune_adapt::peft::{self, Applied};
use retune_tensor::random::Key;
use serde::Serialize;

use crate::new_folder::NewFolder;
use crate::sample::{Sample, max_difference};
use crate::{Error, FileSettings, ModelSettings, Result, TextModel, artefact};

/// What a merge came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Merged {
    /// Where the model is.
    pub output: PathBuf,
    /// What it does.
    pub task: &'static str,
    /// The method that made the adapter.
    pub method: &'static str,
    /// The base that it is now a part of.
    pub base: PathBuf,
    /// How far the logits of the merged model, as they come from its files, are from those of the adapter on its base.
    pub max_logit_difference: f64,
    /// The largest of those logits.
    pub max_logit: f64,
    /// What that was measured on.
    pub measured_on: String,
}

/// Puts what an adapter learnt into the weights of its base, in f32, and saves the whole as a Hugging Face folder in
/// `output`. The difference is measured on rows of `data`, or of random tokens.
///
/// Errors if `settings` name no adapter, or one whose method has no weights of the base for what it does.
pub fn merge(
    settings: &ModelSettings,
    output: &Path,
    overwrite: bool,
    data: &[PathBuf],
    file: &FileSettings,
) -> Result<Merged> {
    // What is added to a weight in fewer digits would be lost in part.
    let whole = Some("f32".to_string());
    let settings = ModelSettings { precision: whole.clone(), base_precision: whole, ..settings.clone() };
    let mut model = TextModel::open(&settings)?;
    if model.source.adapter.is_none() {
        let message = "it is a whole model: there is no adapter to merge";
        return Err(Error::place(&model.source.folder, message));
    }
    let (task, method) = (model.task.name(), model.method);
    let folder = NewFolder::create(output, overwrite)?;
    let sample = Sample::new(&model, data, file)?;
    let before = sample.logits(&model)?;
    method.merge(&mut peft::Model {
        parameters: &mut model.parameters,
        hooks: &mut model.hooks,
        encoder: model.network.encoder(),
        classifier: model.network.classifier(),
        fresh: &model.fresh,
        trains_pooler: false,
        tokenizer: Some(&model.tokenizer),
        seed: Key::new(0),
    })?;
    let Applied::Adapter(adapter) = std::mem::replace(&mut model.applied, Applied::Model) else {
        return Err(Error::place(&model.source.folder, "it is a whole model: there is no adapter to merge"));
    };
    artefact::save_merged(&model, &adapter, folder.path())?;
    if let Some(card) = &model.source.card {
        card.save(folder.path())?;
    }
    let base = model.source.base.clone();
    drop(model);
    // Of what was written: it is this that somebody will use.
    let model = Some(folder.path().to_path_buf());
    let written = ModelSettings { model, precision: settings.precision, ..ModelSettings::default() };
    let after = sample.logits(&TextModel::open(&written)?)?;
    folder.finish()?;
    Ok(Merged {
        task,
        output: output.to_path_buf(),
        method: method.name(),
        base,
        max_logit_difference: max_difference(&before, &after),
        max_logit: before.iter().fold(0.0, |max, logit| f64::max(max, f64::from(logit.abs()))),
        measured_on: sample.is,
    })
}
