//! AdaLoRA (Zhang et al. 2023): a branch `s B E A`, `E` diagonal, whose ranks are shared out while it is trained: all
//! layers start with `init-rank`, and the least important directions of all lose their `E`, until the mean is `rank`. The
//! importance is the smoothed `|w dL/dw|` times its smoothed change (eqs. 8 to 11). A penalty keeps `A` and `B` near
//! orthogonal (eq. 4). `E` starts at 0, so the model starts unchanged; `s = alpha / init-rank`. Files are those of `peft`,
//! lost directions left out and told by `rank_pattern`.

mod budget;

use std::sync::Arc;

use retune_model::layers::Linear;
use retune_model::{Forward, Hooks, Init, LinearHook, Merged};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{ParamId, Parameters, Result as TensorResult, Tape, Tensor, Var, ops};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::adapter::whole;
use super::files::{AdapterFiles, PREFIX, part};
use super::lora::dense;
use super::{Adapter, AdapterFile, Applied, DuringTraining, Method, Model, ranges, sites};
use crate::{AdaptError, Kind, OptionSpec, Options};
use budget::Budget;

/// `[rank, in]`, `[out, rank]` and `[rank, 1]`.
const A: &str = "lora_A";
const B: &str = "lora_B";
const E: &str = "lora_E";

/// The method.
pub(super) struct AdaLora;

/// What can be set. Names as in the paper and in `peft`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct AdaLoraConfig {
    /// The mean rank at the end.
    pub rank: usize,
    /// The rank of each layer at the start.
    pub init_rank: usize,
    /// The branch is scaled by `alpha / init-rank`.
    pub alpha: f64,
    /// Dropout on what goes into the branch.
    pub dropout: f64,
    /// The share of all steps before ranks begin to fall.
    pub initial_share: f64,
    /// The share of all steps after they have fallen.
    pub final_share: f64,
    /// Steps from one allocation to the next.
    pub delta_t: u64,
    /// How slowly the importance follows.
    pub beta1: f64,
    /// How slowly its uncertainty follows.
    pub beta2: f64,
    /// The weight of the penalty.
    pub orthogonal_weight: f64,
    /// Which linear layers. All of the encoder's where none is named.
    pub target_modules: Vec<String>,
}

impl Default for AdaLoraConfig {
    fn default() -> Self {
        AdaLoraConfig {
            rank: 8,
            init_rank: 12,
            alpha: 32.0,
            dropout: 0.1,
            initial_share: 0.1,
            final_share: 0.3,
            delta_t: 1,
            beta1: 0.85,
            beta2: 0.85,
            orthogonal_weight: 0.1,
            target_modules: Vec::new(),
        }
    }
}

impl AdaLoraConfig {
    fn check(&self) -> Result<(), AdaptError> {
        ranges::rank("rank", self.rank)?;
        ranges::rank("init-rank", self.init_rank)?;
        ranges::expect(
            "init-rank",
            self.init_rank >= self.rank,
            &format!("at least the rank, {}", self.rank),
            self.init_rank,
        )?;
        ranges::positive("alpha", self.alpha)?;
        ranges::dropout("dropout", self.dropout)?;
        for (name, share) in [("initial-share", self.initial_share), ("final-share", self.final_share)] {
            ranges::expect(name, (0.0..1.0).contains(&share), "at least 0 and below 1", share)?;
        }
        let sum = self.initial_share + self.final_share;
        ranges::expect("final-share", sum < 1.0, "less than 1 with --initial-share", sum)?;
        ranges::expect("delta-t", self.delta_t > 0, "a number of steps, at least 1", self.delta_t)?;
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            ranges::expect(name, beta > 0.0 && beta < 1.0, "a number between 0 and 1", beta)?;
        }
        let weight = self.orthogonal_weight;
        ranges::expect(
            "orthogonal-weight",
            weight >= 0.0 && (weight as f32).is_finite(),
            "at least 0",
            weight,
        )
    }
}

