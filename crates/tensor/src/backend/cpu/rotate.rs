//! Rotations of blocks of channels, and the map from skew-symmetric matrices to them.

use rayon::prelude::*;

use super::parallel::{rows_per_block, vectorised};
use crate::backend::Cayley;

/// `out[t, n] = values[t, n] R[n]`, a row vector of `block` channels times a matrix.
pub(super) fn rotate_blocks(values: &[f32], rotations: &[f32], block: usize, back: bool, out: &mut [f32]) {
    let columns = rotations.len() / block.max(1);
    if columns == 0 {
        return;
    }
    // Transposed once, so that the loop below runs along rows.
    let turned;
    let rotations = if back {
        turned = transposed(rotations, block);
        &turned
    } else {
        rotations
    };
    let rows = rows_per_block(columns);
    out.par_chunks_mut(rows * columns).zip(values.par_chunks(rows * columns)).for_each(|(out, values)| {
        vectorised(
            #[inline(always)]
            || {
                for (out, row) in out.chunks_exact_mut(columns).zip(values.chunks_exact(columns)) {
                    let blocks = out.chunks_exact_mut(block).zip(row.chunks_exact(block));
                    for ((out, x), rotation) in blocks.zip(rotations.chunks_exact(block * block)) {
                        out.fill(0.0);
                        for (x, row) in x.iter().zip(rotation.chunks_exact(block)) {
                            out.iter_mut().zip(row).for_each(|(out, r)| *out += x * r);
                        }
                    }
                }
            },
        );
    });
}

fn transposed(matrices: &[f32], n: usize) -> Vec<f32> {
    let mut out = vec![0.0; matrices.len()];
    for (out, matrix) in out.chunks_exact_mut(n * n).zip(matrices.chunks_exact(n * n)) {
        for (place, x) in matrix.iter().enumerate() {
            out[place % n * n + place / n] = *x;
        }
    }
    out
}

/// The matrices are small (32 x 32 by default): each is one task, in f64.
pub(super) fn cayley(angles: &[f32], block: usize, kind: Cayley, out: &mut [f32]) {
    let size = block * block;
    out.par_chunks_mut(size).zip(angles.par_chunks(count(block).max(1))).for_each(|(out, angles)| {
        let q = skew(angles, block);
        let rotation = match kind {
            Cayley::Exact => inverse_of_identity_plus(&q, block)
                .iter()
                .zip(identity(block))
                .map(|(m, i)| 2.0 * m - i)
                .collect(),
            Cayley::Neumann { terms } => {
                let mut sum = identity(block);
                for (coefficient, power) in coefficients(terms).into_iter().zip(powers(&q, block, terms)) {
                    sum.iter_mut().zip(power).for_each(|(sum, x)| *sum += coefficient * x);
                }
                sum
            }
        };
        out.iter_mut().zip(rotation).for_each(|(out, x)| *out = x as f32);
    });
}

/// The gradient by the angles, for `gradient` by the rotations.
pub(super) fn cayley_backward(angles: &[f32], block: usize, kind: Cayley, gradient: &[f32], out: &mut [f32]) {
    let elements = count(block).max(1);
    out.par_chunks_mut(elements)
        .zip(angles.par_chunks(elements))
        .zip(gradient.par_chunks(block * block))
        .for_each(|((out, angles), gradient)| {
            let q = skew(angles, block);
            let gradient: Vec<f64> = gradient.iter().map(|g| f64::from(*g)).collect();
            let dq = match kind {
                // R = 2 (I + Q)^-1 - I, so dR = -2 (I + Q)^-1 dQ (I + Q)^-1.
                Cayley::Exact => {
                    let m = flipped(&inverse_of_identity_plus(&q, block), block);
                    let mut dq = multiply(&multiply(&m, &gradient, block), &m, block);
                    dq.iter_mut().for_each(|x| *x *= -2.0);
                    dq
                }
                // d(Q^k) = the sum over j < k of Q^j dQ Q^(k - 1 - j).
                Cayley::Neumann { terms } => {
                    let mut up = vec![identity(block)];
                    up.extend(powers(&flipped(&q, block), block, terms));
                    let mut dq = vec![0.0; block * block];
                    for (k, coefficient) in coefficients(terms).into_iter().enumerate() {
                        for j in 0..=k {
                            let part = multiply(&multiply(&up[j], &gradient, block), &up[k - j], block);
                            dq.iter_mut().zip(part).for_each(|(sum, x)| *sum += coefficient * x);
                        }
                    }
                    dq
                }
            };
            let upper = (0..block).flat_map(|i| (i + 1..block).map(move |j| (i, j)));
            out.iter_mut()
                .zip(upper)
                .for_each(|(out, (i, j))| *out = (dq[i * block + j] - dq[j * block + i]) as f32);
        });
}

