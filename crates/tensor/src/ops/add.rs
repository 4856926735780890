use std::sync::Arc;

use super::{check_dropout, copy, owned, same_device, same_type};
use crate::backend::{Dropout, Layout};
use crate::{Error, Result, Tape, Tensor, Var};

/// `dropout(x) + residual`: the end of a sub-layer whose norm came first.
///
/// All are `[tokens, columns]`. Errors if sizes or devices do not fit.
pub fn add(
    tape: &Tape,
    x: &Var,
    residual: &Var,
    layout: &Arc<Layout>,
    dropout: Option<Dropout>,
) -> Result<Var> {
    const OP: &str = "add";
    residual.value().expect(OP, x.value().shape(), "a residual of shape")?;
    check_dropout(OP, dropout)?;
    if dropout.is_some() && layout.tokens() != x.value().rows() {
        return Err(Error::shape(OP, format!("{} tokens", layout.tokens()), x.value().shape()));
    }
    same_type(OP, x, &[residual])?;
    let backend = same_device(OP, x, &[residual])?.backend();
    let mut value = copy(x.value())?;
    if let Some(dropout) = dropout {
        backend.dropout(value.values_mut()?, layout, dropout);
    }
    backend.add_assign(value.values_mut()?, residual.value().values());

    Ok(tape.record(value, &[x, residual], || {
        let (x, residual, layout) = (x.node(), residual.node(), layout.clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            if residual.is_some() {
                sink.add(residual, gradient.clone())?;
            }
            if x.is_some() {
                let mut dx = gradient;
                if let Some(dropout) = dropout {
                    dx = owned(dx)?;
                    backend.dropout(dx.values_mut()?, &layout, dropout);
                }
                sink.add(x, dx)?;
            }
            Ok(())
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
        for dropout in [None, Some(Dropout { probability: 0.4, key: Key::new(5) })] {
            Check::new("add", &[&[11, 13], &[11, 13]])
                .run(|tape, vars| add(tape, &vars[0], &vars[1], &layout(), dropout));
        }
    }

    #[test]
    fn a_value_can_be_added_to_itself() {
        Check::new("add twice", &[&[11, 3]]).run(|tape, vars| {
            let dropout = Some(Dropout { probability: 0.5, key: Key::new(6) });
            add(tape, &vars[0], &vars[0], &layout(), dropout)
        });
    }
}
