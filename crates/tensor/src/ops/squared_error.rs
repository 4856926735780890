use super::loss::scalar_loss;
use crate::{Error, Result, Tape, Var};

/// The sum of the squared differences of `predictions` and `targets`, as many, divided by `denominator`; a scalar.
///
/// The denominator belongs to the whole step: the number of its predictions, so that a step in k parts is the step in
/// one. Errors if there are not as many targets.
pub fn squared_error(tape: &Tape, predictions: &Var, targets: &[f32], denominator: f32) -> Result<Var> {
    let count = predictions.value().len();
    if targets.len() != count {
        return Err(Error::shape("squared_error", format!("{count} targets"), targets.len()));
    }
    scalar_loss(tape, predictions, |backend, predictions, out, gradient| {
        backend.squared_error(predictions, targets, denominator, out, gradient);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        let targets = [0.5, -2.0, 3.0, 1.25, 0.0];
        Check::new("squared_error", &[&[5, 1]])
            .run(|tape, vars| squared_error(tape, &vars[0], &targets, 3.5));
    }
}