/// Values above the diagonal.
fn count(block: usize) -> usize {
    block * block.saturating_sub(1) / 2
}

/// What the powers of Q from the first on are multiplied with: `peft` cuts the series so.
fn coefficients(terms: usize) -> Vec<f64> {
    match terms {
        0 | 1 => Vec::new(),
        2 => vec![2.0],
        3 => vec![2.0, 2.0, 1.0],
        _ => (1..terms).map(|power| if power + 1 == terms { 1.0 } else { 2.0 }).collect(),
    }
}

fn powers(q: &[f64], n: usize, terms: usize) -> Vec<Vec<f64>> {
    let mut powers: Vec<Vec<f64>> = Vec::new();
    for _ in coefficients(terms) {
        let next = powers.last().map_or_else(|| q.to_vec(), |power| multiply(power, q, n));
        powers.push(next);
    }
    powers
}

fn skew(angles: &[f32], n: usize) -> Vec<f64> {
    let mut q = vec![0.0; n * n];
    let upper = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
    for ((i, j), angle) in upper.zip(angles) {
        q[i * n + j] = f64::from(*angle);
        q[j * n + i] = -f64::from(*angle);
    }
    q
}

fn identity(n: usize) -> Vec<f64> {
    (0..n * n).map(|place| if place / n == place % n { 1.0 } else { 0.0 }).collect()
}

fn flipped(matrix: &[f64], n: usize) -> Vec<f64> {
    (0..n * n).map(|place| matrix[place % n * n + place / n]).collect()
}

fn multiply(left: &[f64], right: &[f64], n: usize) -> Vec<f64> {
    let mut out = vec![0.0; n * n];
    for (out, row) in out.chunks_exact_mut(n).zip(left.chunks_exact(n)) {
        for (x, right) in row.iter().zip(right.chunks_exact(n)) {
            out.iter_mut().zip(right).for_each(|(out, y)| *out += x * y);
        }
    }
    out
}

/// Gauss and Jordan's elimination. I + Q is never singular, as the eigenvalues of Q are imaginary; pivots keep it exact.
fn inverse_of_identity_plus(q: &[f64], n: usize) -> Vec<f64> {
    let mut left: Vec<f64> = q.iter().zip(identity(n)).map(|(q, i)| q + i).collect();
    let mut right = identity(n);
    for column in 0..n {
        let pivot = (column..n)
            .max_by(|a, b| left[a * n + column].abs().total_cmp(&left[b * n + column].abs()))
            .unwrap_or(column);
        for matrix in [&mut left, &mut right] {
            for k in 0..n {
                matrix.swap(column * n + k, pivot * n + k);
            }
        }
        let factor = 1.0 / left[column * n + column];
        for matrix in [&mut left, &mut right] {
            matrix[column * n..][..n].iter_mut().for_each(|x| *x *= factor);
        }
        for row in (0..n).filter(|row| *row != column) {
            let factor = left[row * n + column];
            for matrix in [&mut left, &mut right] {
                for k in 0..n {
                    matrix[row * n + k] -= factor * matrix[column * n + k];
                }
            }
        }
    }
    right
}
