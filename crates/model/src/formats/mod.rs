//! The files that models are kept in: safetensors, and the configuration of a Hugging Face folder.

mod atomic;
mod bert_config;
mod hf_config;
mod safetensors;

pub use atomic::write_atomic;
pub use bert_config::BertConfig;
pub(crate) use hf_config::described;
pub use hf_config::{HfConfig, LabelNames};
pub use safetensors::{Dtype, TensorInfo, Weights, write_safetensors};
pub(crate) use safetensors::{architecture, shard_names};
