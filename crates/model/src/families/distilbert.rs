//! DistilBERT (Sanh et al. 2019): BERT's blocks under names of their own, no token types, a ReLU layer under the head.

use std::sync::Arc;

use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{Result, Var};

use super::{Encoder, Family, HeadDefaults, bare_or_old};
use crate::formats::{DistilBertConfig, HfConfig};
use crate::layers::{
    Linear, PostNormDropout, PostNormEncoder, PostNormNames, PostNormSizes, SubLayer, TokenEmbeddings,
    TokenEmbeddingsSizes, VirtualTokenSizes, Wanted, without_prompt,
};
use crate::{Aliases, Checkpoint, Forward, Init, ModelError};

/// The family.
pub struct DistilBert;

const NAMES: PostNormNames = PostNormNames {
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    intermediate: "ffn.lin1",
    output: "ffn.lin2",
    output_norm: "output_layer_norm",
    ends: ["attention_adapters", "output_adapters"],
};

/// No key of the configuration says it.
const LAYER_NORM_EPS: f64 = 1e-12;

impl Family for DistilBert {
    fn model_type(&self) -> &'static str {
        "distilbert"
    }

    fn summary(&self) -> &'static str {
        "DistilBERT encoders: BERT's quality at half its depth"
    }

    fn sequence_classification_class(&self) -> &'static str {
        "DistilBertForSequenceClassification"
    }

    fn aliases(&self) -> Aliases {
        |name| bare_or_old("distilbert.", name)
    }

    fn build(
        &self,
        config: &HfConfig,
        checkpoint: &mut Checkpoint,
    ) -> std::result::Result<Box<dyn Encoder>, ModelError> {
        let config = DistilBertConfig::new(config)?;
        let embeddings = TokenEmbeddingsSizes {
            width: config.dim,
            words: config.vocab_size,
            positions: config.max_position_embeddings,
            types: None,
            padding_word: config.pad_token_id,
            padding_position: None,
            layer_norm_eps: LAYER_NORM_EPS,
        };
        let blocks = PostNormSizes {
            hidden: config.dim,
            heads: config.n_heads,
            intermediate: config.hidden_dim,
            activation: config.activation,
            layer_norm_eps: LAYER_NORM_EPS,
        };
        let dropout = config.dropout as f32;
        let rates = dropouts(config.attention_dropout as f32, dropout);
        let (layers, init) = ("distilbert.transformer.layer", Init::Normal(config.initializer_range));
        Ok(Box::new(DistilBertModel {
            embeddings: TokenEmbeddings::load(checkpoint, "distilbert.embeddings", embeddings, dropout)?,
            transformer: PostNormEncoder::load(checkpoint, layers, config.n_layers, NAMES, blocks, rates)?,
            pre_classifier: Linear::load_or_init(checkpoint, "pre_classifier", config.dim, config.dim, init)?,
            config,
        }))
    }
}

/// What attention gives is added as it is.
fn dropouts(attention_probs: f32, output: f32) -> PostNormDropout {
    PostNormDropout { attention_probs, attention_output: 0.0, output }
}

struct DistilBertModel {
    config: DistilBertConfig,
    embeddings: TokenEmbeddings,
    transformer: PostNormEncoder,
    pre_classifier: Linear,
}

impl DistilBertModel {
    fn run(&self, forward: &Forward<'_>, wanted: Wanted) -> Result<(Var, Arc<Layout>)> {
        let (embedded, layout) = self.embeddings.forward(forward)?;
        Ok((self.transformer.forward(forward, embedded, &layout, wanted)?, layout))
    }
}

impl Encoder for DistilBertModel {
    fn encode(&self, forward: &Forward<'_>) -> Result<Var> {
        let (hidden, layout) = self.run(forward, Wanted::All)?;
        without_prompt(forward, hidden, &layout)
    }

    fn pooled(&self, forward: &Forward<'_>) -> Result<Var> {
        let (first, _) = self.run(forward, Wanted::First)?;
        self.pre_classifier.forward(forward, &first, &forward.batch.pooled, Activation::Relu)
    }

    fn linears(&self) -> Vec<&Linear> {
        self.transformer.linears()
    }

    fn sub_layers(&self) -> Vec<&SubLayer> {
        self.transformer.sub_layers()
    }

    fn head_linears(&self) -> Vec<&Linear> {
        vec![&self.pre_classifier]
    }

    fn virtual_tokens(&self) -> Option<VirtualTokenSizes> {
        self.transformer.virtual_tokens(self.embeddings.words())
    }

    fn hidden_size(&self) -> usize {
        self.config.dim
    }

    fn max_length(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn head(&self) -> HeadDefaults {
        HeadDefaults {
            name: DistilBert.head_name(),
            dropout: self.config.seq_classif_dropout as f32,
            initializer_range: self.config.initializer_range,
        }
    }

    fn set_dropout(&mut self, probability: f32) {
        self.embeddings.dropout = probability;
        self.transformer.dropout = dropouts(probability, probability);
        self.config.seq_classif_dropout = f64::from(probability);
    }
}
