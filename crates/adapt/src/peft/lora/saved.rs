use serde_json::Value;

use super::super::files::AdapterFiles;
use super::super::sites::matches;
use super::is_rate;
use crate::AdaptError;

/// What is read of an `adapter_config.json`.
pub(super) struct SavedConfig {
    alpha: f64,
    alpha_pattern: Vec<(String, f64)>,
    pub(super) dropout: f32,
    pub(super) rslora: bool,
}

impl SavedConfig {
    pub(super) fn read(files: &AdapterFiles) -> Result<Self, AdaptError> {
        // Each of these changes what the branch computes, where it sits, or the base: to leave it out would be silently
        // wrong.
        for key in [
            "use_dora",
            "lora_bias",
            "use_qalora",
            "use_bdlora",
            "fan_in_fan_out",
            "kasa_config",
            "monteclora_config",
            "arrow_config",
            "alora_invocation_tokens",
        ] {
            if !matches!(files.config.get(key), None | Some(Value::Null | Value::Bool(false))) {
                return Err(files.error(format!("`{key}` is set, and that kind of LoRA is not read")));
            }
        }
        // PiSSA, OLoRA and their like take their start out of the base's weights, which then are others.
        match files.config.get("init_lora_weights") {
            None | Some(Value::Null | Value::Bool(_)) => {}
            Some(Value::String(init)) if ["gaussian", "eva", "orthogonal"].contains(&init.as_str()) => {}
            Some(other) => {
                let message = format!(
                    "`init_lora_weights` is {other}, which changes the base too, and that is not read; save it again \
                     with peft and path_initial_model_for_weight_conversion"
                );
                return Err(files.error(message));
            }
        }
        match files.config.get("bias") {
            None | Some(Value::Null) => {}
            Some(Value::String(bias)) if bias == "none" => {}
            Some(other) => return Err(files.error(format!("`bias`: expected \"none\", got {other}"))),
        }
        let alpha_pattern = match files.config.get("alpha_pattern") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(pattern)) => pattern
                .iter()
                .map(|(name, alpha)| match alpha.as_f64().filter(|alpha| (*alpha as f32).is_finite()) {
                    // `peft` takes the keys for regular expressions.
                    _ if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) => {
                        let message =
                            "expected the end of a layer's name, got a pattern, and these are not read";
                        Err(files.error(format!("`alpha_pattern.{name}`: {message}")))
                    }
                    Some(alpha) => Ok((name.clone(), alpha)),
                    None => {
                        Err(files.error(format!("`alpha_pattern.{name}`: expected a number, got {alpha}")))
                    }
                })
                .collect::<Result<_, _>>()?,
            Some(other) => {
                return Err(files.error(format!("`alpha_pattern`: expected an object, got {other}")));
            }
        };
        let dropout = files.number("lora_dropout")?.unwrap_or(0.0);
        if !is_rate(dropout) {
            return Err(
                files.error(format!("`lora_dropout`: expected at least 0 and below 1, got {dropout}"))
            );
        }
        Ok(SavedConfig {
            alpha: files.number("lora_alpha")?.ok_or_else(|| files.error("`lora_alpha` is missing"))?,
            alpha_pattern,
            dropout: dropout as f32,
            rslora: files.config.get("use_rslora").and_then(Value::as_bool) == Some(true),
        })
    }

    /// Errors if a key of `alpha_pattern` means none of the `adapted` layers: whatever it was to do is not done.
    pub(super) fn check_patterns(&self, files: &AdapterFiles, adapted: &[String]) -> Result<(), AdaptError> {
        match self.alpha_pattern.iter().find(|(name, _)| !adapted.iter().any(|site| matches(site, name))) {
            Some((name, _)) => {
                let message = "no layer with a branch has a name that ends so";
                Err(files.error(format!("`alpha_pattern.{name}`: {message}")))
            }
            None => Ok(()),
        }
    }

    pub(super) fn alpha_of(&self, site: &str) -> f64 {
        self.alpha_pattern
            .iter()
            .find(|(name, _)| matches(site, name))
            .map_or(self.alpha, |(_, alpha)| *alpha)
    }
}
