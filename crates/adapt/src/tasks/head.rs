//! An encoder with what a task puts on top of it: the last layer of its head, as transformers builds it.

use std::sync::Arc;

use retune_model::families::Encoder;
use retune_model::layers::Linear;
use retune_model::{Checkpoint, Forward, Init, ModelError};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{Result, Var, ops};

/// An encoder with a head.
pub struct EncoderWithHead {
    encoder: Box<dyn Encoder>,
    classifier: Linear,
    dropout: f32,
}

impl EncoderWithHead {
    /// Puts the last layer of a head, of so many `outputs`, on an encoder that was built for this kind of head.
    /// `keep_head` takes the checkpoint's own, which is right only if it was trained for the same labels in the same
    /// order; else, or where there is none, it is drawn anew and is then among the checkpoint's fresh tensors.
    pub fn build(
        encoder: Box<dyn Encoder>,
        checkpoint: &mut Checkpoint,
        keep_head: bool,
        outputs: usize,
    ) -> std::result::Result<Self, ModelError> {
        let hidden = encoder.hidden_size();
        let defaults = encoder.head();
        let init = Init::Normal(defaults.initializer_range);
        let make = if keep_head { Linear::load_or_init } else { Linear::init };
        let classifier = make(checkpoint, defaults.name, hidden, outputs, init)?;
        Ok(EncoderWithHead { encoder, classifier, dropout: defaults.dropout })
    }

    /// The encoder under the head.
    pub fn encoder(&self) -> &dyn Encoder {
        &*self.encoder
    }

    /// The linear layer that gives the logits.
    pub fn classifier(&self) -> &Linear {
        &self.classifier
    }

    /// `[rows, outputs]`, or `[tokens, outputs]` where the head reads tokens: one row's after the other's.
    pub fn logits(&self, forward: &Forward<'_>) -> Result<Var> {
        let read = self.encoder.head_input(forward)?;
        self.last(forward, &read, self.layout(forward))
    }

    /// Those of a batch that mixes adapters, for each that has rows in it, in the order of [`Mixture::rows`]: each has a head
    /// of its own, and so may have another number of outputs.
    ///
    /// [`Mixture::rows`]: retune_model::Mixture::rows
    pub fn logits_of_each(&self, forward: &Forward<'_>) -> Result<Vec<Var>> {
        let read = self.encoder.head_input(forward)?;
        forward.each(&[&read], self.layout(forward), |_, forward, inputs, layout| {
            self.last(forward, &inputs[0], layout)
        })
    }

    /// How what the last layer reads is laid out.
    fn layout<'a>(&self, forward: &Forward<'a>) -> &'a Arc<Layout> {
        let batch = forward.batch;
        if self.encoder.head().kind.reads_tokens() { &batch.layout } else { &batch.pooled }
    }

    fn last(&self, forward: &Forward<'_>, read: &Var, layout: &Arc<Layout>) -> Result<Var> {
        let dropout = forward.dropout(&self.classifier.name, self.dropout);
        let read = ops::dropout(forward.tape, read, layout, dropout)?;
        self.classifier.forward(forward, &read, layout, Activation::Identity)
    }
}
