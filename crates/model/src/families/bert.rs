//! BERT (Devlin et al. 2018): post-norm blocks, learned positions, a tanh pooler over the first token.

use std::sync::Arc;

use retune_tensor::backend::{Activation, AttentionShape, Layout};
use retune_tensor::{Result, Var, ops};

use super::{Encoder, Family, HeadDefaults};
use crate::formats::{BertConfig, HfConfig};
use crate::layers::{Embedding, LayerNorm, Linear};
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

    fn sequence_classification_class(&self) -> &'static str {
        "BertForSequenceClassification"
    }

    /// Bare models leave out `bert.`; those that came from TensorFlow call a norm's parameters gamma and beta.
    fn aliases(&self) -> Aliases {
        |name| {
            let bare = name.strip_prefix("bert.").unwrap_or(name);
            let old = |name: &str| {
                name.replace("LayerNorm.weight", "LayerNorm.gamma")
                    .replace("LayerNorm.bias", "LayerNorm.beta")
            };
            vec![bare.to_string(), old(name), old(bare)]
        }
    }

    fn build(
        &self,
        config: &HfConfig,
        checkpoint: &mut Checkpoint,
    ) -> std::result::Result<Box<dyn Encoder>, ModelError> {
        Ok(Box::new(BertModel::load(BertConfig::new(config)?, checkpoint)?))
    }
}

struct BertModel {
    config: BertConfig,
    embeddings: BertEmbeddings,
    layer: Vec<BertLayer>,
    pooler: Linear,
}

struct BertEmbeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm: LayerNorm,
}

struct BertLayer {
    name: String,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

impl BertModel {
    fn load(config: BertConfig, checkpoint: &mut Checkpoint) -> std::result::Result<Self, ModelError> {
        let hidden = config.hidden_size;
        let embeddings = BertEmbeddings::load(&config, checkpoint)?;
        let layer = (0..config.num_hidden_layers)
            .map(|index| BertLayer::load(&config, checkpoint, format!("bert.encoder.layer.{index}")))
            .collect::<std::result::Result<_, _>>()?;
        // Some checkpoints ship no pooler: it is then new, as transformers makes it, and belongs to the head.
        let init = Init::Normal(config.initializer_range);
        let pooler = Linear::load_or_init(checkpoint, "bert.pooler.dense", hidden, hidden, init)?;
        Ok(BertModel { config, embeddings, layer, pooler })
    }
}

/// Which tokens of the last block somebody reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    First,
}

impl BertModel {
    fn run(&self, forward: &Forward<'_>, wanted: Wanted) -> Result<Var> {
        let mut hidden = self.embeddings.forward(forward, &self.config)?;
        for (index, layer) in self.layer.iter().enumerate() {
            let last = index + 1 == self.layer.len();
            hidden =
                layer.forward(forward, &self.config, &hidden, if last { wanted } else { Wanted::All })?;
        }
        Ok(hidden)
    }
}

impl Encoder for BertModel {
    fn encode(&self, forward: &Forward<'_>) -> Result<Var> {
        self.run(forward, Wanted::All)
    }

    fn pooled(&self, forward: &Forward<'_>) -> Result<Var> {
        let first = self.run(forward, Wanted::First)?;
        self.pooler.forward(forward, &first, &forward.batch.pooled, Activation::Tanh)
    }

    fn linears(&self) -> Vec<&Linear> {
        self.layer.iter().flat_map(BertLayer::linears).collect()
    }

