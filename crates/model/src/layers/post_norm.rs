//! The block of the first transformers (Vaswani et al. 2017): attention and a feed-forward layer, each added to what
//! went into it and then normed. BERT and those after it differ in names, not in what is computed.

use std::sync::Arc;

use retune_tensor::backend::{Activation, AttentionShape, Layout};
use retune_tensor::{ParamId, Result, Var, ops};

use super::prefix::Prefix;
use super::{LayerNorm, Linear, Part, SubLayer, SubLayerInputs, VirtualTokenSizes};
use crate::{Checkpoint, Forward, ModelError};

/// What a family calls the parts of a block.
#[derive(Debug, Clone, Copy)]
pub struct PostNormNames {
    /// The layer that makes queries.
    pub query: &'static str,
    /// The layer that makes keys.
    pub key: &'static str,
    /// The layer that makes values.
    pub value: &'static str,
    /// The layer over what attention found.
    pub attention_output: &'static str,
    /// The norm behind attention.
    pub attention_norm: &'static str,
    /// The layer that widens.
    pub intermediate: &'static str,
    /// The layer that narrows again.
    pub output: &'static str,
    /// The norm behind it.
    pub output_norm: &'static str,
    /// The sites at the ends of attention and of the feed-forward layers.
    pub ends: [&'static str; 2],
}

impl PostNormNames {
    /// Those of BERT, RoBERTa and ELECTRA.
    pub const BERT: PostNormNames = PostNormNames {
        query: "attention.self.query",
        key: "attention.self.key",
        value: "attention.self.value",
        attention_output: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        intermediate: "intermediate.dense",
        output: "output.dense",
        output_norm: "output.LayerNorm",
        ends: ["attention.output", "output"],
    };
}

/// The sizes of a block.
#[derive(Debug, Clone, Copy)]
pub struct PostNormSizes {
    /// Width of the residual stream; a multiple of `heads`.
    pub hidden: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Width between the two layers of the feed-forward part.
    pub intermediate: usize,
    /// The function there.
    pub activation: Activation,
    /// Added to the norms' variances.
    pub layer_norm_eps: f64,
}

/// The dropouts of a block.
#[derive(Debug, Clone, Copy)]
pub struct PostNormDropout {
    /// Of the attention's probabilities.
    pub attention_probs: f32,
    /// Before attention's result is added.
    pub attention_output: f32,
    /// Before the feed-forward part's result is added.
    pub output: f32,
}

/// Which tokens of the last block somebody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Each: `[tokens, hidden]`.
    All,
    /// The first of each row: `[rows, hidden]`. Keys and values need every token, the rest of the block only these.
    First,
}

/// Blocks, one after another.
#[derive(Debug, Clone)]
pub struct PostNormEncoder {
    /// The same in each.
    pub dropout: PostNormDropout,
    blocks: Vec<Arc<PostNormBlock>>,
}

#[derive(Debug, Clone)]
struct PostNormBlock {
    name: String,
    names: PostNormNames,
    attention: AttentionShape,
    activation: Activation,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_end: SubLayer,
    intermediate: Linear,
    output: Linear,
    output_end: SubLayer,
}

impl PostNormEncoder {
    /// Takes the blocks `NAME.0`, `NAME.1` ... to the number of `layers`, whose parts are called `names`.
    pub fn load(
        checkpoint: &mut Checkpoint,
        name: &str,
        layers: usize,
        names: PostNormNames,
        sizes: PostNormSizes,
        dropout: PostNormDropout,
    ) -> std::result::Result<Self, ModelError> {
        let blocks = (0..layers)
            .map(|index| PostNormBlock::load(checkpoint, name, index, names, sizes).map(Arc::new))
            .collect::<std::result::Result<_, _>>()?;
        Ok(PostNormEncoder { dropout, blocks })
    }

    /// The last block's output, as heads take it, for the embeddings `x` `[tokens, hidden]` that `layout` lays out, of the
    /// tokens that are `wanted`.
    pub fn forward(
        &self,
        forward: &Forward<'_>,
        x: Var,
        layout: &Arc<Layout>,
        wanted: Wanted,
    ) -> Result<Var> {
        let prefix = Prefix::new(forward, layout)?;
        let mut hidden = x;
        for (index, block) in self.blocks.iter().enumerate() {
            let wanted = if index + 1 == self.blocks.len() { wanted } else { Wanted::All };
            let (block, rates, layout, prefix) =
                (block.clone(), self.dropout, layout.clone(), prefix.clone());
            let before: Vec<Var> = prefix.iter().flat_map(Prefix::values).cloned().collect();
            let inputs: Vec<&Var> = [&hidden].into_iter().chain(&before).collect();
            hidden = forward.block(&inputs, move |forward, inputs| {
                let prefix = prefix.as_ref().map(|prefix| prefix.with(&inputs[1..]));
                let prefix = prefix.as_ref().map(|prefix| (prefix, index));
                block.forward(forward, rates, (&inputs[0], &layout), prefix, wanted)
            })?;
        }
        forward.for_head(&hidden)
    }

    /// How virtual tokens are made for it, with `words` as the table of the word embeddings.
    pub fn virtual_tokens(&self, words: ParamId) -> Option<VirtualTokenSizes> {
        let attention = self.blocks.first()?.attention;
        let (heads, width) = (attention.kv_heads, attention.kv_heads * attention.head_size);
        Some(VirtualTokenSizes { blocks: self.blocks.len(), heads, width, words })
    }

