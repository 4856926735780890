//! ModernBERT (Warner et al. 2024): pre-norm blocks with gated layers, rotary positions, and attention that sees all of a
//! row in some blocks and a neighbourhood in the others.

use std::sync::Arc;

use retune_tensor::backend::{Activation, AttentionShape, Layout, Rotary};
use retune_tensor::{ParamId, Result, Var, ops};

use super::{Encoder, Family, HeadDefaults, HeadKind};
use crate::formats::{HfConfig, LayerKind, ModernBertConfig, Pooling};
use crate::layers::{Embedding, LayerNorm, Linear, Part, SubLayer, SubLayerInputs, Wanted};
use crate::{Aliases, Checkpoint, Forward, Init, ModelError};

/// The family.
pub struct ModernBert;

impl Family for ModernBert {
    fn model_type(&self) -> &'static str {
        "modernbert"
    }

    fn summary(&self) -> &'static str {
        "ModernBERT encoders, of long texts: up to 8192 tokens"
    }

    fn class_prefix(&self) -> &'static str {
        "ModernBert"
    }

    fn head_name(&self, _: HeadKind) -> &'static str {
        "classifier"
    }

    /// Bare models leave out `model.`.
    fn aliases(&self) -> Aliases {
        |name| vec![name.strip_prefix("model.").unwrap_or(name).to_string()]
    }

    fn build(
        &self,
        config: &HfConfig,
        checkpoint: &mut Checkpoint,
        kind: HeadKind,
    ) -> std::result::Result<Box<dyn Encoder>, ModelError> {
        Ok(Box::new(ModernBertModel::load(ModernBertConfig::new(config)?, checkpoint, kind)?))
    }
}

struct ModernBertModel {
    config: Arc<ModernBertConfig>,
    tok_embeddings: Embedding,
    embeddings_norm: LayerNorm,
    layers: Vec<Arc<ModernBertLayer>>,
    final_norm: LayerNorm,
    head: PredictionHead,
    kind: HeadKind,
}

struct ModernBertLayer {
    name: String,
    attention: AttentionShape,
    rotary: Rotary,
    /// The first block reads the embeddings, which are normed already.
    attn_norm: Option<LayerNorm>,
    wqkv: Linear,
    attn_wo: Linear,
    attention_end: SubLayer,
    mlp_norm: LayerNorm,
    wi: Linear,
    mlp_wo: Linear,
    mlp_end: SubLayer,
}

struct PredictionHead {
    dense: Linear,
    norm: LayerNorm,
}

impl ModernBertModel {
    const EMBEDDINGS: &'static str = "model.embeddings";

    fn load(
        config: ModernBertConfig,
        checkpoint: &mut Checkpoint,
        kind: HeadKind,
    ) -> std::result::Result<Self, ModelError> {
        let (hidden, epsilon, bias) = (config.hidden_size, config.norm_eps, config.norm_bias);
        let pad = config.pad_token_id.and_then(|id| u32::try_from(id).ok());
        let words = format!("{}.tok_embeddings", Self::EMBEDDINGS);
        let tok_embeddings = Embedding::load(checkpoint, &words, [config.vocab_size, hidden], pad)?;
        let norm = format!("{}.norm", Self::EMBEDDINGS);
        let embeddings_norm = LayerNorm::load_with(checkpoint, &norm, hidden, epsilon, bias)?;
        let kinds = config.layer_types.iter().enumerate();
        let layers = kinds
            .map(|(index, kind)| ModernBertLayer::load(checkpoint, &config, index, *kind).map(Arc::new))
            .collect::<std::result::Result<_, _>>()?;
        let final_norm = LayerNorm::load_with(checkpoint, "model.final_norm", hidden, epsilon, bias)?;
        let head = PredictionHead::load(checkpoint, &config)?;
        let config = Arc::new(config);
        Ok(ModernBertModel { config, tok_embeddings, embeddings_norm, layers, final_norm, head, kind })
    }

    /// The hidden states of the tokens that are `wanted`.
    fn run(&self, forward: &Forward<'_>, wanted: Wanted) -> Result<Var> {
        let (tape, batch) = (forward.tape, forward.batch);
        let embedded = forward.apart(&[], [&batch.layout, &batch.layout], |_, forward, _, _| {
            Embedding::sum(forward, &[(&self.tok_embeddings, &forward.batch.input_ids)])
        })?;
        let normal = self.embeddings_norm.forward(forward, &embedded, &batch.layout, None, None)?;
        let dropout = forward.dropout(Self::EMBEDDINGS, self.config.embedding_dropout as f32);
        let mut hidden = ops::dropout(tape, &normal, &batch.layout, dropout)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let wanted = if index + 1 == self.layers.len() { wanted } else { Wanted::All };
            let (layer, config) = (layer.clone(), self.config.clone());
            hidden = forward.block(&[&hidden], move |forward, inputs| {
                layer.forward(forward, &config, &inputs[0], wanted)
            })?;
        }
        let layout = if wanted == Wanted::First { &batch.pooled } else { &batch.layout };
        forward.for_head(&self.final_norm.forward(forward, &hidden, layout, None, None)?)
    }
}

