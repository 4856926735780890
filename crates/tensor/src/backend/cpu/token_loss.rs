//! The loss of one word of a large vocabulary a token, and its gradient in the place of the logits.

use rayon::prelude::*;

use super::math;
use super::parallel::vectorised;

/// Of each row of `logits`, `losses = -log p_target`; with `gradient`, the logits become `gradient (p - one_hot)`.
pub(super) fn token_losses(logits: &mut [f32], targets: &[u32], losses: &mut [f32], gradient: Option<f32>) {
    let columns = logits.len() / targets.len().max(1);
    if columns == 0 {
        return;
    }
    logits.par_chunks_mut(columns).zip(targets).zip(losses).with_max_len(1).for_each(
        |((logits, target), loss)| {
            vectorised(
                #[inline(always)]
                || {
                    let target = *target as usize;
                    let largest = math::max(logits, |x| x);
                    // Beside the largest, not added to it: the digits of a sum with large logits would be theirs.
                    let lse = math::sum(
                        logits,
                        #[inline(always)]
                        |x| math::exp(x - largest),
                    )
                    .ln();
                    *loss = (largest - logits[target]) + lse;
                    if let Some(factor) = gradient {
                        for x in logits.iter_mut() {
                            *x = factor * math::exp((*x - largest) - lse);
                        }
                        logits[target] -= factor;
                    }
                },
            );
        },
    );
}