    /// The linear layers of all blocks.
    pub fn linears(&self) -> Vec<&Linear> {
        self.blocks.iter().flat_map(|block| block.linears()).collect()
    }

    /// The halves of all blocks.
    pub fn sub_layers(&self) -> Vec<&SubLayer> {
        self.blocks.iter().flat_map(|block| block.sub_layers()).collect()
    }
}

impl PostNormBlock {
    fn load(
        checkpoint: &mut Checkpoint,
        name: &str,
        block: usize,
        names: PostNormNames,
        sizes: PostNormSizes,
    ) -> std::result::Result<Self, ModelError> {
        let name = format!("{name}.{block}");
        let (hidden, wide, epsilon) = (sizes.hidden, sizes.intermediate, sizes.layer_norm_eps);
        let site = |part: &str| format!("{name}.{part}");
        let head_size = hidden / sizes.heads;
        let end = |part, norm| SubLayer {
            name: site(names.ends[usize::from(part == Part::FeedForward)]),
            block,
            part,
            width: hidden,
            norm: Some(norm),
        };
        Ok(PostNormBlock {
            attention: AttentionShape {
                heads: sizes.heads,
                kv_heads: sizes.heads,
                head_size,
                scale: 1.0 / (head_size as f32).sqrt(),
                causal: false,
                window: None,
            },
            activation: sizes.activation,
            query: Linear::load(checkpoint, site(names.query), hidden, hidden)?,
            key: Linear::load(checkpoint, site(names.key), hidden, hidden)?,
            value: Linear::load(checkpoint, site(names.value), hidden, hidden)?,
            attention_output: Linear::load(checkpoint, site(names.attention_output), hidden, hidden)?,
            attention_end: end(
                Part::Attention,
                LayerNorm::load(checkpoint, &site(names.attention_norm), hidden, epsilon)?,
            ),
            intermediate: Linear::load(checkpoint, site(names.intermediate), hidden, wide)?,
            output: Linear::load(checkpoint, site(names.output), wide, hidden)?,
            output_end: end(
                Part::FeedForward,
                LayerNorm::load(checkpoint, &site(names.output_norm), hidden, epsilon)?,
            ),
            names,
            name,
        })
    }

    /// The module that holds a part: its name keys the draws of the dropout there.
    fn module(&self, part: &str) -> String {
        let module = part.rsplit_once('.').map_or(part, |(module, _)| module);
        format!("{}.{module}", self.name)
    }

    fn forward(
        &self,
        forward: &Forward<'_>,
        rates: PostNormDropout,
        (x, layout): (&Var, &Arc<Layout>),
        prefix: Option<(&Prefix, usize)>,
        wanted: Wanted,
    ) -> Result<Var> {
        let (tape, pooled) = (forward.tape, &forward.batch.pooled);
        let (plain, shape) = (Activation::Identity, self.attention);
        let dropout = forward.dropout(&self.module(self.names.query), rates.attention_probs);
        let mut key = self.key.forward(forward, x, layout, plain)?;
        let mut value = self.value.forward(forward, x, layout, plain)?;
        let mut keys = layout;
        if let Some((prefix, block)) = prefix {
            key = prefix.before(forward, &key, layout, 2 * block)?;
            value = prefix.before(forward, &value, layout, 2 * block + 1)?;
            keys = &prefix.keys;
        }
        if wanted == Wanted::First {
            let first = ops::select_rows(tape, x, &layout.cu_seqlens()[..layout.rows()])?;
            let query = self.query.forward(forward, &first, pooled, plain)?;
            let inputs = [&query, &key, &value];
            let context = ops::attention_of_first(tape, inputs, pooled, keys, shape, dropout)?;
            return self.after_attention(forward, rates, &first, &context, pooled);
        }
        let query = self.query.forward(forward, x, layout, plain)?;
        let inputs = [&query, &key, &value];
        let context = ops::attention_over(tape, inputs, [layout, keys], shape, dropout)?;
        self.after_attention(forward, rates, x, &context, layout)
    }

    /// From what attention found on.
    fn after_attention(
        &self,
        forward: &Forward<'_>,
        rates: PostNormDropout,
        x: &Var,
        context: &Var,
        layout: &Arc<Layout>,
    ) -> Result<Var> {
        let plain = Activation::Identity;
        let attended = self.attention_output.forward(forward, context, layout, plain)?;
        let dropout = forward.dropout(&self.module(self.names.attention_output), rates.attention_output);
        let ends = SubLayerInputs { made: &attended, read: x, residual: x, layout };
        let attended = &self.attention_end.forward(forward, ends, dropout)?;
        let wide = self.intermediate.forward(forward, attended, layout, self.activation)?;
        let narrow = self.output.forward(forward, &wide, layout, plain)?;
        let dropout = forward.dropout(&self.module(self.names.output), rates.output);
        let ends = SubLayerInputs { made: &narrow, read: attended, residual: attended, layout };
        self.output_end.forward(forward, ends, dropout)
    }

    fn sub_layers(&self) -> [&SubLayer; 2] {
        [&self.attention_end, &self.output_end]
    }

    fn linears(&self) -> [&Linear; 6] {
        [&self.query, &self.key, &self.value, &self.attention_output, &self.intermediate, &self.output]
    }
}
