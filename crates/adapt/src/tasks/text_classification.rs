//! A text, or two: a linear layer over the pooled hidden state, as transformers builds it. What its outputs mean is the
//! form: one of several classes, several labels, a number.

use std::sync::Arc;

use retune_data::Tokens;
use retune_model::families::Encoder;
use retune_model::layers::Linear;
use retune_model::{Checkpoint, Forward, Init, ModelError};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{Result, Var, ops};

use super::form::Targets;
use super::{Task, multi_label, regression, single_label};

pub(super) const TASK: Task = Task {
    name: "text-classification",
    summary: "classes, labels or a number for each text or pair of texts: intents, topics, sentiment, similarity",
    forms: &[&single_label::SPEC, &multi_label::SPEC, &regression::SPEC],
};

/// An encoder with a classification head.
pub struct TextClassifier {
    encoder: Box<dyn Encoder>,
    classifier: Linear,
    dropout: f32,
}

impl TextClassifier {
    /// Puts the last layer of a head, of `classes`, on an encoder. `keep_head` takes the checkpoint's own, which is right only if it was
    /// trained for the same labels in the same order; else, or where there is none, it is drawn anew and is then among
    /// the checkpoint's fresh tensors.
    pub fn build(
        encoder: Box<dyn Encoder>,
        checkpoint: &mut Checkpoint,
        keep_head: bool,
        classes: usize,
    ) -> std::result::Result<Self, ModelError> {
        let hidden = encoder.hidden_size();
        let defaults = encoder.head();
        let init = Init::Normal(defaults.initializer_range);
        let make = if keep_head { Linear::load_or_init } else { Linear::init };
        let classifier = make(checkpoint, defaults.name, hidden, classes, init)?;
        Ok(TextClassifier { encoder, classifier, dropout: defaults.dropout })
    }

    /// The encoder under the head.
    pub fn encoder(&self) -> &dyn Encoder {
        &*self.encoder
    }

    /// The linear layer that gives the logits.
    pub fn classifier(&self) -> &Linear {
        &self.classifier
    }

    /// `[rows, classes]`
    pub fn logits(&self, forward: &Forward<'_>) -> Result<Var> {
        let pooled = self.encoder.pooled(forward)?;
        self.head(forward, &pooled, &forward.batch.pooled)
    }

    /// Those of a batch that mixes adapters, for each that has rows in it, in the order of [`Mixture::rows`]: each has a head
    /// of its own, and so may have another number of classes.
    ///
    /// [`Mixture::rows`]: retune_model::Mixture::rows
    pub fn logits_of_each(&self, forward: &Forward<'_>) -> Result<Vec<Var>> {
        let pooled = self.encoder.pooled(forward)?;
        forward.each(&[&pooled], &forward.batch.pooled, |_, forward, inputs, layout| {
            self.head(forward, &inputs[0], layout)
        })
    }

    fn head(&self, forward: &Forward<'_>, pooled: &Var, layout: &Arc<Layout>) -> Result<Var> {
        let dropout = forward.dropout(&self.classifier.name, self.dropout);
        let pooled = ops::dropout(forward.tape, pooled, layout, dropout)?;
        self.classifier.forward(forward, &pooled, layout, Activation::Identity)
    }
}

/// Rows with their targets.
#[derive(Debug)]
pub struct ClassifierRows {
    /// The texts.
    pub tokens: Tokens,
    /// What is to be learnt of each.
    pub targets: Box<dyn Targets>,
}
