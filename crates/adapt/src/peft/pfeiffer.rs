//! Pfeiffer et al. 2020 (AdapterFusion, figure 3): one adapter a block, behind the feed-forward layers. It reads the normed
//! sum, and its residual is taken before: `norm(h + up(f(down(norm(h + x)))) + x)`. `seq_bn` in the `adapters` library.

use super::bottleneck::{self, Adapters, Design};
use super::houlsby;
use crate::OptionSpec;

static OPTIONS: [OptionSpec; 4] = bottleneck::options(["16", "relu", "1"]);

/// The method.
pub(super) static METHOD: Adapters = Adapters {
    name: "pfeiffer",
    summary: "small layers behind the feed-forward layers of each block, and the task's own head",
    when: "as houlsby, at half of its parameters and time",
    paper: "Pfeiffer et al. 2020, AdapterFusion",
    options: &OPTIONS,
    learning_rate: 1e-3,
    design: Design { attention: false, behind_norm: true, ..houlsby::DESIGN },
    defaults: (16.0, "relu"),
};
