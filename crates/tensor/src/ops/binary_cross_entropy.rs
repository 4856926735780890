use super::loss::scalar_loss;
use crate::backend::BinaryCrossEntropy;
use crate::{Error, Result, Tape, Var};

/// What a binary cross-entropy is told beside its targets.
#[derive(Debug, Clone, Copy)]
pub struct BinaryCrossEntropyOptions<'a> {
    /// What a target of 1 weighs against one of 0, a column each.
    pub positive_weights: Option<&'a [f32]>,
    /// What the sum over rows and columns is divided by. It belongs to the whole step: rows times columns, so that a
    /// step in k parts is the step in one.
    pub denominator: f32,
}

/// The binary cross-entropy of `logits` `[rows, columns]` against `targets`, as many, from 0 to 1; a scalar.
///
/// Errors if sizes do not fit, or a target is no probability.
pub fn binary_cross_entropy(
    tape: &Tape,
    logits: &Var,
    targets: &[f32],
    options: BinaryCrossEntropyOptions<'_>,
) -> Result<Var> {
    const OP: &str = "binary_cross_entropy";
    let (count, columns) = (logits.value().len(), logits.value().columns());
    if targets.len() != count {
        return Err(Error::shape(OP, format!("{count} targets"), targets.len()));
    }
    if let Some(bad) = targets.iter().find(|target| !(0.0..=1.0).contains(*target)) {
        return Err(Error::shape(OP, "targets from 0 to 1", bad));
    }
    let BinaryCrossEntropyOptions { positive_weights, denominator } = options;
    if let Some(weights) = positive_weights
        && weights.len() != columns
    {
        return Err(Error::shape(OP, format!("{columns} positive weights"), weights.len()));
    }
    let loss = BinaryCrossEntropy { targets, positive_weights, denominator };
    scalar_loss(tape, logits, |backend, logits, out, gradient| {
        backend.binary_cross_entropy(logits, columns, &loss, out, gradient);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        let weights = [0.5, 2.0, 7.0];
        for positive_weights in [None, Some(&weights[..])] {
            Check::new("binary_cross_entropy", &[&[5, 3]]).run(|tape, vars| {
                let targets: Vec<f32> = (0..15).map(|place| [0.0, 1.0, 1.0, 0.0, 0.3][place % 5]).collect();
                let options = BinaryCrossEntropyOptions { positive_weights, denominator: 3.5 };
                binary_cross_entropy(tape, &vars[0], &targets, options)
            });
        }
    }
}
