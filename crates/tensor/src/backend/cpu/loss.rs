//! Cross-entropy, with class weights and label smoothing as PyTorch defines them.

use super::math;
use super::parallel::vectorised;
use crate::backend::CrossEntropy;

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
        vectorised(|| {
            let largest = math::max(logits);
            // Beside the largest, not added to it: the digits of a sum with large logits would be theirs.
            let lse = math::sum(logits, |x| math::exp(x - largest)).ln();
            let surprise = |x: f32| f64::from(largest) - f64::from(x) + f64::from(lse);
            let mut value = f64::from(direct) * surprise(logits[target]);
            if smooth > 0.0 {
                let spread: f64 =
                    logits.iter().enumerate().map(|(class, x)| f64::from(weight(class)) * surprise(*x)).sum();
                value += f64::from(smooth) * spread;
            }
            total += value;
            if let Some(dlogits) = dlogits.as_deref_mut() {
                let gradient = &mut dlogits[row * classes..][..classes];
                // The weights of all log-probabilities of the row: what its softmax is multiplied with.
                let mass = direct + smooth * all_weights;
                for (class, (g, x)) in gradient.iter_mut().zip(logits).enumerate() {
                    *g = (mass * math::exp((x - largest) - lse) - smooth * weight(class)) / loss.denominator;
                }
                gradient[target] -= direct / loss.denominator;
            }
        });
    }
    out[0] = (total / f64::from(loss.denominator)) as f32;
}
