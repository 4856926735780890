//! ModernBERT's configuration, checked.

use retune_tensor::backend::Activation;
use serde_json::Value;

use super::{HfConfig, described};
use crate::ModelError;
use crate::error::{nearest, quoted};

/// What the tokens of a block see of their row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// All of it: `full_attention`.
    Full,
    /// Their neighbourhood: `sliding_attention`.
    Sliding,
}

impl LayerKind {
    const NAMES: [(&str, LayerKind); 2] =
        [("full_attention", LayerKind::Full), ("sliding_attention", LayerKind::Sliding)];
}

/// What a classifier reads of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token.
    Cls,
    /// The mean over the tokens.
    Mean,
}

/// The sizes and rates of a ModernBERT encoder (Warner et al. 2024), named as in `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModernBertConfig {
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Width of the residual stream; the heads share it evenly, and the size of each is even.
    pub hidden_size: usize,
    /// Width of the gated layer, half of what its first product gives.
    pub intermediate_size: usize,
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// What the tokens of each block see: as many as there are blocks.
    pub layer_types: Vec<LayerKind>,
    /// How many tokens a block with a window shows, half of them to either side.
    pub local_attention: usize,
    /// The base of the rotary positions' wavelengths where all of a row is seen.
    pub global_rope_theta: f64,
    /// The same where a neighbourhood is seen.
    pub local_rope_theta: f64,
    /// The function of the gated layer.
    pub hidden_activation: Activation,
    /// The longest input, special tokens included.
    pub max_position_embeddings: usize,
    /// Added to the variance in each norm; positive.
    pub norm_eps: f64,
    /// Whether norms have a bias.
    pub norm_bias: bool,
    /// Whether the layers around attention have one.
    pub attention_bias: bool,
    /// Whether the layers around the gate have one.
    pub mlp_bias: bool,
    /// Whether the head's inner layer has one.
    pub classifier_bias: bool,
    /// The function of the head's inner layer.
    pub classifier_activation: Activation,
    /// What the head reads.
    pub classifier_pooling: Pooling,
    /// Dropout after the embeddings, in [0, 1).
    pub embedding_dropout: f64,
    /// Dropout of the attention's probabilities and of its result, in [0, 1).
    pub attention_dropout: f64,
    /// Dropout behind the gate, in [0, 1).
    pub mlp_dropout: f64,
    /// Dropout before the last layer of a classification head, in [0, 1).
    pub classifier_dropout: f64,
    /// The padding token's row of the word embeddings, which gets no gradient; below `vocab_size`.
    pub pad_token_id: Option<usize>,
    /// Standard deviation of newly made weights.
    pub initializer_range: f64,
}

impl ModernBertConfig {
    /// Reads and checks the keys of a ModernBERT; those that are absent get transformers' defaults. Both ways to write
    /// which blocks have a window (`layer_types`, or `global_attn_every_n_layers`) and the bases of the rotary positions
    /// (`rope_parameters`, or `global_rope_theta` and `local_rope_theta`) are read.
    ///
    /// Errors, with the key named, if a value is out of range, or asks for what this encoder is not.
    pub fn new(config: &HfConfig) -> Result<Self, ModelError> {
        config.refuse_decoder()?;
        let hidden_size = config.size("hidden_size", 768)?;
        let num_attention_heads = config.size("num_attention_heads", 12)?;
        check_head_size(config, hidden_size, num_attention_heads)?;
        let vocab_size = config.size("vocab_size", 50368)?;
        let rate = |key| Ok::<_, ModelError>(config.rate(key)?.unwrap_or(0.0));
        let flag = |key| Ok::<_, ModelError>(config.optional_bool(key)?.unwrap_or(false));
        Ok(Self {
            vocab_size,
            hidden_size,
            intermediate_size: config.size("intermediate_size", 1152)?,
            num_attention_heads,
            layer_types: layer_types(config, config.size("num_hidden_layers", 22)?)?,
            local_attention: config.size("local_attention", 128)?,
            global_rope_theta: theta(config, "full_attention", "global_rope_theta", 160_000.0)?,
            local_rope_theta: theta(config, "sliding_attention", "local_rope_theta", 10_000.0)?,
            hidden_activation: config.activation("hidden_activation")?,
            max_position_embeddings: config.size("max_position_embeddings", 8192)?,
            norm_eps: config.epsilon("norm_eps")?.unwrap_or(1e-5),
            norm_bias: flag("norm_bias")?,
            attention_bias: flag("attention_bias")?,
            mlp_bias: flag("mlp_bias")?,
            classifier_bias: flag("classifier_bias")?,
            classifier_activation: config.activation("classifier_activation")?,
            classifier_pooling: match config.optional_str("classifier_pooling")? {
                None | Some("cls") => Pooling::Cls,
                Some("mean") => Pooling::Mean,
                Some(other) => {
                    return Err(config.wrong("classifier_pooling", "`cls` or `mean`", quoted(other)));
                }
            },
            embedding_dropout: rate("embedding_dropout")?,
            attention_dropout: rate("attention_dropout")?,
            mlp_dropout: rate("mlp_dropout")?,
            classifier_dropout: rate("classifier_dropout")?,
            pad_token_id: config.pad_token_id(vocab_size, 50283)?,
            initializer_range: config.initializer_range()?,
        })
    }
}

