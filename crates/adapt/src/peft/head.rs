use super::{Applied, Method, Model};
use crate::{AdaptError, Options};

/// The head and the pooling under it are trained; the encoder stays as it is.
pub(super) struct Head;

impl Method for Head {
    fn name(&self) -> &'static str {
        "head"
    }
    fn summary(&self) -> &'static str {
        "the task's own head and the pooler; the vocabulary projection of a language model"
    }
    fn when(&self) -> &'static str {
        "a first look, or very few rows: the fastest, and the floor that every other method should beat"
    }
    fn paper(&self) -> &'static str {
        "Peters et al. 2019, To tune or not to tune?"
    }
    fn learning_rate(&self) -> f64 {
        3e-3
    }
    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        options.parse::<super::NoOptions>(self.name(), self.options())?;
        model.train_head();
        model.train_pooler();
        if model.keeps_head() {
            model.classifier.parameters().for_each(|id| model.train(id));
        }
        Ok(Applied::Model)
    }
}
