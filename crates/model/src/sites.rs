//! The named places where a method may step in. A model is written once and knows no method: its layers ask here.

use std::collections::BTreeMap;
use std::sync::Arc;

use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{Parameters, Result, Tape, Tensor, Var};

use crate::Forward;
use crate::layers::{Linear, SubLayer, SubLayerInputs};

/// What a method does at a linear layer, in its place: LoRA adds a branch, others change the weight or the output.
pub trait LinearHook: Send + Sync {
    /// The layer's output for `x`, `activation` included.
    fn linear(
        &self,
        forward: &Forward<'_>,
        base: &Linear,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> Result<Var>;

    /// The weights with which the layer alone computes the same, in f32; `None` where there are none.
    fn merged(&self, _parameters: &Parameters, _base: &Linear) -> Result<Option<Merged>> {
        Ok(None)
    }
}

/// What takes the place of a layer's own weights, and its hook.
#[derive(Debug, Clone)]
pub struct Merged {
    /// `[out_features, in_features]`
    pub weight: Tensor,
    /// `[out_features]`; the layer's own, if it has one, where there is none.
    pub bias: Option<Tensor>,
}

/// What a method does with what attention or the feed-forward layers made, before it joins the residual stream.
pub trait SubLayerHook: Send + Sync {
    /// What takes the place of `inputs.made`: `[tokens, width]`.
    fn sub_layer(&self, forward: &Forward<'_>, base: &SubLayer, inputs: SubLayerInputs<'_>) -> Result<Var>;
}

/// Rows that no text has, before those of each text: a prefix before the keys and values of attention, or a prompt
/// before the embeddings. They are the same for every text, so they do not depend on the batch.
pub trait VirtualTokens: Send + Sync {
    /// How many.
    fn count(&self) -> usize;

    /// Their values: `[count, blocks * 2 * width]` before keys and values, for each block its keys and then its values;
    /// `[count, width]` before word embeddings.
    fn values(&self, tape: &Tape, parameters: &Parameters) -> Result<Var>;
}

/// The hooks of one model, by the name of their site.
#[derive(Clone, Default)]
pub struct Hooks {
    linear: BTreeMap<String, Arc<dyn LinearHook>>,
    sub_layer: BTreeMap<String, Arc<dyn SubLayerHook>>,
    prefix: Option<Arc<dyn VirtualTokens>>,
    prompt: Option<Arc<dyn VirtualTokens>>,
}

impl Hooks {
    /// None: the model as it was pretrained.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `hook` at the linear layer `site`, such as `bert.encoder.layer.0.attention.self.query`.
    pub fn at_linear(&mut self, site: impl Into<String>, hook: Box<dyn LinearHook>) {
        self.linear.insert(site.into(), hook.into());
    }

    /// Takes the hook at a linear layer away.
    pub fn leave_linear(&mut self, site: &str) {
        self.linear.remove(site);
    }

    /// The hook at a linear layer.
    pub fn linear(&self, site: &str) -> Option<&dyn LinearHook> {
        self.linear.get(site).map(|hook| &**hook)
    }

    /// Puts `hook` at the end of the half of a block `site`, such as `bert.encoder.layer.0.attention.output`.
    pub fn at_sub_layer(&mut self, site: impl Into<String>, hook: Box<dyn SubLayerHook>) {
        self.sub_layer.insert(site.into(), hook.into());
    }

    /// The hook at the end of a half of a block.
    pub fn sub_layer(&self, site: &str) -> Option<&dyn SubLayerHook> {
        self.sub_layer.get(site).map(|hook| &**hook)
    }

    /// Puts `prefix` before the keys and values of every block.
    pub fn before_keys(&mut self, prefix: Box<dyn VirtualTokens>) {
        self.prefix = Some(prefix.into());
    }

    /// What stands before keys and values.
    pub fn prefix(&self) -> Option<&dyn VirtualTokens> {
        self.prefix.as_deref()
    }

    /// Puts `prompt` before the word embeddings.
    pub fn before_words(&mut self, prompt: Box<dyn VirtualTokens>) {
        self.prompt = Some(prompt.into());
    }

    /// What stands before word embeddings.
    pub fn prompt(&self) -> Option<&dyn VirtualTokens> {
        self.prompt.as_deref()
    }

    /// How many positions of each row are not its text's.
    pub fn virtual_tokens(&self) -> usize {
        [self.prefix(), self.prompt()].into_iter().flatten().map(VirtualTokens::count).sum()
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.linear.keys()).entries(self.sub_layer.keys()).finish()
    }
}
