use std::sync::Arc;

use retune_tensor::{Result, Var, ops};

use super::{Embedding, LayerNorm};
use crate::{Checkpoint, Forward, ModelError};

/// What goes into a post-norm encoder: the sum of a token's word, position and, where there are such, type embeddings,
/// normed and dropped.
#[derive(Debug, Clone)]
pub struct TokenEmbeddings {
    /// Dropout at the end.
    pub dropout: f32,
    name: String,
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
    /// The padding tokens' position, which gets no gradient.
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
            word_embeddings,
            position_embeddings,
            token_type_embeddings,
            layer_norm: LayerNorm::load(checkpoint, &norm, sizes.width, sizes.layer_norm_eps)?,
            name: name.to_string(),
        })
    }

    /// `[tokens, width]` of the batch's tokens at `position_ids` `[tokens]`.
    pub fn forward(&self, forward: &Forward<'_>, position_ids: &Arc<[u32]>) -> Result<Var> {
        let batch = forward.batch;
        let mut lookups = vec![(&self.word_embeddings, &batch.input_ids)];
        lookups.extend(self.token_type_embeddings.as_ref().map(|types| (types, &batch.token_type_ids)));
        lookups.push((&self.position_embeddings, position_ids));
        let sum = Embedding::sum(forward, &lookups)?;
        let normal = self.layer_norm.forward(forward, &sum, &batch.layout, None, None)?;
        let dropout = forward.dropout(&self.name, self.dropout);
        ops::dropout(forward.tape, &normal, &batch.layout, dropout)
    }
}
