use std::sync::Arc;

use retune_tensor::backend::Layout;
use retune_tensor::{ParamId, Result, Var, ops};

use super::{Embedding, LayerNorm};
use crate::{Checkpoint, Forward, Hooks, ModelError, VirtualTokens};

/// What goes into a post-norm encoder: the sum of a token's word, position and, where there are such, type embeddings,
/// normed and dropped.
#[derive(Debug, Clone)]
pub struct TokenEmbeddings {
    /// Dropout at the end.
    pub dropout: f32,
    name: String,
    padding: Option<u32>,
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Option<Embedding>,
    layer_norm: LayerNorm,
}

/// The sizes of [`TokenEmbeddings`].
#[derive(Debug, Clone, Copy)]
pub struct TokenEmbeddingsSizes {
    /// Columns of each table.
    pub width: usize,
    /// Rows of the word embeddings.
    pub words: usize,
    /// Rows of the position embeddings.
    pub positions: usize,
    /// Rows of the type embeddings, where there are such.
    pub types: Option<usize>,
    /// The padding token's word, which gets no gradient.
    pub padding_word: Option<usize>,
    /// The padding tokens' position, which gets no gradient. Where there is one it is the padding token's number too:
    /// positions are those of tokens that are no padding, and begin behind it.
    pub padding_position: Option<usize>,
    /// Added to the norm's variance.
    pub layer_norm_eps: f64,
}

impl TokenEmbeddings {
    /// Takes `NAME.word_embeddings`, `NAME.position_embeddings`, `NAME.token_type_embeddings` and `NAME.LayerNorm`.
    pub fn load(
        checkpoint: &mut Checkpoint,
        name: &str,
        sizes: TokenEmbeddingsSizes,
        dropout: f32,
    ) -> std::result::Result<Self, ModelError> {
        let mut table = |part: &str, rows: usize, padding: Option<usize>| {
            let padding = padding.and_then(|id| u32::try_from(id).ok());
            Embedding::load(checkpoint, &format!("{name}.{part}"), [rows, sizes.width], padding)
        };
        let word_embeddings = table("word_embeddings", sizes.words, sizes.padding_word)?;
        let position_embeddings = table("position_embeddings", sizes.positions, sizes.padding_position)?;
        let token_type_embeddings =
            sizes.types.map(|types| table("token_type_embeddings", types, None)).transpose()?;
        let norm = format!("{name}.LayerNorm");
        Ok(TokenEmbeddings {
            dropout,
            padding: sizes.padding_position.and_then(|id| u32::try_from(id).ok()),
            word_embeddings,
            position_embeddings,
            token_type_embeddings,
            layer_norm: LayerNorm::load(checkpoint, &norm, sizes.width, sizes.layer_norm_eps)?,
            name: name.to_string(),
        })
    }

    /// `[tokens, width]` of the batch's tokens, each row behind the prompt where there is one, and how they lie.
    pub fn forward(&self, forward: &Forward<'_>) -> Result<(Var, Arc<Layout>)> {
        if forward.mixture.is_none() {
            return self.embed(forward);
        }
        let layout = &forward.batch.layout;
        let out = Arc::new(layout.behind_each(&prompts(forward)));
        let embedded = forward.apart(&[], [layout, &out], |_, forward, _, _| Ok(self.embed(forward)?.0))?;
        Ok((embedded, out))
    }

    fn embed(&self, forward: &Forward<'_>) -> Result<(Var, Arc<Layout>)> {
        let (tape, batch) = (forward.tape, forward.batch);
        let prompt = forward.hooks.prompt();
        let count = prompt.map_or(0, |prompt| prompt.count());
        let (positions, words) =
            (self.position_ids(forward, count), (&self.word_embeddings, &batch.input_ids));
        let types = self.token_type_embeddings.as_ref();
        let (sum, layout) = match prompt {
            None => {
                let mut lookups = vec![words];
                lookups.extend(types.map(|types| (types, &batch.token_type_ids)));
                lookups.push((&self.position_embeddings, &positions));
                (Embedding::sum(forward, &lookups)?, batch.layout.clone())
            }
            Some(prompt) => {
                let layout = Arc::new(batch.layout.behind(count));
                let prompt = prompt.values(tape, forward.parameters)?;
                let words =
                    ops::prepend_rows(tape, &prompt, &Embedding::sum(forward, &[words])?, &batch.layout)?;
                // A prompt is of the first part of a pair, as in `peft`.
                let type_ids = rows(batch.layout.cu_seqlens(), |row, ids: &mut Vec<u32>| {
                    ids.extend(
                        std::iter::repeat_n(0, count).chain(batch.token_type_ids[row].iter().copied()),
                    );
                });
                let mut lookups = vec![(&self.position_embeddings, &positions)];
                lookups.extend(types.map(|types| (types, &type_ids)));
                (ops::add(tape, &words, &Embedding::sum(forward, &lookups)?, &layout, None)?, layout)
            }
        };
        let normal = self.layer_norm.forward(forward, &sum, &layout, None, None)?;
        let dropout = forward.dropout(&self.name, self.dropout);
        Ok((ops::dropout(tape, &normal, &layout, dropout)?, layout))
    }

    /// The table of the word embeddings.
    pub fn words(&self) -> ParamId {
        self.word_embeddings.weight()
    }

    /// The positions of the tokens, each row behind a prompt of `count` tokens. A prefix takes the first of them: they are
    /// counted as transformers counts those of tokens whose keys it keeps.
    fn position_ids(&self, forward: &Forward<'_>, count: usize) -> Arc<[u32]> {
        let batch = forward.batch;
        // Both are below the positions that the model has.
        let before = forward.hooks.prefix().map_or(0, |prefix| prefix.count()) as u32;
        rows(batch.layout.cu_seqlens(), |row, positions: &mut Vec<u32>| match self.padding {
            None => positions.extend((before..).take(count + row.len())),
            // What stands behind a prompt is an embedding and no token any more, which transformers counts one by one.
            Some(padding) if count > 0 => positions.extend((padding + 1..).take(count + row.len())),
            // A text may hold the padding token: it is not counted, and stands at the padding position.
            Some(padding) => {
                let mut last = padding + before;
                for id in &batch.input_ids[row] {
                    let counts = *id != padding;
                    last += u32::from(counts);
                    positions.push(if counts { last } else { padding });
                }
            }
        })
    }
}

/// What `add` appends for each row's range of tokens.
fn rows(cu_seqlens: &[usize], add: impl Fn(std::ops::Range<usize>, &mut Vec<u32>)) -> Arc<[u32]> {
    let mut all = Vec::new();
    cu_seqlens.windows(2).for_each(|ends| add(ends[0]..ends[1], &mut all));
    all.into()
}

/// How many tokens of a prompt each row has before its own.
pub fn prompts(forward: &Forward<'_>) -> Vec<usize> {
    // Behind what is known there is no other.
    let count = |hooks: &Hooks| hooks.prompt().map_or(0, VirtualTokens::count);
    forward.count(|hooks| if forward.goes_on() { 0 } else { count(hooks) })
}

/// The rows of `hidden` that are the text's own, where `layout` lays them out behind prompts.
pub fn without_prompt(forward: &Forward<'_>, hidden: Var, layout: &Layout) -> Result<Var> {
    let prompts = prompts(forward);
    if prompts.iter().all(|count| *count == 0) {
        return Ok(hidden);
    }
    let ends = layout.cu_seqlens().windows(2).zip(prompts);
    let own: Vec<usize> = ends.flat_map(|(ends, prompt)| ends[0] + prompt..ends[1]).collect();
    ops::select_rows(forward.tape, &hidden, &own)
}
