use super::loss::scalar_loss;
use crate::backend::CrossEntropy;
use crate::{Error, Result, Tape, Var};

/// What a cross-entropy is told beside its targets.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyOptions<'a> {
    /// A weight for each class.
    pub class_weights: Option<&'a [f32]>,
    /// How much of the target is spread over all classes (Szegedy et al. 2016).
    pub label_smoothing: f32,
    /// What the sum over rows is divided by. It belongs to the whole step: the number of its rows, or the sum of
    /// their classes' weights, so that a step in k parts is the step in one.
    pub denominator: f32,
}

/// The cross-entropy of `logits` `[rows, classes]` against one class a row; a scalar.
///
/// Errors if a target is no class, or sizes do not fit.
pub fn cross_entropy(
    tape: &Tape,
    logits: &Var,
    targets: &[u32],
    options: CrossEntropyOptions<'_>,
) -> Result<Var> {
    const OP: &str = "cross_entropy";
    let (rows, classes) = (logits.value().rows(), logits.value().columns());
    if targets.len() != rows {
        return Err(Error::shape(OP, format!("{rows} targets"), targets.len()));
    }
    if let Some(bad) = targets.iter().find(|target| **target as usize >= classes) {
        return Err(Error::Index { op: OP, what: "target", index: *bad as usize, len: classes });
    }
    let CrossEntropyOptions { class_weights, label_smoothing, denominator } = options;
    if let Some(weights) = class_weights
        && weights.len() != classes
    {
        return Err(Error::shape(OP, format!("{classes} class weights"), weights.len()));
    }
    let loss = CrossEntropy { targets, class_weights, label_smoothing, denominator };
    scalar_loss(tape, logits, |backend, logits, out, gradient| {
        backend.cross_entropy(logits, classes, &loss, out, gradient);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        let weights = [0.5, 2.0, 1.0, 0.1, 3.0];
        for (class_weights, label_smoothing) in
            [(None, 0.0), (Some(&weights[..]), 0.0), (Some(&weights[..]), 0.2)]
        {
            Check::new("cross_entropy", &[&[7, 5]]).run(|tape, vars| {
                let options = CrossEntropyOptions { class_weights, label_smoothing, denominator: 3.5 };
                cross_entropy(tape, &vars[0], &[0, 4, 2, 2, 1, 3, 0], options)
            });
        }
    }
}
