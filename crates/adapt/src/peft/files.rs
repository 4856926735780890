//! Adapters on disk, in one of the forms that [`Form`] names.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use retune_model::formats::Weights;
use retune_model::layers::Linear;
use retune_tensor::{Device, ParamId, Tensor};
use serde_json::{Map, Value};

use super::Model;
use super::form::{self, Form};
use crate::AdaptError;

/// What `peft` puts before the name of a layer.
pub(super) const PREFIX: &str = "base_model.model.";

/// The name of a tensor at a layer, in the file and here.
pub(super) fn part(site: &str, end: &str) -> String {
    format!("{PREFIX}{site}.{end}")
}

/// The JSON object in a file.
fn object(path: &Path) -> Result<Map<String, Value>, AdaptError> {
    let error = |message: String| AdaptError::Adapter { path: path.to_path_buf(), message };
    let text = std::fs::read(path).map_err(|e| error(format!("cannot read: {e}")))?;
    serde_json::from_slice(&text)
        .map_err(|e| error(format!("line {}, column {}: expected a JSON object: {e}", e.line(), e.column())))
}

/// An adapter folder, opened.
#[derive(Debug)]
pub struct AdapterFiles {
    folder: PathBuf,
    /// Whose they are.
    pub form: Form,
    /// `adapter_config.json`
    pub config: Map<String, Value>,
    /// What the head's own configuration says, where it has one.
    head: Map<String, Value>,
    weights: Vec<Weights>,
    taken: RefCell<BTreeSet<String>>,
    /// What does not fit, a line each: collected, so that one error names all of it.
    problems: RefCell<Vec<String>>,
}

impl AdapterFiles {
    /// The name of the configuration, which tells an adapter's folder from a model's.
    pub const CONFIG: &'static str = form::CONFIG;

    /// Opens the adapter in `folder`. Errors if a file is missing, or is not what it should be.
    pub fn open(folder: &Path) -> Result<Self, AdaptError> {
        let config = object(&folder.join(Self::CONFIG))?;
        let form = Form::of(&config);
        let head = folder.join(form::HEAD_CONFIG);
        let head = if form == Form::Adapters && head.exists() { object(&head)? } else { Map::new() };
        let mut weights = Vec::new();
        for (index, name) in form.weights().iter().enumerate() {
            let path = folder.join(name);
            let [pickle, how] = form.pickle();
            if index == 0 && !path.exists() && folder.join(pickle).exists() {
                let message = format!("only `{pickle}` is there, a pickle, which is never loaded; {how}");
                return Err(AdaptError::Adapter { path: folder.to_path_buf(), message });
            }
            // A head may be the base's own.
            if index == 0 || path.exists() {
                weights.push(Weights::open(path)?);
            }
        }
        Ok(AdapterFiles {
            folder: folder.to_path_buf(),
            form,
            config,
            head,
            weights,
            taken: RefCell::default(),
            problems: RefCell::default(),
        })
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The base that it was made on, as it was called there.
    pub fn base(&self) -> Option<&str> {
        let key = match self.form {
            Form::Peft => "base_model_name_or_path",
            Form::Adapters => "model_name",
        };
        self.config.get(key).and_then(Value::as_str)
    }

    /// The labels of its head, in the order of the logits, where it names each.
    pub fn labels(&self) -> Option<Vec<String>> {
        let by_label = self.head.get("label2id")?.as_object()?;
        let mut names = vec![None; by_label.len()];
        for (name, id) in by_label {
            let id = usize::try_from(id.as_u64()?).ok()?;
            *names.get_mut(id)? = Some(name.clone());
        }
        names.into_iter().collect()
    }

    /// What kind of adapter it says it is.
    pub(super) fn kind(&self) -> String {
        match self.form {
            Form::Peft => self.describe("peft_type"),
            Form::Adapters => {
                let config = self.config.get("config");
                config.and_then(|config| config.get("architecture")).unwrap_or(&Value::Null).to_string()
            }
        }
    }

    /// The files with its tensors.
    pub fn weights(&self) -> impl Iterator<Item = &Weights> {
        self.weights.iter()
    }

    /// Keys of its configuration that `peft` 0.21 or `adapters` 1.3 do not have: a newer version's, or somebody's own. They
    /// are kept.
    pub fn unknown_keys(&self) -> Vec<String> {
        let known = |key: &&String| super::keys::KEYS.binary_search(&key.as_str()).is_ok();
        match self.form {
            Form::Peft => self.config.keys().filter(|key| !known(key)).cloned().collect(),
            Form::Adapters => super::bottleneck::unknown_keys(&self.config),
        }
    }

    /// How many classes its head has, if it has a head, whose last layer is `classifier`.
    pub fn head_rows(&self, classifier: &str) -> Option<usize> {
        let prefix = self.form.prefix(&self.config);
        self.shape(&format!("{prefix}{classifier}.weight"))?.first().copied()
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.holding(name)?.info(name)?.shape)
    }

