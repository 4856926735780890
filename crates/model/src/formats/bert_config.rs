//! BERT's configuration, checked: what holds here need not be asked again while the model is built.

use retune_tensor::backend::Activation;

use super::HfConfig;
use crate::ModelError;
use crate::error::quoted;

/// The sizes and rates of a BERT encoder (Devlin et al. 2018), or of one of its shape, named as in `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct BertConfig {
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Width of the embeddings; that of the residual stream but for ELECTRA.
    pub embedding_size: usize,
    /// Width of the residual stream; a multiple of `num_attention_heads`.
    pub hidden_size: usize,
    /// Encoder blocks.
    pub num_hidden_layers: usize,
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Width between the two layers of a feed-forward block.
    pub intermediate_size: usize,
    /// The function there.
    pub hidden_act: Activation,
    /// Rows of the position embeddings: the longest input, special tokens included.
    pub max_position_embeddings: usize,
    /// Rows of the token type (segment) embeddings.
    pub type_vocab_size: usize,
    /// Added to the variance in each layer norm; positive.
    pub layer_norm_eps: f64,
    /// Dropout after the embeddings and at the end of each sub-layer, in [0, 1).
    pub hidden_dropout_prob: f64,
    /// Dropout of the attention's probabilities, in [0, 1).
    pub attention_probs_dropout_prob: f64,
    /// Dropout before a classification head, in [0, 1); `hidden_dropout_prob` where the file does not say.
    pub classifier_dropout: f64,
    /// The padding token's row of the word embeddings, which gets no gradient; below `vocab_size`.
    pub pad_token_id: Option<usize>,
    /// Standard deviation of newly made weights.
    pub initializer_range: f64,
}

/// What transformers takes where a configuration does not say; it writes such values down only in newer versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BertDefaults {
    /// Of `vocab_size`.
    pub vocab_size: usize,
    /// Of `embedding_size`; none where the family has no such key, and embeddings are as wide as the residual stream.
    pub embedding_size: Option<usize>,
    /// Of `hidden_size`.
    pub hidden_size: usize,
    /// Of `num_attention_heads`.
    pub num_attention_heads: usize,
    /// Of `intermediate_size`.
    pub intermediate_size: usize,
    /// Of `pad_token_id`.
    pub pad_token_id: usize,
}

impl BertDefaults {
    /// Those of BERT, base size.
    pub const BERT: BertDefaults = BertDefaults {
        vocab_size: 30522,
        embedding_size: None,
        hidden_size: 768,
        num_attention_heads: 12,
        intermediate_size: 3072,
        pad_token_id: 0,
    };
}

impl BertConfig {
    /// Reads and checks the keys of a BERT model; those that are absent get transformers' defaults.
    ///
    /// Errors, with the key named, if a value is out of range, or asks for what this encoder is not: a decoder,
    /// cross-attention, relative positions, an unknown activation.
    pub fn new(config: &HfConfig) -> Result<Self, ModelError> {
        let model_type = config.model_type()?;
        if model_type != "bert" {
            return Err(config.wrong("model_type", "`bert`", quoted(model_type)));
        }
        Self::with_defaults(config, &BertDefaults::BERT)
    }