impl Method for AdaLora {
    fn name(&self) -> &'static str {
        "adalora"
    }
    fn summary(&self) -> &'static str {
        "low-rank branches whose ranks are shared out in training, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "some layers need more rank than others and nobody knows which; it needs many steps"
    }
    fn paper(&self) -> &'static str {
        "Zhang et al. 2023, AdaLoRA"
    }
    fn options(&self) -> &'static [OptionSpec] {
        const fn number(name: &'static str, default: &'static str, help: &'static str) -> OptionSpec {
            OptionSpec { name, kind: Kind::Number, default, help }
        }
        const fn integer(name: &'static str, default: &'static str, help: &'static str) -> OptionSpec {
            OptionSpec { name, kind: Kind::Integer, default, help }
        }
        const ALL: [OptionSpec; 11] = [
            integer("rank", "8", "mean rank of the branches at the end"),
            integer("init-rank", "12", "rank of each branch at the start"),
            number("alpha", "32", "branches are scaled by alpha / init-rank"),
            number("dropout", "0.1", "dropout on what goes into a branch"),
            number("initial-share", "0.1", "share of the steps before ranks fall"),
            number("final-share", "0.3", "share of the steps after they have fallen"),
            integer("delta-t", "1", "steps from one allocation to the next"),
            number("beta1", "0.85", "how slowly the importance of a direction follows"),
            number("beta2", "0.85", "how slowly the uncertainty of it follows"),
            number("orthogonal-weight", "0.1", "weight of the penalty that keeps directions orthogonal"),
            ranges::TARGET_MODULES,
        ];
        &ALL
    }
    fn learning_rate(&self) -> f64 {
        5e-3
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: AdaLoraConfig = options.parse(self.name(), self.options())?;
        config.check()?;
        let targets = sites::targets(model, &config.target_modules)?;
        let told = sites::told_targets(model, &targets, &config.target_modules);
        let fan_in_fan_out = sites::fan_in_fan_out(&targets);
        let mut adapter = Adapter::new();
        for site in targets {
            let draw = |end: &str, shape: [usize; 2]| {
                Init::Normal(0.02).draw(model.device(), &shape, model.seed, &part(&site.name, end))
            };
            let a = draw(A, [config.init_rank, site.in_features])?;
            let b = draw(B, [site.out_features, config.init_rank])?;
            let e = Tensor::zeros(model.device(), &[config.init_rank, 1])?;
            let scale = scale(config.alpha, config.init_rank);
            place(model, &site, [a, b, e], scale, config.dropout as f32, &mut adapter)?;
        }
        let fields = json!({
            "peft_type": "ADALORA",
            "r": config.rank,
            "target_r": config.rank,
            "init_r": config.init_rank,
            "lora_alpha": whole(config.alpha),
            "lora_dropout": config.dropout,
            "target_modules": told,
            "tinit": 0,
            "tfinal": 0,
            "deltaT": config.delta_t,
            "beta1": config.beta1,
            "beta2": config.beta2,
            "orth_reg_weight": config.orthogonal_weight,
            // How many steps there were is known when they are done.
            "total_step": 1,
            "rank_pattern": null,
            "bias": "none",
            "fan_in_fan_out": fan_in_fan_out,
            "inference_mode": true,
            "init_lora_weights": true,
        });
        Ok(Applied::Adapter(adapter.with_head(model, &fields)))
    }

    fn group<'n>(&self, name: &'n str) -> &'n str {
        sites::group(name, ".lora_")
    }

    fn during_training(
        &self,
        adapter: &Adapter,
        parameters: &Parameters,
        options: &Options,
        total_steps: u64,
    ) -> Result<Option<Box<dyn DuringTraining>>, AdaptError> {
        let shares: AdaLoraConfig = options.parse(self.name(), self.options())?;
        let steps = |share: f64| (share * total_steps as f64) as u64;
        let phases = [steps(shares.initial_share), steps(shares.final_share), total_steps];
        Ok(Some(Box::new(Budget::new(adapter, parameters, phases)?)))
    }

    fn file(&self, adapter: &Adapter, _: &Hooks, parameters: &Parameters) -> Result<AdapterFile, AdaptError> {
        without_lost(adapter, parameters)
    }

    fn merges(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is("ADALORA")
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        files.refuse(&["use_dora"], "AdaLoRA")?;
        let alpha = files.number("lora_alpha")?.unwrap_or(8.0);
        let init_rank = files.number("init_r")?.unwrap_or(12.0).clamp(0.0, 1e9) as usize;
        let dropout = files.dropout("lora_dropout")?;
        let mut adapter = Adapter::new();
        for site in files.sites(model, E, &[A, B])? {
            // It may have lost all of its rank.
            let rank =
                files.shape(&part(&site.name, E)).and_then(|shape| shape.first()).copied().unwrap_or(0);
            let a = files.take(&part(&site.name, A), &[rank, site.in_features], model.device())?;
            let b = files.take(&part(&site.name, B), &[site.out_features, rank], model.device())?;
            let e = files.take(&part(&site.name, E), &[rank, 1], model.device())?;
            place(model, &site, [a, b, e], scale(alpha, init_rank), dropout, &mut adapter)?;
        }
        Ok(Applied::Adapter(adapter.with_saved_head(model, files)?))
    }
}

