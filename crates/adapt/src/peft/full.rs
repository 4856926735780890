use super::{Applied, Method, Model};
use crate::{AdaptError, Options};

/// Every parameter is trained.
pub(super) struct Full;

impl Method for Full {
    fn name(&self) -> &'static str {
        "full"
    }
    fn summary(&self) -> &'static str {
        "every parameter"
    }
    fn when(&self) -> &'static str {
        "the model is small, or quality comes before memory: 16 bytes a parameter while training"
    }
    fn paper(&self) -> &'static str {
        "Devlin et al. 2018, BERT"
    }
    fn learning_rate(&self) -> f64 {
        1e-4
    }
    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        options.parse::<super::NoOptions>(self.name(), self.options())?;
        model.parameters.iter_mut().for_each(|(_, parameter)| parameter.trainable = true);
        Ok(Applied::Model)
    }
}