    fn pooler(&self) -> Option<&Linear> {
        Some(&self.pooler)
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn max_length(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn head(&self) -> HeadDefaults {
        HeadDefaults {
            dropout: self.config.classifier_dropout as f32,
            initializer_range: self.config.initializer_range,
        }
    }

    fn set_dropout(&mut self, probability: f32) {
        let probability = f64::from(probability);
        self.config.hidden_dropout_prob = probability;
        self.config.attention_probs_dropout_prob = probability;
        self.config.classifier_dropout = probability;
    }
}

impl BertEmbeddings {
    fn load(config: &BertConfig, checkpoint: &mut Checkpoint) -> std::result::Result<Self, ModelError> {
        let name = |part: &str| format!("bert.embeddings.{part}");
        let hidden = config.hidden_size;
        let pad = config.pad_token_id.and_then(|id| u32::try_from(id).ok());
        let words = [config.vocab_size, hidden];
        let positions = [config.max_position_embeddings, hidden];
        let types = [config.type_vocab_size, hidden];
        Ok(BertEmbeddings {
            word_embeddings: Embedding::load(checkpoint, &name("word_embeddings"), words, pad)?,
            position_embeddings: Embedding::load(checkpoint, &name("position_embeddings"), positions, None)?,
            token_type_embeddings: Embedding::load(checkpoint, &name("token_type_embeddings"), types, None)?,
            layer_norm: LayerNorm::load(checkpoint, &name("LayerNorm"), hidden, config.layer_norm_eps)?,
        })
    }

    fn forward(&self, forward: &Forward<'_>, config: &BertConfig) -> Result<Var> {
        let batch = forward.batch;
        let sum = Embedding::sum(
            forward,
            &[
                (&self.word_embeddings, &batch.input_ids),
                (&self.token_type_embeddings, &batch.token_type_ids),
                (&self.position_embeddings, &batch.position_ids),
            ],
        )?;
        let normal = self.layer_norm.forward(forward, &sum, &batch.layout, None, None)?;
        let dropout = forward.dropout("bert.embeddings", config.hidden_dropout_prob as f32);
        ops::dropout(forward.tape, &normal, &batch.layout, dropout)
    }
}

impl BertLayer {
    fn load(
        config: &BertConfig,
        checkpoint: &mut Checkpoint,
        name: String,
    ) -> std::result::Result<Self, ModelError> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let site = |part: &str| format!("{name}.{part}");
        let epsilon = config.layer_norm_eps;
        Ok(BertLayer {
            query: Linear::load(checkpoint, site("attention.self.query"), hidden, hidden)?,
            key: Linear::load(checkpoint, site("attention.self.key"), hidden, hidden)?,
            value: Linear::load(checkpoint, site("attention.self.value"), hidden, hidden)?,
            attention_output: Linear::load(checkpoint, site("attention.output.dense"), hidden, hidden)?,
            attention_norm: LayerNorm::load(
                checkpoint,
                &site("attention.output.LayerNorm"),
                hidden,
                epsilon,
            )?,
            intermediate: Linear::load(checkpoint, site("intermediate.dense"), hidden, wide)?,
            output: Linear::load(checkpoint, site("output.dense"), wide, hidden)?,
            output_norm: LayerNorm::load(checkpoint, &site("output.LayerNorm"), hidden, epsilon)?,
            name,
        })
    }

    /// All tokens of the block, or the first of each row: keys and values need every token, the rest only itself.
    fn forward(&self, forward: &Forward<'_>, config: &BertConfig, x: &Var, wanted: Wanted) -> Result<Var> {
        let (tape, layout, pooled) = (forward.tape, &forward.batch.layout, &forward.batch.pooled);
        let plain = Activation::Identity;
        let head_size = config.hidden_size / config.num_attention_heads;
        let shape = AttentionShape {
            heads: config.num_attention_heads,
            kv_heads: config.num_attention_heads,
            head_size,
            scale: 1.0 / (head_size as f32).sqrt(),
            causal: false,
        };
        let site = format!("{}.attention.self", self.name);
        let dropout = forward.dropout(&site, config.attention_probs_dropout_prob as f32);
        let key = self.key.forward(forward, x, layout, plain)?;
        let value = self.value.forward(forward, x, layout, plain)?;
        if wanted == Wanted::First {
            let first = ops::select_rows(tape, x, &layout.cu_seqlens()[..layout.rows()])?;
            let query = self.query.forward(forward, &first, pooled, plain)?;
            let inputs = [&query, &key, &value];
            let context = ops::attention_of_first(tape, inputs, pooled, layout, shape, dropout)?;
            return self.after_attention(forward, config, &first, &context, pooled);
        }
        let query = self.query.forward(forward, x, layout, plain)?;
        let context = ops::attention(tape, [&query, &key, &value], layout, shape, dropout)?;
        self.after_attention(forward, config, x, &context, layout)
    }

    /// From what attention found on.
    fn after_attention(
        &self,
        forward: &Forward<'_>,
        config: &BertConfig,
        x: &Var,
        context: &Var,
        layout: &Arc<Layout>,
    ) -> Result<Var> {
        let plain = Activation::Identity;
        let dropout =
            |part: &str| forward.dropout(&format!("{}.{part}", self.name), config.hidden_dropout_prob as f32);
        let attended = self.attention_output.forward(forward, context, layout, plain)?;
        let dropped = dropout("attention.output");
        let attended = self.attention_norm.forward(forward, &attended, layout, Some(x), dropped)?;
        let wide = self.intermediate.forward(forward, &attended, layout, config.hidden_act)?;
        let narrow = self.output.forward(forward, &wide, layout, plain)?;
        self.output_norm.forward(forward, &narrow, layout, Some(&attended), dropout("output"))
    }

    fn linears(&self) -> [&Linear; 6] {
        [&self.query, &self.key, &self.value, &self.attention_output, &self.intermediate, &self.output]
    }
}
