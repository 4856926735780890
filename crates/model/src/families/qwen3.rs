//! Qwen3 (Yang et al. 2025): Llama with queries and keys that are normed head by head.

use super::{DECODER_HEADS, Encoder, Family, HeadKind, llama_body};
use crate::formats::{Biases, HfConfig, LlamaConfig, LlamaDefaults, Windows};
use crate::{Aliases, Checkpoint, ModelError};

/// The family.
pub struct Qwen3;

const DEFAULTS: LlamaDefaults = LlamaDefaults {
    vocab_size: 151_936,
    intermediate_size: 22016,
    num_key_value_heads: Some(32),
    head_dim: Some(128),
    max_position_embeddings: 32768,
    bias: Biases::AskedOfAttention,
    windows: Windows::Some,
};

impl Family for Qwen3 {
    fn model_type(&self) -> &'static str {
        "qwen3"
    }

    fn summary(&self) -> &'static str {
        "Qwen3 decoders, but for those with experts"
    }

    fn class_prefix(&self) -> &'static str {
        "Qwen3"
    }

    fn heads(&self) -> &'static [HeadKind] {
        &DECODER_HEADS
    }

    fn head_name(&self, kind: HeadKind) -> &'static str {
        llama_body::head_name(kind)
    }

    fn aliases(&self) -> Aliases {
        llama_body::ALIASES
    }

    fn build(
        &self,
        config: &HfConfig,
        checkpoint: &mut Checkpoint,
        kind: HeadKind,
    ) -> std::result::Result<Box<dyn Encoder>, ModelError> {
        let config = LlamaConfig::new(config, &DEFAULTS)?;
        Ok(Box::new(llama_body::load(checkpoint, &config, kind, true)?))
    }
}
