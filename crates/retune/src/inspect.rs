//! What lies in a folder: a model, an adapter, a run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use retune_data::ProblemType;
use retune_model::formats::{HfConfig, Weights};
use serde::Serialize;
use serde_json::Value;

use crate::{Card, ModelSettings, Result, Source};

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspected {
    /// A model, an adapter, or the result of a run.
    pub what: &'static str,
    /// Its family.
    pub model_type: String,
    /// How many numbers its own weights are.
    pub parameters: usize,
    /// How they are stored.
    pub dtypes: Vec<String>,
    /// The sizes that its configuration tells.
    pub sizes: BTreeMap<String, Value>,
    /// An adapter's base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// What its head says, where it was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem_type: Option<ProblemType>,
    /// The labels, in the order of the logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// What the run that made it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub card: Option<Card>,
    /// Every tensor: name and shape.
    pub tensors: BTreeMap<String, Vec<usize>>,
}

/// The keys of a configuration that say how large a model is.
const SIZES: [&str; 14] = [
    "vocab_size",
    "embedding_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    // The same of a DistilBERT.
    "dim",
    "n_layers",
    "n_heads",
    "hidden_dim",
    "max_position_embeddings",
    "r",
    "lora_alpha",
    "reduction_factor",
];

/// Says what lies in `folder` (or is on the hub under this id); `base` is that of an adapter, where it is no longer at its place. Errors if it is no
/// model.
pub fn inspect(folder: &Path, base: Option<&Path>) -> Result<Inspected> {
    // Looking at an adapter whose base has changed is no use of it.
    let base = base.map(Path::to_path_buf);
    let settings = ModelSettings {
        model: Some(folder.into()),
        base,
        allow_other_base: Some(true),
        ..ModelSettings::default()
    };
    let source = Source::find(&settings)?;
    let config = HfConfig::open(&source.base)?;
    let labels = source.sound_labels()?;
    let whole = source.adapter.is_none().then(|| Weights::open(&source.folder)).transpose()?;
    let (what, mut raw) = match &source.adapter {
        Some((_, files)) => ("adapter", files.config.clone()),
        None => ("model", config.raw.clone()),
    };
    // Where the `adapters` library has what it is.
    if let Some(Value::Object(inner)) = raw.get("config").cloned() {
        raw.extend(inner);
    }
    let weights: Vec<&Weights> = match (&whole, &source.adapter) {
        (Some(whole), _) => vec![whole],
        (None, adapter) => adapter.iter().flat_map(|(_, files)| files.weights()).collect(),
    };
    let all = || weights.iter().flat_map(|file| file.names().map(move |name| (name, file.info(name))));
    let infos = || all().filter_map(|(name, info)| Some((name, info?)));
    let dtypes: BTreeSet<String> = infos().map(|(_, info)| info.dtype.to_string()).collect();
    raw.retain(|key, _| SIZES.contains(&key.as_str()));
    let tensors = infos().map(|(name, info)| (name.to_string(), info.shape.clone())).collect();
    Ok(Inspected {
        what,
        model_type: config.model_type()?.to_string(),
        parameters: infos().map(|(_, info)| info.shape.iter().product::<usize>()).sum(),
        dtypes: dtypes.into_iter().collect(),
        sizes: raw.into_iter().collect(),
        base: source.adapter.is_some().then(|| source.base.clone()),
        problem_type: source.problem_type().unwrap_or_default(),
        labels,
        card: source.card,
        tensors,
    })
}
