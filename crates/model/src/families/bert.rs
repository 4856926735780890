//! BERT (Devlin et al. 2018): post-norm blocks, learned positions, a tanh pooler over the first token.

use retune_tensor::backend::Activation;
use retune_tensor::{Result, Var};

use super::bert_body::BertBody;
use super::{Encoder, Family, HeadDefaults, HeadKind, bare_or_old};
use crate::formats::{BertConfig, HfConfig};
use crate::layers::{Linear, SubLayer, VirtualTokenSizes};
use crate::{Aliases, Checkpoint, Forward, Init, ModelError};

/// The family.
pub struct Bert;

impl Family for Bert {
    fn model_type(&self) -> &'static str {
        "bert"
    }

    fn summary(&self) -> &'static str {
        "BERT encoders and those of its shape: BERT, MiniLM, many sentence encoders"
    }

    fn class_prefix(&self) -> &'static str {
        "Bert"
    }

    fn aliases(&self) -> Aliases {
        |name| bare_or_old("bert.", name)
    }

    fn build(
        &self,
        config: &HfConfig,
        checkpoint: &mut Checkpoint,
        kind: HeadKind,
    ) -> std::result::Result<Box<dyn Encoder>, ModelError> {
        let bert = BertBody::load(checkpoint, "bert", BertConfig::new(config)?, None)?;
        // Some checkpoints ship no pooler: it is then new, as transformers makes it, and belongs to the head.
        let (hidden, init) = (bert.config.hidden_size, Init::Normal(bert.config.initializer_range));
        let pooler = match kind {
            HeadKind::Sequence => {
                Some(Linear::load_or_init(checkpoint, "bert.pooler.dense", hidden, hidden, init)?)
            }
            HeadKind::Token | HeadKind::Question | HeadKind::Language => None,
        };
        Ok(Box::new(BertModel { bert, pooler, kind }))
    }
}

struct BertModel {
    bert: BertBody,
    /// Where the head reads what it pools.
    pooler: Option<Linear>,
    kind: HeadKind,
}

impl Encoder for BertModel {
    fn encode(&self, forward: &Forward<'_>) -> Result<Var> {
        self.bert.all(forward)
    }

    fn head_input(&self, forward: &Forward<'_>) -> Result<Var> {
        let Some(pooler) = &self.pooler else { return self.bert.all(forward) };
        let first = self.bert.first(forward)?;
        pooler.forward(forward, &first, &forward.batch.pooled, Activation::Tanh)
    }

    fn linears(&self) -> Vec<&Linear> {
        self.bert.linears()
    }

    fn sub_layers(&self) -> Vec<&SubLayer> {
        self.bert.sub_layers()
    }

    fn head_linears(&self) -> Vec<&Linear> {
        self.pooler.iter().collect()
    }

    fn virtual_tokens(&self) -> Option<VirtualTokenSizes> {
        self.bert.virtual_tokens()
    }

    fn hidden_size(&self) -> usize {
        self.bert.config.hidden_size
    }

    fn max_length(&self) -> usize {
        self.bert.config.max_position_embeddings
    }

    fn head(&self) -> HeadDefaults {
        self.bert.head(self.kind, Bert.head_name(self.kind))
    }

    fn set_dropout(&mut self, probability: f32) {
        self.bert.set_dropout(probability);
    }
}
