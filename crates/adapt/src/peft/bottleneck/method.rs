use super::{Design, Settings, apply, group, kind, load};
use crate::peft::{AdapterFiles, Applied, Method, Model};
use crate::{AdaptError, OptionSpec, Options};

/// A method that is a design of adapters: what tells one from another.
pub(in super::super) struct Adapters {
    pub name: &'static str,
    pub summary: &'static str,
    pub when: &'static str,
    pub paper: &'static str,
    pub options: &'static [OptionSpec],
    pub learning_rate: f64,
    pub design: Design,
    /// Reduction factor and function in between.
    pub defaults: (f64, &'static str),
}

impl Method for Adapters {
    fn name(&self) -> &'static str {
        self.name
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
    fn when(&self) -> &'static str {
        self.when
    }
    fn paper(&self) -> &'static str {
        self.paper
    }
    fn options(&self) -> &'static [OptionSpec] {
        self.options
    }
    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }
    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let settings: Settings = options.parse(self.name, self.options)?;
        apply(model, self.design, &settings, self.defaults)
    }
    fn group<'n>(&self, name: &'n str) -> &'n str {
        group(name)
    }
    fn merges(&self) -> Result<(), &'static str> {
        Err("there is a function between its layers, and no weight of the base computes one")
    }
    fn reads(&self, files: &AdapterFiles) -> bool {
        kind(files) == Some(self.name)
    }
    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        load(model, files)
    }
}