/// Rotary positions turn channels in pairs.
fn check_head_size(config: &HfConfig, hidden: usize, heads: usize) -> Result<(), ModelError> {
    config.check_heads(("hidden_size", hidden), ("num_attention_heads", heads))?;
    let size = hidden / heads;
    if !size.is_multiple_of(2) {
        let expected =
            "a multiple of twice `num_attention_heads`, as rotary positions turn channels in pairs";
        return Err(config.wrong("hidden_size", expected, hidden.to_string()));
    }
    match config.optional_usize("head_dim")? {
        Some(other) if other != size => {
            let expected = format!("`hidden_size` / `num_attention_heads`, which is {size}");
            Err(config.wrong("head_dim", expected, other.to_string()))
        }
        _ => Ok(()),
    }
}

fn layer_types(config: &HfConfig, layers: usize) -> Result<Vec<LayerKind>, ModelError> {
    let Some(list) = config.optional_list("layer_types")? else {
        let every = config.size("global_attn_every_n_layers", 3)?;
        let kind =
            |layer: usize| if layer.is_multiple_of(every) { LayerKind::Full } else { LayerKind::Sliding };
        return Ok((0..layers).map(kind).collect());
    };
    if list.len() != layers {
        let expected = format!("one for each of the {layers} layers of `num_hidden_layers`");
        return Err(config.wrong("layer_types", expected, format!("a list of {}", list.len())));
    }
    let names = LayerKind::NAMES.map(|(name, _)| name);
    let read = |value: &Value| {
        let name = value.as_str().unwrap_or_default();
        let kind = LayerKind::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        kind.ok_or_else(|| {
            let near = nearest(name, names).map(|near| format!("; near is {}", quoted(&near)));
            let got = format!("{}{}", described(value), near.unwrap_or_default());
            config.wrong("layer_types", format!("{} in each place", names.map(quoted).join(" or ")), got)
        })
    };
    list.iter().map(read).collect()
}

