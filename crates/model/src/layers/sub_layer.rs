use std::sync::Arc;

use retune_tensor::backend::{Dropout, Layout};
use retune_tensor::{Result, Var, ops};

use super::LayerNorm;
use crate::Forward;

/// Which half of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Attention.
    Attention,
    /// The feed-forward layers.
    FeedForward,
}

/// The end of a half of a block, and a site: what it made is added to the residual stream and, where the norm stands
/// behind it, normed. A method's hook may change what it made.
#[derive(Debug, Clone)]
pub struct SubLayer {
    /// The site, called as the `adapters` library calls the module that its adapters are in.
    pub name: String,
    /// The number of its block, from 0.
    pub block: usize,
    /// Which half of it.
    pub part: Part,
    /// Width of the residual stream.
    pub width: usize,
    /// The norm behind it; blocks that norm first have none there.
    pub norm: Option<LayerNorm>,
}

/// What flows into the end of a half of a block.
#[derive(Clone, Copy)]
pub struct SubLayerInputs<'a> {
    /// What it made, `[tokens, width]`.
    pub made: &'a Var,
    /// What an adapter beside it reads, of the same tokens: the residual stream, or what was normed of it, as the `adapters`
    /// library has it for the family.
    pub read: &'a Var,
    /// The residual stream.
    pub residual: &'a Var,
    /// The tokens.
    pub layout: &'a Arc<Layout>,
}

impl SubLayer {
    /// `norm(dropout(made) + residual)`, without the norm where there is none, or what a hook makes of it.
    pub fn forward(
        &self,
        forward: &Forward<'_>,
        inputs: SubLayerInputs<'_>,
        dropout: Option<Dropout>,
    ) -> Result<Var> {
        if forward.differs([], |hooks| hooks.sub_layer(&self.name).is_some()) {
            let SubLayerInputs { made, read, residual, layout } = inputs;
            return forward.apart(&[made, read, residual], [layout, layout], |_, forward, inputs, layout| {
                let [made, read, residual] = [0, 1, 2].map(|input| &inputs[input]);
                self.forward(forward, SubLayerInputs { made, read, residual, layout }, dropout)
            });
        }
        let Some(hook) = forward.hooks.sub_layer(&self.name) else {
            return self.close(forward, inputs, dropout);
        };
        // Where the `adapters` library puts its adapters: behind the dropout of blocks that norm last, and at the last
        // linear layer of those that norm first.
        if self.norm.is_some() {
            let made = &ops::dropout(forward.tape, inputs.made, inputs.layout, dropout)?;
            let made = &hook.sub_layer(forward, self, SubLayerInputs { made, ..inputs })?;
            return self.close(forward, SubLayerInputs { made, ..inputs }, None);
        }
        let made = &hook.sub_layer(forward, self, inputs)?;
        self.close(forward, SubLayerInputs { made, ..inputs }, dropout)
    }

    fn close(
        &self,
        forward: &Forward<'_>,
        inputs: SubLayerInputs<'_>,
        dropout: Option<Dropout>,
    ) -> Result<Var> {
        let SubLayerInputs { made, residual, layout, .. } = inputs;
        match &self.norm {
            Some(norm) => norm.forward(forward, made, layout, Some(residual), dropout),
            None => ops::add(forward.tape, made, residual, layout, dropout),
        }
    }
}
