//! Virtual tokens before the keys and values of each block.

use std::sync::Arc;

use retune_tensor::backend::Layout;
use retune_tensor::{ParamId, Result, Var, ops};

use crate::{Forward, VirtualTokens};

/// What a method needs to know to make virtual tokens for a model.
#[derive(Debug, Clone, Copy)]
pub struct VirtualTokenSizes {
    /// Blocks, each with keys and values of its own.
    pub blocks: usize,
    /// Heads of keys and values.
    pub heads: usize,
    /// Columns of keys, and of values: a prefix has `blocks * 2 * width`.
    pub width: usize,
    /// The table of the word embeddings: a prompt has its columns.
    pub words: ParamId,
}

/// What stands before keys and values.
#[derive(Clone)]
pub(super) struct Prefix {
    /// Of all blocks, for the rows of each adapter where these are mixed; some may have none.
    values: Vec<Option<Var>>,
    /// Keys and values behind it.
    pub(super) keys: Arc<Layout>,
}

impl Prefix {
    /// None where no row has any.
    pub(super) fn new(forward: &Forward<'_>, layout: &Layout) -> Result<Option<Self>> {
        let values = forward.of_each(|forward| {
            let prefix = forward.hooks.prefix();
            prefix.map(|prefix| prefix.values(forward.tape, forward.parameters)).transpose()
        })?;
        if values.iter().all(Option::is_none) {
            return Ok(None);
        }
        let counts = forward.count(|hooks| hooks.prefix().map_or(0, VirtualTokens::count));
        Ok(Some(Prefix { values, keys: Arc::new(layout.behind_each(&counts)) }))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Var> {
        self.values.iter().flatten()
    }

    /// The same with other [`Prefix::values`], as many.
    pub(super) fn with(&self, values: &[Var]) -> Self {
        let mut next = values.iter().cloned();
        let values = self.values.iter().map(|value| value.as_ref().and_then(|_| next.next())).collect();
        Prefix { values, keys: self.keys.clone() }
    }

    /// Keys or values `own`, which are the `part`th of all blocks, behind it.
    pub(super) fn before(
        &self,
        forward: &Forward<'_>,
        own: &Var,
        layout: &Arc<Layout>,
        part: usize,
    ) -> Result<Var> {
        let width = own.value().columns();
        forward.apart(&[own], [layout, &self.keys], |group, forward, own, layout| {
            let Some(Some(values)) = self.values.get(group) else { return Ok(own[0].clone()) };
            let before = ops::select_columns(forward.tape, values, part * width..(part + 1) * width)?;
            ops::prepend_rows(forward.tape, &before, &own[0], layout)
        })
    }
}
