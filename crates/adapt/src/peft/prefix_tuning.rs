//! Prefix tuning (Li and Liang 2021): before the keys and values of every block stand rows that a network makes of a
//! narrower table, `[P_k; P_v] = tanh(E W_1^T + b_1) W_2^T + b_2`. Trained directly they were unstable; once trained, the
//! network is not needed. In `peft` it is `PREFIX_TUNING` with `prefix_projection` true.

use retune_tensor::backend::Activation;
use serde::Deserialize;
use serde_json::{Value, json};

use super::p_tuning_v2::{PROJECTION, TYPE};
use super::virtual_tokens::{self, COUNT, COUNT_DEFAULT, HIDDEN, Place, Virtual};
use super::{AdapterFiles, Applied, Method, Model};
use crate::{AdaptError, Kind, OptionSpec, Options};

/// The method.
pub(super) struct PrefixTuning;

/// What can be set. Names as in `peft`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Config {
    num_virtual_tokens: usize,
    encoder_hidden_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { num_virtual_tokens: COUNT_DEFAULT, encoder_hidden_size: 512 }
    }
}

impl Method for PrefixTuning {
    fn name(&self) -> &'static str {
        "prefix-tuning"
    }
    fn summary(&self) -> &'static str {
        "a network that makes rows before the keys and values of every block, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "as p-tuning-v2, where training the rows themselves is unstable; the network is left behind in the end"
    }
    fn paper(&self) -> &'static str {
        "Li and Liang 2021, Prefix-Tuning"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[
            COUNT,
            OptionSpec {
                name: HIDDEN,
                kind: Kind::Integer,
                default: "512",
                help: "width of the network that makes virtual tokens, while training",
            },
        ]
    }
    fn learning_rate(&self) -> f64 {
        1e-3
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: Config = options.parse(self.name(), self.options())?;
        let hidden = config.encoder_hidden_size;
        virtual_tokens::check_hidden(hidden)?;
        let tokens = Virtual::new(model, Place::Keys, config.num_virtual_tokens)?;
        let layers = [
            ("transform.0", hidden, Activation::Tanh),
            ("transform.2", tokens.columns, Activation::Identity),
        ];
        let own = json!({PROJECTION: true, "encoder_hidden_size": hidden});
        tokens.network(model, &layers, TYPE, &own)
    }

    fn merges(&self) -> Result<(), &'static str> {
        Err(virtual_tokens::NO_WEIGHT)
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is(TYPE) && files.config.get(PROJECTION).and_then(Value::as_bool) == Some(true)
    }

    fn goes_on(&self, files: &AdapterFiles) -> Result<bool, AdaptError> {
        match files.is(TYPE) {
            true => Err(virtual_tokens::without_network(files, self.name(), "p-tuning-v2")),
            false => Ok(false),
        }
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        virtual_tokens::load(model, files, Place::Keys)
    }
}
