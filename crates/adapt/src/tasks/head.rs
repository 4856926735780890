//! A pretrained model with what a task puts on top of it: the last layer of its head, as transformers builds it.

use std::sync::Arc;

use retune_model::families::Encoder;
use retune_model::layers::Linear;
use retune_model::{Batch, Checkpoint, Forward, Init, ModelError};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{Error, Result, Tape, Tensor, Var, ops};

/// A pretrained model with a head.
pub struct EncoderWithHead {
    encoder: Box<dyn Encoder>,
    classifier: Linear,
    dropout: f32,
}

impl EncoderWithHead {
    /// Puts the last layer of a head, of so many `outputs`, on an encoder that was built for this kind of head.
    /// `keep_head` takes the checkpoint's own, which is right only if it was trained for the same labels in the same
    /// order; else, or where there is none, it is drawn anew and is then among the checkpoint's fresh tensors. A language
    /// model's is always its own.
    pub fn build(
        encoder: Box<dyn Encoder>,
        checkpoint: &mut Checkpoint,
        keep_head: bool,
        outputs: usize,
    ) -> std::result::Result<Self, ModelError> {
        let hidden = encoder.hidden_size();
        let defaults = encoder.head();
        let init = Init::Normal(defaults.initializer_range);
        let make = if keep_head { Linear::load_or_init_with } else { Linear::init_with };
        let classifier = match defaults.vocabulary {
            Some(vocabulary) => Linear::vocabulary(checkpoint, defaults.name, hidden, vocabulary)?,
            None => make(checkpoint, defaults.name, hidden, outputs, init, defaults.bias)?,
        };
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

    /// A pass as far as the head's last layer.
    pub fn output<'a>(&'a self, forward: &Forward<'a>) -> Result<HeadOutput<'a>> {
        let read = self.encoder.head_input(forward)?;
        let Forward { tape, batch, .. } = *forward;
        Ok(HeadOutput { tape, batch, from: From::Read { network: self, forward: *forward, read } })
    }

    /// `[rows, outputs]`, or `[tokens, outputs]` where the head reads tokens: one row's after the other's.
    pub fn logits(&self, forward: &Forward<'_>) -> Result<Var> {
        self.output(forward)?.logits()
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

/// What the last layer of a head reads of a batch. A task asks for the logits, or for what it needs of them where all would
/// be too many.
pub struct HeadOutput<'a> {
    tape: &'a Tape,
    batch: &'a Batch,
    from: From<'a>,
}

enum From<'a> {
    Read { network: &'a EncoderWithHead, forward: Forward<'a>, read: Var },
    Logits(Var),
}

impl<'a> HeadOutput<'a> {
    /// Logits that are known already, of a batch.
    pub fn of_logits(tape: &'a Tape, batch: &'a Batch, logits: Var) -> Self {
        HeadOutput { tape, batch, from: From::Logits(logits) }
    }

    /// What records.
    pub fn tape(&self) -> &'a Tape {
        self.tape
    }

    /// The rows.
    pub fn batch(&self) -> &'a Batch {
        self.batch
    }

    /// As [`EncoderWithHead::logits`] gives them.
    pub fn logits(&self) -> Result<Var> {
        match &self.from {
            From::Logits(logits) => Ok(logits.clone()),
            From::Read { network, forward, read } => network.last(forward, read, network.layout(forward)),
        }
    }

    /// The logits of the last token of each row alone, in f32: `[rows, outputs]`. Errors where a head reads no tokens, or only
    /// logits are known.
    pub fn logits_of_last(&self) -> Result<Tensor> {
        let batch = self.batch;
        let ends = batch.layout.cu_seqlens().windows(2);
        let last: Vec<usize> = ends.map(|ends| ends[1].saturating_sub(1)).collect();
        match &self.from {
            From::Read { network, forward, read } if network.encoder.head().kind.reads_tokens() => {
                let read = forward.for_head(&ops::select_rows(self.tape, read, &last)?)?;
                Ok(network.last(forward, &read, &batch.pooled)?.value().clone())
            }
            _ => Err(Error::Shape {
                op: "logits_of_last",
                expected: "hidden states of tokens".into(),
                got: "something else".into(),
            }),
        }
    }

    /// The cross-entropy of `targets`, each told by one of `tokens`, numbers among all of the batch: a scalar, the sum
    /// divided by `denominator`. The logits of all never exist.
    pub fn vocabulary_loss(&self, tokens: &[usize], targets: &[u32], denominator: f32) -> Result<Var> {
        match &self.from {
            From::Read { network, forward, read } => {
                let read = ops::select_rows(self.tape, read, tokens)?;
                let weight = &forward.parameter(network.classifier.weight);
                ops::vocabulary_cross_entropy(self.tape, &read, weight, targets, denominator)
            }
            From::Logits(logits) => {
                let logits = ops::select_rows(self.tape, logits, tokens)?;
                let options =
                    ops::CrossEntropyOptions { class_weights: None, label_smoothing: 0.0, denominator };
                ops::cross_entropy(self.tape, &logits, targets, options)
            }
        }
    }

    /// The same of each by itself: `[tokens.len()]`. Errors where only logits are known.
    pub fn vocabulary_losses(&self, tokens: &[usize], targets: &[u32]) -> Result<Tensor> {
        let From::Read { network, forward, read } = &self.from else {
            return Err(Error::Shape {
                op: "vocabulary_losses",
                expected: "hidden states".into(),
                got: "logits".into(),
            });
        };
        let read = ops::select_rows(self.tape, read, tokens)?;
        ops::vocabulary_losses(
            read.value(),
            &forward.parameters.get(network.classifier.weight).value,
            targets,
        )
    }
}
