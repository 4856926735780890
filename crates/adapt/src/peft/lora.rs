//! LoRA (Hu et al. 2021): beside a frozen weight, a branch of low rank: `W x + s B A x`, `s = alpha / rank`. `B` starts at
//! 0, so the model starts unchanged. Files are those of `peft`.
//!
//! rsLoRA (Kalajdzievski 2023) scales by `alpha / sqrt(rank)`. LoRA+ (Hayou et al. 2024) gives `B` a multiple of the
//! learning rate. PiSSA (Meng et al. 2024) starts from the largest singular values of `W`, which it takes out of `W`: see
//! `pissa`.

mod branch;
mod pissa;
mod saved;

use retune_model::layers::Linear;
use retune_model::{Hooks, Init};
use retune_tensor::{Parameters, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};

use super::adapter::whole;
use super::files::{AdapterFiles, part};
use super::{Adapter, AdapterFile, Applied, DuringTraining, Method, Model, ranges, sites};
use crate::{AdaptError, Kind, OptionSpec, Options, nearest};
pub(super) use branch::{Branch, dense};
pub(super) use saved::SavedConfig;

/// The ends of the names of a branch's tensors.
pub(super) const A: &str = "lora_A.weight";
pub(super) const B: &str = "lora_B.weight";

/// The method.
pub(super) struct Lora;

/// What can be set. Names as in the papers and in `peft`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LoraConfig {
    /// The rank of the branch.
    pub rank: usize,
    /// The branch is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Dropout on what goes into the branch.
    pub dropout: f64,
    /// Which linear layers: a layer whose name ends with one of these. All of the encoder's where none is named.
    pub target_modules: Vec<String>,
    /// Scale by `alpha / sqrt(rank)` instead (Kalajdzievski 2023).
    pub rslora: bool,
    /// `B` is trained with this multiple of the learning rate (Hayou et al. 2024).
    pub loraplus_lr_ratio: f64,
    /// How the branch starts: `default` or `pissa`.
    pub init: String,
}

impl Default for LoraConfig {
    fn default() -> Self {
        LoraConfig {
            rank: 8,
            alpha: 16.0,
            dropout: 0.1,
            target_modules: Vec::new(),
            rslora: false,
            loraplus_lr_ratio: 1.0,
            init: INITS[0].to_string(),
        }
    }
}

const INITS: [&str; 2] = ["default", "pissa"];

/// Those of a branch, which DoRA has too.
pub(super) const BRANCH_OPTIONS: [OptionSpec; 5] = [
    OptionSpec { name: "rank", kind: Kind::Integer, default: "8", help: "rank of the branches" },
    OptionSpec {
        name: "alpha",
        kind: Kind::Number,
        default: "16",
        help: "branches are scaled by alpha / rank",
    },
    OptionSpec {
        name: "dropout",
        kind: Kind::Number,
        default: "0.1",
        help: "dropout on what goes into a branch",
    },
    ranges::TARGET_MODULES,
    OptionSpec {
        name: "rslora",
        kind: Kind::Flag,
        default: "false",
        help: "scale by alpha / sqrt(rank), for high ranks",
    },
];

impl LoraConfig {
    pub(super) fn check(&self) -> Result<(), AdaptError> {
        ranges::rank("rank", self.rank)?;
        ranges::positive("alpha", self.alpha)?;
        ranges::dropout("dropout", self.dropout)?;
        ranges::positive("loraplus-lr-ratio", self.loraplus_lr_ratio)?;
        if !INITS.contains(&self.init.as_str()) {
            let near = nearest(&self.init, INITS).map(|near| format!("; did you mean `{near}`?"));
            let got = format!("`{}`{}", self.init, near.unwrap_or_default());
            return ranges::expect("init", false, &INITS.join(" or "), got);
        }
        Ok(())
    }
}

pub(super) fn scale(alpha: f64, rank: usize, rslora: bool) -> f32 {
    let rank = rank as f64;
    (alpha / if rslora { rank.sqrt() } else { rank }) as f32
}

impl Method for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }
    fn summary(&self) -> &'static str {
        "low-rank branches beside the linear layers, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "a large model, little memory, or many tasks on one base: the result is a small file beside it"
    }
    fn paper(&self) -> &'static str {
        "Hu et al. 2021, LoRA"
    }
    fn options(&self) -> &'static [OptionSpec] {
        const ALL: [OptionSpec; 7] = {
            let [rank, alpha, dropout, targets, rslora] = BRANCH_OPTIONS;
            let ratio = OptionSpec {
                name: "loraplus-lr-ratio",
                kind: Kind::Number,
                default: "1",
                help: "LoRA+: B is trained with this multiple of the learning rate, such as 16",
            };
            let init = OptionSpec {
                name: "init",
                kind: Kind::Name,
                default: INITS[0],
                help: "how branches start: default, or pissa, from the largest singular values of the weights",
            };
            [rank, alpha, dropout, targets, rslora, ratio, init]
        };
        &ALL
    }
    fn learning_rate(&self) -> f64 {
        2e-3
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: LoraConfig = options.parse(self.name(), self.options())?;
        let pissa = config.init == INITS[1];
        let applied = apply(model, &config, false, |model, site, mut branch, adapter| {
            if pissa {
                [branch.a, branch.b] = pissa::start(model, site, &branch)?;
                branch.keeps_start = true;
            }
            branch.add(model, site, adapter).map(|branch| model.hooks.at_linear(&site.name, Box::new(branch)))
        })?;
        Ok(Applied::Adapter(applied))
    }

    fn group<'n>(&self, name: &'n str) -> &'n str {
        sites::group(name, ".lora_")
    }

    fn during_training(
        &self,
        _: &Adapter,
        _: &Parameters,
        options: &Options,
        _: u64,
    ) -> Result<Option<Box<dyn DuringTraining>>, AdaptError> {
        let config: LoraConfig = options.parse(self.name(), self.options())?;
        let ratio = config.loraplus_lr_ratio;
        // Exactly what `default` says.
        let plain = ratio.to_bits() == 1.0f64.to_bits();
        Ok((!plain).then(|| Box::new(LoraPlus { ratio }) as Box<dyn DuringTraining>))
    }

    fn file(&self, adapter: &Adapter, _: &Hooks, parameters: &Parameters) -> Result<AdapterFile, AdaptError> {
        pissa::file(adapter, parameters)
    }

    fn merges(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is("LORA") && !is_dora(files)
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        let adapter = load(model, files, &[], |model, site, branch, adapter| {
            branch.add(model, site, adapter).map(|branch| model.hooks.at_linear(&site.name, Box::new(branch)))
        })?;
        Ok(Applied::Adapter(adapter))
    }
}

