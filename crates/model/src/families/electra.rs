//! ELECTRA (Clark et al. 2020), the discriminator: BERT's blocks over embeddings that may be narrower, a head of two
//! layers over the first token.

use retune_tensor::backend::Activation;
use retune_tensor::{Result, Var};

use super::bert_body::{BertBody, DenseHead};
use super::{Encoder, Family, HeadDefaults, bare_or_old};
use crate::formats::{BertConfig, BertDefaults, HfConfig};
use crate::layers::{Linear, SubLayer, VirtualTokenSizes};
use crate::{Aliases, Checkpoint, Forward, ModelError};

/// The family.
pub struct Electra;

const DEFAULTS: BertDefaults = BertDefaults {
    vocab_size: 30522,
    embedding_size: Some(128),
    hidden_size: 256,
    num_attention_heads: 4,
    intermediate_size: 1024,
    pad_token_id: 0,
};

impl Family for Electra {
    fn model_type(&self) -> &'static str {
        "electra"
    }

    fn summary(&self) -> &'static str {
        "ELECTRA encoders, discriminators above all"
    }

    fn sequence_classification_class(&self) -> &'static str {
        "ElectraForSequenceClassification"
    }

    fn head_name(&self) -> &'static str {
        DenseHead::LAST
    }

    fn aliases(&self) -> Aliases {
        |name| bare_or_old("electra.", name)
    }

    fn build(
        &self,
        config: &HfConfig,
        checkpoint: &mut Checkpoint,
    ) -> std::result::Result<Box<dyn Encoder>, ModelError> {
        let read = BertConfig::with_defaults(config, &DEFAULTS)?;
        let electra = BertBody::load(checkpoint, "electra", read, None)?;
        // Gelu, whatever function the blocks have.
        let head = DenseHead::load(checkpoint, &electra.config, Activation::Gelu)?;
        Ok(Box::new(ElectraModel { electra, head }))
    }
}

struct ElectraModel {
    electra: BertBody,
    head: DenseHead,
}

impl Encoder for ElectraModel {
    fn encode(&self, forward: &Forward<'_>) -> Result<Var> {
        self.electra.all(forward)
    }

    fn pooled(&self, forward: &Forward<'_>) -> Result<Var> {
        self.head.forward(forward, &self.electra.first(forward)?, &self.electra.config)
    }

    fn linears(&self) -> Vec<&Linear> {
        self.electra.linears()
    }

    fn sub_layers(&self) -> Vec<&SubLayer> {
        self.electra.sub_layers()
    }

    fn head_linears(&self) -> Vec<&Linear> {
        vec![&self.head.dense]
    }

    fn virtual_tokens(&self) -> Option<VirtualTokenSizes> {
        self.electra.virtual_tokens()
    }

    fn hidden_size(&self) -> usize {
        self.electra.config.hidden_size
    }

    fn max_length(&self) -> usize {
        self.electra.config.max_position_embeddings
    }

    fn head(&self) -> HeadDefaults {
        self.electra.head(DenseHead::LAST)
    }

    fn set_dropout(&mut self, probability: f32) {
        self.electra.set_dropout(probability);
    }
}
