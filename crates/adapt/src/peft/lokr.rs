//! LoKr (Edalati et al. 2022, KronA; Yeh et al. 2023, LyCORIS): `W' = W + s W1 ⊗ W2`, a Kronecker product, `W2` of low
//! rank where it is large; `s = alpha / rank`. `W1` starts at 0, so the model starts unchanged. Files are those of
//! `peft`.

use retune_model::Init;
use retune_model::layers::Linear;
use retune_tensor::{ParamId, Parameters, Result as TensorResult, Tape, Tensor, Var, ops};
use serde::Deserialize;
use serde_json::json;

use super::adapter::whole;
use super::files::{AdapterFiles, part};
use super::pattern::Pattern;
use super::weight::{Reweight, Reweighted};
use super::{Adapter, Applied, Method, Model, ranges, sites};
use crate::{AdaptError, Kind, OptionSpec, Options};

/// Each factor is one tensor or a product of two: the ends of their names.
const FACTORS: [[&str; 3]; 2] =
    [["lokr_w1", "lokr_w1_a", "lokr_w1_b"], ["lokr_w2", "lokr_w2_a", "lokr_w2_b"]];

/// The method.
pub(super) struct LoKr;

/// What can be set. Names as in `peft`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LoKrConfig {
    /// The rank of what is a product.
    pub rank: usize,
    /// What is added is scaled by `alpha / rank`.
    pub alpha: f64,
    /// The first factor's sizes; as near to square as can be where it is 0.
    pub decompose_factor: usize,
    /// Whether the first factor is a product too, where it is large.
    pub decompose_both: bool,
    /// Which linear layers. All of the encoder's where none is named.
    pub target_modules: Vec<String>,
}

impl Default for LoKrConfig {
    fn default() -> Self {
        LoKrConfig {
            rank: 8,
            alpha: 16.0,
            decompose_factor: 0,
            decompose_both: false,
            target_modules: Vec::new(),
        }
    }
}

impl Method for LoKr {
    fn name(&self) -> &'static str {
        "lokr"
    }
    fn summary(&self) -> &'static str {
        "Kronecker products added to the linear layers, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "an adapter smaller than LoRA's whose change is of full rank; it is slow to train"
    }
    fn paper(&self) -> &'static str {
        "Edalati et al. 2022, KronA; Yeh et al. 2023, LyCORIS"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[
            OptionSpec { name: "rank", kind: Kind::Integer, default: "8", help: "rank of what is a product" },
            OptionSpec {
                name: "alpha",
                kind: Kind::Number,
                default: "16",
                help: "what is added is scaled by alpha / rank",
            },
            OptionSpec {
                name: "decompose-factor",
                kind: Kind::Integer,
                default: "0",
                help: "sizes of the first factor; 0: as near to square as can be",
            },
            OptionSpec {
                name: "decompose-both",
                kind: Kind::Flag,
                default: "false",
                help: "whether the first factor is of low rank too, where it is large",
            },
            ranges::TARGET_MODULES,
        ]
    }
    fn learning_rate(&self) -> f64 {
        5e-3
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: LoKrConfig = options.parse(self.name(), self.options())?;
        ranges::rank("rank", config.rank)?;
        ranges::positive("alpha", config.alpha)?;
        let targets = sites::targets(model, &config.target_modules)?;
        let told = sites::told_targets(model, &targets, &config.target_modules);
        let (scale, mut adapter) = ((config.alpha / config.rank as f64) as f32, Adapter::new());
        for site in targets {
            let (out, width) = (
                factorised(site.out_features, config.decompose_factor),
                factorised(site.in_features, config.decompose_factor),
            );
            let low = |left: usize, right: usize| 2 * config.rank < left.max(right);
            let [first, second] = [[out[0], width[0]], [out[1], width[1]]];
            let first_low = config.decompose_both && low(first[0], first[1]);
            let mut factors = Vec::new();
            for (index, [rows, columns], is_low) in
                [(0, first, first_low), (1, second, low(second[0], second[1]))]
            {
                let [whole, a, b] = FACTORS[index];
                let parts = if is_low {
                    vec![(a, [rows, config.rank]), (b, [config.rank, columns])]
                } else {
                    vec![(whole, [rows, columns])]
                };
                let mut ids = Vec::new();
                for (end, shape) in parts {
                    // As `peft` draws them: Kaiming uniform with a = sqrt(5), and the first tensor 0.
                    let zero = index == 0 && ids.is_empty();
                    let bound = Init::Uniform(1.0 / (shape[1] as f64).sqrt());
                    let init = if zero { Init::Zeros } else { bound };
                    let name = part(&site.name, end);
                    let tensor = init.draw(model.device(), &shape, model.seed, &name)?;
                    ids.push(adapter.add(model, name, tensor)?);
                }
                factors.push(Factor::of(&ids));
            }
            place(model, &site, &factors, scale);
        }
        let factor = if config.decompose_factor == 0 { -1 } else { config.decompose_factor as i64 };
        let fields = json!({
            "peft_type": "LOKR",
            "r": config.rank,
            "alpha": whole(config.alpha),
            "target_modules": told,
            "decompose_both": config.decompose_both,
            "decompose_factor": factor,
            "rank_dropout": 0.0,
            "rank_dropout_scale": false,
            "module_dropout": 0.0,
            "use_effective_conv2d": false,
            "inference_mode": true,
            "init_weights": true,
        });
        Ok(Applied::Adapter(adapter.with_head(model, &fields)))
    }

    fn group<'n>(&self, name: &'n str) -> &'n str {
        sites::group(name, ".lokr_")
    }

    fn merges(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is("LOKR")
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        let number = |key: &str| files.number(key)?.ok_or_else(|| files.error(format!("`{key}` is missing")));
        let alpha = Pattern::read(files, "alpha_pattern", number("alpha")?)?;
        let rank = Pattern::read(files, "rank_pattern", number("r")?)?;
        let (mut adapter, mut adapted) = (Adapter::new(), Vec::new());
        let here = |name: &str, [whole, a, _]: [&str; 3]| {
            [whole, a].iter().any(|end| files.shape(&part(name, end)).is_some())
        };
        let sites: Vec<Linear> = model.all_linears().into_iter().cloned().collect();
        for site in sites.into_iter().filter(|site| FACTORS.iter().any(|ends| here(&site.name, *ends))) {
            let mut factors = Vec::new();
            // The sizes of the first are free, and those of the second follow.
            let mut rest = [site.out_features, site.in_features];
            for [whole, a, b] in FACTORS {
                let size = |end, dimension| files.size(&part(&site.name, end), dimension);
                let is_low = files.shape(&part(&site.name, whole)).is_none();
                let [rows, columns] = match (factors.is_empty(), is_low) {
                    (true, true) => [size(a, 0), size(b, 1)],
                    (true, false) => [size(whole, 0), size(whole, 1)],
                    (false, _) => rest,
                };
                rest = [rest[0] / rows, rest[1] / columns];
                let inner = size(a, 1);
                let parts = if is_low {
                    vec![(a, [rows, inner]), (b, [inner, columns])]
                } else {
                    vec![(whole, [rows, columns])]
                };
                let mut ids = Vec::new();
                for (end, shape) in parts {
                    let name = part(&site.name, end);
                    let tensor = files.take(&name, &shape, model.device())?;
                    ids.push(adapter.add(model, name, tensor)?);
                }
                factors.push(Factor::of(&ids));
            }
            place(model, &site, &factors, (alpha.of(&site.name) / rank.of(&site.name)) as f32);
            adapted.push(site.name);
        }
        if adapted.is_empty() {
            return Err(files.no_site());
        }
        let adapter = adapter.with_saved_head(model, files)?;
        alpha.check(files, &adapted)?;
        Ok(Applied::Adapter(adapter))
    }
}