impl Encoder for ModernBertModel {
    fn encode(&self, forward: &Forward<'_>) -> Result<Var> {
        self.run(forward, Wanted::All)
    }

    fn head_input(&self, forward: &Forward<'_>) -> Result<Var> {
        let batch = forward.batch;
        let (read, layout) = match (self.kind, self.config.classifier_pooling) {
            (HeadKind::Token | HeadKind::Question | HeadKind::Language, _) => {
                (self.run(forward, Wanted::All)?, &batch.layout)
            }
            (HeadKind::Sequence, Pooling::Cls) => (self.run(forward, Wanted::First)?, &batch.pooled),
            (HeadKind::Sequence, Pooling::Mean) => {
                let hidden = self.run(forward, Wanted::All)?;
                (ops::mean_rows(forward.tape, &hidden, &batch.layout)?, &batch.pooled)
            }
        };
        self.head.forward(forward, &read, layout, self.config.classifier_activation)
    }

    fn linears(&self) -> Vec<&Linear> {
        self.layers.iter().flat_map(|layer| [&layer.wqkv, &layer.attn_wo, &layer.wi, &layer.mlp_wo]).collect()
    }

    fn sub_layers(&self) -> Vec<&SubLayer> {
        self.layers.iter().flat_map(|layer| [&layer.attention_end, &layer.mlp_end]).collect()
    }

    fn head_linears(&self) -> Vec<&Linear> {
        vec![&self.head.dense]
    }

    fn head_parameters(&self) -> Vec<ParamId> {
        self.head.dense.parameters().chain(self.head.norm.parameters()).collect()
    }

    fn hidden_size(&self) -> usize {
        self.config.hidden_size
    }

    fn max_length(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn head(&self) -> HeadDefaults {
        HeadDefaults {
            kind: self.kind,
            name: ModernBert.head_name(self.kind),
            dropout: self.config.classifier_dropout as f32,
            // As transformers draws this layer, whatever `initializer_range` says.
            initializer_range: 1.0 / (self.config.hidden_size as f64).sqrt(),
            bias: true,
            vocabulary: None,
        }
    }

    fn set_dropout(&mut self, probability: f32) {
        let probability = f64::from(probability);
        let config = Arc::make_mut(&mut self.config);
        config.embedding_dropout = probability;
        config.attention_dropout = probability;
        config.mlp_dropout = probability;
        config.classifier_dropout = probability;
    }
}

impl ModernBertLayer {
    fn load(
        checkpoint: &mut Checkpoint,
        config: &ModernBertConfig,
        index: usize,
        kind: LayerKind,
    ) -> std::result::Result<Self, ModelError> {
        let name = format!("model.layers.{index}");
        let site = |part: &str| format!("{name}.{part}");
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let (heads, head_size) = (config.num_attention_heads, hidden / config.num_attention_heads);
        let (window, theta) = match kind {
            LayerKind::Full => (None, config.global_rope_theta),
            LayerKind::Sliding => (Some(config.local_attention / 2), config.local_rope_theta),
        };
        let norm = |checkpoint: &mut Checkpoint, part| {
            LayerNorm::load_with(checkpoint, &site(part), hidden, config.norm_eps, config.norm_bias)
        };
        let attn_norm = if index == 0 { None } else { Some(norm(checkpoint, "attn_norm")?) };
        let mlp_norm = norm(checkpoint, "mlp_norm")?;
        let end = |part, name| SubLayer { name: site(name), block: index, part, width: hidden, norm: None };
        let mut linear = |part, width, out, bias| Linear::load_with(checkpoint, site(part), width, out, bias);
        Ok(ModernBertLayer {
            attention: AttentionShape {
                heads,
                kv_heads: heads,
                head_size,
                scale: 1.0 / (head_size as f32).sqrt(),
                causal: false,
                window,
            },
            rotary: Rotary::new(head_size, theta as f32),
            attn_norm,
            attention_end: end(Part::Attention, "attention_adapters"),
            mlp_end: end(Part::FeedForward, "output_adapters"),
            wqkv: linear("attn.Wqkv", hidden, 3 * hidden, config.attention_bias)?,
            attn_wo: linear("attn.Wo", hidden, hidden, config.attention_bias)?,
            mlp_norm,
            wi: linear("mlp.Wi", hidden, 2 * wide, config.mlp_bias)?,
            mlp_wo: linear("mlp.Wo", wide, hidden, config.mlp_bias)?,
            name,
        })
    }

