//! What all decoders have in common: embeddings, blocks, a norm, and heads over them.

use std::sync::Arc;

use retune_tensor::backend::Layout;
use retune_tensor::{ParamId, Result, Var, ops};

use super::{Encoder, HeadDefaults, HeadKind};
use crate::layers::{
    DecoderBlock, DecoderDropout, DecoderRows, Embedding, Linear, Norm, SubLayer, VirtualTokenSizes, prompts,
    without_prompt,
};
use crate::{Batch, Forward, VirtualTokens};

/// A decoder, put together by its family.
pub(super) struct Decoder {
    pub(super) words: Embedding,
    /// Learned positions, where the blocks do not turn by them.
    pub(super) positions: Option<Embedding>,
    /// The site of the embeddings' dropout, and its rate, in families that have one.
    pub(super) embedding_dropout: Option<(&'static str, f32)>,
    pub(super) blocks: Vec<Arc<DecoderBlock>>,
    pub(super) dropout: DecoderDropout,
    pub(super) norm: Norm,
    pub(super) hidden_size: usize,
    pub(super) max_length: usize,
    /// A row that ends with it is read where it begins.
    pub(super) padding: Option<u32>,
    pub(super) head: HeadDefaults,
}

impl Decoder {
    /// The normed hidden states of all tokens, those of prompts left out.
    fn run(&self, forward: &Forward<'_>) -> Result<Var> {
        let (mut hidden, layout) = self.embed(forward)?;
        let rows = DecoderRows::new(forward, layout)?;
        for (index, block) in self.blocks.iter().enumerate() {
            let (block, rates, again) = (block.clone(), self.dropout, rows.clone());
            let inputs: Vec<&Var> = [&hidden].into_iter().chain(rows.values()).collect();
            hidden = forward.block(&inputs, move |forward, inputs| {
                let (x, values) = inputs.split_at(1);
                block.forward(forward, rates, &x[0], &again.with(values), index)
            })?;
        }
        if let Some(cache) = forward.cache {
            cache.advance(rows.keys());
        }
        let hidden = self.norm.forward(forward, &hidden, &rows.layout)?;
        without_prompt(forward, hidden, &rows.layout)
    }

    /// `[tokens, hidden_size]` of the batch's tokens, each row behind the prompt where there is one, and how they lie.
    fn embed(&self, forward: &Forward<'_>) -> Result<(Var, Arc<Layout>)> {
        if forward.mixture.is_none() {
            return self.embed_alike(forward);
        }
        let layout = &forward.batch.layout;
        let out = Arc::new(layout.behind_each(&prompts(forward)));
        let embedded =
            forward.apart(&[], [layout, &out], |_, forward, _, _| Ok(self.embed_alike(forward)?.0))?;
        Ok((embedded, out))
    }

    fn embed_alike(&self, forward: &Forward<'_>) -> Result<(Var, Arc<Layout>)> {
        let (tape, batch) = (forward.tape, forward.batch);
        let words = (&self.words, &batch.input_ids);
        let prompt = forward.hooks.prompt().filter(|_| !forward.goes_on());
        let layout = match prompt {
            None => batch.layout.clone(),
            Some(prompt) => Arc::new(batch.layout.behind(prompt.count())),
        };
        let positions = self.positions.as_ref().map(|table| (table, position_ids(forward, &layout)));
        let sum = match (prompt, &positions) {
            (None, None) => Embedding::sum(forward, &[words])?,
            (None, Some((table, ids))) => Embedding::sum(forward, &[words, (table, ids)])?,
            (Some(prompt), positions) => {
                let prompt = prompt.values(tape, forward.parameters)?;
                let words = Embedding::sum(forward, &[words])?;
                let words = ops::prepend_rows(tape, &prompt, &words, &batch.layout)?;
                match positions {
                    None => words,
                    Some((table, ids)) => {
                        ops::add(tape, &words, &Embedding::sum(forward, &[(table, ids)])?, &layout, None)?
                    }
                }
            }
        };
        let dropout = self.embedding_dropout.and_then(|(site, rate)| forward.dropout(site, rate));
        Ok((ops::dropout(tape, &sum, &layout, dropout)?, layout))
    }

    /// The last token of each row that is no padding, as transformers looks for it; the first where all are.
    fn last_tokens(&self, batch: &Batch) -> Vec<usize> {
        let last = |ends: &[usize]| {
            let is_text = |token: &usize| Some(batch.input_ids[*token]) != self.padding;
            (ends[0]..ends[1]).rev().find(is_text).unwrap_or(ends[0])
        };
        batch.layout.cu_seqlens().windows(2).map(last).collect()
    }
}

/// Positions of tokens that `layout` lays out; a prefix takes the first of them, and is known where rows go on.
fn position_ids(forward: &Forward<'_>, layout: &Layout) -> Arc<[u32]> {
    let prefix = forward.hooks.prefix().filter(|_| !forward.goes_on());
    // Both are below the positions that the model has.
    let before = prefix.map_or(0, VirtualTokens::count) as u32;
    layout.positions().map(|position| before + position).collect()
}

impl Encoder for Decoder {
    fn encode(&self, forward: &Forward<'_>) -> Result<Var> {
        forward.for_head(&self.run(forward)?)
    }

    /// The vocabulary projection takes hidden states as they are.
    fn head_input(&self, forward: &Forward<'_>) -> Result<Var> {
        let hidden = self.run(forward)?;
        match self.head.kind {
            HeadKind::Language => Ok(hidden),
            HeadKind::Token | HeadKind::Question => forward.for_head(&hidden),
            HeadKind::Sequence => {
                let last = ops::select_rows(forward.tape, &hidden, &self.last_tokens(forward.batch))?;
                forward.for_head(&last)
            }
        }
    }

    fn linears(&self) -> Vec<&Linear> {
        self.blocks.iter().flat_map(|block| block.linears()).collect()
    }

    fn sub_layers(&self) -> Vec<&SubLayer> {
        self.blocks.iter().flat_map(|block| block.sub_layers()).collect()
    }

    fn head_linears(&self) -> Vec<&Linear> {
        Vec::new()
    }

    fn head_parameters(&self) -> Vec<ParamId> {
        Vec::new()
    }

    fn virtual_tokens(&self) -> Option<VirtualTokenSizes> {
        let attention = self.blocks.first()?.attention;
        let (heads, width) = (attention.kv_heads, attention.kv_heads * attention.head_size);
        Some(VirtualTokenSizes { blocks: self.blocks.len(), heads, width, words: self.words.weight() })
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn max_length(&self) -> usize {
        self.max_length
    }

    fn head(&self) -> HeadDefaults {
        self.head
    }

    fn set_dropout(&mut self, probability: f32) {
        self.dropout.attention = probability;
        if let Some((_, rate)) = &mut self.embedding_dropout {
            *rate = probability;
            self.dropout.residual = probability;
        }
        if self.head.kind == HeadKind::Token {
            self.head.dropout = probability;
        }
    }
}
