//! Parameters of the model itself, chosen by their names: what is trained beside a method's own.

use retune_tensor::ParamId;
use serde_json::{Value, json};

use super::{Adapter, Applied, Form, Model, sites};
use crate::{AdaptError, nearest};

/// The word for every norm, whatever its family calls it.
const NORMS: &str = "norms";

/// Whether a parameter belongs to a norm: `LayerNorm`, `sa_layer_norm`, `final_norm`, `ln_1` ...
pub(super) fn is_norm(name: &str) -> bool {
    let layer = sites::layer(name);
    let named = |part: &str| part.to_lowercase().contains("norm") || part.starts_with("ln_");
    layer.rsplit('.').next().is_some_and(named)
}

/// Whether `pattern` means the parameter `name`: it stands for whole parts of it, between dots, and `*` for anything.
fn means(pattern: &str, name: &str) -> bool {
    if pattern == NORMS {
        return is_norm(name);
    }
    let starts = std::iter::once(0).chain(name.match_indices('.').map(|(at, _)| at + 1));
    let ends = || name.match_indices('.').map(|(at, _)| at).chain([name.len()]);
    starts.into_iter().any(|start| {
        ends().filter(|end| *end > start).any(|end| glob(pattern, name.get(start..end).unwrap_or_default()))
    })
}

/// Whether `text` is `pattern` with something in the place of each `*`.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, mut rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    // The earliest place for each piece leaves the most for those behind it.
    while let Some((piece, more)) = rest.split_once('*') {
        let Some(at) = text.find(piece) else { return false };
        text = text.get(at + piece.len()..).unwrap_or_default();
        rest = more;
    }
    text.ends_with(rest)
}

impl Model<'_> {
    /// The parameters that `patterns` mean, of a model that no method has added to yet: a pattern stands for whole parts of
    /// a name, between dots, `*` for anything, and the word `norms` for every norm. Errors if one means none, with the near
    /// miss.
    pub fn select(&self, patterns: &[String]) -> Result<Vec<ParamId>, AdaptError> {
        let mut chosen: Vec<ParamId> = Vec::new();
        for pattern in patterns {
            let all = self.parameters.iter().filter(|(_, parameter)| means(pattern, &parameter.name));
            let found: Vec<ParamId> = all.map(|(id, _)| id).collect();
            if found.is_empty() {
                return Err(error(missed(self, pattern)));
            }
            chosen.extend(found);
        }
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }
}

fn error(message: String) -> AdaptError {
    AdaptError::Option { option: "train-also".into(), message }
}

impl Applied {
    /// Trains and saves the model's own parameters `chosen` too. Errors if one is of a layer that the method has changed.
    pub fn train_also(&mut self, model: &mut Model<'_>, chosen: &[ParamId]) -> Result<(), AdaptError> {
        for id in chosen {
            let name = &model.parameters.get(*id).name;
            if matches!(self, Applied::Adapter(_)) && model.hooks.linear(sites::layer(name)).is_some() {
                return Err(error(format!(
                    "`{name}` is of a layer that the method has its part at, and both cannot be in one file; leave the \
                     layer out by --target-modules, or the parameter here"
                )));
            }
        }
        chosen.iter().for_each(|id| model.train(*id));
        if let Applied::Adapter(adapter) = self {
            adapter.add_modules(model, chosen);
        }
        Ok(())
    }
}

impl Adapter {
    /// Puts the model's own parameters `chosen` into the file. `peft` copies a module whole, by the end of its name: so the
    /// whole of each module is saved, under its full name, which ends no other.
    fn add_modules(&mut self, model: &Model<'_>, chosen: &[ParamId]) {
        let layer = |id: ParamId| sites::layer(&model.parameters.get(id).name).to_string();
        let mut modules: Vec<String> = Vec::new();
        for id in chosen {
            let module = layer(*id);
            let known = self.tensors.iter().any(|(_, saved)| saved == id);
            if !known && !modules.contains(&module) {
                modules.push(module);
            }
        }
        for (id, parameter) in model.parameters.iter() {
            let saved = self.tensors.iter().any(|(_, saved)| *saved == id);
            if !saved && modules.contains(&layer(id)) {
                self.tensors.push((format!("{}{}", self.form.prefix(&self.config), parameter.name), id));
            }
        }
        if self.form == Form::Peft {
            let named = self.config.get("modules_to_save").and_then(Value::as_array).cloned();
            let all = named.unwrap_or_default().into_iter().chain(modules.into_iter().map(Value::from));
            self.config.insert("modules_to_save".into(), json!(all.collect::<Vec<_>>()));
        }
    }
}

/// What to say of a pattern that means nothing.
fn missed(model: &Model<'_>, pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for (_, parameter) in model.parameters.iter() {
        let word = |part: &&str| !part.bytes().all(|byte| byte.is_ascii_digit());
        parts.extend(parameter.name.split('.').filter(word));
    }
    parts.sort_unstable();
    parts.dedup();
    let near = nearest(pattern, parts.iter().copied().chain([NORMS]));
    let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    format!(
        "no parameter's name has `{pattern}` between dots{near}; * stands for anything, and names are made of: {}",
        parts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::{glob, is_norm, means};

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("*", "abc", true),
            ("abc", "abc", true),
            ("ab", "abc", false),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("*b*", "abc", true),
            ("*a*a", "aba", true),
            ("a*a", "a", false),
            ("*ab*ab", "ab", false),
            ("x*é*", "x.é.y", true),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_stands_for_whole_parts() {
        let name = "bert.encoder.layer.1.attention.output.LayerNorm.bias";
        for pattern in [
            "LayerNorm",
            "layer.1",
            "bias",
            "bert",
            "*orm",
            "layer.*.bias",
            "output.LayerNorm",
            name,
            "norms",
        ] {
            assert!(means(pattern, name), "{pattern}");
        }
        for pattern in ["Layer", "layer.11", "ayer.1", "layernorm", "", "output.bias", "norm"] {
            assert!(!means(pattern, name), "{pattern}");
        }
        assert!(!means("layer.1", "bert.encoder.layer.11.output.dense.bias"));
    }

    #[test]
    fn norms_are_known_by_every_familys_name_for_them() {
        for name in [
            "a.LayerNorm.weight",
            "b.0.sa_layer_norm.bias",
            "model.final_norm.weight",
            "head.norm.weight",
            "transformer.h.0.ln_1.bias",
        ] {
            assert!(is_norm(name), "{name}");
        }
        for name in ["a.output.dense.bias", "norms.dense.weight", "weight", ""] {
            assert!(!is_norm(name), "{name}");
        }
    }
}
