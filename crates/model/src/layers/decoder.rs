//! The block of decoders: attention to the tokens before, and a feed-forward layer, each of what was normed and each added to
//! the residual stream. GPT-2 and Llama differ in their parts, not in how these are put together.

use std::sync::Arc;

use retune_tensor::backend::{Activation, AttentionShape, Layout, Rotary};
use retune_tensor::{Result, Var, ops};

use super::prefix::Prefix;
use super::{LayerNorm, Linear, RmsNorm, SubLayer, SubLayerInputs};
use crate::{Forward, VirtualTokens};

/// A norm of either kind.
#[derive(Debug, Clone)]
pub enum Norm {
    /// With a mean taken away and a bias.
    Layer(LayerNorm),
    /// By the root of the mean square alone.
    Rms(RmsNorm),
}

impl Norm {
    /// Of each token of `x`, which `layout` counts.
    pub fn forward(&self, forward: &Forward<'_>, x: &Var, layout: &Arc<Layout>) -> Result<Var> {
        match self {
            Norm::Layer(norm) => norm.forward(forward, x, layout, None, None),
            Norm::Rms(norm) => norm.forward(forward, x, layout),
        }
    }
}

/// What makes queries, keys and values.
#[derive(Debug, Clone)]
pub enum Projections {
    /// One product for all three, side by side.
    Joint(Linear),
    /// One for each.
    Apart([Linear; 3]),
}

/// What stands behind attention.
#[derive(Debug, Clone)]
pub enum FeedForward {
    /// A layer that widens, a function, and one that narrows again.
    Plain {
        /// The way out.
        up: Linear,
        /// The function.
        activation: Activation,
        /// The way back.
        down: Linear,
    },
    /// The same with a second product that the function's values are multiplied with.
    Gated {
        /// What the function is of.
        gate: Linear,
        /// What it is multiplied with.
        up: Linear,
        /// The function.
        activation: Activation,
        /// The way back.
        down: Linear,
    },
}

/// The dropouts of a block.
#[derive(Debug, Clone, Copy)]
pub struct DecoderDropout {
    /// Of the attention's probabilities.
    pub attention: f32,
    /// Before each sum.
    pub residual: f32,
}

/// A block of a decoder.
#[derive(Debug, Clone)]
pub struct DecoderBlock {
    /// Its name: the site of its attention's dropout.
    pub name: String,
    /// The sizes of its attention, which is causal.
    pub attention: AttentionShape,
    /// How positions turn queries and keys, where the embeddings do not have them.
    pub rotary: Option<Rotary>,
    /// Of what attention reads.
    pub attention_norm: Norm,
    /// What attention is over.
    pub projections: Projections,
    /// Of the heads of queries and of keys, where they are normed.
    pub head_norms: Option<[RmsNorm; 2]>,
    /// The layer over what attention found.
    pub attention_output: Linear,
    /// Where that joins the stream.
    pub attention_end: SubLayer,
    /// Of what the feed-forward layers read.
    pub feed_forward_norm: Norm,
    /// These.
    pub feed_forward: FeedForward,
    /// Where they join the stream.
    pub feed_forward_end: SubLayer,
}

/// Where the tokens of a pass lie, and what stands before them.
#[derive(Clone)]
pub struct DecoderRows {
    /// The rows, behind their prompts.
    pub layout: Arc<Layout>,
    /// The same, from the positions on that prefixes leave to them.
    positions: Arc<Layout>,
    prefix: Option<Prefix>,
    /// Where the rows lie among the keys, where there is a prefix.
    own: Arc<[usize]>,
}

impl DecoderRows {
    /// Of rows that `layout` lays out.
    pub fn new(forward: &Forward<'_>, layout: Arc<Layout>) -> Result<Self> {
        let prefix = if forward.goes_on() { None } else { Prefix::new(forward, &layout)? };
        let Some(prefix) = prefix else {
            return Ok(DecoderRows { positions: layout.clone(), layout, prefix: None, own: Arc::new([]) });
        };
        // A prefix takes the first positions, as in transformers, which counts the keys that it keeps.
        let counts = forward.count(|hooks| hooks.prefix().map_or(0, VirtualTokens::count));
        let ends = prefix.keys.cu_seqlens().windows(2).zip(&counts);
        let own = ends.flat_map(|(ends, count)| ends[0] + count..ends[1]).collect();
        Ok(DecoderRows {
            positions: Arc::new(layout.starting_at(&counts)),
            layout,
            prefix: Some(prefix),
            own,
        })
    }

    /// How keys and values lie.
    pub(crate) fn keys(&self) -> &Arc<Layout> {
        self.prefix.as_ref().map_or(&self.layout, |prefix| &prefix.keys)
    }

    /// What of it a block is given anew where it is gone through once more.
    pub fn values(&self) -> impl Iterator<Item = &Var> {
        self.prefix.iter().flat_map(Prefix::values)
    }

    /// The same with other [`DecoderRows::values`], as many.
    pub fn with(&self, values: &[Var]) -> Self {
        DecoderRows { prefix: self.prefix.as_ref().map(|prefix| prefix.with(values)), ..self.clone() }
    }
}

