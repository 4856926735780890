//! LoHa (Hyeon-Woo et al. 2021, FedPara): `W' = W + s (A1 B1) * (A2 B2)`, two low-rank products multiplied value by value,
//! of a rank up to `rank^2`; `s = alpha / rank`. `B2` starts at 0, so the model starts unchanged. Files are those of
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

/// `[out, rank]` and `[rank, in]`, twice.
const PARTS: [&str; 4] = ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"];

/// The method.
pub(super) struct LoHa;

/// What can be set. Names as in `peft`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LoHaConfig {
    /// The rank of each product.
    pub rank: usize,
    /// What is added is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Which linear layers. All of the encoder's where none is named.
    pub target_modules: Vec<String>,
}

impl Default for LoHaConfig {
    fn default() -> Self {
        LoHaConfig { rank: 8, alpha: 16.0, target_modules: Vec::new() }
    }
}

impl Method for LoHa {
    fn name(&self) -> &'static str {
        "loha"
    }
    fn summary(&self) -> &'static str {
        "products of two low-rank matrices, value by value, added to the linear layers, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "a low rank is too little and the adapter must stay small; it is slow to train"
    }
    fn paper(&self) -> &'static str {
        "Hyeon-Woo et al. 2021, FedPara"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[
            OptionSpec { name: "rank", kind: Kind::Integer, default: "8", help: "rank of each product" },
            OptionSpec {
                name: "alpha",
                kind: Kind::Number,
                default: "16",
                help: "what is added is scaled by alpha / rank",
            },
            ranges::TARGET_MODULES,
        ]
    }
    fn learning_rate(&self) -> f64 {
        5e-3
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: LoHaConfig = options.parse(self.name(), self.options())?;
        ranges::rank("rank", config.rank)?;
        ranges::positive("alpha", config.alpha)?;
        let targets = sites::targets(model, &config.target_modules)?;
        let told = sites::told_targets(model, &targets, &config.target_modules);
        let mut adapter = Adapter::new();
        for site in targets {
            let mut tensors = Vec::new();
            for (end, shape) in PARTS.into_iter().zip(shapes(&site, config.rank)) {
                // As `peft` draws them: Kaiming uniform with a = sqrt(5).
                let bound = Init::Uniform(1.0 / (shape[1] as f64).sqrt());
                let init = if end == PARTS[3] { Init::Zeros } else { bound };
                tensors.push(init.draw(model.device(), &shape, model.seed, &part(&site.name, end))?);
            }
            place(model, &site, tensors, (config.alpha / config.rank as f64) as f32, &mut adapter)?;
        }
        let fields = json!({
            "peft_type": "LOHA",
            "r": config.rank,
            "alpha": whole(config.alpha),
            "target_modules": told,
            "rank_dropout": 0.0,
            "module_dropout": 0.0,
            "use_effective_conv2d": false,
            "inference_mode": true,
            "init_weights": true,
        });
        Ok(Applied::Adapter(adapter.with_head(model, &fields)))
    }

    fn group<'n>(&self, name: &'n str) -> &'n str {
        sites::group(name, ".hada_")
    }

    fn merges(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is("LOHA")
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        let alpha = files.number("alpha")?.ok_or_else(|| files.error("`alpha` is missing"))?;
        let alpha = Pattern::read(files, "alpha_pattern", alpha)?;
        let (mut adapter, mut adapted) = (Adapter::new(), Vec::new());
        for site in files.sites(model, PARTS[0], &PARTS[1..])? {
            let rank = files.size(&part(&site.name, PARTS[0]), 1);
            let mut tensors = Vec::new();
            for (end, shape) in PARTS.into_iter().zip(shapes(&site, rank)) {
                tensors.push(files.take(&part(&site.name, end), &shape, model.device())?);
            }
            place(model, &site, tensors, (alpha.of(&site.name) / rank as f64) as f32, &mut adapter)?;
            adapted.push(site.name);
        }
        let adapter = adapter.with_saved_head(model, files)?;
        alpha.check(files, &adapted)?;
        Ok(Applied::Adapter(adapter))
    }
}

fn shapes(site: &Linear, rank: usize) -> [[usize; 2]; 4] {
    let (left, right) = ([site.out_features, rank], [rank, site.in_features]);
    [left, right, left, right]
}

fn place(
    model: &mut Model<'_>,
    site: &Linear,
    tensors: Vec<Tensor>,
    scale: f32,
    adapter: &mut Adapter,
) -> Result<(), AdaptError> {
    let mut ids = Vec::new();
    for (end, tensor) in PARTS.into_iter().zip(tensors) {
        ids.push(adapter.add(model, part(&site.name, end), tensor)?);
    }
    if let [a1, b1, a2, b2] = ids[..] {
        let hook = Products { products: [[a1, b1], [a2, b2]], scale };
        model.hooks.at_linear(&site.name, Box::new(Reweighted(hook)));
    }
    Ok(())
}

struct Products {
    products: [[ParamId; 2]; 2],
    scale: f32,
}

impl Reweight for Products {
    fn weight(&self, tape: &Tape, parameters: &Parameters, base: &Linear) -> TensorResult<Var> {
        let var = |id| tape.parameter(parameters, id);
        let [[a1, b1], [a2, b2]] = self.products.map(|pair| pair.map(var));
        let products = [[&a1, &b1], [&a2, &b2]];
        let weight = &base.matrix(tape, parameters)?;
        ops::hadamard(tape, ops::Hadamard { weight, products, scale: self.scale })
    }
}