/// The base of one kind's wavelengths, by the new key or the old one.
fn theta(config: &HfConfig, kind: &str, old_key: &str, default: f64) -> Result<f64, ModelError> {
    const KEY: &str = "rope_parameters";
    let expected = "a number above 1";
    let sound = |theta: f64| theta > 1.0 && (theta as f32).is_finite();
    if config.optional_map("rope_scaling")?.is_some() {
        let expected = "null, as stretched positions are not computed";
        return Err(config.wrong("rope_scaling", expected, "an object"));
    }
    if let Some(kinds) = config.optional_map(KEY)? {
        let names = LayerKind::NAMES.map(|(name, _)| name);
        if let Some(unknown) = kinds.keys().find(|key| !names.contains(&key.as_str())) {
            let expected = format!("the keys {} alone", names.map(quoted).join(" and "));
            return Err(config.wrong(KEY, expected, quoted(unknown)));
        }
        if let Some(kind_value) = kinds.get(kind).filter(|value| !value.is_null()) {
            let of = |key: &str| kind_value.get(key).filter(|value| !value.is_null());
            for key in ["rope_type", "type"] {
                if let Some(other) = of(key).filter(|value| value.as_str() != Some("default")) {
                    let expected =
                        format!("`default` for `{kind}.{key}`, as no other positions are computed");
                    return Err(config.wrong(KEY, expected, described(other)));
                }
            }
            if let Some(value) = of("rope_theta") {
                let theta = value.as_f64().filter(|theta| sound(*theta));
                let expected = format!("{expected} for `{kind}.rope_theta`");
                return theta.ok_or_else(|| config.wrong(KEY, expected, described(value)));
            }
        }
    }
    match config.raw.get(old_key) {
        None => Ok(default),
        // Null once meant the other kind's base, and is an error in transformers today: nothing to guess.
        Some(value) => value
            .as_f64()
            .filter(|theta| sound(*theta))
            .ok_or_else(|| config.wrong(old_key, expected, described(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<ModernBertConfig, String> {
        let raw = value.as_object().unwrap().clone();
        ModernBertConfig::new(&HfConfig::from_map("config.json", raw)).map_err(|e| e.to_string())
    }

    #[test]
    fn absent_keys_get_the_defaults_of_transformers() {
        let config = read(&json!({})).unwrap();
        let kinds: Vec<usize> =
            (0..22).filter(|layer| config.layer_types[*layer] == LayerKind::Full).collect();
        assert_eq!(kinds, [0, 3, 6, 9, 12, 15, 18, 21]);
        assert_eq!((config.vocab_size, config.hidden_size, config.intermediate_size), (50368, 768, 1152));
        assert_eq!((config.num_attention_heads, config.local_attention), (12, 128));
        assert_eq!((config.max_position_embeddings, config.pad_token_id), (8192, Some(50283)));
        assert_eq!(
            [config.global_rope_theta, config.local_rope_theta].map(f64::to_bits),
            [16e4, 1e4].map(f64::to_bits)
        );
        assert_eq!(
            (config.hidden_activation, config.classifier_activation),
            (Activation::Gelu, Activation::Gelu)
        );
        assert!(
            ![config.norm_bias, config.attention_bias, config.mlp_bias, config.classifier_bias]
                .contains(&true)
        );
        assert_eq!(config.classifier_pooling, Pooling::Cls);
        assert_eq!(config.norm_eps.to_bits(), 1e-5f64.to_bits());
    }

    #[test]
    fn both_ways_to_write_kinds_and_positions_are_read() {
        let old = read(&json!({
            "num_hidden_layers": 5, "global_attn_every_n_layers": 2, "global_rope_theta": 500, "local_rope_theta": 70.5,
            "position_embedding_type": "absolute", "rope_scaling": null
        }))
        .unwrap();
        let new = read(&json!({
            "num_hidden_layers": 5,
            "layer_types":
                ["full_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 500.0},
                "sliding_attention": {"rope_theta": 70.5}
            },
            // The new keys have the last word.
            "global_attn_every_n_layers": 1, "global_rope_theta": 3.0
        }))
        .unwrap();
        assert_eq!(old, new);
        let half =
            read(&json!({"rope_parameters": {"full_attention": null}, "local_rope_theta": 9.0})).unwrap();
        assert_eq!(
            [half.global_rope_theta, half.local_rope_theta].map(f64::to_bits),
            [16e4, 9.0].map(f64::to_bits)
        );
    }

    #[test]
    fn what_cannot_be_built_is_refused_by_its_key() {
        for (value, expected) in [
            (
                json!({"hidden_size": 100}),
                "`hidden_size`: expected a multiple of `num_attention_heads`, which is 12",
            ),
            (
                json!({"hidden_size": 36}),
                "`hidden_size`: expected a multiple of twice `num_attention_heads`, as rotary positions turn channels \
                 in pairs, got 36",
            ),
            (
                json!({"head_dim": 32}),
                "`head_dim`: expected `hidden_size` / `num_attention_heads`, which is 64, got 32",
            ),
            (
                json!({"global_attn_every_n_layers": 0}),
                "`global_attn_every_n_layers`: expected at least 1, got 0",
            ),
            (
                json!({"layer_types": ["full_attention"]}),
                "expected one for each of the 22 layers of `num_hidden_layers`",
            ),
            (
                json!({"num_hidden_layers": 1, "layer_types": ["full_atention"]}),
                "`layer_types`: expected `full_attention` or `sliding_attention` in each place, got the text \
                 `full_atention`; near is `full_attention`",
            ),
            (json!({"local_attention": -1}), "`local_attention`: expected a whole number"),
            (json!({"local_rope_theta": null}), "`local_rope_theta`: expected a number above 1, got null"),
            (
                json!({"global_rope_theta": 1e300}),
                "`global_rope_theta`: expected a number above 1, got 1e+300",
            ),
            (
                json!({"rope_parameters": {"rope_theta": 9.0}}),
                "`rope_parameters`: expected the keys `full_attention`",
            ),
            (
                json!({"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}}),
                "`rope_parameters`: expected `default` for `sliding_attention.rope_type`, as no other positions are",
            ),
            (
                json!({"rope_parameters": {"full_attention": {"rope_theta": "9"}}}),
                "`rope_parameters`: expected a number above 1 for `full_attention.rope_theta`, got the text `9`",
            ),
            (json!({"rope_scaling": {"factor": 2}}), "`rope_scaling`: expected null"),
            (
                json!({"classifier_pooling": "max"}),
                "`classifier_pooling`: expected `cls` or `mean`, got `max`",
            ),
            (json!({"hidden_activation": "mish"}), "`hidden_activation`: expected one of gelu, "),
            (json!({"mlp_dropout": 1}), "`mlp_dropout`: expected a number at least 0"),
            (json!({"norm_bias": "no"}), "`norm_bias`: expected true or false, got the text `no`"),
            (
                json!({"vocab_size": 7}),
                "`pad_token_id`: expected a token below `vocab_size`, which is 7, got 50283",
            ),
            (json!({"is_decoder": true}), "`is_decoder`: expected false"),
        ] {
            let error = read(&value).unwrap_err();
            assert!(error.contains(expected), "{value}: {error}");
        }
    }
}
