//! Singular values: the largest of a matrix, by a random subspace and Jacobi's rotations (Halko et al. 2011), in f64.

use retune_tensor::random::Key;

/// Passes over the matrix that make the largest values sharp.
const PASSES: usize = 6;

/// The largest singular values of a matrix, and their directions.
pub(super) struct Top {
    pub values: Vec<f64>,
    /// Each of as many numbers as the matrix has rows.
    pub left: Vec<Vec<f64>>,
    /// Each of as many as it has columns.
    pub right: Vec<Vec<f64>>,
}

impl Top {
    /// The first `rank` of `matrix`, with rows of `width`: a random subspace of `count` directions, some more than the rank, is
    /// turned towards them, and Jacobi's rotations find them in it. They are exact where the matrix has no more directions.
    pub fn of(matrix: &[f32], width: usize, rank: usize, count: usize, key: Key) -> Top {
        let height = matrix.len() / width.max(1);
        let count = count.max(rank).min(width).min(height);
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

/// Gram and Schmidt, twice over each, which is enough for any input; what depends on those before becomes 0, since what is left
/// of it is rounding.
fn orthonormalise(vectors: &mut [Vec<f64>]) {
    const ROUNDING: f64 = 1e-12;
    for place in 0..vectors.len() {
        let (done, rest) = vectors.split_at_mut(place);
        let Some(x) = rest.first_mut() else { return };
        let before = norm(x);
        for _ in 0..2 {
            for other in &*done {
                let along = dot(x, other);
                x.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
            }
        }
        let length = norm(x);
        x.iter_mut().for_each(|x| *x = if length > ROUNDING * before { *x / length } else { 0.0 });
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
        let top = Top::of(&matrix, width, 3, 13, Key::new(5));
        for (k, (got, expected)) in top.values.iter().zip(values).enumerate() {
            assert!((got / expected - 1.0).abs() < 1e-6, "{got} and {expected}");
            assert!((dot(&top.left[k], &left[k]).abs() - 1.0).abs() < 1e-5);
            let sign = dot(&top.left[k], &left[k]) * dot(&top.right[k], &right[k]);
            assert!((sign - 1.0).abs() < 1e-5);
        }
        // As many directions as there are, of which most are none of the matrix's.
        for count in [13, 17] {
            let top = Top::of(&matrix, width, 5, count, Key::new(6));
            for (got, expected) in top.values.iter().zip(values) {
                assert!((got / expected - 1.0).abs() < 1e-6, "{count}: {got} and {expected}");
            }
        }
        // A rank that the matrix does not have, and none at all.
        let top = Top::of(&matrix, width, 9, 19, Key::new(5));
        assert!(top.values[5..].iter().all(|value| *value < 1e-5), "{:?}", top.values);
        assert!(Top::of(&[0.0; 12], 3, 2, 12, Key::new(5)).values.iter().all(|value| *value < 1e-12));
    }
}
