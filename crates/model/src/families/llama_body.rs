//! What Llama, Mistral and Qwen have in common: their configurations differ in defaults, their blocks in biases, windows and
//! whether heads are normed.

use std::sync::Arc;

use retune_tensor::backend::AttentionShape;

use super::decoder_body::Decoder;
use super::{HeadDefaults, HeadKind};
use crate::formats::LlamaConfig;
use crate::layers::{
    DecoderBlock, DecoderDropout, Embedding, FeedForward, Linear, Norm, Part, Projections, RmsNorm, SubLayer,
};
use crate::{Aliases, Checkpoint, ModelError};

/// Bare models leave out `model.`.
pub(super) const ALIASES: Aliases = |name| vec![name.strip_prefix("model.").unwrap_or(name).to_string()];

/// The site of the last layer of a head of this kind.
pub(super) fn head_name(kind: HeadKind) -> &'static str {
    match kind {
        HeadKind::Language => "lm_head",
        HeadKind::Sequence | HeadKind::Token => "score",
        HeadKind::Question => "qa_outputs",
    }
}

/// The decoder of a configuration; with `head_norms`, queries and keys are normed head by head.
pub(super) fn load(
    checkpoint: &mut Checkpoint,
    config: &LlamaConfig,
    kind: HeadKind,
    head_norms: bool,
) -> std::result::Result<Decoder, ModelError> {
    let hidden = config.hidden_size;
    let padding = config.pad_token_id.and_then(|id| u32::try_from(id).ok());
    let words = Embedding::load(checkpoint, "model.embed_tokens", [config.vocab_size, hidden], padding)?;
    let blocks = (0..config.windows.len())
        .map(|index| block(checkpoint, config, index, head_norms).map(Arc::new))
        .collect::<std::result::Result<_, _>>()?;
    let norm = RmsNorm::load(checkpoint, "model.norm", hidden, config.rms_norm_eps)?;
    let head = HeadDefaults {
        kind,
        name: head_name(kind),
        dropout: if kind == HeadKind::Token { config.classifier_dropout as f32 } else { 0.0 },
        initializer_range: config.initializer_range,
        bias: kind == HeadKind::Token,
        vocabulary: HeadDefaults::vocabulary(kind, config.vocab_size, config.tie_word_embeddings, &words),
    };
    Ok(Decoder {
        words,
        positions: None,
        embedding_dropout: None,
        blocks,
        dropout: DecoderDropout { attention: config.attention_dropout as f32, residual: 0.0 },
        norm: Norm::Rms(norm),
        hidden_size: hidden,
        max_length: config.max_position_embeddings,
        padding,
        head,
    })
}

fn block(
    checkpoint: &mut Checkpoint,
    config: &LlamaConfig,
    index: usize,
    head_norms: bool,
) -> std::result::Result<DecoderBlock, ModelError> {
    let name = format!("model.layers.{index}");
    let site = |part: &str| format!("{name}.{part}");
    let (hidden, wide, head_size) = (config.hidden_size, config.intermediate_size, config.head_dim);
    let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
    let (own, kv) = (heads * head_size, kv_heads * head_size);
    let norm = |checkpoint: &mut Checkpoint, part, columns| {
        RmsNorm::load(checkpoint, &site(part), columns, config.rms_norm_eps)
    };
    let attention_norm = Norm::Rms(norm(checkpoint, "input_layernorm", hidden)?);
    let feed_forward_norm = Norm::Rms(norm(checkpoint, "post_attention_layernorm", hidden)?);
    let head_norms = match head_norms {
        true => {
            let of_query = norm(checkpoint, "self_attn.q_norm", head_size)?;
            Some([of_query, norm(checkpoint, "self_attn.k_norm", head_size)?])
        }
        false => None,
    };
    let [bias, output_bias] = config.attention_bias;
    let mut linear =
        |part: &str, width, out, bias| Linear::load_with(checkpoint, site(part), width, out, bias);
    let end = |part, name| SubLayer { name: site(name), block: index, part, width: hidden, norm: None };
    Ok(DecoderBlock {
        attention: AttentionShape {
            heads,
            kv_heads,
            head_size,
            scale: 1.0 / (head_size as f32).sqrt(),
            causal: true,
            // The token itself is one of those that a window shows.
            window: config.windows.get(index).copied().flatten().map(|window| window - 1),
        },
        rotary: Some(config.rotary.clone()),
        attention_norm,
        projections: Projections::Apart([
            linear("self_attn.q_proj", hidden, own, bias)?,
            linear("self_attn.k_proj", hidden, kv, bias)?,
            linear("self_attn.v_proj", hidden, kv, bias)?,
        ]),
        head_norms,
        attention_output: linear("self_attn.o_proj", own, hidden, output_bias)?,
        attention_end: end(Part::Attention, "attention_adapters"),
        feed_forward_norm,
        feed_forward: FeedForward::Gated {
            gate: linear("mlp.gate_proj", hidden, wide, config.mlp_bias)?,
            up: linear("mlp.up_proj", hidden, wide, config.mlp_bias)?,
            activation: config.hidden_act,
            down: linear("mlp.down_proj", wide, hidden, config.mlp_bias)?,
        },
        feed_forward_end: end(Part::FeedForward, "output_adapters"),
        name,
    })
}
