//! VeRA (Kopiczko et al. 2023): LoRA's branch with random matrices that all layers share and nobody trains, and two
//! trained vectors: `W x + b * B (d * A x)`. `b` starts at 0, so the model starts unchanged; `d` at a small number. Layers
//! narrower than the widest take the first columns of `A` and the first rows of `B`. Files are those of `peft`, the random
//! matrices in them: they can be drawn again from a seed by PyTorch alone.

use std::sync::Arc;

use retune_model::layers::Linear;
use retune_model::{Forward, Init, LinearHook, Merged};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{ParamId, Parameters, Result as TensorResult, Tape, Tensor, Var, ops};
use serde::Deserialize;
use serde_json::{Value, json};

use super::files::{AdapterFiles, part};
use super::lora::dense;
use super::{Adapter, Applied, Method, Model, ranges, sites};
use crate::{AdaptError, Kind, OptionSpec, Options};

/// The vectors at a layer, and the matrices that all layers share.
const D: &str = "vera_lambda_d";
const B: &str = "vera_lambda_b";
const SHARED_A: &str = "base_model.vera_A";
const SHARED_B: &str = "base_model.vera_B";

/// The method.
pub(super) struct Vera;

/// What can be set. Names as in the paper and in `peft`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct VeraConfig {
    /// The rank of the shared matrices.
    pub rank: usize,
    /// Where `d` starts.
    pub d_initial: f64,
    /// Dropout on what goes into the branch.
    pub dropout: f64,
    /// Which linear layers. All of the encoder's where none is named.
    pub target_modules: Vec<String>,
}

impl Default for VeraConfig {
    fn default() -> Self {
        VeraConfig { rank: 256, d_initial: 0.1, dropout: 0.0, target_modules: Vec::new() }
    }
}

impl Method for Vera {
    fn name(&self) -> &'static str {
        "vera"
    }
    fn summary(&self) -> &'static str {
        "two vectors for each linear layer, between random matrices that all share, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "LoRA's branches at a tenth of their trained numbers; a step takes longer for the high rank"
    }
    fn paper(&self) -> &'static str {
        "Kopiczko et al. 2023, VeRA"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[
            OptionSpec {
                name: "rank",
                kind: Kind::Integer,
                default: "256",
                help: "rank of the shared matrices",
            },
            OptionSpec {
                name: "d-initial",
                kind: Kind::Number,
                default: "0.1",
                help: "where the vector d starts",
            },
            OptionSpec {
                name: "dropout",
                kind: Kind::Number,
                default: "0",
                help: "dropout on what goes into a branch",
            },
            ranges::TARGET_MODULES,
        ]
    }
    fn learning_rate(&self) -> f64 {
        1e-2
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: VeraConfig = options.parse(self.name(), self.options())?;
        ranges::rank("rank", config.rank)?;
        ranges::positive("d-initial", config.d_initial)?;
        ranges::dropout("dropout", config.dropout)?;
        let targets = sites::targets(model, &config.target_modules)?;
        let told = sites::told_targets(model, &targets, &config.target_modules);
        let fan_in_fan_out = sites::fan_in_fan_out(&targets);
        let widest = |size: fn(&Linear) -> usize| targets.iter().map(size).max().unwrap_or(0);
        let (width, out) = (widest(|site| site.in_features), widest(|site| site.out_features));
        // Kaiming's uniform for a layer before a rectifier, as `peft` draws them: sqrt(6 / fan in).
        let draw = |name: &str, shape: [usize; 2]| {
            Init::Uniform((6.0 / shape[1] as f64).sqrt()).draw(model.device(), &shape, model.seed, name)
        };
        let (a, b) = (draw(SHARED_A, [config.rank, width])?, draw(SHARED_B, [out, config.rank])?);
        let mut adapter = Adapter::new();
        let shared = share(model, [a, b], &mut adapter)?;
        for site in targets {
            let mut d = Tensor::empty(model.device(), &[config.rank])?;
            d.f32_mut()?.fill(config.d_initial as f32);
            let b = Tensor::zeros(model.device(), &[site.out_features])?;
            place(model, &site, shared, [d, b], config.dropout as f32, &mut adapter)?;
        }
        let fields = json!({
            "peft_type": "VERA",
            "r": config.rank,
            "target_modules": told,
            "vera_dropout": config.dropout,
            "d_initial": config.d_initial,
            "save_projection": true,
            "projection_prng_key": 0,
            "bias": "none",
            "fan_in_fan_out": fan_in_fan_out,
            "inference_mode": true,
            "init_weights": true,
        });
        Ok(Applied::Adapter(adapter.with_head(model, &fields)))
    }

    fn group<'n>(&self, name: &'n str) -> &'n str {
        sites::group(name, ".vera_")
    }

    fn merges(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is("VERA")
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        files.refuse(&[], "VeRA")?;
        if files.shape(SHARED_A).is_none() {
            let said = files.config.get("save_projection") == Some(&Value::Bool(false));
            let why = if said { "`save_projection` is false, and" } else { "" };
            return Err(files.error(format!(
                "{why} `{SHARED_A}` is missing: PyTorch alone can draw it again; save the adapter with save_projection=True"
            )));
        }
        let dropout = files.dropout("vera_dropout")?;
        let sites = files.sites(model, D, &[B])?;
        let (rank, width) = (files.size(SHARED_A, 0), files.size(SHARED_A, 1));
        let out = files.size(SHARED_B, 0);
        if let Some(site) = sites.iter().find(|site| site.in_features > width || site.out_features > out) {
            return Err(files.error(format!(
                "the shared matrices are for layers of up to {width} by {out}, and `{}` has {} by {}",
                site.name, site.in_features, site.out_features
            )));
        }
        let mut adapter = Adapter::new();
        let a = files.take(SHARED_A, &[rank, width], model.device())?;
        let b = files.take(SHARED_B, &[out, rank], model.device())?;
        let shared = share(model, [a, b], &mut adapter)?;
        for site in sites {
            let d = files.take(&part(&site.name, D), &[rank], model.device())?;
            let b = files.take(&part(&site.name, B), &[site.out_features], model.device())?;
            place(model, &site, shared, [d, b], dropout, &mut adapter)?;
        }
        Ok(Applied::Adapter(adapter.with_saved_head(model, files)?))
    }
}

