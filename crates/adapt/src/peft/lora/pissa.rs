//! PiSSA (Meng et al. 2024): of `W = U S V^T` the largest `rank` singular values start the branch, `B = U sqrt(S)` and
//! `A = sqrt(S) V^T` (over the scale), and `W` keeps the rest. What was learnt is `B A - B0 A0`, so it is saved as a plain
//! LoRA of twice the rank on the base as it was, as `peft` converts it.

use retune_model::layers::Linear;
use retune_tensor::{Device, Parameters, Tape, Tensor};
use serde_json::Value;

use super::super::adapter::whole;
use super::super::files::part;
use super::super::svd::Top;
use super::super::{Adapter, AdapterFile, Model};
use super::branch::dense;
use super::{A, B, NewBranch};
use crate::AdaptError;

/// What the names of the start end with, beside the names of the branch: they are frozen.
const START: &str = ".start";
/// Directions beyond the rank that make the largest ones sharp.
const MORE: usize = 10;

/// The start of a branch, taken out of the base's weight.
pub(super) fn start(
    model: &mut Model<'_>,
    site: &Linear,
    branch: &NewBranch,
) -> Result<[Tensor; 2], AdaptError> {
    let rank = branch.a.rows();
    let most = site.in_features.min(site.out_features);
    super::ranges::expect(
        "rank",
        rank <= most,
        &format!("at most {most} for --init pissa at `{}`", site.name),
        rank,
    )?;
    let device = model.device();
    let mut a = Tensor::zeros(device, &[rank, site.in_features])?;
    let mut b = Tensor::zeros(device, &[site.out_features, rank])?;
    let weight = site.matrix(&Tape::inference(), model.parameters)?;
    let weight = weight.value();
    if device != Device::Meta {
        let key = model.seed.with_name("pissa").with_name(&site.name);
        let top = Top::of(weight.f32(), site.in_features, rank, rank + MORE, key);
        let roots: Vec<f64> =
            top.values.iter().map(|value| (value / f64::from(branch.scale)).sqrt()).collect();
        for ((row, direction), root) in a.f32_mut()?.chunks_mut(site.in_features).zip(&top.right).zip(&roots)
        {
            row.iter_mut().zip(direction).for_each(|(to, x)| *to = (x * root) as f32);
        }
        for (place, to) in b.f32_mut()?.iter_mut().enumerate() {
            *to = (top.left[place % rank][place / rank] * roots[place % rank]) as f32;
        }
    }
    let rest = dense(weight, &a, &b, -branch.scale)?;
    site.set_matrix(model.parameters, rest)?;
    Ok([a, b])
}

/// Keeps the start beside the branch that goes on from it.
pub(super) fn keep(model: &mut Model<'_>, site: &str, start: [&Tensor; 2]) -> Result<(), AdaptError> {
    for (end, tensor) in [A, B].into_iter().zip(start) {
        // Memory of its own, as the branch is written to.
        let mut copy = Tensor::empty(tensor.device(), tensor.shape())?;
        tensor.device().backend().copy(tensor.values(), copy.values_mut()?);
        model.parameters.add(part(site, end) + START, copy)?;
    }
    Ok(())
}

/// The adapter's file: with twice the rank where its branches started so, else as it is.
pub(super) fn file(adapter: &Adapter, parameters: &Parameters) -> Result<AdapterFile, AdaptError> {
    let mut file = adapter.empty_file();
    let mut doubled = false;
    for (name, id) in &adapter.tensors {
        let value = &parameters.get(*id).value;
        let start = parameters.find(&format!("{name}{START}")).map(|id| &parameters.get(id).value);
        let tensor = match start {
            None => value.clone(),
            Some(start) if name.ends_with(A) => {
                let shape = [2 * value.rows(), value.columns()];
                filled(value, shape, || [value.f32(), start.f32()].concat())?
            }
            Some(start) => {
                let rank = value.columns().max(1);
                filled(value, [value.rows(), 2 * rank], || {
                    let rows = value.f32().chunks(rank).zip(start.f32().chunks(rank));
                    rows.flat_map(|(row, start)| row.iter().copied().chain(start.iter().map(|x| -x)))
                        .collect()
                })?
            }
        };
        doubled |= start.is_some();
        file.tensors.push((name.clone(), tensor));
    }
    if doubled {
        let rslora = file.config.get("use_rslora").and_then(Value::as_bool) == Some(true);
        let factor = if rslora { 2f64.sqrt() } else { 2.0 };
        for (key, factor) in [("r", 2.0), ("lora_alpha", factor)] {
            let value = adapter.number(key).unwrap_or_default() * factor;
            file.config.insert(key.into(), whole(value));
        }
    }
    Ok(file)
}

/// A tensor of these values where that of `like` is, which may have none: they are planned before they are there.
fn filled(like: &Tensor, shape: [usize; 2], values: impl FnOnce() -> Vec<f32>) -> Result<Tensor, AdaptError> {
    Ok(match like.device() {
        Device::Meta => Tensor::empty(Device::Meta, &shape)?,
        device => Tensor::from_slice(device, &shape, &values())?,
    })
}