/// Two factors of `size`, the first at most the second and at most `most` (none where it is 0); `most` itself where that
/// divides. As LyCORIS chooses them.
fn factorised(size: usize, most: usize) -> [usize; 2] {
    if most > 0 && size.is_multiple_of(most) {
        return [most, size / most];
    }
    let most = if most == 0 { size } else { most };
    let mut best = [1, size];
    for first in 2..=most {
        let second = size / first;
        if size.is_multiple_of(first) && first + second <= best[0] + best[1] {
            best = [first.min(second), first.max(second)];
        }
        if first >= second {
            break;
        }
    }
    best
}

#[derive(Debug, Clone, Copy)]
enum Factor {
    Whole(ParamId),
    Product(ParamId, ParamId),
    None,
}

impl Factor {
    fn of(ids: &[ParamId]) -> Self {
        match *ids {
            [whole] => Factor::Whole(whole),
            [a, b] => Factor::Product(a, b),
            _ => Factor::None,
        }
    }

    fn var(self, tape: &Tape, parameters: &Parameters) -> TensorResult<Var> {
        let var = |id| tape.parameter(parameters, id);
        match self {
            Factor::Whole(id) => Ok(var(id)),
            Factor::Product(a, b) => ops::product(tape, &var(a), &var(b)),
            Factor::None => Ok(Var::constant(Tensor::zeros(retune_tensor::Device::Cpu, &[0])?)),
        }
    }
}

fn place(model: &mut Model<'_>, site: &Linear, factors: &[Factor], scale: f32) {
    if let [first, second] = *factors {
        model
            .hooks
            .at_linear(&site.name, Box::new(Reweighted(Kronecker { factors: [first, second], scale })));
    }
}

struct Kronecker {
    factors: [Factor; 2],
    scale: f32,
}

impl Reweight for Kronecker {
    fn weight(&self, tape: &Tape, parameters: &Parameters, base: &Linear) -> TensorResult<Var> {
        let [first, second] = self.factors;
        let factors = [&first.var(tape, parameters)?, &second.var(tape, parameters)?];
        ops::kronecker(tape, &base.matrix(tape, parameters)?, factors, self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::factorised;

    #[test]
    fn factors_are_those_of_lycoris() {
        // The examples of peft's own documentation, and odd ones counted by hand.
        for (size, most, expected) in [
            (256, 0, [16, 16]),
            (128, 0, [8, 16]),
            (127, 0, [1, 127]),
            (128, 4, [4, 32]),
            (20, 0, [4, 5]),
            (37, 4, [1, 37]),
            (1, 0, [1, 1]),
            (384, 5, [4, 96]),
        ] {
            assert_eq!(factorised(size, most), expected, "{size} {most}");
        }
    }
}
