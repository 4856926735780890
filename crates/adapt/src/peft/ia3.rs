//! (IA)^3 (Liu et al. 2022): learned factors, `l * (W x + b)` for keys and values and `W (l * x) + b` where the feed-forward
//! layer comes back, all starting at 1. Files are those of `peft`.

use std::sync::Arc;

use retune_model::layers::Linear;
use retune_model::{Forward, Init, LinearHook, Merged};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{ParamId, Parameters, Result as TensorResult, Tape, Tensor, Var, ops};
use serde::Deserialize;
use serde_json::json;

use super::files::{AdapterFiles, part};
use super::sites::matches;
use super::{Adapter, Applied, Method, Model, sites};
use crate::{AdaptError, Kind, OptionSpec, Options};

const FACTORS: &str = "ia3_l";

/// The method.
pub(super) struct Ia3;

/// What can be set.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Ia3Config {
    /// Which linear layers; keys, values and the feed-forward layers' way back where none is named.
    pub target_modules: Vec<String>,
    /// Of these the ones whose input is scaled.
    pub feedforward_modules: Vec<String>,
}

impl Method for Ia3 {
    fn name(&self) -> &'static str {
        "ia3"
    }
    fn summary(&self) -> &'static str {
        "factors for keys, values and the feed-forward layers, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "a few dozen rows, or thousands of tasks on one base: the smallest adapter there is"
    }
    fn paper(&self) -> &'static str {
        "Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning (T-Few)"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[
            OptionSpec {
                name: sites::TARGET_MODULES,
                kind: Kind::List,
                default: "keys, values, the way back of feed-forward layers",
                help: "which linear layers, by the ends of their names, such as key,value,output.dense",
            },
            OptionSpec {
                name: "feedforward-modules",
                kind: Kind::List,
                default: "the way back of feed-forward layers",
                help: "those of them whose input is scaled, not their output",
            },
        ]
    }
    fn learning_rate(&self) -> f64 {
        1e-2
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: Ia3Config = options.parse(self.name(), self.options())?;
        let mut targets = sites::targets(model, &config.target_modules)?;
        let own = |linear: &Linear| is_key_or_value(&linear.name) || is_way_back(&linear.name);
        if config.target_modules.is_empty() && targets.iter().any(own) {
            targets.retain(own);
        }
        // Named ones must be there.
        sites::targets(model, &config.feedforward_modules)?;
        let on_input = |name: &str| match &config.feedforward_modules[..] {
            [] => is_way_back(name),
            named => named.iter().any(|end| matches(name, end)),
        };
        let mut adapter = Adapter::new();
        for site in &targets {
            let shape = if on_input(&site.name) { [1, site.in_features] } else { [site.out_features, 1] };
            let ones = Init::Ones.draw(model.device(), &shape, model.seed, &site.name)?;
            place(model, site, ones, &mut adapter)?;
        }
        let (inputs, _): (Vec<Linear>, Vec<Linear>) =
            targets.iter().cloned().partition(|site| on_input(&site.name));
        // `peft` wants the names of the ones among those of the others, and takes ends of names for both.
        let (mut told, feedforward) = (sites::told(model, &targets), sites::told(model, &inputs));
        told.extend(feedforward.iter().filter(|name| !told.contains(name)).cloned().collect::<Vec<_>>());
        let fan_in_fan_out = sites::fan_in_fan_out(&targets);
        let fields = json!({
            "peft_type": "IA3",
            "target_modules": told,
            "feedforward_modules": feedforward,
            "fan_in_fan_out": fan_in_fan_out,
            "inference_mode": true,
            "init_ia3_weights": true,
        });
        Ok(Applied::Adapter(adapter.with_head(model, &fields)))
    }

    fn merges(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is("IA3")
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        files.refuse(&[], "(IA)^3")?;
        let mut adapter = Adapter::new();
        for site in files.sites(model, FACTORS, &[])? {
            let name = part(&site.name, FACTORS);
            // A row for the input, a column for the output.
            let row = files.size(&name, 0) == 1 && files.size(&name, 1) == site.in_features;
            let shape = if row { [1, site.in_features] } else { [site.out_features, 1] };
            let factors = files.take(&name, &shape, model.device())?;
            place(model, &site, factors, &mut adapter)?;
        }
        Ok(Applied::Adapter(adapter.with_saved_head(model, files)?))
    }
}

/// As the families call them, of which one has a product for query, key and value.
fn is_key_or_value(name: &str) -> bool {
    ["key", "value", "k_lin", "v_lin", "Wqkv", "c_attn", "k_proj", "v_proj"]
        .iter()
        .any(|end| matches(name, end))
}

fn is_way_back(name: &str) -> bool {
    ["output.dense", "ffn.lin2", "mlp.Wo", "mlp.c_proj", "down_proj"].iter().any(|end| matches(name, end))
        && !matches(name, "attention.output.dense")
}

fn place(
    model: &mut Model<'_>,
    site: &Linear,
    factors: Tensor,
    adapter: &mut Adapter,
) -> Result<(), AdaptError> {
    let on_input = factors.rows() == 1;
    let factors = adapter.add(model, part(&site.name, FACTORS), factors)?;
    model.hooks.at_linear(&site.name, Box::new(Factors { factors, on_input }));
    Ok(())
}

struct Factors {
    factors: ParamId,
    on_input: bool,
}

impl LinearHook for Factors {
    fn linear(
        &self,
        forward: &Forward<'_>,
        base: &Linear,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> TensorResult<Var> {
        let factors = &forward.parameter(self.factors);
        if self.on_input {
            let x = ops::scale_columns(forward.tape, x, factors, None, Activation::Identity)?;
            return base.with_branch(forward, &x, layout, None, activation);
        }
        let y = base.with_branch(forward, x, layout, None, Activation::Identity)?;
        ops::scale_columns(forward.tape, &y, factors, None, activation)
    }

    fn merged(&self, parameters: &Parameters, base: &Linear) -> TensorResult<Option<Merged>> {
        let tape = Tape::inference();
        let var = |id| tape.parameter(parameters, id);
        let (weight, factors) = (base.matrix(&tape, parameters)?, var(self.factors));
        let columns = |values: &Var| ops::scale_columns(&tape, values, &factors, None, Activation::Identity);
        if self.on_input {
            return Ok(Some(Merged { weight: columns(&weight)?.value().clone(), bias: None }));
        }
        let bias = base.bias.map(|bias| columns(&var(bias))).transpose()?;
        let bias = bias.map(|bias| bias.value().reshape(&[base.out_features])).transpose()?;
        let weight = ops::scale_rows(&tape, &weight, &factors)?.value().clone();
        Ok(Some(Merged { weight, bias }))
    }
}
