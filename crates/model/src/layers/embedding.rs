use std::sync::Arc;

use retune_tensor::{ParamId, Result, Var, ops};

use crate::{Checkpoint, Forward, ModelError};

/// A table of vectors, `[entries, columns]`.
#[derive(Debug, Clone)]
pub struct Embedding {
    weight: ParamId,
    padding_idx: Option<u32>,
}

impl Embedding {
    /// Takes `NAME.weight`. The entry `padding_idx` gets no gradient.
    pub fn load(
        checkpoint: &mut Checkpoint,
        name: &str,
        shape: [usize; 2],
        padding_idx: Option<u32>,
    ) -> std::result::Result<Self, ModelError> {
        Ok(Embedding { weight: checkpoint.tensor(&format!("{name}.weight"), &shape)?, padding_idx })
    }

    /// The table.
    pub fn weight(&self) -> ParamId {
        self.weight
    }

    /// The sum of several tables' entries for each token.
    pub fn sum(forward: &Forward<'_>, lookups: &[(&Embedding, &Arc<[u32]>)]) -> Result<Var> {
        let tables: Vec<Var> = lookups.iter().map(|(table, _)| forward.parameter(table.weight)).collect();
        let lookups: Vec<_> = lookups
            .iter()
            .zip(&tables)
            .map(|((embedding, ids), table)| ops::Lookup {
                table,
                ids: (*ids).clone(),
                padding_idx: embedding.padding_idx,
            })
            .collect();
        ops::embedding(forward.tape, &lookups, forward.dtype)
    }
}
