//! OFT (Qiu et al. 2023): the weight is turned, not added to: `W' = W R^T`, with `R` of orthogonal blocks on the diagonal,
//! so angles between neurons stay. A block is Cayley's map of a skew-symmetric matrix, `(I - Q) (I + Q)^-1`, or its Neumann
//! series cut short, as `peft` has it by default. `Q` starts at 0, so the model starts unchanged. It is the input that is
//! turned in training, which costs a small product. Files are those of `peft`.

use std::sync::Arc;

use retune_model::layers::Linear;
use retune_model::{Forward, LinearHook, Merged};
use retune_tensor::backend::{Activation, Cayley, Layout};
use retune_tensor::{ParamId, Parameters, Result as TensorResult, Tape, Tensor, Var, ops};
use serde::Deserialize;
use serde_json::{Value, json};

use super::files::{AdapterFiles, part};
use super::{Adapter, Applied, Method, Model, ranges, sites};
use crate::{AdaptError, Kind, OptionSpec, Options};

const ANGLES: &str = "oft_R.weight";
/// Of Neumann's series, as in `peft`.
const TERMS: usize = 5;

/// The method.
pub(super) struct Oft;

/// What can be set. Names as in `peft`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct OftConfig {
    /// Channels that are turned together; the nearest divisor of a layer's width.
    pub block_size: usize,
    /// Whether the blocks are exactly orthogonal, by an inverse, or by a series of five terms.
    pub exact: bool,
    /// Which linear layers. All of the encoder's where none is named.
    pub target_modules: Vec<String>,
}

impl Default for OftConfig {
    fn default() -> Self {
        OftConfig { block_size: 32, exact: false, target_modules: Vec::new() }
    }
}

impl Method for Oft {
    fn name(&self) -> &'static str {
        "oft"
    }
    fn summary(&self) -> &'static str {
        "rotations of blocks of channels before the linear layers, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "what the model knows must stay: angles between its neurons do not change"
    }
    fn paper(&self) -> &'static str {
        "Qiu et al. 2023, OFT"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[
            OptionSpec {
                name: "block-size",
                kind: Kind::Integer,
                default: "32",
                help: "channels that are turned together; the nearest divisor of a layer's width",
            },
            OptionSpec {
                name: "exact",
                kind: Kind::Flag,
                default: "false",
                help: "exactly orthogonal blocks, by an inverse and not by a series",
            },
            ranges::TARGET_MODULES,
        ]
    }
    fn learning_rate(&self) -> f64 {
        2e-3
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: OftConfig = options.parse(self.name(), self.options())?;
        ranges::expect(
            "block-size",
            (2..=1024).contains(&config.block_size),
            "2 to 1024",
            config.block_size,
        )?;
        let targets = sites::targets(model, &config.target_modules)?;
        let told = sites::told_targets(model, &targets, &config.target_modules);
        let fan_in_fan_out = sites::fan_in_fan_out(&targets);
        let kind = if config.exact { Cayley::Exact } else { Cayley::Neumann { terms: TERMS } };
        let mut adapter = Adapter::new();
        for site in targets {
            let block = divisor(site.in_features, config.block_size);
            let shape = [site.in_features / block, block * (block - 1) / 2];
            let angles = Tensor::zeros(model.device(), &shape)?;
            place(model, &site, angles, block, kind, &mut adapter)?;
        }
        let fields = json!({
            "peft_type": "OFT",
            // Its series is that of this version and later ones.
            "peft_version": "0.21.2",
            "r": 0,
            "oft_block_size": config.block_size,
            "target_modules": told,
            "module_dropout": 0.0,
            "coft": false,
            "eps": 6e-5,
            "block_share": false,
            "use_cayley_neumann": !config.exact,
            "num_cayley_neumann_terms": TERMS,
            "bias": "none",
            "fan_in_fan_out": fan_in_fan_out,
            "inference_mode": true,
            "init_weights": true,
        });
        Ok(Applied::Adapter(adapter.with_head(model, &fields)))
    }

    fn group<'n>(&self, name: &'n str) -> &'n str {
        sites::group(name, ".oft_")
    }

    fn merges(&self) -> Result<(), &'static str> {
        Ok(())
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is("OFT")
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        files.refuse(&["coft"], "OFT")?;
        let series = files.config.get("use_cayley_neumann").and_then(Value::as_bool).unwrap_or(false);
        let terms = files.config.get("num_cayley_neumann_terms").and_then(Value::as_u64).unwrap_or(5);
        let kind = match usize::try_from(terms) {
            _ if !series => Cayley::Exact,
            Ok(terms) if terms <= 64 => Cayley::Neumann { terms },
            _ => {
                let message = format!("`num_cayley_neumann_terms`: expected at most 64, got {terms}");
                return Err(files.error(message));
            }
        };
        let shares = files.config.get("block_share").and_then(Value::as_bool) == Some(true);
        let number = |key: &str| files.number(key).map(|number| number.unwrap_or(0.0) as usize);
        let (blocks, size) = (number("r")?, number("oft_block_size")?);
        let mut adapter = Adapter::new();
        for site in files.sites(model, ANGLES, &[])? {
            let name = part(&site.name, ANGLES);
            // Of one row for all blocks the size tells how many there are; else their number tells the size.
            let block = match (shares, blocks, size) {
                (false, ..) => site.in_features / files.size(&name, 0).min(site.in_features),
                (true, 0, size) => divisor(site.in_features, size.max(1)),
                (true, blocks, _) => site.in_features / divisor(site.in_features, blocks),
            };
            let rows = if shares { 1 } else { site.in_features / block };
            let angles = files.take(&name, &[rows, block * (block - 1) / 2], model.device())?;
            place(model, &site, angles, block, kind, &mut adapter)?;
        }
        Ok(Applied::Adapter(adapter.with_saved_head(model, files)?))
    }
}

