//! One text, one of several classes: a linear layer over the pooled hidden state, as transformers builds it.

use retune_data::{LabelMap, Tokens};
use retune_metrics::ConfusionMatrix;
use retune_model::families::Encoder;
use retune_model::layers::Linear;
use retune_model::{Checkpoint, Forward, Init, ModelError};
use retune_tensor::backend::Activation;
use retune_tensor::{Result, Var, ops};

use super::Task;

pub(super) const TASK: Task = Task {
    name: "text-classification",
    summary: "one of several classes for each text: intents, topics, sentiment",
    metric: "accuracy",
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
        let dropout = forward.dropout(&self.classifier.name, self.dropout);
        let pooled = ops::dropout(forward.tape, &pooled, &forward.batch.pooled, dropout)?;
        self.classifier.forward(forward, &pooled, &forward.batch.pooled, Activation::Identity)
    }
}

/// Rows with their classes.
#[derive(Debug, Clone, Default)]
pub struct ClassifierRows {
    /// The texts.
    pub tokens: Tokens,
    /// The class of each.
    pub targets: Vec<u32>,
}

impl ClassifierRows {
    /// The classes of `rows`.
    pub fn targets(&self, rows: &[usize]) -> Vec<u32> {
        rows.iter().map(|row| self.targets[*row]).collect()
    }
}

/// What was predicted for one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Classified {
    /// The most probable class; the first of several equal ones.
    pub class: usize,
    /// Its probability.
    pub score: f32,
    /// One a class.
    pub logits: Vec<f32>,
}

impl Classified {
    /// One prediction a row of `logits` `[rows, classes]`.
    pub fn decode(logits: &[f32], classes: usize) -> impl Iterator<Item = Classified> {
        logits.chunks_exact(classes.max(1)).map(|logits| {
            let mut class = 0;
            for (index, logit) in logits.iter().enumerate() {
                if *logit > logits[class] {
                    class = index;
                }
            }
            let total: f64 = logits.iter().map(|logit| f64::from(logit - logits[class]).exp()).sum();
            Classified { class, score: (1.0 / total) as f32, logits: logits.to_vec() }
        })
    }
}

/// What an evaluation adds up, a batch at a time: the logits are never kept.
#[derive(Debug, Clone)]
pub struct ClassificationScore {
    /// Counts of right and predicted class.
    pub matrix: ConfusionMatrix,
    loss: f64,
}

impl ClassificationScore {
    /// Nothing counted yet.
    pub fn new(labels: &LabelMap) -> Self {
        ClassificationScore { matrix: ConfusionMatrix::new(labels.len()), loss: 0.0 }
    }

    /// Counts a batch.
    pub fn add(&mut self, logits: &[f32], targets: &[u32], classes: usize) {
        for (target, row) in targets.iter().zip(Classified::decode(logits, classes)) {
            let target = *target as usize;
            let largest = f64::from(row.logits[row.class]);
            let lse = largest - f64::from(row.score).ln();
            self.loss += lse - row.logits.get(target).map_or(f64::NAN, |logit| f64::from(*logit));
            // Both are classes of the labels: the targets were encoded by them, and the head has one logit for each.
            let counted = self.matrix.record(target, row.class);
            debug_assert!(counted.is_ok(), "{counted:?}");
        }
    }

    /// The mean cross-entropy.
    pub fn loss(&self) -> f64 {
        self.loss / (self.matrix.rows() as f64).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_decoded_as_softmax_says() {
        let rows: Vec<_> = Classified::decode(&[0.0, 2.0, 1.0, 3.0, 3.0, -1.0], 3).collect();
        assert_eq!((rows[0].class, rows[1].class), (1, 0));
        let expected = 2.0f64.exp() / (1.0 + 2.0f64.exp() + 1.0f64.exp());
        assert!((f64::from(rows[0].score) - expected).abs() < 1e-6);
    }

    #[test]
    fn the_loss_is_the_mean_cross_entropy() {
        let labels = LabelMap::new(vec!["a".into(), "b".into()]).unwrap();
        let mut score = ClassificationScore::new(&labels);
        score.add(&[1.0, 3.0, 2.0, -1.0], &[0, 0], 2);
        let expected = (f64::ln_1p(2.0f64.exp()) + f64::ln_1p((-3.0f64).exp())) / 2.0;
        assert!((score.loss() - expected).abs() < 1e-6, "{} {expected}", score.loss());
        assert!((score.matrix.accuracy() - 0.5).abs() < 1e-12);
    }
}
