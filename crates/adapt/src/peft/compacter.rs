//! Compacter (Mahabadi et al. 2021, eq. 6): adapters where Houlsby's are, whose weights are sums of Kronecker products
//! `sum over i of A_i (x) (s_i t_i)`, with the small `A_i` shared by all of them. `compacter` in the `adapters` library.

use super::bottleneck::{self, Design, Layers, Settings};
use super::{AdapterFiles, Applied, Method, Model, houlsby};
use crate::{AdaptError, Kind, OptionSpec, Options};

/// The method.
pub(super) struct Compacter;

const DESIGN: Design = Design { layers: Layers::Hypercomplex { dim: 4, rank: 1 }, ..houlsby::DESIGN };

impl Method for Compacter {
    fn name(&self) -> &'static str {
        "compacter"
    }
    fn summary(&self) -> &'static str {
        "adapters where houlsby's are, made of Kronecker products that share a rule, and the classifier"
    }
    fn when(&self) -> &'static str {
        "the file must be tiny: a few hundred numbers a block"
    }
    fn paper(&self) -> &'static str {
        "Mahabadi et al. 2021, Compacter"
    }
    fn options(&self) -> &'static [OptionSpec] {
        const SHARED: [OptionSpec; 4] = bottleneck::options(["32", "gelu", "1"]);
        const OPTIONS: [OptionSpec; 6] = [
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
        &OPTIONS
    }
    fn learning_rate(&self) -> f64 {
        3e-3
    }
    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let settings: Settings = options.parse(self.name(), self.options())?;
        bottleneck::apply(model, DESIGN, &settings, (32.0, "gelu"))
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
