//! What BERT, RoBERTa and ELECTRA have in common: all but how they count positions and what pools for their heads.

use std::sync::Arc;

use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{Result, Var, ops};

use super::{HeadDefaults, HeadKind};
use crate::formats::BertConfig;
use crate::layers::{
    Linear, PostNormDropout, PostNormEncoder, PostNormNames, PostNormSizes, SubLayer, TokenEmbeddings,
    TokenEmbeddingsSizes, VirtualTokenSizes, Wanted, without_prompt,
};
use crate::{Checkpoint, Forward, Init, ModelError};

/// Embeddings and blocks.
pub(super) struct BertBody {
    pub(super) config: BertConfig,
    embeddings: TokenEmbeddings,
    embeddings_project: Option<Linear>,
    encoder: PostNormEncoder,
}

impl BertBody {
    /// Takes what is under `name`: `bert`, `roberta` ... The position `padding_position` gets no gradient.
    pub(super) fn load(
        checkpoint: &mut Checkpoint,
        name: &str,
        config: BertConfig,
        padding_position: Option<usize>,
    ) -> std::result::Result<Self, ModelError> {
        let (width, hidden) = (config.embedding_size, config.hidden_size);
        let dropout = config.hidden_dropout_prob as f32;
        let embeddings = TokenEmbeddingsSizes {
            width,
            words: config.vocab_size,
            positions: config.max_position_embeddings,
            types: Some(config.type_vocab_size),
            padding_word: config.pad_token_id,
            padding_position,
            layer_norm_eps: config.layer_norm_eps,
        };
        let blocks = PostNormSizes {
            hidden,
            heads: config.num_attention_heads,
            intermediate: config.intermediate_size,
            activation: config.hidden_act,
            layer_norm_eps: config.layer_norm_eps,
        };
        let rates = PostNormDropout {
            attention_probs: config.attention_probs_dropout_prob as f32,
            attention_output: dropout,
            output: dropout,
        };
        let embeddings =
            TokenEmbeddings::load(checkpoint, &format!("{name}.embeddings"), embeddings, dropout)?;
        let project = format!("{name}.embeddings_project");
        let embeddings_project =
            if width == hidden { None } else { Some(Linear::load(checkpoint, project, width, hidden)?) };
        let layers = format!("{name}.encoder.layer");
        let encoder = PostNormEncoder::load(
            checkpoint,
            &layers,
            config.num_hidden_layers,
            PostNormNames::BERT,
            blocks,
            rates,
        )?;
        Ok(BertBody { config, embeddings, embeddings_project, encoder })
    }

    /// The hidden states of all tokens.
    pub(super) fn all(&self, forward: &Forward<'_>) -> Result<Var> {
        let (hidden, layout) = self.run(forward, Wanted::All)?;
        without_prompt(forward, hidden, &layout)
    }

    /// The hidden state that each row begins with: of a prompt, where there is one.
    pub(super) fn first(&self, forward: &Forward<'_>) -> Result<Var> {
        Ok(self.run(forward, Wanted::First)?.0)
    }

    fn run(&self, forward: &Forward<'_>, wanted: Wanted) -> Result<(Var, Arc<Layout>)> {
        let (mut hidden, layout) = self.embeddings.forward(forward)?;
        if let Some(project) = &self.embeddings_project {
            hidden = project.forward(forward, &hidden, &layout, Activation::Identity)?;
        }
        Ok((self.encoder.forward(forward, hidden, &layout, wanted)?, layout))
    }

    pub(super) fn virtual_tokens(&self) -> Option<VirtualTokenSizes> {
        self.encoder.virtual_tokens(self.embeddings.words())
    }

    pub(super) fn linears(&self) -> Vec<&Linear> {
        self.embeddings_project.iter().chain(self.encoder.linears()).collect()
    }

    pub(super) fn sub_layers(&self) -> Vec<&SubLayer> {
        self.encoder.sub_layers()
    }

    pub(super) fn head(&self, kind: HeadKind, name: &'static str) -> HeadDefaults {
        let dropout = match kind {
            HeadKind::Sequence | HeadKind::Token => self.config.classifier_dropout as f32,
            HeadKind::Question | HeadKind::Language => 0.0,
        };
        let initializer_range = self.config.initializer_range;
        HeadDefaults { kind, name, dropout, initializer_range, bias: true, vocabulary: None }
    }

    pub(super) fn set_dropout(&mut self, probability: f32) {
        self.config.classifier_dropout = f64::from(probability);
        self.embeddings.dropout = probability;
        self.encoder.dropout = PostNormDropout {
            attention_probs: probability,
            attention_output: probability,
            output: probability,
        };
    }
}

/// The first half of the heads of RoBERTa and ELECTRA: dropout, a layer, a function.
pub(super) struct DenseHead {
    pub(super) dense: Linear,
    activation: Activation,
}

impl DenseHead {
    /// The site of the last layer of a head of this kind.
    pub(super) fn last(kind: HeadKind) -> &'static str {
        match kind {
            HeadKind::Sequence => "classifier.out_proj",
            HeadKind::Token => "classifier",
            HeadKind::Question => "qa_outputs",
            HeadKind::Language => "lm_head",
        }
    }

    /// Takes `classifier.dense`, if the head is of the kind that has it. A pretrained model has none: it is then new.
    pub(super) fn load(
        checkpoint: &mut Checkpoint,
        config: &BertConfig,
        activation: Activation,
        kind: HeadKind,
    ) -> std::result::Result<Option<Self>, ModelError> {
        if kind.reads_tokens() {
            return Ok(None);
        }
        let (hidden, init) = (config.hidden_size, Init::Normal(config.initializer_range));
        let dense = Linear::load_or_init(checkpoint, "classifier.dense", hidden, hidden, init)?;
        Ok(Some(DenseHead { dense, activation }))
    }

    /// `[rows, hidden_size]` of the rows' first tokens `[rows, hidden_size]`.
    pub(super) fn forward(&self, forward: &Forward<'_>, first: &Var, config: &BertConfig) -> Result<Var> {
        let pooled = &forward.batch.pooled;
        let dropout = forward.dropout(&self.dense.name, config.classifier_dropout as f32);
        let first = ops::dropout(forward.tape, first, pooled, dropout)?;
        self.dense.forward(forward, &first, pooled, self.activation)
    }
}
