//! RoBERTa (Liu et al. 2019) and what was trained like it: BERT's blocks, positions that begin behind the padding
//! token's number, a head of two layers over the first token.

use retune_tensor::backend::Activation;
use retune_tensor::{Result, Var};

use super::bert_body::{BertBody, DenseHead};
use super::{Encoder, Family, HeadDefaults, HeadKind, bare_or_old};
use crate::formats::{BertConfig, BertDefaults, HfConfig};
use crate::layers::{Linear, SubLayer, VirtualTokenSizes};
use crate::{Aliases, Checkpoint, Forward, ModelError};

/// The family, under each of the names that transformers has for it. They differ in tokenizer and vocabulary.
pub struct Roberta {
    model_type: &'static str,
    summary: &'static str,
    class: &'static str,
    vocab_size: usize,
}

/// RoBERTa itself.
pub static ROBERTA: Roberta = Roberta {
    model_type: "roberta",
    summary: "RoBERTa encoders, and those distilled from them",
    class: "Roberta",
    vocab_size: 50265,
};

/// XLM-RoBERTa (Conneau et al. 2019), of a hundred languages.
pub static XLM_ROBERTA: Roberta = Roberta {
    model_type: "xlm-roberta",
    summary: "XLM-RoBERTa encoders, of a hundred languages: XLM-R, multilingual E5, BGE-M3",
    class: "XLMRoberta",
    vocab_size: 30522,
};

/// CamemBERT (Martin et al. 2019), of French.
pub static CAMEMBERT: Roberta = Roberta {
    model_type: "camembert",
    summary: "CamemBERT encoders, of French",
    class: "Camembert",
    vocab_size: 30522,
};

impl Family for Roberta {
    fn model_type(&self) -> &'static str {
        self.model_type
    }

    fn summary(&self) -> &'static str {
        self.summary
    }

    fn class_prefix(&self) -> &'static str {
        self.class
    }

    fn head_name(&self, kind: HeadKind) -> &'static str {
        DenseHead::last(kind)
    }

    fn aliases(&self) -> Aliases {
        |name| bare_or_old("roberta.", name)
    }

    fn build(
        &self,
        config: &HfConfig,
        checkpoint: &mut Checkpoint,
        kind: HeadKind,
    ) -> std::result::Result<Box<dyn Encoder>, ModelError> {
        let defaults = BertDefaults { vocab_size: self.vocab_size, pad_token_id: 1, ..BertDefaults::BERT };
        let read = BertConfig::with_defaults(config, &defaults)?;
        let Some(padding) = read.pad_token_id else {
            let expected = "the padding token's number, as positions are counted from it";
            return Err(config.wrong("pad_token_id", expected, "null"));
        };
        let Some(max_length @ 1..) = read.max_position_embeddings.checked_sub(padding + 1) else {
            let expected = format!(
                "more than {}, as positions begin behind `pad_token_id`, which is {padding}",
                padding + 1
            );
            let got = read.max_position_embeddings.to_string();
            return Err(config.wrong("max_position_embeddings", expected, got));
        };
        let roberta = BertBody::load(checkpoint, "roberta", read, Some(padding))?;
        let head = DenseHead::load(checkpoint, &roberta.config, Activation::Tanh, kind)?;
        Ok(Box::new(RobertaModel { roberta, head, kind, max_length }))
    }
}

struct RobertaModel {
    roberta: BertBody,
    /// Where the head reads what it pools.
    head: Option<DenseHead>,
    kind: HeadKind,
    max_length: usize,
}

impl Encoder for RobertaModel {
    fn encode(&self, forward: &Forward<'_>) -> Result<Var> {
        self.roberta.all(forward)
    }

    fn head_input(&self, forward: &Forward<'_>) -> Result<Var> {
        let Some(head) = &self.head else { return self.roberta.all(forward) };
        head.forward(forward, &self.roberta.first(forward)?, &self.roberta.config)
    }

    fn linears(&self) -> Vec<&Linear> {
        self.roberta.linears()
    }

    fn sub_layers(&self) -> Vec<&SubLayer> {
        self.roberta.sub_layers()
    }

    fn head_linears(&self) -> Vec<&Linear> {
        self.head.iter().map(|head| &head.dense).collect()
    }

    fn virtual_tokens(&self) -> Option<VirtualTokenSizes> {
        self.roberta.virtual_tokens()
    }

    fn hidden_size(&self) -> usize {
        self.roberta.config.hidden_size
    }

    fn max_length(&self) -> usize {
        self.max_length
    }

    fn head(&self) -> HeadDefaults {
        self.roberta.head(self.kind, DenseHead::last(self.kind))
    }

    fn set_dropout(&mut self, probability: f32) {
        self.roberta.set_dropout(probability);
    }
}
