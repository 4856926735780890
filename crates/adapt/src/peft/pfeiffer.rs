//! Pfeiffer et al. 2020 (AdapterFusion, figure 3): one adapter a block, behind the feed-forward layers. It reads the normed
//! sum, and its residual is taken before: `norm(h + up(f(down(norm(h + x)))) + x)`. `seq_bn` in the `adapters` library.

use super::bottleneck::{self, Design, Settings};
use super::{AdapterFiles, Applied, Method, Model, houlsby};
use crate::{AdaptError, OptionSpec, Options};

/// The method.
pub(super) struct Pfeiffer;

const DESIGN: Design = Design { attention: false, behind_norm: true, ..houlsby::DESIGN };

impl Method for Pfeiffer {
    fn name(&self) -> &'static str {
        "pfeiffer"
    }
    fn summary(&self) -> &'static str {
        "small layers behind the feed-forward layers of each block, and the classifier"
    }
    fn when(&self) -> &'static str {
        "as houlsby, at half of its parameters and time"
    }
    fn paper(&self) -> &'static str {
        "Pfeiffer et al. 2020, AdapterFusion"
    }
    fn options(&self) -> &'static [OptionSpec] {
        const OPTIONS: [OptionSpec; 4] = bottleneck::options(["16", "relu", "1"]);
        &OPTIONS
    }
    fn learning_rate(&self) -> f64 {
        1e-3
    }
    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let settings: Settings = options.parse(self.name(), self.options())?;
        bottleneck::apply(model, DESIGN, &settings, (16.0, "relu"))
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
