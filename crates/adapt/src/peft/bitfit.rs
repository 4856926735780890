use super::{Applied, Method, Model};
use crate::{AdaptError, Options};

/// Every bias is trained, with the head and the pooling under it.
pub(super) struct BitFit;

impl Method for BitFit {
    fn name(&self) -> &'static str {
        "bitfit"
    }
    fn summary(&self) -> &'static str {
        "every bias, the task's own head and the pooler"
    }
    fn when(&self) -> &'static str {
        "few rows and a model that is nearly right: under one percent of the parameters"
    }
    fn paper(&self) -> &'static str {
        "Ben Zaken et al. 2021, BitFit"
    }
    fn learning_rate(&self) -> f64 {
        3e-3
    }
    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        options.parse::<super::NoOptions>(self.name(), self.options())?;
        model.train_head();
        model.train_pooler();
        let biases = model.parameters.iter_mut().filter(|(_, parameter)| parameter.name.ends_with(".bias"));
        biases.for_each(|(_, parameter)| parameter.trainable = true);
        Ok(Applied::Model)
    }
}
