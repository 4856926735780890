use std::sync::Arc;

use super::loss::scalar_loss;
use crate::backend::{CrossEntropy, Layout};
use crate::{Error, Result, Tape, Var};

/// The cross-entropy of one token a row: the `scores` `[tokens, 1]` of a row's tokens are its logits, and its target
/// `targets[row]` is a position in it; a row without one is passed over. The sum over rows is divided by `denominator`; a
/// scalar.
///
/// So are the start and the end of an answer learnt (Devlin et al. 2018, section 4.2). Errors if a target is no position of
/// its row, or `layout` counts other tokens.
pub fn position_cross_entropy(
    tape: &Tape,
    scores: &Var,
    layout: &Arc<Layout>,
    targets: &[Option<u32>],
    denominator: f32,
) -> Result<Var> {
    const OP: &str = "position_cross_entropy";
    if scores.value().shape() != [layout.tokens(), 1] {
        return Err(Error::shape(OP, format!("[{}, 1]", layout.tokens()), scores.value().shape()));
    }
    if targets.len() != layout.rows() {
        return Err(Error::shape(OP, format!("{} targets", layout.rows()), targets.len()));
    }
    let rows = || {
        let rows = layout.cu_seqlens().windows(2).map(|ends| ends[0]..ends[1]).zip(targets);
        rows.filter_map(|(row, target)| Some((row, (*target)?)))
    };
    if let Some((row, bad)) = rows().find(|(row, target)| *target as usize >= row.len()) {
        return Err(Error::Index { op: OP, what: "target", index: bad as usize, len: row.len() });
    }
    scalar_loss(tape, scores, |backend, scores, out, mut gradient| {
        let mut total = 0.0;
        if let Some(gradient) = gradient.as_deref_mut() {
            gradient.fill(0.0);
        }
        for (row, target) in rows() {
            let loss =
                CrossEntropy { targets: &[target], class_weights: None, label_smoothing: 0.0, denominator };
            // On a device without memory there are no scores.
            let Some(scores) = scores.get(row.clone()) else { continue };
            let gradient = gradient.as_deref_mut().and_then(|gradient| gradient.get_mut(row));
            let mut value = [0.0];
            backend.cross_entropy(scores, scores.len(), &loss, &mut value, gradient);
            total += f64::from(value[0]);
        }
        if let [out, ..] = out {
            *out = total as f32;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::ops::check::{Check, layout};

    const TARGETS: [Option<u32>; 4] = [Some(2), Some(0), Some(1), Some(0)];

    #[test]
    fn gradients_follow_finite_differences() {
        Check::new("position_cross_entropy", &[&[11, 1]])
            .run(|tape, vars| position_cross_entropy(tape, &vars[0], &layout(), &TARGETS, 3.5));
        Check::new("position_cross_entropy", &[&[11, 1]]).run(|tape, vars| {
            position_cross_entropy(tape, &vars[0], &layout(), &[Some(2), None, None, Some(1)], 3.5)
        });
    }

    #[test]
    fn targets_are_positions_of_their_rows() {
        let run = |shape: &[usize], targets: &[Option<u32>], device| {
            let scores = Var::constant(crate::Tensor::zeros(device, shape).unwrap());
            position_cross_entropy(&Tape::inference(), &scores, &layout(), targets, 4.0)
        };
        for (shape, targets) in [
            (&[11, 1][..], &[Some(2), Some(1), Some(1), Some(0)][..]),
            (&[11, 1], &[Some(3), None, None, None]),
            (&[11, 1], &[Some(2), Some(0), None]),
            (&[11, 2], &TARGETS),
            (&[10, 1], &TARGETS),
        ] {
            assert!(run(shape, targets, Device::Cpu).is_err(), "{shape:?} {targets:?}");
        }
        // Scores that are all equal say ln(length).
        let expected = [3.0f64, 1.0, 5.0, 2.0].map(f64::ln).iter().sum::<f64>() / 4.0;
        let loss = run(&[11, 1], &TARGETS, Device::Cpu).unwrap().value().item().unwrap();
        assert!((f64::from(loss) - expected).abs() < 1e-6);
        assert!(run(&[11, 1], &TARGETS, Device::Meta).is_ok());
    }
}
