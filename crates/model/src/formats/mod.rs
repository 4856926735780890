//! The files that models are kept in: safetensors, and the configuration of a Hugging Face folder.

mod atomic;
mod bert_config;
mod distilbert_config;
mod gpt2_config;
mod hf_config;
mod llama_config;
mod modernbert_config;
mod ranges;
mod rope;
mod safetensors;

pub use atomic::{sync_folder, write_atomic};
pub use bert_config::{BertConfig, BertDefaults};
pub use distilbert_config::DistilBertConfig;
pub use gpt2_config::Gpt2Config;
pub(crate) use hf_config::described;
pub use hf_config::{HfConfig, LabelNames};
pub use llama_config::{Biases, LlamaConfig, LlamaDefaults, Windows};
pub use modernbert_config::{LayerKind, ModernBertConfig, Pooling};
pub use safetensors::{Dtype, TensorInfo, Weights, write_safetensors};
pub(crate) use safetensors::{architecture, shard_names};
