//! DistilBERT's configuration, checked. Its keys have names of their own.

use retune_tensor::backend::Activation;

use super::HfConfig;
use crate::ModelError;

/// The sizes and rates of a DistilBERT encoder (Sanh et al. 2019), named as in `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct DistilBertConfig {
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Rows of the position embeddings: the longest input, special tokens included.
    pub max_position_embeddings: usize,
    /// Encoder blocks.
    pub n_layers: usize,
    /// Heads of each attention.
    pub n_heads: usize,
    /// Width of the residual stream; a multiple of `n_heads`.
    pub dim: usize,
    /// Width between the two layers of a feed-forward block.
    pub hidden_dim: usize,
    /// The function there.
    pub activation: Activation,
    /// Dropout after the embeddings and at the end of each feed-forward block, in [0, 1).
    pub dropout: f64,
    /// Dropout of the attention's probabilities, in [0, 1).
    pub attention_dropout: f64,
    /// Dropout before the last layer of a classification head, in [0, 1).
    pub seq_classif_dropout: f64,
    /// Dropout before the last layer of a question answering head, in [0, 1).
    pub qa_dropout: f64,
    /// The padding token's row of the word embeddings, which gets no gradient; below `vocab_size`.
    pub pad_token_id: Option<usize>,
    /// Standard deviation of newly made weights.
    pub initializer_range: f64,
}

impl DistilBertConfig {
    /// Reads and checks the keys of a DistilBERT; those that are absent get transformers' defaults. How positions were
    /// made (`sinusoidal_pos_embds`) is not asked: they are in the checkpoint, either way.
    ///
    /// Errors, with the key named, if a value is out of range, or asks for what this encoder is not.
    pub fn new(config: &HfConfig) -> Result<Self, ModelError> {
        config.refuse_decoder()?;
        config.refuse_relative_positions()?;
        let (dim, n_heads) = (config.size("dim", 768)?, config.size("n_heads", 12)?);
        config.check_heads(("dim", dim), ("n_heads", n_heads))?;
        let vocab_size = config.size("vocab_size", 30522)?;
        Ok(Self {
            vocab_size,
            max_position_embeddings: config.size("max_position_embeddings", 512)?,
            n_layers: config.size("n_layers", 6)?,
            n_heads,
            dim,
            hidden_dim: config.size("hidden_dim", 3072)?,
            activation: config.activation("activation")?,
            dropout: config.rate("dropout")?.unwrap_or(0.1),
            attention_dropout: config.rate("attention_dropout")?.unwrap_or(0.1),
            seq_classif_dropout: config.rate("seq_classif_dropout")?.unwrap_or(0.2),
            qa_dropout: config.rate("qa_dropout")?.unwrap_or(0.1),
            pad_token_id: config.pad_token_id(vocab_size, 0)?,
            initializer_range: config.initializer_range()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: &Value) -> Result<DistilBertConfig, String> {
        let raw = value.as_object().unwrap().clone();
        DistilBertConfig::new(&HfConfig::from_map("config.json", raw)).map_err(|e| e.to_string())
    }

    #[test]
    fn keys_have_names_of_their_own() {
        let config = read(&json!({
            "vocab_size": 61, "max_position_embeddings": 29, "n_layers": 3, "n_heads": 7, "dim": 21,
            "hidden_dim": 33, "activation": "relu", "dropout": 0, "attention_dropout": 0.25,
            "seq_classif_dropout": 0.5, "qa_dropout": 0.125, "pad_token_id": 4, "sinusoidal_pos_embds": true,
            // Those of BERT mean nothing here.
            "hidden_size": 5, "num_hidden_layers": 8, "hidden_dropout_prob": 0.7
        }))
        .unwrap();
        assert_eq!((config.n_layers, config.n_heads, config.dim, config.hidden_dim), (3, 7, 21, 33));
        assert_eq!((config.vocab_size, config.max_position_embeddings), (61, 29));
        assert_eq!((config.activation, config.pad_token_id), (Activation::Relu, Some(4)));
        let rates = [config.dropout, config.attention_dropout, config.seq_classif_dropout, config.qa_dropout];
        assert_eq!(rates.map(f64::to_bits), [0.0, 0.25, 0.5, 0.125].map(f64::to_bits));
        let absent = read(&json!({})).unwrap();
        assert_eq!((absent.n_layers, absent.dim, absent.hidden_dim), (6, 768, 3072));
        assert_eq!(absent.seq_classif_dropout.to_bits(), 0.2f64.to_bits());
    }

    #[test]
    fn what_cannot_be_built_is_refused_by_its_key() {
        for (value, expected) in [
            (json!({"dim": 100}), "`dim`: expected a multiple of `n_heads`, which is 12, got 100"),
            (json!({"n_heads": 0}), "`n_heads`: expected at least 1, got 0"),
            (json!({"activation": "mish"}), "`activation`: expected one of gelu, "),
            (json!({"seq_classif_dropout": 1}), "`seq_classif_dropout`: expected a number at least 0"),
            (json!({"is_decoder": true}), "`is_decoder`: expected false"),
        ] {
            let error = read(&value).unwrap_err();
            assert!(error.contains(expected), "{value}: {error}");
        }
    }
}
