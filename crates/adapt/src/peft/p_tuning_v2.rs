//! P-tuning v2 (Liu et al. 2022): before the keys and values of every block stand rows of their own,
//! `attention(q, [P_k; k], [P_v; v])`, and these and the classifier are all that is trained. It is prefix tuning without
//! a network that makes the prefix, and so it is in `peft`: `PREFIX_TUNING` with `prefix_projection` false.

use retune_model::Init;
use serde::Deserialize;
use serde_json::{Value, json};

use super::virtual_tokens::{self, COUNT, COUNT_DEFAULT, Place, ROWS, Virtual};
use super::{AdapterFiles, Applied, Method, Model};
use crate::{AdaptError, OptionSpec, Options};

/// The method.
pub(super) struct PTuningV2;

/// What `peft` calls a prefix, projected or not.
pub(super) const TYPE: &str = "PREFIX_TUNING";
/// What tells the two apart.
pub(super) const PROJECTION: &str = "prefix_projection";

/// What can be set. Names as in `peft`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Config {
    num_virtual_tokens: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { num_virtual_tokens: COUNT_DEFAULT }
    }
}

impl Method for PTuningV2 {
    fn name(&self) -> &'static str {
        "p-tuning-v2"
    }
    fn summary(&self) -> &'static str {
        "rows before the keys and values of every block, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "small files for many tasks on one base where no weight of it may change, not even by a branch"
    }
    fn paper(&self) -> &'static str {
        "Liu et al. 2022, P-Tuning v2"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[COUNT]
    }
    fn learning_rate(&self) -> f64 {
        1e-2
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: Config = options.parse(self.name(), self.options())?;
        let tokens = Virtual::new(model, Place::Keys, config.num_virtual_tokens)?;
        let shape = [tokens.count, tokens.columns];
        // As PyTorch draws an embedding.
        let rows = Init::Normal(1.0).draw(model.device(), &shape, model.seed, ROWS)?;
        let own = json!({PROJECTION: false, "encoder_hidden_size": null});
        tokens.table(model, rows, TYPE, &own)
    }

    fn merges(&self) -> Result<(), &'static str> {
        Err(virtual_tokens::NO_WEIGHT)
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is(TYPE) && files.config.get(PROJECTION).and_then(Value::as_bool) != Some(true)
    }

    fn goes_on(&self, files: &AdapterFiles) -> Result<bool, AdaptError> {
        // A projected prefix too: from here on it is trained as it is.
        Ok(files.is(TYPE))
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        let mut applied = virtual_tokens::load(model, files, Place::Keys)?;
        if let Applied::Adapter(adapter) = &mut applied {
            adapter.config.insert(PROJECTION.into(), false.into());
            adapter.config.insert("encoder_hidden_size".into(), Value::Null);
        }
        Ok(applied)
    }
}