    fn forward(
        &self,
        forward: &Forward<'_>,
        config: &ModernBertConfig,
        x: &Var,
        wanted: Wanted,
    ) -> Result<Var> {
        let (tape, layout, pooled) = (forward.tape, &forward.batch.layout, &forward.batch.pooled);
        let normal = match &self.attn_norm {
            Some(norm) => norm.forward(forward, x, layout, None, None)?,
            None => x.clone(),
        };
        let qkv = self.wqkv.forward(forward, &normal, layout, Activation::Identity)?;
        let width = config.hidden_size;
        let turned = |from: &Var, first: usize, layout: &Arc<Layout>| {
            let part = ops::select_columns(tape, from, first..first + width)?;
            ops::rotary(tape, &part, layout, &self.rotary)
        };
        let key = turned(&qkv, width, layout)?;
        let value = ops::select_columns(tape, &qkv, 2 * width..3 * width)?;
        let dropout = forward.dropout(&format!("{}.attn", self.name), config.attention_dropout as f32);
        if wanted == Wanted::First {
            let starts = &layout.cu_seqlens()[..layout.rows()];
            let query = turned(&ops::select_rows(tape, &qkv, starts)?, 0, pooled)?;
            let inputs = [&query, &key, &value];
            let context = ops::attention_of_first(tape, inputs, pooled, layout, self.attention, dropout)?;
            let [x, normal] = [x, &normal].map(|from| ops::select_rows(tape, from, starts));
            return self.after_attention(forward, config, [&x?, &normal?], &context, pooled);
        }
        let query = turned(&qkv, 0, layout)?;
        let context = ops::attention(tape, [&query, &key, &value], layout, self.attention, dropout)?;
        self.after_attention(forward, config, [x, &normal], &context, layout)
    }

    /// From what attention found on, in the residual stream `x` with what attention read.
    fn after_attention(
        &self,
        forward: &Forward<'_>,
        config: &ModernBertConfig,
        [x, read]: [&Var; 2],
        context: &Var,
        layout: &Arc<Layout>,
    ) -> Result<Var> {
        let (tape, plain) = (forward.tape, Activation::Identity);
        let attended = self.attn_wo.forward(forward, context, layout, plain)?;
        let dropout = forward.dropout(&self.attn_wo.name, config.attention_dropout as f32);
        let ends = SubLayerInputs { made: &attended, read, residual: x, layout };
        let x = self.attention_end.forward(forward, ends, dropout)?;
        let normal = self.mlp_norm.forward(forward, &x, layout, None, None)?;
        let wide = self.wi.forward(forward, &normal, layout, plain)?;
        let narrow = ops::gated(tape, &wide, config.hidden_activation)?;
        let dropout = forward.dropout(&format!("{}.mlp", self.name), config.mlp_dropout as f32);
        let narrow = ops::dropout(tape, &narrow, layout, dropout)?;
        let out = self.mlp_wo.forward(forward, &narrow, layout, plain)?;
        let ends = SubLayerInputs { made: &out, read: &normal, residual: &x, layout };
        self.mlp_end.forward(forward, ends, None)
    }
}

impl PredictionHead {
    /// Takes the head of a model for masked tokens or of a classifier; a bare model has none, and it is then new.
    fn load(checkpoint: &mut Checkpoint, config: &ModernBertConfig) -> std::result::Result<Self, ModelError> {
        let hidden = config.hidden_size;
        let deviation = config.initializer_range / (2.0 * config.layer_types.len() as f64).sqrt();
        let (init, bias) = (Init::Normal(deviation), config.classifier_bias);
        Ok(PredictionHead {
            dense: Linear::load_or_init_with(checkpoint, "head.dense", hidden, hidden, init, bias)?,
            norm: LayerNorm::load_or_init_with(
                checkpoint,
                "head.norm",
                hidden,
                config.norm_eps,
                config.norm_bias,
            )?,
        })
    }

    /// `[n, hidden_size]` of hidden states `[n, hidden_size]`, which `layout` lays out.
    fn forward(
        &self,
        forward: &Forward<'_>,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> Result<Var> {
        let dense = self.dense.forward(forward, x, layout, activation)?;
        self.norm.forward(forward, &dense, layout, None, None)
    }
}
