//! Houlsby et al. 2019, figure 2: an adapter behind attention and one behind the feed-forward layers of each block, before
//! the residual is added: `h + up(f(down(h)))`. `double_seq_bn` in the `adapters` library.

use super::bottleneck::{self, Design, Layers, Residual, Settings};
use super::{AdapterFiles, Applied, Method, Model};
use crate::{AdaptError, OptionSpec, Options};

/// The method.
pub(super) struct Houlsby;

pub(super) const DESIGN: Design = Design {
    attention: true,
    feed_forward: true,
    parallel: false,
    behind_norm: false,
    residual: Residual::Made,
    norm_after: None,
    scaling: 1.0,
    dropout: 0.0,
    layers: Layers::Bert,
};

impl Method for Houlsby {
    fn name(&self) -> &'static str {
        "houlsby"
    }
    fn summary(&self) -> &'static str {
        "small layers behind attention and behind the feed-forward layers of each block, and the classifier"
    }
    fn when(&self) -> &'static str {
        "many tasks on one base, each in a small file; a little slower at inference, as nothing merges"
    }
    fn paper(&self) -> &'static str {
        "Houlsby et al. 2019, Parameter-efficient transfer learning for NLP"
    }
    fn options(&self) -> &'static [OptionSpec] {
        const OPTIONS: [OptionSpec; 4] = bottleneck::options(["16", "swish", "1"]);
        &OPTIONS
    }
    fn learning_rate(&self) -> f64 {
        1e-3
    }
    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let settings: Settings = options.parse(self.name(), self.options())?;
        bottleneck::apply(model, DESIGN, &settings, (16.0, "swish"))
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
