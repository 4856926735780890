//! GPT-2's configuration, checked. Its keys have names of their own.

use retune_tensor::backend::Activation;

use super::HfConfig;
use crate::ModelError;

/// The sizes and rates of a GPT-2 (Radford et al. 2019), named as in `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Gpt2Config {
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Rows of the position embeddings: the longest row.
    pub n_positions: usize,
    /// Width of the residual stream; a multiple of `n_head`.
    pub n_embd: usize,
    /// Blocks.
    pub n_layer: usize,
    /// Heads of each attention.
    pub n_head: usize,
    /// Width between the two layers of a feed-forward block; four times the stream's where nothing is said.
    pub n_inner: usize,
    /// The function there.
    pub activation_function: Activation,
    /// Dropout before each sum, in [0, 1).
    pub resid_pdrop: f64,
    /// Dropout after the embeddings, in [0, 1).
    pub embd_pdrop: f64,
    /// Dropout of the attention's probabilities, in [0, 1).
    pub attn_pdrop: f64,
    /// Added to the variance in each norm; positive.
    pub layer_norm_epsilon: f64,
    /// Whether scores are divided by the root of the head's size.
    pub scale_attn_weights: bool,
    /// Whether they are divided by the number of the block, counted from 1.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether the vocabulary projection is the table of the word embeddings.
    pub tie_word_embeddings: bool,
    /// Dropout before the last layer of a head that reads tokens, in [0, 1).
    pub classifier_dropout: f64,
    /// The padding token, which no head reads; below `vocab_size`.
    pub pad_token_id: Option<usize>,
    /// Standard deviation of newly made weights.
    pub initializer_range: f64,
}

impl Gpt2Config {
    /// Reads and checks the keys of a GPT-2; those that are absent get transformers' defaults.
    ///
    /// Errors, with the key named, if a value is out of range, or asks for what this decoder is not.
    pub fn new(config: &HfConfig) -> Result<Self, ModelError> {
        if config.optional_bool("add_cross_attention")? == Some(true) {
            return Err(config.wrong("add_cross_attention", "false, as decoders alone are built", "true"));
        }
        let (n_embd, n_head) = (config.size("n_embd", 768)?, config.size("n_head", 12)?);
        config.check_heads(("n_embd", n_embd), ("n_head", n_head))?;
        let vocab_size = config.size("vocab_size", 50257)?;
        let rate = |key| Ok::<_, ModelError>(config.rate(key)?.unwrap_or(0.1));
        let flag = |key, default| Ok::<_, ModelError>(config.optional_bool(key)?.unwrap_or(default));
        let dropout = match config.rate("classifier_dropout")? {
            Some(rate) => Some(rate),
            None => config.rate("hidden_dropout")?,
        };
        Ok(Self {
            vocab_size,
            n_positions: config.size("n_positions", 1024)?,
            n_embd,
            n_layer: config.size("n_layer", 12)?,
            n_head,
            n_inner: config.size("n_inner", 4 * n_embd)?,
            activation_function: config.activation_or("activation_function", "gelu_new")?,
            resid_pdrop: rate("resid_pdrop")?,
            embd_pdrop: rate("embd_pdrop")?,
            attn_pdrop: rate("attn_pdrop")?,
            layer_norm_epsilon: config.epsilon("layer_norm_epsilon")?.unwrap_or(1e-5),
            scale_attn_weights: flag("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: flag("scale_attn_by_inverse_layer_idx", false)?,
            tie_word_embeddings: flag("tie_word_embeddings", true)?,
            classifier_dropout: dropout.unwrap_or(0.1),
            pad_token_id: config.optional_pad_token_id(vocab_size)?,
            initializer_range: config.initializer_range()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: &Value) -> Result<Gpt2Config, String> {
        let raw = value.as_object().unwrap().clone();
        Gpt2Config::new(&HfConfig::from_map("config.json", raw)).map_err(|e| e.to_string())
    }

    #[test]
    fn absent_keys_get_the_defaults_of_transformers() {
        let config = read(&json!({})).unwrap();
        assert_eq!(
            (config.vocab_size, config.n_positions, config.n_embd, config.n_inner),
            (50257, 1024, 768, 3072)
        );
        assert_eq!((config.n_layer, config.n_head, config.pad_token_id), (12, 12, None));
        assert_eq!(config.activation_function, Activation::GeluTanh);
        assert!(config.tie_word_embeddings && config.scale_attn_weights);
        assert_eq!(read(&json!({"n_embd": 24, "n_head": 3, "n_inner": null})).unwrap().n_inner, 96);
    }

    #[test]
    fn what_cannot_be_built_is_refused_by_its_key() {
        for (value, expected) in [
            (json!({"n_embd": 25}), "`n_embd`: expected a multiple of `n_head`, which is 12, got 25"),
            (json!({"resid_pdrop": 1}), "`resid_pdrop`: expected a number at least 0 and below 1"),
            (json!({"add_cross_attention": true}), "`add_cross_attention`: expected false"),
            (json!({"pad_token_id": 50257}), "`pad_token_id`: expected a token below `vocab_size`"),
        ] {
            let error = read(&value).unwrap_err();
            assert!(error.contains(expected), "{value}: {error}");
        }
    }
}
