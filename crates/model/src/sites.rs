//! The named places where a method may step in. A model is written once and knows no method: its layers ask here.

use std::collections::BTreeMap;
use std::sync::Arc;

use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{Result, Var};

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
}

/// What a method does with what attention or the feed-forward layers made, before it joins the residual stream.
pub trait SubLayerHook: Send + Sync {
    /// What takes the place of `inputs.made`: `[tokens, width]`.
    fn sub_layer(&self, forward: &Forward<'_>, base: &SubLayer, inputs: SubLayerInputs<'_>) -> Result<Var>;
}

/// The hooks of one model, by the name of their site.
#[derive(Default)]
pub struct Hooks {
    linear: BTreeMap<String, Box<dyn LinearHook>>,
    sub_layer: BTreeMap<String, Box<dyn SubLayerHook>>,
}

impl Hooks {
    /// None: the model as it was pretrained.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `hook` at the linear layer `site`, such as `bert.encoder.layer.0.attention.self.query`.
    pub fn at_linear(&mut self, site: impl Into<String>, hook: Box<dyn LinearHook>) {
        self.linear.insert(site.into(), hook);
    }

    /// The hook at a linear layer.
    pub fn linear(&self, site: &str) -> Option<&dyn LinearHook> {
        self.linear.get(site).map(|hook| &**hook)
    }

    /// Puts `hook` at the end of the half of a block `site`, such as `bert.encoder.layer.0.attention.output`.
    pub fn at_sub_layer(&mut self, site: impl Into<String>, hook: Box<dyn SubLayerHook>) {
        self.sub_layer.insert(site.into(), hook);
    }

    /// The hook at the end of a half of a block.
    pub fn sub_layer(&self, site: &str) -> Option<&dyn SubLayerHook> {
        self.sub_layer.get(site).map(|hook| &**hook)
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.linear.keys()).entries(self.sub_layer.keys()).finish()
    }
}