    /// The file with the tensor `name`.
    fn holding(&self, name: &str) -> Option<&Weights> {
        self.weights.iter().find(|weights| weights.info(name).is_some())
    }

    pub(super) fn describe(&self, key: &str) -> String {
        self.config.get(key).map_or_else(|| "none".to_string(), Value::to_string)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, AdaptError> {
        match self.config.get(key) {
            None | Some(Value::Null) => Ok(None),
            // It is computed with in f32, where 1e300 is infinite.
            Some(value) => match value.as_f64().filter(|number| (*number as f32).is_finite()) {
                Some(number) => Ok(Some(number)),
                None => Err(self.error(format!("`{key}`: expected a number, got {value}"))),
            },
        }
    }

    /// Errors if one of `keys` is set: each means another computation, and to leave it out would be silently wrong.
    pub(super) fn refuse(&self, keys: &[&str], kind: &str) -> Result<(), AdaptError> {
        for key in keys {
            if !matches!(self.config.get(*key), None | Some(Value::Null | Value::Bool(false))) {
                return Err(self.error(format!("`{key}` is set, and that kind of {kind} is not read")));
            }
        }
        match self.config.get("bias") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(bias)) if bias == "none" => Ok(()),
            Some(other) => Err(self.error(format!("`bias`: expected \"none\", got {other}"))),
        }
    }

    /// The dropout `key`; 0 where there is none.
    pub(super) fn dropout(&self, key: &str) -> Result<f32, AdaptError> {
        let dropout = self.number(key)?.unwrap_or(0.0);
        if !super::ranges::is_rate(dropout) {
            return Err(self.error(format!("`{key}`: expected at least 0 and below 1, got {dropout}")));
        }
        Ok(dropout as f32)
    }

    /// Whether it says that it is of this type.
    pub(super) fn is(&self, peft_type: &str) -> bool {
        self.config.get("peft_type").and_then(Value::as_str) == Some(peft_type)
    }

    /// The size of a tensor in one dimension, at least 1: 1 where it is missing.
    pub(super) fn size(&self, name: &str, dimension: usize) -> usize {
        self.shape(name).and_then(|shape| shape.get(dimension)).map_or(1, |size| (*size).max(1))
    }

    pub(super) fn error(&self, message: impl Into<String>) -> AdaptError {
        AdaptError::Adapter { path: self.folder.clone(), message: message.into() }
    }

    /// Notes it if `name` is there although it should not be.
    pub(super) fn absent(&self, name: &str, why: &str) {
        if self.shape(name).is_some() {
            self.taken.borrow_mut().insert(name.to_string());
            self.problem(format!("`{name}`: {why}"));
        }
    }

    /// The layers of the base whose tensor `first` is there. Of any other layer none of the tensors `others` may be.
    /// Errors if there is no such layer.
    pub(super) fn sites(
        &self,
        model: &Model<'_>,
        first: &str,
        others: &[&str],
    ) -> Result<Vec<Linear>, AdaptError> {
        let mut sites = Vec::new();
        for linear in model.all_linears() {
            let name = part(&linear.name, first);
            if self.shape(&name).is_some() {
                sites.push(linear.clone());
                continue;
            }
            for other in others {
                let why = format!("`{name}`, which belongs to it, is missing");
                self.absent(&part(&linear.name, other), &why);
            }
        }
        if sites.is_empty() {
            return Err(self.no_site());
        }
        let told = self.config.get("fan_in_fan_out").and_then(Value::as_bool) == Some(true);
        if told && let Some(other) = sites.iter().find(|linear| !linear.transposed) {
            let message =
                format!("`fan_in_fan_out` is set, and `{}` keeps its weight as [out, in]", other.name);
            return Err(self.error(message));
        }
        Ok(sites)
    }

    /// What is said where nothing of it fits.
    pub(super) fn no_site(&self) -> AdaptError {
        self.error("no tensor of it fits a layer of the base: was it made for another model?")
    }

    fn problem(&self, line: String) {
        self.problems.borrow_mut().push(line);
    }

    /// Reads a tensor. If it is missing, of another shape or of a type that is not read, [`AdapterFiles::finish`] will
    /// say so, and an empty one takes its place.
    pub(super) fn take(&self, name: &str, shape: &[usize], device: Device) -> Result<Tensor, AdaptError> {
        self.taken.borrow_mut().insert(name.to_string());
        // The first file says what is missing, with the near miss.
        let Some(weights) = self.holding(name).or(self.weights.first()) else {
            return Err(self.error("it has no weights"));
        };
        if let Err(problem) = weights.check(name, shape) {
            self.problem(problem.to_string());
            return Ok(Tensor::zeros(device, &[0])?);
        }
        let mut value = Tensor::empty(device, shape)?;
        if device != Device::Meta {
            weights.read_f32_into(name, value.f32_mut()?)?;
        }
        Ok(value)
    }

    /// Puts every tensor that is a whole weight of the model in its place (`modules_to_save`: the head above all).
    pub(super) fn take_saved_modules(
        &self,
        model: &mut Model<'_>,
        tensors: &mut Vec<(String, ParamId)>,
    ) -> Result<(), AdaptError> {
        let prefix = self.form.prefix(&self.config);
        let places: Vec<(ParamId, String)> = model
            .parameters
            .iter()
            .filter(|(id, _)| !tensors.iter().any(|(_, own)| own == id))
            .map(|(id, parameter)| (id, format!("{prefix}{}", parameter.name)))
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
            let saved = format!("{prefix}{name}");
            if self.shape(&saved).is_none() {
                self.problem(format!(
                    "`{saved}` is missing, and the base does not have it either, so it would be random"
                ));
            }
        }
        Ok(())
    }

    /// Errors if a tensor did not fit, or is one that no layer asked for; all of them are named.
    pub(super) fn finish(&self) -> Result<(), AdaptError> {
        {
            let (taken, mut problems) = (self.taken.borrow(), self.problems.borrow_mut());
            let all = self.weights.iter().flat_map(Weights::names);
            let left = all.filter(|name| !taken.contains(*name));
            problems.extend(left.map(|name| format!("`{name}` has no place in the base")));
        }
        self.finish_taken()
    }

    /// Errors if a tensor that was taken did not fit.
    pub(super) fn finish_taken(&self) -> Result<(), AdaptError> {
        // A file of another model may have any number of them.
        const MOST: usize = 200;
        let mut problems = self.problems.borrow_mut();
        let (count, more) = (problems.len(), problems.len().saturating_sub(MOST));
        problems.truncate(MOST);
        if more > 0 {
            problems.push(format!("and {more} more"));
        }
        match count {
            0 => Ok(()),
            1 => Err(self.error(problems.join(""))),
            _ => Err(self.error(format!("{count} tensors do not fit:\n  {}", problems.join("\n  ")))),
        }
    }
}
