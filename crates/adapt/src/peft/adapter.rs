//! What an adapter's file holds: the method's own tensors, and the head.

use retune_model::Hooks;
use retune_tensor::{ParamId, Parameters, Tape, Tensor};
use serde_json::{Map, Value, json};

use super::files::AdapterFiles;
use super::{Adapter, AdapterFile, Form, Model};
use crate::AdaptError;

impl Adapter {
    /// An adapter without tensors, in the form of `peft`.
    pub(super) fn new() -> Self {
        Adapter::in_form(Form::Peft)
    }

    /// An adapter without tensors.
    pub(super) fn in_form(form: Form) -> Self {
        Adapter { form, config: Map::new(), tensors: Vec::new(), virtual_tokens: None }
    }

    /// Adds a tensor that is trained and saved, under one name in the model and in the file.
    pub(super) fn add(
        &mut self,
        model: &mut Model<'_>,
        name: String,
        value: Tensor,
    ) -> Result<ParamId, AdaptError> {
        let id = model.parameters.add(name.clone(), value)?;
        model.train(id);
        self.tensors.push((name, id));
        Ok(id)
    }

    /// Adds a tensor that is saved and not trained.
    pub(super) fn add_frozen(
        &mut self,
        model: &mut Model<'_>,
        name: String,
        value: Tensor,
    ) -> Result<ParamId, AdaptError> {
        let id = model.parameters.add(name.clone(), value)?;
        self.tensors.push((name, id));
        Ok(id)
    }

    /// Whether a parameter is its own and not the base's, whose name in the file is longer than here.
    pub fn owns(&self, id: ParamId, parameters: &Parameters) -> bool {
        let name = &parameters.get(id).name;
        self.form == Form::Peft && self.tensors.iter().any(|(saved, known)| *known == id && saved == name)
    }

    /// A number of its configuration.
    pub(super) fn number(&self, key: &str) -> Option<f64> {
        self.config.get(key).and_then(Value::as_f64)
    }

    /// With everything else that is trained, the head above all, and `fields` for its configuration.
    pub(super) fn with_head(mut self, model: &mut Model<'_>, fields: &Value) -> Self {
        model.train_head();
        self.config = fields.as_object().cloned().unwrap_or_default();
        self.save_head(model);
        if self.form == Form::Peft {
            self.config.insert("modules_to_save".into(), json!(modules_to_save(model)));
        }
        self
    }

    /// The same of a saved one, whose file has the values and says what it is. Errors if a tensor does not fit, or one
    /// of the file is left.
    pub(super) fn with_saved_head(
        mut self,
        model: &mut Model<'_>,
        files: &AdapterFiles,
    ) -> Result<Self, AdaptError> {
        files.take_saved_modules(model, &mut self.tensors)?;
        files.finish()?;
        model.train_head();
        self.config = files.config.clone();
        self.save_head(model);
        if self.form != Form::Peft {
            return Ok(self);
        }
        // Names of the file stay: whatever they mean in the model is saved again.
        let named = self.config.get("modules_to_save").and_then(Value::as_array).cloned().unwrap_or_default();
        let own = modules_to_save(model).into_iter().map(Value::from).filter(|own| !named.contains(own));
        let modules: Vec<Value> = named.iter().cloned().chain(own).collect();
        self.config.insert("modules_to_save".into(), modules.into());
        Ok(self)
    }

    /// What is written of it, without a tensor yet.
    pub(super) fn empty_file(&self) -> AdapterFile {
        AdapterFile { form: self.form, config: self.config.clone(), tensors: Vec::new() }
    }

    /// What of its file is no parameter and comes of them: the name there, and the values.
    pub fn computed(
        &self,
        hooks: &Hooks,
        parameters: &Parameters,
    ) -> retune_tensor::Result<Option<(&str, Tensor)>> {
        let Some(name) = &self.virtual_tokens else { return Ok(None) };
        let Some(tokens) = hooks.prefix().or(hooks.prompt()) else { return Ok(None) };
        Ok(Some((name, tokens.values(&Tape::inference(), parameters)?.value().clone())))
    }

    fn save_head(&mut self, model: &Model<'_>) {
        let prefix = self.form.prefix(&self.config);
        for (id, parameter) in model.parameters.trainable() {
            if !self.tensors.iter().any(|(_, known)| *known == id) {
                self.tensors.push((format!("{prefix}{}", parameter.name), id));
            }
        }
    }
}

/// The modules whose own weights are trained, as `peft` names them: by the ends of their names.
fn modules_to_save(model: &Model<'_>) -> Vec<String> {
    let mut modules = Vec::new();
    if model.parameters.get(model.classifier.weight).trainable {
        modules.push(model.module(model.classifier.weight));
    }
    for id in model.encoder.head_parameters() {
        let module = model.module(id);
        if model.parameters.get(id).trainable && !modules.contains(&module) {
            modules.push(module);
        }
    }
    modules
}

/// 16.0 is written as 16, as `peft` writes it.
pub(super) fn whole(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}
