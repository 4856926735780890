use serde_json::Value;

use super::super::files::AdapterFiles;
use super::super::pattern::Pattern;
use crate::AdaptError;

/// What is read of an `adapter_config.json`.
pub(in super::super) struct SavedConfig {
    pub(in super::super) alpha: Pattern,
    pub(in super::super) dropout: f32,
    pub(in super::super) rslora: bool,
}

impl SavedConfig {
    pub(in super::super) fn read(files: &AdapterFiles) -> Result<Self, AdaptError> {
        // Each of these changes what the branch computes, where it sits, or the base.
        const OTHERS: [&str; 7] = [
            "lora_bias",
            "use_qalora",
            "use_bdlora",
            "kasa_config",
            "monteclora_config",
            "arrow_config",
            "alora_invocation_tokens",
        ];
        files.refuse(&OTHERS, "LoRA")?;
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
        let alpha = files.number("lora_alpha")?.ok_or_else(|| files.error("`lora_alpha` is missing"))?;
        Ok(SavedConfig {
            alpha: Pattern::read(files, "alpha_pattern", alpha)?,
            dropout: files.dropout("lora_dropout")?,
            rslora: files.config.get("use_rslora").and_then(Value::as_bool) == Some(true),
        })
    }
}
