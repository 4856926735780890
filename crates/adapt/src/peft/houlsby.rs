//! Houlsby et al. 2019, figure 2: an adapter behind attention and one behind the feed-forward layers of each block, before
//! the residual is added: `h + up(f(down(h)))`. `double_seq_bn` in the `adapters` library.

use super::bottleneck::{self, Adapters, Design, Layers, Residual};
use crate::OptionSpec;

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

static OPTIONS: [OptionSpec; 4] = bottleneck::options(["16", "swish", "1"]);

/// The method.
pub(super) static METHOD: Adapters = Adapters {
    name: "houlsby",
    summary: "small layers behind attention and behind the feed-forward layers of each block, and the task's own head",
    when: "many tasks on one base, each in a small file; a little slower at inference, as nothing merges",
    paper: "Houlsby et al. 2019, Parameter-efficient transfer learning for NLP",
    options: &OPTIONS,
    learning_rate: 1e-3,
    design: DESIGN,
    defaults: (16.0, "swish"),
};
