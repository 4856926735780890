use std::sync::Arc;

use super::{check_dropout, copy, owned};
use crate::backend::{Dropout, Layout};
use crate::{Error, Result, Tape, Tensor, Var};

/// Sets values of `x` `[tokens, columns]` to zero and divides the others by what remains (Srivastava et al. 2014).
///
/// Errors if `layout` counts other tokens, or the probability is not in [0, 1).
pub fn dropout(tape: &Tape, x: &Var, layout: &Arc<Layout>, dropout: Option<Dropout>) -> Result<Var> {
    check_dropout("dropout", dropout)?;
    let Some(dropout) = dropout else { return Ok(x.clone()) };
    if layout.tokens() != x.value().rows() {
        return Err(Error::shape("dropout", format!("{} tokens", layout.tokens()), x.value().shape()));
    }
    let backend = x.value().device().backend();
    let mut value = copy(x.value())?;
    backend.dropout(value.values_mut()?, layout, dropout);
    Ok(tape.record(value, &[x], || {
        let (node, layout) = (x.node(), layout.clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let mut gradient = owned(gradient)?;
            backend.dropout(gradient.values_mut()?, &layout, dropout);
            sink.add(node, gradient)
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Check, layout};
    use crate::random::Key;

    #[test]
    fn gradients_follow_finite_differences() {
        let dropped = Some(Dropout { probability: 0.5, key: Key::new(1) });
        Check::new("dropout", &[&[11, 37]]).run(|tape, vars| dropout(tape, &vars[0], &layout(), dropped));
    }

    #[test]
    fn the_share_that_is_dropped_is_the_one_asked_for() {
        let layout = Arc::new(Layout::new(&[100, 28], &[5, 1 << 40]));
        let x = Var::constant(Tensor::from_slice(crate::Device::Cpu, &[128, 100], &[1.0; 12_800]).unwrap());
        let dropped = Some(Dropout { probability: 0.1, key: Key::new(1) });
        let out = dropout(&Tape::inference(), &x, &layout, dropped).unwrap();
        let zeros = out.value().f32().iter().filter(|x| **x == 0.0).count();
        assert!((1_150..1_410).contains(&zeros), "{zeros} of 12800");
        // 0.1 as a share of 65,536 draws, and what is kept divided by exactly what remains.
        let kept = 65_536.0 / (65_536.0 - 6_554.0);
        assert!(out.value().f32().iter().all(|x| *x == 0.0 || (*x - kept).abs() < 1e-6));
    }
}
