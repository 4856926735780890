//! GPT-2 (Radford et al. 2019): learned positions, one product for queries, keys and values, weights kept as `[in, out]`.

use std::sync::Arc;

use retune_tensor::backend::AttentionShape;

use super::decoder_body::Decoder;
use super::{DECODER_HEADS, Encoder, Family, HeadDefaults, HeadKind};
use crate::formats::{Gpt2Config, HfConfig};
use crate::layers::{
    DecoderBlock, DecoderDropout, Embedding, FeedForward, LayerNorm, Linear, Norm, Part, Projections,
    SubLayer,
};
use crate::{Aliases, Checkpoint, ModelError};

/// The family.
pub struct Gpt2;

impl Family for Gpt2 {
    fn model_type(&self) -> &'static str {
        "gpt2"
    }

    fn summary(&self) -> &'static str {
        "GPT-2 decoders, and those distilled from them or trained like them"
    }

    fn class_prefix(&self) -> &'static str {
        "GPT2"
    }

    fn class(&self, kind: HeadKind) -> String {
        match kind {
            HeadKind::Language => "GPT2LMHeadModel".into(),
            _ => format!("{}{}", self.class_prefix(), kind.class_suffix()),
        }
    }

    fn heads(&self) -> &'static [HeadKind] {
        &DECODER_HEADS
    }

    fn head_name(&self, kind: HeadKind) -> &'static str {
        match kind {
            HeadKind::Language => "lm_head",
            HeadKind::Sequence => "score",
            HeadKind::Token => "classifier",
            HeadKind::Question => "qa_outputs",
        }
    }

    /// Bare models leave out `transformer.`.
    fn aliases(&self) -> Aliases {
        |name| vec![name.strip_prefix("transformer.").unwrap_or(name).to_string()]
    }

    fn build(
        &self,
        config: &HfConfig,
        checkpoint: &mut Checkpoint,
        kind: HeadKind,
    ) -> std::result::Result<Box<dyn Encoder>, ModelError> {
        let config = Gpt2Config::new(config)?;
        let hidden = config.n_embd;
        let words = Embedding::load(checkpoint, "transformer.wte", [config.vocab_size, hidden], None)?;
        let positions = Embedding::load(checkpoint, "transformer.wpe", [config.n_positions, hidden], None)?;
        let blocks = (0..config.n_layer)
            .map(|index| block(checkpoint, &config, index).map(Arc::new))
            .collect::<std::result::Result<_, _>>()?;
        let norm = LayerNorm::load(checkpoint, "transformer.ln_f", hidden, config.layer_norm_epsilon)?;
        let head = HeadDefaults {
            kind,
            name: self.head_name(kind),
            dropout: if kind == HeadKind::Token { config.classifier_dropout as f32 } else { 0.0 },
            initializer_range: config.initializer_range,
            bias: kind == HeadKind::Token,
            vocabulary: HeadDefaults::vocabulary(kind, config.vocab_size, config.tie_word_embeddings, &words),
        };
        Ok(Box::new(Decoder {
            words,
            positions: Some(positions),
            embedding_dropout: Some(("transformer.drop", config.embd_pdrop as f32)),
            blocks,
            dropout: DecoderDropout {
                attention: config.attn_pdrop as f32,
                residual: config.resid_pdrop as f32,
            },
            norm: Norm::Layer(norm),
            hidden_size: hidden,
            max_length: config.n_positions,
            padding: config.pad_token_id.and_then(|id| u32::try_from(id).ok()),
            head,
        }))
    }
}

fn block(
    checkpoint: &mut Checkpoint,
    config: &Gpt2Config,
    index: usize,
) -> std::result::Result<DecoderBlock, ModelError> {
    let name = format!("transformer.h.{index}");
    let site = |part: &str| format!("{name}.{part}");
    let (hidden, head_size) = (config.n_embd, config.n_embd / config.n_head);
    let mut scale = if config.scale_attn_weights { 1.0 / (head_size as f32).sqrt() } else { 1.0 };
    if config.scale_attn_by_inverse_layer_idx {
        scale /= (index + 1) as f32;
    }
    let norm = |checkpoint: &mut Checkpoint, part| {
        LayerNorm::load(checkpoint, &site(part), hidden, config.layer_norm_epsilon).map(Norm::Layer)
    };
    let attention_norm = norm(checkpoint, "ln_1")?;
    let feed_forward_norm = norm(checkpoint, "ln_2")?;
    let mut linear = |part, width, out| Linear::load_transposed(checkpoint, site(part), width, out);
    let end = |part, name| SubLayer { name: site(name), block: index, part, width: hidden, norm: None };
    Ok(DecoderBlock {
        attention: AttentionShape {
            heads: config.n_head,
            kv_heads: config.n_head,
            head_size,
            scale,
            causal: true,
            window: None,
        },
        rotary: None,
        attention_norm,
        projections: Projections::Joint(linear("attn.c_attn", hidden, 3 * hidden)?),
        head_norms: None,
        attention_output: linear("attn.c_proj", hidden, hidden)?,
        attention_end: end(Part::Attention, "attention_adapters"),
        feed_forward_norm,
        feed_forward: FeedForward::Plain {
            up: linear("mlp.c_fc", hidden, config.n_inner)?,
            activation: config.activation_function,
            down: linear("mlp.c_proj", config.n_inner, hidden)?,
        },
        feed_forward_end: end(Part::FeedForward, "output_adapters"),
        name,
    })
}