    /// The same for a family of BERT's shape, with its own defaults.
    pub fn with_defaults(config: &HfConfig, defaults: &BertDefaults) -> Result<Self, ModelError> {
        config.refuse_decoder()?;
        config.refuse_relative_positions()?;
        let hidden_size = config.size("hidden_size", defaults.hidden_size)?;
        let num_attention_heads = config.size("num_attention_heads", defaults.num_attention_heads)?;
        config.check_heads(("hidden_size", hidden_size), ("num_attention_heads", num_attention_heads))?;
        let vocab_size = config.size("vocab_size", defaults.vocab_size)?;
        let hidden_dropout_prob = config.rate("hidden_dropout_prob")?.unwrap_or(0.1);
        Ok(Self {
            vocab_size,
            embedding_size: match defaults.embedding_size {
                Some(default) => config.size("embedding_size", default)?,
                None => hidden_size,
            },
            hidden_size,
            num_hidden_layers: config.size("num_hidden_layers", 12)?,
            num_attention_heads,
            intermediate_size: config.size("intermediate_size", defaults.intermediate_size)?,
            hidden_act: config.activation("hidden_act")?,
            max_position_embeddings: config.size("max_position_embeddings", 512)?,
            type_vocab_size: config.size("type_vocab_size", 2)?,
            layer_norm_eps: config.epsilon("layer_norm_eps")?.unwrap_or(1e-12),
            hidden_dropout_prob,
            attention_probs_dropout_prob: config.rate("attention_probs_dropout_prob")?.unwrap_or(0.1),
            classifier_dropout: config.rate("classifier_dropout")?.unwrap_or(hidden_dropout_prob),
            pad_token_id: config.pad_token_id(vocab_size, defaults.pad_token_id)?,
            initializer_range: config.initializer_range()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: &Value) -> Result<BertConfig, String> {
        let mut raw = value.as_object().unwrap().clone();
        raw.entry("model_type").or_insert("bert".into());
        BertConfig::new(&HfConfig::from_map("config.json", raw)).map_err(|e| e.to_string())
    }

    #[test]
    fn absent_keys_get_the_defaults_of_transformers() {
        assert_eq!(
            read(&json!({})).unwrap(),
            BertConfig {
                vocab_size: 30522,
                embedding_size: 768,
                hidden_size: 768,
                num_hidden_layers: 12,
                num_attention_heads: 12,
                intermediate_size: 3072,
                hidden_act: Activation::Gelu,
                max_position_embeddings: 512,
                type_vocab_size: 2,
                layer_norm_eps: 1e-12,
                hidden_dropout_prob: 0.1,
                attention_probs_dropout_prob: 0.1,
                classifier_dropout: 0.1,
                pad_token_id: Some(0),
                initializer_range: 0.02,
            }
        );
    }

    #[test]
    fn odd_sizes_are_read() {
        let config = read(&json!({
            "vocab_size": 61, "hidden_size": 21, "num_hidden_layers": 3, "num_attention_heads": 7,
            "intermediate_size": 33, "hidden_act": "swish", "max_position_embeddings": 29, "type_vocab_size": 5,
            "layer_norm_eps": 1e-5, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0.25,
            "classifier_dropout": null, "pad_token_id": null, "initializer_range": 0.5,
            "position_embedding_type": "absolute", "is_decoder": false
        }))
        .unwrap();
        assert_eq!((config.vocab_size, config.hidden_size, config.num_hidden_layers), (61, 21, 3));
        assert_eq!((config.num_attention_heads, config.intermediate_size), (7, 33));
        assert_eq!((config.max_position_embeddings, config.type_vocab_size), (29, 5));
        assert_eq!(config.hidden_act, Activation::Silu);
        assert_eq!(config.pad_token_id, None);
        let rates =
            [config.hidden_dropout_prob, config.attention_probs_dropout_prob, config.classifier_dropout];
        assert_eq!(rates.map(f64::to_bits), [0.0, 0.25, 0.0].map(f64::to_bits));
    }

    #[test]
    fn what_cannot_be_built_is_refused_by_its_key() {
        for (value, expected) in [
            (json!({"model_type": "roberta"}), "`model_type`: expected `bert`, got `roberta`"),
            (json!({"model_type": 3}), "`model_type`: expected a text, got 3"),
            (
                json!({"hidden_size": 100}),
                "`hidden_size`: expected a multiple of `num_attention_heads`, which is 12, got 100",
            ),
            (json!({"num_attention_heads": 0}), "`num_attention_heads`: expected at least 1, got 0"),
            (json!({"num_hidden_layers": 2.5}), "`num_hidden_layers`: expected a whole number"),
            (json!({"vocab_size": 1e300}), "`vocab_size`: expected a whole number"),
            (json!({"is_decoder": true}), "`is_decoder`: expected false"),
            (
                json!({"add_cross_attention": "no"}),
                "`add_cross_attention`: expected true or false, got the text `no`",
            ),
            (json!({"position_embedding_type": "relative_key"}), "expected `absolute`, got `relative_key`"),
            (json!({"hidden_act": "gelu_nwe"}), "got `gelu_nwe`; near is `gelu_new`"),
            (json!({"hidden_act": "mish"}), "expected one of gelu, gelu_python, gelu_new, "),
            (
                json!({"hidden_dropout_prob": 1}),
                "`hidden_dropout_prob`: expected a number at least 0 and below 1, got 1",
            ),
            (
                json!({"classifier_dropout": -0.1}),
                "`classifier_dropout`: expected a number at least 0 and below 1, got -0.1",
            ),
            (
                json!({"hidden_dropout_prob": 0.999_999_99}),
                "`hidden_dropout_prob`: expected a number at least 0 and below 1, got 0.99999999",
            ),
            (json!({"layer_norm_eps": 1e-60}), "`layer_norm_eps`: expected a number above 0"),
            (json!({"layer_norm_eps": 0}), "`layer_norm_eps`: expected a number above 0"),
            (
                json!({"pad_token_id": 30522}),
                "`pad_token_id`: expected a token below `vocab_size`, which is 30522",
            ),
            (json!({"pad_token_id": -1}), "`pad_token_id`: expected a whole number"),
        ] {
            let error = read(&value).unwrap_err();
            assert!(error.contains(expected), "{value}: {error}");
        }
    }
}