/// As `peft` computes it, whatever rank is left.
fn scale(alpha: f64, init_rank: usize) -> f32 {
    let rank = init_rank as f64;
    ((if alpha > 0.0 { alpha } else { rank }) / (rank + 1e-5)) as f32
}

fn place(
    model: &mut Model<'_>,
    site: &Linear,
    [a, b, e]: [Tensor; 3],
    scale: f32,
    dropout: f32,
    adapter: &mut Adapter,
) -> Result<(), AdaptError> {
    let is_empty = e.is_empty();
    let mut add = |end, tensor| {
        let name = part(&site.name, end);
        if is_empty { adapter.add_frozen(model, name, tensor) } else { adapter.add(model, name, tensor) }
    };
    let triplets = Triplets { a: add(A, a)?, b: add(B, b)?, e: add(E, e)?, scale, dropout };
    if !is_empty {
        model.hooks.at_linear(&site.name, Box::new(triplets));
    }
    Ok(())
}

/// The file without directions whose `E` is 0: they add nothing.
fn without_lost(adapter: &Adapter, parameters: &Parameters) -> Result<AdapterFile, AdaptError> {
    let mut file = adapter.empty_file();
    let value = |name: &str| parameters.find(name).map(|id| &parameters.get(id).value);
    let kept = |site: &str| -> Vec<bool> {
        value(&format!("{site}{E}")).map_or_else(Vec::new, |e| e.f32().iter().map(|x| *x != 0.0).collect())
    };
    let ends = adapter.tensors.iter().filter(|(name, _)| name.ends_with(E));
    let all: Vec<bool> = ends.flat_map(|(name, _)| kept(name.trim_end_matches(E))).collect();
    // At the start all of them are 0, and a loaded one has lost what it had to lose.
    let lost = all.contains(&true)
        && all.contains(&false)
        && adapter.config.get("rank_pattern") == Some(&Value::Null);
    let mut pattern = Map::new();
    for (name, id) in &adapter.tensors {
        let tensor = &parameters.get(*id).value;
        let site = [A, B, E].into_iter().find_map(|end| name.strip_suffix(end));
        let Some(site) = site.filter(|_| lost) else {
            file.tensors.push((name.clone(), tensor.clone()));
            continue;
        };
        let kept = kept(site);
        let rank = kept.iter().filter(|kept| **kept).count();
        let columns = tensor.columns();
        let is_kept = |place: usize| {
            let direction = if name.ends_with(B) { place % columns } else { place / columns };
            kept.get(direction) == Some(&true)
        };
        let values: Vec<f32> =
            tensor.f32().iter().enumerate().filter(|(place, _)| is_kept(*place)).map(|(_, x)| *x).collect();
        let shape = if name.ends_with(B) { [tensor.rows(), rank] } else { [rank, columns] };
        file.tensors.push((name.clone(), Tensor::from_slice(tensor.device(), &shape, &values)?));
        if name.ends_with(E) {
            pattern.insert(name.trim_start_matches(PREFIX).to_string(), json!(kept));
        }
    }
    if lost {
        file.config.insert("rank_pattern".into(), Value::Object(pattern));
    }
    Ok(file)
}

struct Triplets {
    a: ParamId,
    b: ParamId,
    e: ParamId,
    scale: f32,
    dropout: f32,
}

impl LinearHook for Triplets {
    fn linear(
        &self,
        forward: &Forward<'_>,
        base: &Linear,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> TensorResult<Var> {
        let a = ops::scale_rows(forward.tape, &forward.parameter(self.a), &forward.parameter(self.e))?;
        let dropout = forward.dropout(&format!("{}.lora", base.name), self.dropout);
        let low_rank = ops::LowRank { a: &a, b: &forward.parameter(self.b), scale: self.scale, dropout };
        base.with_branch(forward, x, layout, Some(low_rank), activation)
    }

    fn merged(&self, parameters: &Parameters, base: &Linear) -> TensorResult<Option<Merged>> {
        let tape = Tape::inference();
        let var = |id| tape.parameter(parameters, id);
        let a = ops::scale_rows(&tape, &var(self.a), &var(self.e))?;
        let value = |id| &parameters.get(id).value;
        let weight = base.matrix(&tape, parameters)?;
        let weight = dense(weight.value(), a.value(), value(self.b), self.scale)?;
        Ok(Some(Merged { weight, bias: None }))
    }
}
