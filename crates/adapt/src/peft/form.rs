//! The forms that an adapter's files have: those of `peft`, and those of the `adapters` library.

use std::path::Path;

use retune_tensor::Tensor;
use serde_json::{Map, Value, json};

use super::AdapterFile;

/// The library whose files an adapter is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `adapter_config.json` and `adapter_model.safetensors`.
    Peft,
    /// `adapter_config.json` and `adapter.safetensors`, and for the head `head_config.json` and `model_head.safetensors`.
    Adapters,
}

/// What an adapter's files say of its base.
#[derive(Debug, Clone, Copy)]
pub struct BaseCard<'a> {
    /// Where it is, or its id on the hub.
    pub path: &'a Path,
    /// Its commit there.
    pub revision: Option<&'a str>,
    /// Its `model_type`.
    pub model_type: &'a str,
    /// Its class in transformers.
    pub class: &'a str,
    /// What `peft` calls its task.
    pub task_type: &'a str,
    /// The width of its hidden states.
    pub hidden_size: usize,
    /// The labels, in the order of the logits.
    pub labels: &'a [String],
}

/// Configurations of both forms: it tells an adapter's folder from a model's.
pub(super) const CONFIG: &str = "adapter_config.json";
pub(super) const HEAD_CONFIG: &str = "head_config.json";
const HEAD_WEIGHTS: &str = "model_head.safetensors";

impl Form {
    /// Every file that an adapter of some form may have.
    pub const FILES: [&'static str; 5] =
        [CONFIG, "adapter_model.safetensors", "adapter.safetensors", HEAD_CONFIG, HEAD_WEIGHTS];

    /// Whose an `adapter_config.json` is.
    pub(super) fn of(config: &Map<String, Value>) -> Self {
        let theirs = config.contains_key("config") && !config.contains_key("peft_type");
        if theirs { Form::Adapters } else { Form::Peft }
    }

    /// The files with its tensors: the first must be there.
    pub fn weights(self) -> &'static [&'static str] {
        match self {
            Form::Peft => &["adapter_model.safetensors"],
            Form::Adapters => &["adapter.safetensors", HEAD_WEIGHTS],
        }
    }

    /// The file that there is instead where somebody saved a pickle, and how to save it otherwise.
    pub(super) fn pickle(self) -> [&'static str; 2] {
        match self {
            Form::Peft => ["adapter_model.bin", "save it again with peft and safe_serialization=True"],
            Form::Adapters => ["pytorch_adapter.bin", "save it again with adapters and use_safetensors=True"],
        }
    }

    /// What stands before the name of a model's own tensor, in an adapter of this configuration: in `peft` methods of
    /// virtual tokens put no layers around the model's, and have a part less.
    pub(super) fn prefix(self, config: &Map<String, Value>) -> &'static str {
        match (self, config.get("peft_type").and_then(Value::as_str)) {
            (Form::Adapters, _) => "",
            (Form::Peft, Some("PREFIX_TUNING" | "PROMPT_TUNING" | "P_TUNING")) => "base_model.",
            (Form::Peft, _) => super::files::PREFIX,
        }
    }
}

impl AdapterFile {
    /// Its JSON files, by name.
    pub fn documents(&self, base: &BaseCard<'_>) -> Vec<(&'static str, Map<String, Value>)> {
        let mut config = self.config.clone();
        match self.form {
            Form::Peft => {
                config.insert("task_type".into(), json!(base.task_type));
                config.insert("base_model_name_or_path".into(), json!(base.path));
                // Where `peft` looks for the base's revision; without one it takes the newest.
                config.insert("revision".into(), json!(base.revision));
                vec![(CONFIG, config)]
            }
            Form::Adapters => {
                let names = base.labels.iter().enumerate();
                let by_label: Map<String, Value> =
                    names.map(|(id, name)| (name.clone(), json!(id))).collect();
                let mut head = Map::new();
                for (key, value) in [
                    ("model_type", json!(base.model_type)),
                    ("model_class", json!(base.class)),
                    ("model_name", json!(base.path)),
                    ("hidden_size", json!(base.hidden_size)),
                ] {
                    config.insert(key.into(), value.clone());
                    head.insert(key.into(), value);
                }
                for (key, value) in [
                    ("config", Value::Null),
                    ("name", Value::Null),
                    ("num_labels", json!(base.labels.len())),
                    ("label2id", Value::Object(by_label)),
                    ("version", self.config.get("version").cloned().unwrap_or_default()),
                ] {
                    head.insert(key.into(), value);
                }
                vec![(CONFIG, config), (HEAD_CONFIG, head)]
            }
        }
    }

    /// Its tensors, by file. What is not an adapter's own is with the head, whence the library takes any tensor by name.
    pub fn weights(&self) -> Vec<(&'static str, Vec<&(String, Tensor)>)> {
        let own = |name: &str| [".adapters.", ".shared_parameters."].iter().any(|part| name.contains(part));
        let files = self.form.weights();
        let (first, last) = self.tensors.iter().partition(|(name, _)| files.len() == 1 || own(name));
        files.iter().copied().zip([first, last]).collect()
    }
}
