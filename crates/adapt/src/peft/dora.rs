//! DoRA (Liu et al. 2024): `W' = m (W + s B A) / ||W + s B A||`, row by row, with a trained magnitude `m` that starts as
//! `||W||`. The norm is a constant to the gradient (section 4.3), and is taken by a low-rank identity, so the dense sum is
//! never made: see [`ops::magnitude`]. Files are those of `peft`, a LoRA with `use_dora`.

use std::sync::Arc;

use retune_model::layers::Linear;
use retune_model::{Forward, LinearHook, Merged};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{ParamId, Parameters, Result as TensorResult, Tape, Tensor, Var, ops};

use super::files::{AdapterFiles, part};
use super::lora::{self, BRANCH_OPTIONS, Branch, LoraConfig};
use super::{Applied, Method, Model, sites};
use crate::{AdaptError, OptionSpec, Options};

const MAGNITUDE: &str = "lora_magnitude_vector";

/// The method.
pub(super) struct Dora;

impl Method for Dora {
    fn name(&self) -> &'static str {
        "dora"
    }
    fn summary(&self) -> &'static str {
        "low-rank branches and a magnitude for each row of the linear layers, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "LoRA at a low rank falls short of full: nearer to it, at some more time a step"
    }
    fn paper(&self) -> &'static str {
        "Liu et al. 2024, DoRA"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &BRANCH_OPTIONS
    }
    fn learning_rate(&self) -> f64 {
        2e-3
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: LoraConfig = options.parse(self.name(), self.options())?;
        let adapter = lora::apply(model, &config, true, |model, site, branch, adapter| {
            let squares = squares(model, site)?;
            let mut norms = Tensor::empty(squares.device(), squares.shape())?;
            norms.f32_mut()?.iter_mut().zip(squares.f32()).for_each(|(norm, square)| *norm = square.sqrt());
            let branch = branch.add(model, site, adapter)?;
            let magnitude = adapter.add(model, part(&site.name, MAGNITUDE), norms)?;
            model.hooks.at_linear(&site.name, Box::new(Directed { branch, magnitude, squares }));
            Ok(())
        })?;
        Ok(Applied::Adapter(adapter))
    }

    fn group<'n>(&self, name: &'n str) -> &'n str {
        sites::group(name, ".lora_")
    }

    fn merges(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is("LORA") && lora::is_dora(files)
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        let adapter = lora::load(model, files, &[MAGNITUDE], |model, site, branch, adapter| {
            let squares = squares(model, site)?;
            let branch = branch.add(model, site, adapter)?;
            let name = part(&site.name, MAGNITUDE);
            let magnitude = files.take(&name, &[site.out_features], model.device())?;
            let magnitude = adapter.add(model, name, magnitude)?;
            model.hooks.at_linear(&site.name, Box::new(Directed { branch, magnitude, squares }));
            Ok(())
        })?;
        Ok(Applied::Adapter(adapter))
    }
}

/// The squared norm of each row of a layer's weight.
fn squares(model: &Model<'_>, site: &Linear) -> TensorResult<Tensor> {
    let weight = site.matrix(&Tape::inference(), model.parameters)?;
    let weight = weight.value();
    let mut squares = Tensor::empty(weight.device(), &[weight.rows()])?;
    weight.device().backend().dot_rows(weight.f32(), weight.f32(), squares.f32_mut()?, false);
    Ok(squares)
}

/// A branch, the magnitudes, and the squared norms of the frozen weight's rows, which never change.
struct Directed {
    branch: Branch,
    magnitude: ParamId,
    squares: Tensor,
}

impl Directed {
    /// What each row of `W + s B A` is multiplied with.
    fn factors(&self, tape: &Tape, parameters: &Parameters, base: &Linear) -> TensorResult<Var> {
        let var = |id| tape.parameter(parameters, id);
        let whole = ops::Magnitude {
            magnitude: &var(self.magnitude),
            weight: &base.matrix(tape, parameters)?,
            squares: &self.squares,
            a: &var(self.branch.a),
            b: &var(self.branch.b),
            scale: self.branch.scale,
        };
        ops::magnitude(tape, whole)
    }
}

impl LinearHook for Directed {
    fn linear(
        &self,
        forward: &Forward<'_>,
        base: &Linear,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> TensorResult<Var> {
        let (a, b) = (&forward.parameter(self.branch.a), &forward.parameter(self.branch.b));
        let (weight, low_rank) =
            (&forward.parameter(base.weight), Some(self.branch.low_rank(forward, base, a, b)));
        let directed = ops::Linear { low_rank, ..base.op(weight, None) };
        let y = ops::linear(forward.tape, x, layout, directed)?;
        let factors = self.factors(forward.tape, forward.parameters, base)?;
        let bias = base.bias.map(|bias| forward.parameter(bias));
        ops::scale_columns(forward.tape, &y, &factors, bias.as_ref(), activation)
    }

    fn merged(&self, parameters: &Parameters, base: &Linear) -> TensorResult<Option<Merged>> {
        let tape = Tape::inference();
        let dense = Var::constant(self.branch.dense(parameters, base)?);
        let weight = ops::scale_rows(&tape, &dense, &self.factors(&tape, parameters, base)?)?;
        Ok(Some(Merged { weight: weight.value().clone(), bias: None }))
    }
}