/// The divisor of `size` that is nearest to `wanted`, the lower of two, as `peft` finds it.
fn divisor(size: usize, wanted: usize) -> usize {
    if wanted >= size {
        return size.max(1);
    }
    let higher = (wanted..=size).find(|n| size.is_multiple_of(*n)).unwrap_or(size);
    let lower = (1..=wanted).rev().find(|n| size.is_multiple_of(*n)).unwrap_or(1);
    if wanted - lower <= higher - wanted { lower } else { higher }
}

fn place(
    model: &mut Model<'_>,
    site: &Linear,
    angles: Tensor,
    block: usize,
    kind: Cayley,
    adapter: &mut Adapter,
) -> Result<(), AdaptError> {
    // Blocks of one channel have no angles: there is nothing to train, and nothing turns.
    if block < 2 {
        adapter.add_frozen(model, part(&site.name, ANGLES), angles)?;
        return Ok(());
    }
    let angles = adapter.add(model, part(&site.name, ANGLES), angles)?;
    model.hooks.at_linear(&site.name, Box::new(Rotation { angles, block, kind }));
    Ok(())
}

struct Rotation {
    angles: ParamId,
    block: usize,
    kind: Cayley,
}

impl Rotation {
    /// `[blocks, block, block]`
    fn rotations(&self, tape: &Tape, parameters: &Parameters, base: &Linear) -> TensorResult<Var> {
        let mut angles = tape.parameter(parameters, self.angles);
        let blocks = base.in_features / self.block;
        if angles.value().rows() != blocks {
            angles = ops::select_rows(tape, &angles, &vec![0; blocks])?;
        }
        ops::cayley(tape, &angles, self.block, self.kind)
    }
}

impl LinearHook for Rotation {
    fn linear(
        &self,
        forward: &Forward<'_>,
        base: &Linear,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> TensorResult<Var> {
        let rotations = self.rotations(forward.tape, forward.parameters, base)?;
        let x = ops::rotate(forward.tape, x, &rotations)?;
        base.with_branch(forward, &x, layout, None, activation)
    }

    fn merged(&self, parameters: &Parameters, base: &Linear) -> TensorResult<Option<Merged>> {
        let tape = Tape::inference();
        let rotations = self.rotations(&tape, parameters, base)?;
        let own = base.matrix(&tape, parameters)?;
        let own = own.value();
        let mut weight = Tensor::empty(own.device(), own.shape())?;
        // (x R) W^T = x (W R^T)^T
        let backend = own.device().backend();
        let (shape, rotations) = ([own.rows(), own.columns()], rotations.value().f32());
        backend.rotate_blocks(own.f32(), shape, rotations, self.block, true, weight.f32_mut()?);
        Ok(Some(Merged { weight, bias: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::divisor;

    #[test]
    fn blocks_have_the_nearest_size_that_divides() {
        let cases =
            [(384, 32, 32), (20, 32, 20), (37, 32, 37), (20, 7, 5), (20, 3, 2), (37, 4, 1), (60, 8, 10)];
        for (size, wanted, expected) in cases {
            // 60: 6 and 10 are as near to 8, and the lower one is taken.
            let expected = if (size, wanted) == (60, 8) { 6 } else { expected };
            assert_eq!(divisor(size, wanted), expected, "{size} {wanted}");
        }
    }
}
