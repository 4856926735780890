//! The files that models are kept in: safetensors and GGUF, and the configuration of a Hugging Face folder.

mod atomic;
mod bert_config;
mod distilbert_config;
mod gguf;
mod gpt2_config;
mod hf_config;
mod llama_config;
mod modernbert_config;
mod ranges;
mod rope;
mod safetensors;
mod weights;

pub use atomic::{sync_folder, write_atomic};
pub use bert_config::{BertConfig, BertDefaults};
pub use distilbert_config::DistilBertConfig;
pub use gguf::is_gguf;
pub use gpt2_config::Gpt2Config;
pub(crate) use hf_config::described;
pub use hf_config::{HfConfig, LabelNames};
pub use llama_config::{Biases, LlamaConfig, LlamaDefaults, Windows};
pub use modernbert_config::{LayerKind, ModernBertConfig, Pooling};
pub use safetensors::{Dtype, write_safetensors};
pub(crate) use safetensors::{architecture, shard_names};
pub use weights::{Encoding, TensorInfo, Weights};

use std::fs;
use std::path::Path;

use crate::ModelError;

/// The file `name` of a model: from its folder, or what a GGUF file has in its place; none where it is not there.
pub(crate) fn file_of(model: &Path, name: &str) -> Result<Option<Vec<u8>>, ModelError> {
    if is_gguf(model) {
        return gguf::file(model, name);
    }
    let path = model.join(name);
    match fs::read(&path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ModelError::io(path, "read", error)),
    }
}
