//! Compacter (Mahabadi et al. 2021, eq. 6): adapters where Houlsby's are, whose weights are sums of Kronecker products
//! `sum over i of A_i (x) (s_i t_i)`, with the small `A_i` shared by all of them. `compacter` in the `adapters` library.

use super::bottleneck::{self, Adapters, Design, Layers};
use super::houlsby;
use crate::{Kind, OptionSpec};

const SHARED: [OptionSpec; 4] = bottleneck::options(["32", "gelu", "1"]);
static OPTIONS: [OptionSpec; 6] = [
    SHARED[0],
    SHARED[1],
    SHARED[2],
    SHARED[3],
    OptionSpec {
        name: "phm-dim",
        kind: Kind::Integer,
        default: "4",
        help: "how many products are added; the widths must be multiples of it",
    },
    OptionSpec {
        name: "phm-rank",
        kind: Kind::Integer,
        default: "1",
        help: "rank of the products' own factors",
    },
];

/// The method.
pub(super) static METHOD: Adapters = Adapters {
    name: "compacter",
    summary: "adapters where houlsby's are, made of Kronecker products that share a rule, and the task's own head",
    when: "the file must be tiny: a few hundred numbers a block",
    paper: "Mahabadi et al. 2021, Compacter",
    options: &OPTIONS,
    learning_rate: 3e-3,
    design: Design { layers: Layers::Hypercomplex { dim: 4, rank: 1 }, ..houlsby::DESIGN },
    defaults: (32.0, "gelu"),
};
