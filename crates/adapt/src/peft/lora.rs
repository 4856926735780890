//! LoRA (Hu et al. 2021): beside a frozen weight, a branch `scale * dropout(x) A^T B^T` of low rank. `B` starts at 0, so
//! the model starts unchanged. Files are those of `peft`.

mod saved;

use std::sync::Arc;

use retune_model::layers::Linear;
use retune_model::{Forward, Init, LinearHook};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{ParamId, Result, Tensor, Var, ops};
use serde::Deserialize;
use serde_json::{Value, json};

use super::adapter::whole;
use super::files::{AdapterFiles, part};
use super::{Adapter, Applied, Method, Model, sites};
use crate::{AdaptError, Kind, OptionSpec, Options};
use saved::SavedConfig;

/// The ends of the names of a branch's tensors.
const A: &str = "lora_A.weight";
const B: &str = "lora_B.weight";

/// The method.
pub(super) struct Lora;

/// What can be set. Names as in the paper and in `peft`.
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
}

impl Default for LoraConfig {
    fn default() -> Self {
        LoraConfig { rank: 8, alpha: 16.0, dropout: 0.1, target_modules: Vec::new(), rslora: false }
    }
}

/// The most that a rank may be: beyond it, it is a slip.
const MOST_RANK: usize = 4096;

impl LoraConfig {
    fn check(&self) -> std::result::Result<(), AdaptError> {
        let error =
            |option: &str, message: String| Err(AdaptError::Option { option: option.into(), message });
        if self.rank == 0 || self.rank > MOST_RANK {
            return error("rank", format!("expected 1 to {MOST_RANK}, got {}", self.rank));
        }
        let alpha = self.alpha as f32;
        if !alpha.is_finite() || alpha <= 0.0 {
            return error("alpha", format!("expected a number above 0, got {}", self.alpha));
        }
        if !is_rate(self.dropout) {
            return error("dropout", format!("expected at least 0 and below 1, got {}", self.dropout));
        }
        Ok(())
    }
}

/// Whether it is a dropout: in f32, where 0.99999999 is 1 and nothing would be left to scale up.
fn is_rate(value: f64) -> bool {
    (0.0..1.0).contains(&(value as f32))
}

fn scale(alpha: f64, rank: usize, rslora: bool) -> f32 {
    let rank = rank as f64;
    (alpha / if rslora { rank.sqrt() } else { rank }) as f32
}

impl Method for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }
    fn summary(&self) -> &'static str {
        "low-rank branches beside the linear layers, and the classifier"
    }
    fn when(&self) -> &'static str {
        "a large model, little memory, or many tasks on one base: the result is a small file beside it"
    }
    fn paper(&self) -> &'static str {
        "Hu et al. 2021, LoRA"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[
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
            OptionSpec {
                name: "target-modules",
                kind: Kind::List,
                default: "all linear layers",
                help: "which linear layers, by the ends of their names, such as query,value",
            },
            OptionSpec {
                name: "rslora",
                kind: Kind::Flag,
                default: "false",
                help: "scale by alpha / sqrt(rank), for high ranks",
            },
        ]
    }
    fn learning_rate(&self) -> f64 {
        2e-3
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> std::result::Result<Applied, AdaptError> {
        let config: LoraConfig = options.parse(self.name(), self.options())?;
        config.check()?;
        let targets = sites::targets(model, &config.target_modules)?;
        let told = sites::told_targets(model, &targets, &config.target_modules);
        let mut adapter = Adapter::new();
        for site in targets {
            // As `peft` draws them: Kaiming uniform with a = sqrt(5), which is 1 / sqrt(in).
            let bound = Init::Uniform(1.0 / (site.in_features as f64).sqrt());
            let a = bound.draw(
                model.device(),
                &[config.rank, site.in_features],
                model.seed,
                &part(&site.name, A),
            )?;
            let b = Tensor::zeros(model.device(), &[site.out_features, config.rank])?;
            let scale = scale(config.alpha, config.rank, config.rslora);
            branch(model, &site.name, [a, b], scale, config.dropout as f32, &mut adapter)?;
        }
        let fields = peft_fields(&config, &told);
        Ok(Applied::Adapter(adapter.with_head(model, &fields)))
    }

    fn group<'n>(&self, name: &'n str) -> &'n str {
        sites::group(name, ".lora_")
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.config.get("peft_type").and_then(Value::as_str) == Some("LORA")
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> std::result::Result<Applied, AdaptError> {
        let saved = SavedConfig::read(files)?;
        let (mut adapter, mut adapted) = (Adapter::new(), Vec::new());
        for site in files.sites(model, A, &[B])? {
            let rank = files
                .shape(&part(&site.name, A))
                .and_then(|shape| shape.first())
                .map_or(1, |rank| (*rank).max(1));
            let a = files.take(&part(&site.name, A), &[rank, site.in_features], model.device())?;
            let b = files.take(&part(&site.name, B), &[site.out_features, rank], model.device())?;
            let scale = scale(saved.alpha_of(&site.name), rank, saved.rslora);
            branch(model, &site.name, [a, b], scale, saved.dropout, &mut adapter)?;
            adapted.push(site.name);
        }
        let adapter = adapter.with_saved_head(model, files)?;
        saved.check_patterns(files, &adapted)?;
        Ok(Applied::Adapter(adapter))
    }
}

/// Puts a branch at `site`: both tensors trained, both in the file.
fn branch(
    model: &mut Model<'_>,
    site: &str,
    [a, b]: [Tensor; 2],
    scale: f32,
    dropout: f32,
    adapter: &mut Adapter,
) -> std::result::Result<(), AdaptError> {
    let a = adapter.add(model, part(site, A), a)?;
    let b = adapter.add(model, part(site, B), b)?;
    model.hooks.at_linear(site, Box::new(Branch { a, b, scale, dropout }));
    Ok(())
}

struct Branch {
    a: ParamId,
    b: ParamId,
    scale: f32,
    dropout: f32,
}

impl LinearHook for Branch {
    fn linear(
        &self,
        forward: &Forward<'_>,
        base: &Linear,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> Result<Var> {
        let (a, b) = (&forward.parameter(self.a), &forward.parameter(self.b));
        let dropout = forward.dropout(&format!("{}.lora", base.name), self.dropout);
        let low_rank = ops::LowRank { a, b, scale: self.scale, dropout };
        base.with_branch(forward, x, layout, Some(low_rank), activation)
    }
}

fn peft_fields(config: &LoraConfig, targets: &[String]) -> Value {
    json!({
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "r": config.rank,
        "lora_alpha": whole(config.alpha),
        "lora_dropout": config.dropout,
        "target_modules": targets,
        "use_rslora": config.rslora,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "use_dora": false,
    })
}