impl DecoderBlock {
    /// The residual stream behind it, for that before it `x` `[tokens, hidden]`; it is the `index`th block.
    pub fn forward(
        &self,
        forward: &Forward<'_>,
        rates: DecoderDropout,
        x: &Var,
        rows: &DecoderRows,
        index: usize,
    ) -> Result<Var> {
        let (tape, layout, plain) = (forward.tape, &rows.layout, Activation::Identity);
        let normal = self.attention_norm.forward(forward, x, layout)?;
        let [query, key, value] = self.query_key_value(forward, &normal, rows)?;
        let dropout = forward.dropout(&self.name, rates.attention);
        let [key, value] = match &rows.prefix {
            None => [key, value],
            Some(prefix) => [
                prefix.before(forward, &key, layout, 2 * index)?,
                prefix.before(forward, &value, layout, 2 * index + 1)?,
            ],
        };
        let keys = rows.keys();
        let attend = || match &rows.prefix {
            None => ops::attention(tape, [&query, &key, &value], layout, self.attention, dropout),
            Some(_) => {
                // Every key has a query then, and nobody reads what the prefix's find.
                let width = query.value().columns();
                let query = ops::place_rows(tape, &[(&query, &rows.own)], [keys.tokens(), width])?;
                let all = ops::attention(tape, [&query, &key, &value], keys, self.attention, dropout)?;
                ops::select_rows(tape, &all, &rows.own)
            }
        };
        let context = match forward.cache {
            None => attend()?,
            Some(cache) => {
                cache.attend(index, [&query, &key, &value], [layout, keys], self.attention, attend)?
            }
        };
        let attended = self.attention_output.forward(forward, &context, layout, plain)?;
        let dropout = forward.dropout(&self.attention_output.name, rates.residual);
        let ends = SubLayerInputs { made: &attended, read: x, residual: x, layout };
        let x = self.attention_end.forward(forward, ends, dropout)?;
        let normal = self.feed_forward_norm.forward(forward, &x, layout)?;
        let (narrow, name) = self.feed_forward.forward(forward, &normal, layout)?;
        let dropout = forward.dropout(name, rates.residual);
        let ends = SubLayerInputs { made: &narrow, read: &x, residual: &x, layout };
        self.feed_forward_end.forward(forward, ends, dropout)
    }

    fn query_key_value(&self, forward: &Forward<'_>, normal: &Var, rows: &DecoderRows) -> Result<[Var; 3]> {
        let (tape, layout, plain) = (forward.tape, &rows.layout, Activation::Identity);
        let shape = self.attention;
        let [mut query, mut key, value] = match &self.projections {
            Projections::Apart([query, key, value]) => [
                query.forward(forward, normal, layout, plain)?,
                key.forward(forward, normal, layout, plain)?,
                value.forward(forward, normal, layout, plain)?,
            ],
            Projections::Joint(joint) => {
                let all = joint.forward(forward, normal, layout, plain)?;
                let (own, kv) = (shape.heads * shape.head_size, shape.kv_heads * shape.head_size);
                [
                    ops::select_columns(tape, &all, 0..own)?,
                    ops::select_columns(tape, &all, own..own + kv)?,
                    ops::select_columns(tape, &all, own + kv..own + 2 * kv)?,
                ]
            }
        };
        if let Some([of_query, of_key]) = &self.head_norms {
            query = of_query.forward(forward, &query, layout)?;
            key = of_key.forward(forward, &key, layout)?;
        }
        if let Some(rotary) = &self.rotary {
            query = ops::rotary(tape, &query, &rows.positions, rotary)?;
            key = ops::rotary(tape, &key, &rows.positions, rotary)?;
        }
        Ok([query, key, value])
    }

    /// Its linear layers.
    pub fn linears(&self) -> Vec<&Linear> {
        let mut all: Vec<&Linear> = match &self.projections {
            Projections::Joint(joint) => vec![joint],
            Projections::Apart(each) => each.iter().collect(),
        };
        all.push(&self.attention_output);
        match &self.feed_forward {
            FeedForward::Plain { up, down, .. } => all.extend([up, down]),
            FeedForward::Gated { gate, up, down, .. } => all.extend([gate, up, down]),
        }
        all
    }

    /// Its halves.
    pub fn sub_layers(&self) -> [&SubLayer; 2] {
        [&self.attention_end, &self.feed_forward_end]
    }
}

impl FeedForward {
    /// What it makes of `x`, and the name of the layer that did so last.
    fn forward(&self, forward: &Forward<'_>, x: &Var, layout: &Arc<Layout>) -> Result<(Var, &str)> {
        let plain = Activation::Identity;
        let (wide, down) = match self {
            FeedForward::Plain { up, activation, down } => {
                (up.forward(forward, x, layout, *activation)?, down)
            }
            FeedForward::Gated { gate, up, activation, down } => {
                let gate = gate.forward(forward, x, layout, plain)?;
                let up = up.forward(forward, x, layout, plain)?;
                (ops::gate(forward.tape, &gate, &up, *activation)?, down)
            }
        };
        Ok((down.forward(forward, &wide, layout, plain)?, &down.name))
    }
}
