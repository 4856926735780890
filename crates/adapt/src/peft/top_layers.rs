use serde::Deserialize;

use super::{Applied, Method, Model};
use crate::{AdaptError, Kind, OptionSpec, Options};

/// The last blocks are trained, with all that is above them.
pub(super) struct TopLayers;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    layers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { layers: 1 }
    }
}

impl Method for TopLayers {
    fn name(&self) -> &'static str {
        "top-layers"
    }
    fn summary(&self) -> &'static str {
        "the last blocks, the task's own head and the pooler"
    }
    fn when(&self) -> &'static str {
        "memory and time are short: nothing is kept of the blocks below, and no gradient goes through them"
    }
    fn paper(&self) -> &'static str {
        "Howard and Ruder 2018, Universal language model fine-tuning"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[OptionSpec {
            name: "layers",
            kind: Kind::Integer,
            default: "1",
            help: "how many blocks, from the last",
        }]
    }
    fn learning_rate(&self) -> f64 {
        2e-4
    }
    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let Settings { layers } = options.parse(self.name(), self.options())?;
        let blocks = model.encoder.blocks();
        if layers == 0 || layers > blocks.len() {
            let hint = if layers == 0 { "; the method `head` trains none" } else { "" };
            let message =
                format!("expected 1 to {}, the blocks that there are, got {layers}{hint}", blocks.len());
            return Err(AdaptError::Option { option: "layers".into(), message });
        }
        model.train_head();
        model.train_pooler();
        let trained = &blocks[blocks.len() - layers..];
        for (_, parameter) in model.parameters.iter_mut() {
            let name = &parameter.name;
            let within = |block: &String| name.strip_prefix(block).is_some_and(|rest| rest.starts_with('.'));
            // The norm behind all blocks of those that norm first.
            let last = ["model.final_norm.", "model.norm.", "transformer.ln_f."];
            if trained.iter().any(within) || last.iter().any(|norm| name.starts_with(norm)) {
                parameter.trainable = true;
            }
        }
        Ok(Applied::Model)
    }
}
