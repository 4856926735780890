//! ELECTRA (Clark et al. 2020), the discriminator: BERT's blocks over embeddings that may be narrower, a head of two
//! layers over the first token.

use retune_tensor::backend::Activation;
use retune_tensor::{Result, Var};

use super::bert_body::{BertBody, DenseHead};
use super::{Encoder, Family, HeadDefaults, HeadKind, bare_or_old};
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

    fn class_prefix(&self) -> &'static str {
        "Electra"
    }

    fn head_name(&self, kind: HeadKind) -> &'static str {
        DenseHead::last(kind)
    }

    fn aliases(&self) -> Aliases {
        |name| bare_or_old("electra.", name)
    }

    fn build(
        &self,
        config: &HfConfig,
        checkpoint: &mut Checkpoint,
        kind: HeadKind,
    ) -> std::result::Result<Box<dyn Encoder>, ModelError> {
        let read = BertConfig::with_defaults(config, &DEFAULTS)?;
        let electra = BertBody::load(checkpoint, "electra", read, None)?;
        // Gelu, whatever function the blocks have.
        let head = DenseHead::load(checkpoint, &electra.config, Activation::Gelu, kind)?;
        Ok(Box::new(ElectraModel { electra, head, kind }))
    }
}

struct ElectraModel {
    electra: BertBody,
    /// Where the head reads what it pools.
    head: Option<DenseHead>,
    kind: HeadKind,
}

impl Encoder for ElectraModel {
    fn encode(&self, forward: &Forward<'_>) -> Result<Var> {
        self.electra.all(forward)
    }

    fn head_input(&self, forward: &Forward<'_>) -> Result<Var> {
        let Some(head) = &self.head else { return self.electra.all(forward) };
        head.forward(forward, &self.electra.first(forward)?, &self.electra.config)
    }

    fn linears(&self) -> Vec<&Linear> {
        self.electra.linears()
    }

    fn sub_layers(&self) -> Vec<&SubLayer> {
        self.electra.sub_layers()
    }

    fn head_linears(&self) -> Vec<&Linear> {
        self.head.iter().map(|head| &head.dense).collect()
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
        self.electra.head(self.kind, DenseHead::last(self.kind))
    }

    fn set_dropout(&mut self, probability: f32) {
        self.electra.set_dropout(probability);
    }
}
