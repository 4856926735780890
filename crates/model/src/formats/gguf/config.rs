//! The metadata of a model as the `config.json` that transformers would have for it.

use serde_json::{Map, Value, json};

use super::header::{Gguf, Meta};
use super::vocabulary;
use crate::ModelError;
use crate::error::quoted;

/// What llama.cpp calls a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    Gpt2,
    Llama,
    Qwen2,
    Qwen3,
}

impl Architecture {
    const ALL: [(&'static str, Architecture); 4] = [
        ("gpt2", Architecture::Gpt2),
        ("llama", Architecture::Llama),
        ("qwen2", Architecture::Qwen2),
        ("qwen3", Architecture::Qwen3),
    ];

    /// Errors if it is none that is known, naming those that are.
    pub(super) fn of(gguf: &Gguf) -> Result<Self, ModelError> {
        const KEY: &str = "general.architecture";
        let name = gguf.require_text(KEY)?;
        let found = Self::ALL.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, architecture)| architecture).ok_or_else(|| {
            let known = Self::ALL.map(|(known, _)| known).join(", ");
            gguf.wrong(KEY, format!("one of {known}"), quoted(name))
        })
    }

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// The heads of queries and those of keys.
    pub(super) fn heads(self, gguf: &Gguf) -> Result<[usize; 2], ModelError> {
        let read = |key: &str| {
            let key = format!("{}.attention.{key}", self.name());
            match gguf.size(&key)? {
                Some(0) => Err(gguf.wrong(&key, "at least 1", "0")),
                size => Ok(size),
            }
        };
        let heads = read("head_count")?.unwrap_or(1);
        Ok([heads, read("head_count_kv")?.unwrap_or(heads)])
    }
}

/// The configuration. Errors, with the key named, if one is missing or asks for what is not built here.
pub(super) fn config(gguf: &Gguf) -> Result<Map<String, Value>, ModelError> {
    let architecture = Architecture::of(gguf)?;
    let key = |name: &str| format!("{}.{name}", architecture.name());
    let size = |name: &str| gguf.require_size(&key(name));
    if let Some(experts) = gguf.size(&key("expert_count"))?.filter(|count| *count > 0) {
        return Err(gguf.wrong(
            &key("expert_count"),
            "0, as mixtures of experts are not built",
            experts.to_string(),
        ));
    }
    let heads = size("attention.head_count")?;
    let words = gguf.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    let vocab_size = match (words.and_then(|words| words.shape.first()), gguf.size(&key("vocab_size"))?) {
        (Some(rows), _) => *rows,
        (None, size) => size.unwrap_or_default(),
    };
    let mut config = Map::new();
    let mut put = |name: &str, value: Value| drop(config.insert(name.into(), value));
    let (class, model_type) = match architecture {
        Architecture::Gpt2 => ("GPT2LMHeadModel", "gpt2"),
        Architecture::Llama => ("LlamaForCausalLM", "llama"),
        Architecture::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        Architecture::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
    };
    put("architectures", json!([class]));
    put("model_type", model_type.into());
    put("vocab_size", vocab_size.into());
    put("tie_word_embeddings", (!gguf.has("output.weight")).into());
    if architecture == Architecture::Gpt2 {
        put("n_positions", size("context_length")?.into());
        put("n_embd", size("embedding_length")?.into());
        put("n_inner", size("feed_forward_length")?.into());
        put("n_layer", size("block_count")?.into());
        put("n_head", heads.into());
        put("activation_function", "gelu_new".into());
        if let Some(epsilon) = gguf.number(&key("attention.layer_norm_epsilon"))? {
            put("layer_norm_epsilon", short(epsilon));
        }
    } else {
        let hidden = size("embedding_length")?;
        put("max_position_embeddings", size("context_length")?.into());
        put("hidden_size", hidden.into());
        put("intermediate_size", size("feed_forward_length")?.into());
        put("num_hidden_layers", size("block_count")?.into());
        put("num_attention_heads", heads.into());
        put("num_key_value_heads", architecture.heads(gguf)?[1].into());
        let head_dim =
            gguf.size(&key("attention.key_length"))?.or(hidden.checked_div(heads)).unwrap_or_default();
        put("head_dim", head_dim.into());
        put("hidden_act", "silu".into());
        if let Some(epsilon) = gguf.number(&key("attention.layer_norm_rms_epsilon"))? {
            put("rms_norm_eps", short(epsilon));
        }
        put("attention_bias", gguf.has("blk.0.attn_q.bias").into());
        if architecture == Architecture::Llama {
            put("mlp_bias", gguf.has("blk.0.ffn_gate.bias").into());
        }
        let turned = gguf.size(&key("rope.dimension_count"))?.unwrap_or(head_dim);
        if turned != head_dim {
            let expected = format!("{head_dim}, as whole heads are turned");
            return Err(gguf.wrong(&key("rope.dimension_count"), expected, turned.to_string()));
        }
        let theta = gguf.number(&key("rope.freq_base"))?.unwrap_or(10_000.0);
        put("rope_theta", short(theta));
        if let Some(scaling) = scaling(gguf, &key)? {
            put("rope_scaling", scaling);
        }
    }
    if let Some(ends) = vocabulary::ends(gguf)? {
        put("eos_token_id", ends);
    }
    for (name, key) in [("bos_token_id", "bos"), ("pad_token_id", "padding")] {
        if let Some(id) = gguf.size(&format!("tokenizer.ggml.{key}_token_id"))? {
            put(name, id.into());
        }
    }
    Ok(config)
}