fn share(
    model: &mut Model<'_>,
    [a, b]: [Tensor; 2],
    adapter: &mut Adapter,
) -> Result<[ParamId; 2], AdaptError> {
    let a = adapter.add_frozen(model, SHARED_A.into(), a)?;
    Ok([a, adapter.add_frozen(model, SHARED_B.into(), b)?])
}

fn place(
    model: &mut Model<'_>,
    site: &Linear,
    shared: [ParamId; 2],
    [d, b]: [Tensor; 2],
    dropout: f32,
    adapter: &mut Adapter,
) -> Result<(), AdaptError> {
    let d = adapter.add(model, part(&site.name, D), d)?;
    let b = adapter.add(model, part(&site.name, B), b)?;
    model.hooks.at_linear(&site.name, Box::new(Vectors { shared, d, b, dropout }));
    Ok(())
}

struct Vectors {
    shared: [ParamId; 2],
    d: ParamId,
    b: ParamId,
    dropout: f32,
}

impl Vectors {
    /// The branch's two matrices, for a layer of these sizes.
    fn matrices(&self, tape: &Tape, parameters: &Parameters, base: &Linear) -> TensorResult<[Var; 2]> {
        let var = |id| tape.parameter(parameters, id);
        let [a, b] = self.shared.map(var);
        let a = ops::select_columns(tape, &a, 0..base.in_features)?;
        let rows: Vec<usize> = (0..base.out_features).collect();
        let b = ops::select_rows(tape, &b, &rows)?;
        Ok([ops::scale_rows(tape, &a, &var(self.d))?, ops::scale_rows(tape, &b, &var(self.b))?])
    }
}

impl LinearHook for Vectors {
    fn linear(
        &self,
        forward: &Forward<'_>,
        base: &Linear,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> TensorResult<Var> {
        let [a, b] = &self.matrices(forward.tape, forward.parameters, base)?;
        let dropout = forward.dropout(&format!("{}.vera", base.name), self.dropout);
        let low_rank = ops::LowRank { a, b, scale: 1.0, dropout };
        base.with_branch(forward, x, layout, Some(low_rank), activation)
    }

    fn merged(&self, parameters: &Parameters, base: &Linear) -> TensorResult<Option<Merged>> {
        let tape = Tape::inference();
        let [a, b] = self.matrices(&tape, parameters, base)?;
        let weight = base.matrix(&tape, parameters)?;
        let weight = dense(weight.value(), a.value(), b.value(), 1.0)?;
        Ok(Some(Merged { weight, bias: None }))
    }
}
