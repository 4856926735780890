//! Llama (Touvron et al. 2023) and Mistral (Jiang et al. 2023), which is Llama with fewer key heads and a window.

use super::{DECODER_HEADS, Encoder, Family, HeadKind, llama_body};
use crate::formats::{Biases, HfConfig, LlamaConfig, LlamaDefaults, Windows};
use crate::{Aliases, Checkpoint, ModelError};

/// The family, under each of the names that transformers has for it.
pub struct Llama {
    model_type: &'static str,
    summary: &'static str,
    class: &'static str,
    defaults: LlamaDefaults,
}

/// Llama itself.
pub static LLAMA: Llama = Llama {
    model_type: "llama",
    summary: "Llama decoders: Llama 2 and 3, SmolLM2, TinyLlama",
    class: "Llama",
    defaults: LlamaDefaults {
        vocab_size: 32000,
        intermediate_size: 11008,
        num_key_value_heads: None,
        head_dim: None,
        max_position_embeddings: 2048,
        bias: Biases::Asked,
        windows: Windows::None,
    },
};

/// Mistral.
pub static MISTRAL: Llama = Llama {
    model_type: "mistral",
    summary: "Mistral decoders, whose tokens see a window of those before them",
    class: "Mistral",
    defaults: LlamaDefaults {
        intermediate_size: 14336,
        num_key_value_heads: Some(8),
        max_position_embeddings: 4096 * 32,
        bias: Biases::None,
        windows: Windows::Each(4096),
        ..LLAMA.defaults
    },
};

impl Family for Llama {
    fn model_type(&self) -> &'static str {
        self.model_type
    }

    fn summary(&self) -> &'static str {
        self.summary
    }

    fn class_prefix(&self) -> &'static str {
        self.class
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
        let config = LlamaConfig::new(config, &self.defaults)?;
        Ok(Box::new(llama_body::load(checkpoint, &config, kind, false)?))
    }
}
