//! The configuration of Llama and of the families that are like it, checked.

use retune_tensor::backend::{Activation, Rotary};
use serde_json::Value;

use super::{HfConfig, described};
use crate::ModelError;
use crate::error::quoted;

/// The sizes and rates of a decoder like Llama's (Touvron et al. 2023), named as in `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated layer.
    pub intermediate_size: usize,
    /// Query heads of each attention.
    pub num_attention_heads: usize,
    /// Key and value heads; a divisor of `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Channels of a head; even.
    pub head_dim: usize,
    /// How many tokens those of each block see, themselves included; all of their row where none is given.
    pub windows: Vec<Option<usize>>,
    /// The function of the gate.
    pub hidden_act: Activation,
    /// The longest row.
    pub max_position_embeddings: usize,
    /// How positions turn queries and keys.
    pub rotary: Rotary,
    /// Added to the mean of the squares in each norm; positive.
    pub rms_norm_eps: f64,
    /// Whether the layers that make queries, keys and values have a bias, and whether that behind attention has one.
    pub attention_bias: [bool; 2],
    /// Whether the layers around the gate have one.
    pub mlp_bias: bool,
    /// Whether the vocabulary projection is the table of the word embeddings.
    pub tie_word_embeddings: bool,
    /// Dropout of the attention's probabilities, in [0, 1).
    pub attention_dropout: f64,
    /// Dropout before the last layer of a head that reads tokens, in [0, 1).
    pub classifier_dropout: f64,
    /// The padding token's row of the word embeddings, which gets no gradient; below `vocab_size`.
    pub pad_token_id: Option<usize>,
    /// Standard deviation of newly made weights.
    pub initializer_range: f64,
}

/// What a family has where its configuration says nothing, as in transformers.
#[derive(Debug, Clone, Copy)]
pub struct LlamaDefaults {
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Width of the gated layer.
    pub intermediate_size: usize,
    /// Key and value heads, where there are not as many as query heads.
    pub num_key_value_heads: Option<usize>,
    /// Channels of a head, where they are not what the heads share.
    pub head_dim: Option<usize>,
    /// The longest row.
    pub max_position_embeddings: usize,
    /// Which layers have a bias.
    pub bias: Biases,
    /// Which blocks see a part of their row.
    pub windows: Windows,
}

/// Which layers of a family have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Biases {
    /// None has one.
    None,
    /// Those that make queries, keys and values.
    Projections,
    /// `attention_bias` says so for all of attention, and `mlp_bias` around the gate.
    Asked,
    /// `attention_bias` alone.
    AskedOfAttention,
}

/// Which blocks of a family see a part of their row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Windows {
    /// None.
    None,
    /// Each, if `sliding_window` is no null; this many tokens where the key is absent.
    Each(usize),
    /// Those that `layer_types` says, or those from `max_window_layers` on, if `use_sliding_window` is true.
    Some,
}

impl LlamaConfig {
    /// Reads and checks the keys; those that are absent get the family's defaults.
    ///
    /// Errors, with the key named, if a value is out of range, or asks for what this decoder is not.
    pub fn new(config: &HfConfig, defaults: &LlamaDefaults) -> Result<Self, ModelError> {
        if config.optional_bool("add_cross_attention")? == Some(true) {
            return Err(config.wrong("add_cross_attention", "false, as decoders alone are built", "true"));
        }
        let hidden_size = config.size("hidden_size", 4096)?;
        let heads = config.size("num_attention_heads", 32)?;
        let kv_heads = config.size("num_key_value_heads", defaults.num_key_value_heads.unwrap_or(heads))?;
        config.check_heads(("num_attention_heads", heads), ("num_key_value_heads", kv_heads))?;
        let head_dim = match config.optional_usize("head_dim")?.or(defaults.head_dim) {
            Some(size) => size,
            None => {
                config.check_heads(("hidden_size", hidden_size), ("num_attention_heads", heads))?;
                hidden_size / heads
            }
        };
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            let expected = "an even size, as rotary positions turn channels in pairs";
            return Err(config.wrong("head_dim", expected, head_dim.to_string()));
        }
        let vocab_size = config.size("vocab_size", defaults.vocab_size)?;
        let max_position_embeddings =
            config.size("max_position_embeddings", defaults.max_position_embeddings)?;
        let flag = |key| Ok::<_, ModelError>(config.optional_bool(key)?.unwrap_or(false));
        let (attention_bias, mlp_bias) = match defaults.bias {
            Biases::None => ([false; 2], false),
            Biases::Projections => ([true, false], false),
            Biases::Asked => ([flag("attention_bias")?; 2], flag("mlp_bias")?),
            Biases::AskedOfAttention => ([flag("attention_bias")?; 2], false),
        };
        let dropout = match config.rate("classifier_dropout")? {
            Some(rate) => Some(rate),
            None => config.rate("hidden_dropout")?,
        };
        Ok(Self {
            vocab_size,
            hidden_size,
            intermediate_size: config.size("intermediate_size", defaults.intermediate_size)?,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            windows: windows(config, defaults.windows)?,
            hidden_act: config.activation_or("hidden_act", "silu")?,
            max_position_embeddings,
            rotary: config.rotary(head_dim, max_position_embeddings)?,
            rms_norm_eps: config.epsilon("rms_norm_eps")?.unwrap_or(1e-6),
            attention_bias,
            mlp_bias,
            tie_word_embeddings: flag("tie_word_embeddings")?,
            attention_dropout: config.rate("attention_dropout")?.unwrap_or(0.0),
            classifier_dropout: dropout.unwrap_or(0.1),
            pad_token_id: config.optional_pad_token_id(vocab_size)?,
            initializer_range: config.initializer_range()?,
        })
    }
}

