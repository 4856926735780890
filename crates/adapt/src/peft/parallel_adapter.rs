//! He et al. 2021 (Towards a unified view, table 1): an adapter beside the feed-forward layers of each block, which reads
//! what they read, scaled: `h + s up(f(down(x)))`. `par_bn` in the `adapters` library. `up` starts at 0, so the model starts
//! unchanged.

use super::bottleneck::{self, Adapters, Design, Layers};
use super::houlsby;
use crate::OptionSpec;

static OPTIONS: [OptionSpec; 4] = bottleneck::options(["2", "relu", "4"]);

/// The method.
pub(super) static METHOD: Adapters = Adapters {
    name: "parallel-adapter",
    summary: "layers beside the feed-forward layers of each block, scaled, and the task's own head",
    when: "more is to be learnt than fits a small adapter: half of the model's width, near full fine-tuning in quality",
    paper: "He et al. 2021, Towards a unified view of parameter-efficient transfer learning",
    options: &OPTIONS,
    learning_rate: 5e-4,
    design: Design {
        attention: false,
        parallel: true,
        scaling: 4.0,
        layers: Layers::MixAndMatch,
        ..houlsby::DESIGN
    },
    defaults: (2.0, "relu"),
};