/// A number of 32 bits as people write it.
fn short(number: f64) -> Value {
    (number as f32).to_string().parse::<f64>().unwrap_or(number).into()
}

/// The stretched positions of Llama 3.1 and later: the file has no keys but a factor for each frequency, which llama.cpp made
/// by the rule that transformers calls `llama3`. Errors if these are other factors.
fn llama3(gguf: &Gguf, key: &impl Fn(&str) -> String) -> Result<Option<Value>, ModelError> {
    const NAME: &str = "rope_freqs.weight";
    const PRETRAINED: usize = 8192;
    let [low, high] = [1.0, 4.0];
    let factors = gguf.read_f32(NAME)?;
    let most = f64::from(factors.iter().copied().fold(1.0, f32::max));
    let theta = gguf.number(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    for (index, got) in factors.iter().enumerate() {
        let turns =
            PRETRAINED as f64 * theta.powf(-(index as f64) / factors.len() as f64) / std::f64::consts::TAU;
        let share = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        let expected = 1.0 / ((1.0 - share) / most + share);
        if (f64::from(*got) / expected - 1.0).abs() > 1e-3 || most <= 1.0 {
            let words = "the factors of Llama 3, stretched from rows of 8192 tokens";
            return Err(gguf.wrong(NAME, words, format!("{got} at place {index}")));
        }
    }
    Ok(Some(json!({
        "rope_type": "llama3",
        "factor": short(most),
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": PRETRAINED,
    })))
}

/// How positions are stretched.
fn scaling(gguf: &Gguf, key: &impl Fn(&str) -> String) -> Result<Option<Value>, ModelError> {
    if gguf.has("rope_freqs.weight") {
        return llama3(gguf, key);
    }
    let name = key("rope.scaling.type");
    let factor = gguf.number(&key("rope.scaling.factor"))?.or(gguf.number(&key("rope.scale_linear"))?);
    match (gguf.text(&name)?, factor) {
        (None | Some("none"), None) => Ok(None),
        (None | Some("none"), Some(1.0)) => Ok(None),
        (None | Some("linear"), Some(factor)) => {
            Ok(Some(json!({"rope_type": "linear", "factor": short(factor)})))
        }
        (Some("yarn"), Some(factor)) => {
            let original = gguf.require_size(&key("rope.scaling.original_context_length"))?;
            let scaling = json!({
                "rope_type": "yarn",
                "factor": short(factor),
                "original_max_position_embeddings": original,
            });
            Ok(Some(scaling))
        }
        (Some("linear" | "yarn"), None) => {
            Err(gguf.wrong(&key("rope.scaling.factor"), "a number", "no such key"))
        }
        (other, _) => {
            let got =
                other.map_or("a factor alone".to_string(), |other| Meta::Text(other.into()).described());
            Err(gguf.wrong(&name, "none, linear or yarn", got))
        }
    }
}
