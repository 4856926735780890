//! DistilBERT (Sanh et al. 2019): BERT's blocks under names of their own, no token types, a ReLU layer under the head.

use std::sync::Arc;

use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{Result, Var};

use super::{Encoder, Family, HeadDefaults, HeadKind, bare_or_old};
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

    fn class_prefix(&self) -> &'static str {
        "DistilBert"
    }

    fn aliases(&self) -> Aliases {
        |name| bare_or_old("distilbert.", name)
    }

    fn build(
        &self,
        config: &HfConfig,
        checkpoint: &mut Checkpoint,
        kind: HeadKind,
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
        let (name, width) = ("pre_classifier", config.dim);
        let embeddings = TokenEmbeddings::load(checkpoint, "distilbert.embeddings", embeddings, dropout)?;
        let transformer = PostNormEncoder::load(checkpoint, layers, config.n_layers, NAMES, blocks, rates)?;
        let pre_classifier = match kind {
            HeadKind::Sequence => Some(Linear::load_or_init(checkpoint, name, width, width, init)?),
            HeadKind::Token | HeadKind::Question | HeadKind::Language => None,
        };
        Ok(Box::new(DistilBertModel { config, embeddings, transformer, pre_classifier, kind }))
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
    /// Where the head reads the first token.
    pre_classifier: Option<Linear>,
    kind: HeadKind,
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

    fn head_input(&self, forward: &Forward<'_>) -> Result<Var> {
        let Some(pre_classifier) = &self.pre_classifier else { return self.encode(forward) };
        let (first, _) = self.run(forward, Wanted::First)?;
        pre_classifier.forward(forward, &first, &forward.batch.pooled, Activation::Relu)
    }

    fn linears(&self) -> Vec<&Linear> {
        self.transformer.linears()
    }

    fn sub_layers(&self) -> Vec<&SubLayer> {
        self.transformer.sub_layers()
    }

    fn head_linears(&self) -> Vec<&Linear> {
        self.pre_classifier.iter().collect()
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
            kind: self.kind,
            name: DistilBert.head_name(self.kind),
            dropout: match self.kind {
                HeadKind::Sequence => self.config.seq_classif_dropout,
                HeadKind::Token => self.config.dropout,
                HeadKind::Question => self.config.qa_dropout,
                HeadKind::Language => 0.0,
            } as f32,
            initializer_range: self.config.initializer_range,
            bias: true,
            vocabulary: None,
        }
    }

    fn set_dropout(&mut self, probability: f32) {
        self.embeddings.dropout = probability;
        self.transformer.dropout = dropouts(probability, probability);
        let probability = f64::from(probability);
        self.config.dropout = probability;
        self.config.seq_classif_dropout = probability;
        self.config.qa_dropout = probability;
    }
}