fn windows(config: &HfConfig, windows: Windows) -> Result<Vec<Option<usize>>, ModelError> {
    const TYPES: [&str; 2] = ["full_attention", "sliding_attention"];
    let layers = config.size("num_hidden_layers", 32)?;
    let size = |default| match config.raw.get("sliding_window") {
        Some(Value::Null) => Ok(None),
        _ => config.size("sliding_window", default).map(Some),
    };
    let first = match windows {
        Windows::None => return Ok(vec![None; layers]),
        Windows::Each(default) => return Ok(vec![size(default)?; layers]),
        Windows::Some => config.optional_usize("max_window_layers")?.unwrap_or(28),
    };
    let window = if config.optional_bool("use_sliding_window")? == Some(true) { size(4096)? } else { None };
    let Some(list) = config.optional_list("layer_types")? else {
        return Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect());
    };
    if list.len() != layers {
        let expected = format!("one for each of the {layers} layers of `num_hidden_layers`");
        return Err(config.wrong("layer_types", expected, format!("a list of {}", list.len())));
    }
    let read = |value: &Value| match (value.as_str(), window) {
        (Some("full_attention"), _) => Ok(None),
        (Some("sliding_attention"), Some(window)) => Ok(Some(window)),
        (Some("sliding_attention"), None) => {
            let expected = "`full_attention` in each place, as `use_sliding_window` is not true";
            Err(config.wrong("layer_types", expected, described(value)))
        }
        _ => {
            let expected = format!("{} in each place", TYPES.map(quoted).join(" or "));
            Err(config.wrong("layer_types", expected, described(value)))
        }
    };
    list.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LIKE_QWEN: LlamaDefaults = LlamaDefaults {
        vocab_size: 50,
        intermediate_size: 11,
        num_key_value_heads: None,
        head_dim: None,
        max_position_embeddings: 64,
        bias: Biases::Asked,
        windows: Windows::Some,
    };

    fn read(value: &Value, defaults: &LlamaDefaults) -> Result<LlamaConfig, String> {
        let raw = value.as_object().unwrap().clone();
        LlamaConfig::new(&HfConfig::from_map("config.json", raw), defaults).map_err(|e| e.to_string())
    }

    #[test]
    fn windows_are_those_of_the_family() {
        let base = json!({"hidden_size": 12, "num_attention_heads": 3, "num_hidden_layers": 3});
        let with = |more: Value, windows| {
            let mut all = base.as_object().unwrap().clone();
            all.extend(more.as_object().unwrap().clone());
            read(&Value::Object(all), &LlamaDefaults { windows, ..LIKE_QWEN }).unwrap().windows
        };
        assert_eq!(with(json!({"sliding_window": 5}), Windows::None), [None; 3]);
        assert_eq!(with(json!({}), Windows::Each(7)), [Some(7); 3]);
        assert_eq!(with(json!({"sliding_window": null}), Windows::Each(7)), [None; 3]);
        let asked = json!({"use_sliding_window": true, "sliding_window": 5, "max_window_layers": 1});
        assert_eq!(with(asked, Windows::Some), [None, Some(5), Some(5)]);
        assert_eq!(with(json!({"sliding_window": 5, "max_window_layers": 1}), Windows::Some), [None; 3]);
        let types = json!(["sliding_attention", "full_attention", "full_attention"]);
        let listed = json!({"use_sliding_window": true, "sliding_window": 4, "layer_types": types});
        assert_eq!(with(listed, Windows::Some), [Some(4), None, None]);
    }

    #[test]
    fn what_cannot_be_built_is_refused_by_its_key() {
        for (value, expected) in [
            (
                json!({"num_attention_heads": 6, "num_key_value_heads": 4}),
                "`num_attention_heads`: expected a multiple of `num_key_value_heads`, which is 4, got 6",
            ),
            (json!({"head_dim": 7}), "`head_dim`: expected an even size"),
            (json!({"hidden_size": 30, "num_attention_heads": 4}), "`hidden_size`: expected a multiple of"),
            (json!({"layer_types": ["x"]}), "`layer_types`: expected one for each of the 32 layers"),
            (
                json!({"num_hidden_layers": 1, "layer_types": ["sliding_attention"]}),
                "as `use_sliding_window` is not true, got the text `sliding_attention`",
            ),
            (json!({"pad_token_id": 50}), "`pad_token_id`: expected a token below `vocab_size`, which is 50"),
            (json!({"hidden_act": "sillu"}), "got `sillu`; near is `silu`"),
        ] {
            let error = read(&value, &LIKE_QWEN).unwrap_err();
            assert!(error.contains(expected), "{value}: {error}");
        }
    }
}