/// Whether it has magnitudes beside its branches.
pub(super) fn is_dora(files: &AdapterFiles) -> bool {
    files.config.get("use_dora").and_then(Value::as_bool) == Some(true)
}

/// A branch that is to be added: its tensors, and what it is.
pub(super) struct NewBranch {
    pub(super) a: Tensor,
    pub(super) b: Tensor,
    pub(super) scale: f32,
    pub(super) dropout: f32,
    /// Whether its start was taken out of the base.
    keeps_start: bool,
}

impl NewBranch {
    /// Adds its tensors to the model and to the adapter.
    pub(super) fn add(
        self,
        model: &mut Model<'_>,
        site: &Linear,
        adapter: &mut Adapter,
    ) -> Result<Branch, AdaptError> {
        if self.keeps_start {
            pissa::keep(model, &site.name, [&self.a, &self.b])?;
        }
        let a = adapter.add(model, part(&site.name, A), self.a)?;
        let b = adapter.add(model, part(&site.name, B), self.b)?;
        Ok(Branch { a, b, scale: self.scale, dropout: self.dropout })
    }
}

/// Puts branches at the layers that `config` names: `place` adds each.
pub(super) fn apply(
    model: &mut Model<'_>,
    config: &LoraConfig,
    dora: bool,
    mut place: impl FnMut(&mut Model<'_>, &Linear, NewBranch, &mut Adapter) -> Result<(), AdaptError>,
) -> Result<Adapter, AdaptError> {
    config.check()?;
    let targets = sites::targets(model, &config.target_modules)?;
    let told = sites::told_targets(model, &targets, &config.target_modules);
    let fan_in_fan_out = sites::fan_in_fan_out(&targets);
    let mut adapter = Adapter::new();
    for site in targets {
        // As `peft` draws them: Kaiming uniform with a = sqrt(5), which is 1 / sqrt(in).
        let bound = Init::Uniform(1.0 / (site.in_features as f64).sqrt());
        let shape = [config.rank, site.in_features];
        let branch = NewBranch {
            a: bound.draw(model.device(), &shape, model.seed, &part(&site.name, A))?,
            b: Tensor::zeros(model.device(), &[site.out_features, config.rank])?,
            scale: scale(config.alpha, config.rank, config.rslora),
            dropout: config.dropout as f32,
            keeps_start: false,
        };
        place(model, &site, branch, &mut adapter)?;
    }
    let fields = json!({
        "peft_type": "LORA",
        "r": config.rank,
        "lora_alpha": whole(config.alpha),
        "lora_dropout": config.dropout,
        "target_modules": told,
        "use_rslora": config.rslora,
        "bias": "none",
        "fan_in_fan_out": fan_in_fan_out,
        "inference_mode": true,
        "init_lora_weights": true,
        "use_dora": dora,
    });
    Ok(adapter.with_head(model, &fields))
}

/// Puts a saved adapter's branches back: `place` adds each; `others` are the ends of what may be beside `A` and `B`.
pub(super) fn load(
    model: &mut Model<'_>,
    files: &AdapterFiles,
    others: &[&str],
    mut place: impl FnMut(&mut Model<'_>, &Linear, NewBranch, &mut Adapter) -> Result<(), AdaptError>,
) -> Result<Adapter, AdaptError> {
    let saved = SavedConfig::read(files)?;
    let (mut adapter, mut adapted) = (Adapter::new(), Vec::new());
    for site in files.sites(model, A, &[&[B], others].concat())? {
        let rank = files.size(&part(&site.name, A), 0);
        let branch = NewBranch {
            a: files.take(&part(&site.name, A), &[rank, site.in_features], model.device())?,
            b: files.take(&part(&site.name, B), &[site.out_features, rank], model.device())?,
            scale: scale(saved.alpha.of(&site.name), rank, saved.rslora),
            dropout: saved.dropout,
            keeps_start: false,
        };
        place(model, &site, branch, &mut adapter)?;
        adapted.push(site.name);
    }
    let adapter = adapter.with_saved_head(model, files)?;
    saved.alpha.check(files, &adapted)?;
    Ok(adapter)
}

struct LoraPlus {
    ratio: f64,
}

impl DuringTraining for LoraPlus {
    fn rate(&self, name: &str) -> f64 {
        if name.ends_with(B) { self.ratio } else { 1.0 }
    }
}
