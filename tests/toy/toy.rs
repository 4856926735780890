//! A method that shows what one takes, and that nobody should use: a trained factor for each output of the linear layers,
//! `y = g * (W x) + b`, all 1 at the start. `scripts/toy-method` adds this file and one line of the registry to a copy of the
//! tree.

use std::sync::Arc;

use retune_model::layers::Linear;
use retune_model::{Forward, Init, LinearHook, Merged};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{ParamId, Parameters, Result as TensorResult, Tape, Tensor, Var, ops};
use serde::Deserialize;
use serde_json::json;

use super::files::{AdapterFiles, part};
use super::{Adapter, Applied, Method, Model, ranges, sites};
use crate::{AdaptError, OptionSpec, Options};

const GAIN: &str = "toy_gain";

/// The method.
pub(super) struct Toy;

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Config {
    target_modules: Vec<String>,
}

impl Method for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }
    fn summary(&self) -> &'static str {
        "a factor for each output of the linear layers, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "never: it shows what a method takes"
    }
    fn paper(&self) -> &'static str {
        "none"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[ranges::TARGET_MODULES]
    }
    fn learning_rate(&self) -> f64 {
        1e-2
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: Config = options.parse(self.name(), self.options())?;
        let targets = sites::targets(model, &config.target_modules)?;
        let told = sites::told_targets(model, &targets, &config.target_modules);
        let mut adapter = Adapter::new();
        for site in targets {
            let ones = Init::Ones.draw(model.device(), &[site.out_features], model.seed, &site.name)?;
            place(model, &site, ones, &mut adapter)?;
        }
        let fields = json!({
            "peft_type": "TOY",
            "task_type": "SEQ_CLS",
            "target_modules": told,
            "inference_mode": true,
        });
        Ok(Applied::Adapter(adapter.with_head(model, &fields)))
    }

    fn merges(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is("TOY")
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        let mut adapter = Adapter::new();
        for site in files.sites(model, GAIN, &[])? {
            let gain = files.take(&part(&site.name, GAIN), &[site.out_features], model.device())?;
            place(model, &site, gain, &mut adapter)?;
        }
        Ok(Applied::Adapter(adapter.with_saved_head(model, files)?))
    }
}

fn place(
    model: &mut Model<'_>,
    site: &Linear,
    gain: Tensor,
    adapter: &mut Adapter,
) -> Result<(), AdaptError> {
    let gain = adapter.add(model, part(&site.name, GAIN), gain)?;
    model.hooks.at_linear(&site.name, Box::new(Gain(gain)));
    Ok(())
}

struct Gain(ParamId);

impl LinearHook for Gain {
    fn linear(
        &self,
        forward: &Forward<'_>,
        base: &Linear,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> TensorResult<Var> {
        let plain = Activation::Identity;
        let weight = &forward.parameter(base.weight);
        let linear = ops::Linear {
            transposed: base.transposed,
            activation: plain,
            ..ops::Linear::plain(weight, None)
        };
        let y = ops::linear(forward.tape, x, layout, linear)?;
        let bias = base.bias.map(|bias| forward.parameter(bias));
        ops::scale_columns(forward.tape, &y, &forward.parameter(self.0), bias.as_ref(), activation)
    }

    fn merged(&self, parameters: &Parameters, base: &Linear) -> TensorResult<Option<Merged>> {
        let tape = Tape::inference();
        let [weight, gain] = [base.weight, self.0].map(|id| tape.parameter(parameters, id));
        let weight = ops::scale_rows(&tape, &weight, &gain)?.value().clone();
        Ok(Some(Merged { weight, bias: None }))
    }
}
