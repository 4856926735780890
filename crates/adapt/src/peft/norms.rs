use super::selection::is_norm;
use super::{Applied, Method, Model};
use crate::{AdaptError, Options};

/// Every norm is trained, with the head and the pooling under it.
pub(super) struct Norms;

impl Method for Norms {
    fn name(&self) -> &'static str {
        "norms"
    }
    fn summary(&self) -> &'static str {
        "weights and biases of every norm, the task's own head and the pooler"
    }
    fn when(&self) -> &'static str {
        "the fewest parameters inside the model; also beside another method, by --train-also norms"
    }
    fn paper(&self) -> &'static str {
        "Qi et al. 2022, Parameter-efficient tuning on layer normalization for pre-trained language models"
    }
    fn learning_rate(&self) -> f64 {
        3e-3
    }
    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        options.parse::<super::NoOptions>(self.name(), self.options())?;
        model.train_head();
        model.train_pooler();
        let norms = model.parameters.iter_mut().filter(|(_, parameter)| is_norm(&parameter.name));
        norms.for_each(|(_, parameter)| parameter.trainable = true);
        Ok(Applied::Model)
    }
}
