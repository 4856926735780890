//! P-tuning (Liu et al. 2021): before the word embeddings of a text stand rows that a network makes of a table,
//! `P = (relu(relu(E W_1^T + b_1) W_2^T + b_2)) W_3^T + b_3`. The network is that of `peft`, where it is `P_TUNING` with an
//! `MLP`; the paper has an LSTM before it.

use retune_tensor::backend::Activation;
use serde::Deserialize;
use serde_json::json;

use super::virtual_tokens::{self, COUNT, COUNT_DEFAULT, HIDDEN, Place, Virtual};
use super::{AdapterFiles, Applied, Method, Model};
use crate::{AdaptError, Kind, OptionSpec, Options};

/// The method.
pub(super) struct PTuning;

/// What `peft` calls it.
pub(super) const TYPE: &str = "P_TUNING";

/// What can be set. Names as in `peft`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Config {
    num_virtual_tokens: usize,
    encoder_hidden_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { num_virtual_tokens: COUNT_DEFAULT, encoder_hidden_size: 128 }
    }
}

impl Method for PTuning {
    fn name(&self) -> &'static str {
        "p-tuning"
    }
    fn summary(&self) -> &'static str {
        "a network that makes rows before the word embeddings, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "as prompt-tuning, where that is unstable; the network is left behind in the end"
    }
    fn paper(&self) -> &'static str {
        "Liu et al. 2021, GPT Understands, Too"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[
            COUNT,
            OptionSpec {
                name: HIDDEN,
                kind: Kind::Integer,
                default: "128",
                help: "width of the network that makes virtual tokens, while training",
            },
        ]
    }
    fn learning_rate(&self) -> f64 {
        1e-2
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: Config = options.parse(self.name(), self.options())?;
        let hidden = config.encoder_hidden_size;
        virtual_tokens::check_hidden(hidden)?;
        let tokens = Virtual::new(model, Place::Words, config.num_virtual_tokens)?;
        let layers = [
            ("mlp_head.0", hidden, Activation::Relu),
            ("mlp_head.2", hidden, Activation::Relu),
            ("mlp_head.4", tokens.columns, Activation::Identity),
        ];
        let own = json!({
            "encoder_reparameterization_type": "MLP",
            "encoder_hidden_size": hidden,
            "encoder_num_layers": 2,
            "encoder_dropout": 0.0,
        });
        tokens.network(model, &layers, TYPE, &own)
    }

    fn merges(&self) -> Result<(), &'static str> {
        Err(virtual_tokens::NO_WEIGHT)
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is(TYPE)
    }

    fn goes_on(&self, files: &AdapterFiles) -> Result<bool, AdaptError> {
        match self.reads(files) {
            true => Err(virtual_tokens::without_network(files, self.name(), "prompt-tuning")),
            false => Ok(false),
        }
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        virtual_tokens::load(model, files, Place::Words)
    }
}
