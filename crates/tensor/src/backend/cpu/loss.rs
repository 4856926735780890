//! The losses, with weights and label smoothing as PyTorch defines them. Each is summed in f64, row by row.

use super::math;
use super::parallel::vectorised;
use crate::backend::{BinaryCrossEntropy, CrossEntropy};

/// With `w` the class weights, `e` the smoothing, `K` the classes and `p` the softmax, a row of class `y` adds
/// `-(1 - e) w_y log p_y - e / K sum_c w_c log p_c`.
pub(super) fn cross_entropy(
    logits: &[f32],
    classes: usize,
    loss: &CrossEntropy<'_>,
    out: &mut [f32],
    mut dlogits: Option<&mut [f32]>,
) {
    let smooth = loss.label_smoothing / classes as f32;
    let weight = |class: usize| loss.class_weights.map_or(1.0, |weights| weights[class]);
    let all_weights = (0..classes).map(weight).sum::<f32>();
    let mut total = 0.0f64;
    for (row, (logits, target)) in logits.chunks_exact(classes.max(1)).zip(loss.targets).enumerate() {
        let target = *target as usize;
        let direct = (1.0 - loss.label_smoothing) * weight(target);
        vectorised(
            #[inline(always)]
            || {
                let largest = math::max(logits, |x| x);
                // Beside the largest, not added to it: the digits of a sum with large logits would be theirs.
                let lse = math::sum(
                    logits,
                    #[inline(always)]
                    |x| math::exp(x - largest),
                )
                .ln();
                let surprise = |x: f32| f64::from(largest) - f64::from(x) + f64::from(lse);
                let mut value = f64::from(direct) * surprise(logits[target]);
                if smooth > 0.0 {
                    let spread: f64 = logits
                        .iter()
                        .enumerate()
                        .map(|(class, x)| f64::from(weight(class)) * surprise(*x))
                        .sum();
                    value += f64::from(smooth) * spread;
                }
                total += value;
                if let Some(dlogits) = dlogits.as_deref_mut() {
                    let gradient = &mut dlogits[row * classes..][..classes];
                    // The weights of all log-probabilities of the row: what its softmax is multiplied with.
                    let mass = direct + smooth * all_weights;
                    for (class, (g, x)) in gradient.iter_mut().zip(logits).enumerate() {
                        *g = (mass * math::exp((x - largest) - lse) - smooth * weight(class))
                            / loss.denominator;
                    }
                    gradient[target] -= direct / loss.denominator;
                }
            },
        );
    }
    out[0] = (total / f64::from(loss.denominator)) as f32;
}

/// With `y` the target, `q` its column's weight and `s` the sigmoid, a logit `x` adds
/// `-q y log s(x) - (1 - y) log s(-x)`.
pub(super) fn binary_cross_entropy(
    logits: &[f32],
    columns: usize,
    loss: &BinaryCrossEntropy<'_>,
    out: &mut [f32],
    mut dlogits: Option<&mut [f32]>,
) {
    let mut total = 0.0f64;
    for (place, (x, y)) in logits.iter().zip(loss.targets).enumerate() {
        let (x, y) = (f64::from(*x), f64::from(*y));
        let weight = loss.positive_weights.map_or(1.0, |weights| f64::from(weights[place % columns]));
        // -log s(x) and -log s(-x) without a large power: the one is the other plus x.
        let small = (-x.abs()).exp();
        let tail = small.ln_1p();
        let (negative_log, negative_log_of_rest) = (tail + (-x).max(0.0), tail + x.max(0.0));
        total += weight * y * negative_log + (1.0 - y) * negative_log_of_rest;
        if let Some(dlogits) = dlogits.as_deref_mut() {
            let [larger, smaller] = [1.0, small].map(|part| part / (1.0 + small));
            let (s, rest) = if x >= 0.0 { (larger, smaller) } else { (smaller, larger) };
            let gradient = (1.0 - y) * s - weight * y * rest;
            dlogits[place] = (gradient / f64::from(loss.denominator)) as f32;
        }
    }
    out[0] = (total / f64::from(loss.denominator)) as f32;
}

/// A prediction adds the square of its distance to the target.
pub(super) fn squared_error(
    predictions: &[f32],
    targets: &[f32],
    denominator: f32,
    out: &mut [f32],
    mut dpredictions: Option<&mut [f32]>,
) {
    let mut total = 0.0f64;
    for (place, (x, y)) in predictions.iter().zip(targets).enumerate() {
        let error = f64::from(*x) - f64::from(*y);
        total += error * error;
        if let Some(dpredictions) = dpredictions.as_deref_mut() {
            dpredictions[place] = (2.0 * error / f64::from(denominator)) as f32;
        }
    }
    out[0] = (total / f64::from(denominator)) as f32;
}
