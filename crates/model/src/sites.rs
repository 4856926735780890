//! The named places where a method may step in. A model is written once and knows no method: its layers ask here.

use std::collections::BTreeMap;
use std::sync::Arc;

use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{Parameters, Result, Tensor, Var};

use crate::Forward;
use crate::layers::Linear;

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

/// The hooks of one model, by the name of their site.
#[derive(Default)]
pub struct Hooks {
    linear: BTreeMap<String, Box<dyn LinearHook>>,
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

    /// Takes the hook at a linear layer away.
    pub fn leave_linear(&mut self, site: &str) {
        self.linear.remove(site);
    }

    /// The hook at a linear layer.
    pub fn linear(&self, site: &str) -> Option<&dyn LinearHook> {
        self.linear.get(site).map(|hook| &**hook)
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.linear.keys()).finish()
    }
}
