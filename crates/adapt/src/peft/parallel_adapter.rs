//! He et al. 2021 (Towards a unified view, table 1): an adapter beside the feed-forward layers of each block, which reads
//! what they read, scaled: `h + s up(f(down(x)))`. `par_bn` in the `adapters` library. `up` starts at 0, so the model starts
//! unchanged.

use super::bottleneck::{self, Design, Layers, Settings};
use super::{AdapterFiles, Applied, Method, Model, houlsby};
use crate::{AdaptError, OptionSpec, Options};

/// The method.
pub(super) struct ParallelAdapter;

const DESIGN: Design =
    Design { attention: false, parallel: true, scaling: 4.0, layers: Layers::MixAndMatch, ..houlsby::DESIGN };

impl Method for ParallelAdapter {
    fn name(&self) -> &'static str {
        "parallel-adapter"
    }
    fn summary(&self) -> &'static str {
        "layers beside the feed-forward layers of each block, scaled, and the classifier"
    }
    fn when(&self) -> &'static str {
        "more is to be learnt than fits a small adapter: half of the model's width, near full fine-tuning in quality"
    }
    fn paper(&self) -> &'static str {
        "He et al. 2021, Towards a unified view of parameter-efficient transfer learning"
    }
    fn options(&self) -> &'static [OptionSpec] {
        const OPTIONS: [OptionSpec; 4] = bottleneck::options(["2", "relu", "4"]);
        &OPTIONS
    }
    fn learning_rate(&self) -> f64 {
        5e-4
    }
    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let settings: Settings = options.parse(self.name(), self.options())?;
        bottleneck::apply(model, DESIGN, &settings, (2.0, "relu"))
    }
    fn group<'n>(&self, name: &'n str) -> &'n str {
        bottleneck::group(name)
    }
    fn reads(&self, files: &AdapterFiles) -> bool {
        bottleneck::kind(files) == Some(self.name())
    }
    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        bottleneck::load(model, files)
    }
}
