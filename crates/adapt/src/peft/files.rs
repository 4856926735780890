//! Adapters on disk, in the form of the `peft` library: `adapter_config.json` and `adapter_model.safetensors`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use retune_model::formats::Weights;
use retune_tensor::{Device, ParamId, Tensor};
use serde_json::{Map, Value};

use super::Model;
use crate::AdaptError;

/// What `peft` puts before every name.
pub(super) const PREFIX: &str = "base_model.model.";

/// Whether the layer `site` is meant by `name`: its whole name, or the end of it after a dot.
pub(super) fn matches(site: &str, name: &str) -> bool {
    site == name || site.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// An adapter folder, opened.
#[derive(Debug)]
pub struct AdapterFiles {
    folder: PathBuf,
    /// `adapter_config.json`
    pub config: Map<String, Value>,
    weights: Weights,
    taken: RefCell<BTreeSet<String>>,
}

impl AdapterFiles {
    /// The name of the configuration, which tells an adapter's folder from a model's.
    pub const CONFIG: &'static str = "adapter_config.json";
    /// The name of the weights.
    pub const WEIGHTS: &'static str = "adapter_model.safetensors";

    /// Opens the adapter in `folder`. Errors if a file is missing, or is not what it should be.
    pub fn open(folder: &Path) -> Result<Self, AdaptError> {
        let path = folder.join(Self::CONFIG);
        let error = |message: String| AdaptError::Adapter { path: path.clone(), message };
        let text = std::fs::read(&path).map_err(|e| error(format!("cannot read: {e}")))?;
        let config: Map<String, Value> = serde_json::from_slice(&text).map_err(|e| {
            error(format!("line {}, column {}: expected a JSON object: {e}", e.line(), e.column()))
        })?;
        let weights = folder.join(Self::WEIGHTS);
        if !weights.exists() && folder.join("adapter_model.bin").exists() {
            let message = "only `adapter_model.bin` is there, a pickle, which is never loaded; save it again with peft \
                           and safe_serialization=True";
            return Err(AdaptError::Adapter { path: folder.to_path_buf(), message: message.into() });
        }
        let weights = Weights::open(weights)?;
        Ok(AdapterFiles { folder: folder.to_path_buf(), config, weights, taken: RefCell::default() })
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The base that it was made on, as it was called there.
    pub fn base(&self) -> Option<&str> {
        self.config.get("base_model_name_or_path").and_then(Value::as_str)
    }

    /// How many classes its head has, if it has a head.
    pub fn head_rows(&self, classifier: &str) -> Option<usize> {
        self.shape(&format!("{PREFIX}{classifier}.weight"))?.first().copied()
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.weights.info(name)?.shape)
    }

    pub(super) fn describe(&self, key: &str) -> String {
        self.config.get(key).map_or_else(|| "none".to_string(), Value::to_string)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, AdaptError> {
        match self.config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.error(format!("`{key}`: expected a number, got {value}"))),
            },
        }
    }

    pub(super) fn error(&self, message: impl Into<String>) -> AdaptError {
        AdaptError::Adapter { path: self.folder.clone(), message: message.into() }
    }

    /// Errors if `name` is there although it should not be.
    pub(super) fn absent(&self, name: &str, why: &str) -> Result<(), AdaptError> {
        match self.shape(name) {
            Some(_) => Err(self.error(format!("`{name}`: {why}"))),
            None => Ok(()),
        }
    }

    /// Reads a tensor. Errors if it is missing or of another shape.
    pub(super) fn take(&self, name: &str, shape: &[usize], device: Device) -> Result<Tensor, AdaptError> {
        let got = self.shape(name).ok_or_else(|| self.error(format!("`{name}` is missing")))?;
        if got != shape || got.contains(&0) {
            return Err(self.error(format!("`{name}` should have shape {shape:?}, has {got:?}")));
        }
        let mut value = Tensor::empty(device, shape)?;
        if device != Device::Meta {
            self.weights.read_f32_into(name, value.f32_mut()?)?;
        }
        self.taken.borrow_mut().insert(name.to_string());
        Ok(value)
    }

    /// Puts every tensor that is a whole weight of the model in its place (`modules_to_save`: the head above all).
    pub(super) fn take_saved_modules(
        &self,
        model: &mut Model<'_>,
        tensors: &mut Vec<(String, ParamId)>,
    ) -> Result<(), AdaptError> {
        let places: Vec<(ParamId, String)> = model
            .parameters
            .iter()
            .map(|(id, parameter)| (id, format!("{PREFIX}{}", parameter.name)))
            .filter(|(_, name)| self.shape(name).is_some())
            .collect();
        for (id, name) in places {
            let shape = model.parameters.get(id).value.shape().to_vec();
            let value = self.take(&name, &shape, model.device())?;
            let parameter = model.parameters.get_mut(id);
            parameter.value = value;
            parameter.trainable = true;
            tensors.push((name, id));
        }
        // A head that stays random is the worst of silent faults: it must be there.
        for name in model.fresh {
            let saved = format!("{PREFIX}{name}");
            if self.shape(&saved).is_none() {
                let why = "the base does not have it either, so it would be random";
                return Err(self.error(format!("`{saved}` is missing, and {why}")));
            }
        }
        Ok(())
    }

    /// Errors if a tensor of the file found no place.
    pub(super) fn all_taken(&self, tensors: &[(String, ParamId)]) -> Result<(), AdaptError> {
        let taken = self.taken.borrow();
        let left: Vec<_> = self.weights.names().filter(|name| !taken.contains(*name)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let shown: Vec<_> = left.iter().take(8).map(|name| format!("`{name}`")).collect();
        Err(self.error(format!(
            "{} of {} tensors have no place in the base: {}{}",
            left.len(),
            left.len() + tensors.len(),
            shown.join(", "),
            if left.len() > shown.len() { " ..." } else { "" }
        )))
    }
}
