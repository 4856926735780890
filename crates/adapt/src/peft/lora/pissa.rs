//! PiSSA (Meng et al. 2024): of `W = U S V^T` the largest `rank` singular values start the branch, `B = U sqrt(S)` and
//! `A = sqrt(S) V^T` (over the scale), and `W` keeps the rest. What was learnt is `B A - B0 A0`, so it is saved as a plain
//! LoRA of twice the rank on the base as it was, as `peft` converts it.

use retune_model::layers::Linear;
use retune_tensor::random::Key;
use retune_tensor::{Device, Parameters, Tensor};
use serde_json::Value;

use super::super::adapter::whole;
use super::super::files::part;
use super::super::{Adapter, AdapterFile, Model};
use super::branch::dense;
use super::{A, B, NewBranch};
use crate::AdaptError;

/// What the names of the start end with, beside the names of the branch: they are frozen.
const START: &str = ".start";
/// Directions beyond the rank, and passes over the weight, that make the largest ones sharp (Halko et al. 2011).
const MORE: usize = 10;
const PASSES: usize = 6;

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
    let weight = &model.parameters.get(site.weight).value;
    if device != Device::Meta {
        let key = model.seed.with_name("pissa").with_name(&site.name);
        let top = Top::of(weight.f32(), site.in_features, rank, key);
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
    model.parameters.get_mut(site.weight).value = rest;
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
                let rows = [value.f32(), start.f32()].concat();
                Tensor::from_slice(value.device(), &[2 * value.rows(), value.columns()], &rows)?
            }
            Some(start) => {
                let rank = value.columns().max(1);
                let rows = value.f32().chunks(rank).zip(start.f32().chunks(rank));
                let columns: Vec<f32> = rows
                    .flat_map(|(row, start)| row.iter().copied().chain(start.iter().map(|x| -x)))
                    .collect();
                Tensor::from_slice(value.device(), &[value.rows(), 2 * rank], &columns)?
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

/// The largest singular values of a matrix, and their directions.
struct Top {
    values: Vec<f64>,
    /// Each of as many numbers as the matrix has rows.
    left: Vec<Vec<f64>>,
    /// Each of as many as it has columns.
    right: Vec<Vec<f64>>,
}

impl Top {
    /// Of `matrix`, with rows of `width`: a random subspace is turned towards them, and Jacobi's rotations find them in it.
    fn of(matrix: &[f32], width: usize, rank: usize, key: Key) -> Top {
        let height = matrix.len() / width.max(1);
        let count = (rank + MORE).min(width).min(height);
        let stream = &mut key.stream();
        let mut right: Vec<Vec<f64>> =
            (0..count).map(|_| (0..width).map(|_| f64::from(stream.normal())).collect()).collect();
        for _ in 0..PASSES {
            let mut left: Vec<Vec<f64>> = right.iter().map(|x| times(matrix, width, x)).collect();
            orthonormalise(&mut left);
            right = left.iter().map(|x| times_transposed(matrix, width, x)).collect();
            orthonormalise(&mut right);
        }
        // The matrix on the subspace: orthogonal columns are left directions times values.
        let mut left: Vec<Vec<f64>> = right.iter().map(|x| times(matrix, width, x)).collect();
        diagonalise(&mut left, &mut right);
        let mut order: Vec<(f64, usize)> =
            left.iter().enumerate().map(|(place, x)| (norm(x), place)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        order.truncate(rank);
        Top {
            values: order.iter().map(|(value, _)| *value).collect(),
            left: order
                .iter()
                .map(|(value, place)| {
                    left[*place].iter().map(|x| if *value > 0.0 { x / value } else { 0.0 }).collect()
                })
                .collect(),
            right: order.iter().map(|(_, place)| right[*place].clone()).collect(),
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

fn times(matrix: &[f32], width: usize, x: &[f64]) -> Vec<f64> {
    matrix.chunks(width.max(1)).map(|row| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum()).collect()
}

fn times_transposed(matrix: &[f32], width: usize, x: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; width];
    for (row, x) in matrix.chunks(width.max(1)).zip(x) {
        out.iter_mut().zip(row).for_each(|(out, w)| *out += f64::from(*w) * x);
    }
    out
}

/// Gram and Schmidt, twice over each, which is enough for any input.
fn orthonormalise(vectors: &mut [Vec<f64>]) {
    for place in 0..vectors.len() {
        let (done, rest) = vectors.split_at_mut(place);
        let Some(x) = rest.first_mut() else { return };
        for _ in 0..2 {
            for other in &*done {
                let along = dot(x, other);
                x.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
            }
        }
        let length = norm(x);
        x.iter_mut().for_each(|x| *x = if length > 0.0 { *x / length } else { 0.0 });
    }
}

/// Hestenes' one-sided rotations: turns pairs of `left` until all are orthogonal, and `right` with them.
fn diagonalise(left: &mut [Vec<f64>], right: &mut [Vec<f64>]) {
    const SWEEPS: usize = 40;
    for _ in 0..SWEEPS {
        let mut turned = false;
        for p in 0..left.len() {
            for q in p + 1..left.len() {
                let (a, b, meet) =
                    (dot(&left[p], &left[p]), dot(&left[q], &left[q]), dot(&left[p], &left[q]));
                if meet.abs() <= 1e-14 * (a * b).sqrt() {
                    continue;
                }
                turned = true;
                let zeta = (b - a) / (2.0 * meet);
                let tangent = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
                for all in [&mut *left, &mut *right] {
                    let (first, second) = all.split_at_mut(q);
                    for (x, y) in first[p].iter_mut().zip(&mut second[0]) {
                        let (old_x, old_y) = (*x, *y);
                        *x = cosine * (old_x - tangent * old_y);
                        *y = cosine * (tangent * old_x + old_y);
                    }
                }
            }
        }
        if !turned {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_singular_values_are_found() {
        // U S V^T of values 9, 4, 2, 1, 0.5 over random orthonormal directions.
        let (height, width, values) = (23, 17, [9.0, 4.0, 2.0, 1.0, 0.5]);
        let stream = &mut Key::new(4).stream();
        let mut random = |len: usize| -> Vec<Vec<f64>> {
            let mut all: Vec<Vec<f64>> =
                (0..values.len()).map(|_| (0..len).map(|_| f64::from(stream.normal())).collect()).collect();
            orthonormalise(&mut all);
            all
        };
        let (left, right) = (random(height), random(width));
        let matrix: Vec<f32> = (0..height * width)
            .map(|place| {
                let (i, j) = (place / width, place % width);
                (0..values.len()).map(|k| values[k] * left[k][i] * right[k][j]).sum::<f64>() as f32
            })
            .collect();
        let top = Top::of(&matrix, width, 3, Key::new(5));
        for (k, (got, expected)) in top.values.iter().zip(values).enumerate() {
            assert!((got / expected - 1.0).abs() < 1e-6, "{got} and {expected}");
            assert!((dot(&top.left[k], &left[k]).abs() - 1.0).abs() < 1e-5);
            let sign = dot(&top.left[k], &left[k]) * dot(&top.right[k], &right[k]);
            assert!((sign - 1.0).abs() < 1e-5);
        }
        // A rank that the matrix does not have, and none at all.
        let top = Top::of(&matrix, width, 9, Key::new(5));
        assert!(top.values[5..].iter().all(|value| *value < 1e-5), "{:?}", top.values);
        assert!(Top::of(&[0.0; 12], 3, 2, Key::new(5)).values.iter().all(|value| *value < 1e-12));
    }
}
