use std::sync::Arc;

use super::cast::in_f32;
use crate::backend::Layout;
use crate::{DType, Error, Result, Tape, Tensor, Var};

/// The mean over the tokens of each row: `x` is `[tokens, columns]`, the result `[rows, columns]`.
///
/// A row without tokens gives zeros. Errors if `layout` counts other tokens.
pub fn mean_rows(tape: &Tape, x: &Var, layout: &Arc<Layout>) -> Result<Var> {
    if x.value().dtype() != DType::F32 {
        return in_f32(tape, [x], |[x]| mean_rows(tape, x, layout));
    }
    let (tokens, columns) = (x.value().rows(), x.value().columns());
    if layout.tokens() != tokens {
        return Err(Error::shape("mean_rows", format!("{} tokens", layout.tokens()), x.value().shape()));
    }
    let device = x.value().device();
    let backend = device.backend();
    let mut value = Tensor::empty(device, &[layout.rows(), columns])?;
    backend.mean_rows(x.value().f32(), layout, columns, value.f32_mut()?);
    Ok(tape.record(value, &[x], || {
        let (node, layout) = (x.node(), layout.clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            sink.accumulate(node, device, &[tokens, columns], |sums, adds| {
                backend.mean_rows_backward(gradient.f32(), &layout, columns, sums, adds);
                Ok(())
            })
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Check, layout};

    #[test]
    fn gradients_follow_finite_differences() {
        Check::new("mean_rows", &[&[11, 5]]).run(|tape, vars| mean_rows(tape, &vars[0], &layout()));
    }

    #[test]
    fn rows_keep_to_themselves_and_an_empty_one_is_zero() {
        let layout = Arc::new(Layout::new(&[1, 0, 3], &[4, 5, 6]));
        let values = [1.5, -2.0, 3.0, 6.0, 9.0, 7.0, -3.0, 2.0];
        let x = Var::constant(Tensor::from_slice(crate::Device::Cpu, &[4, 2], &values).unwrap());
        let out = mean_rows(&Tape::inference(), &x, &layout).unwrap();
        let expected = [1.5, -2.0, 0.0, 0.0, 3.0, 5.0];
        assert!(out.value().f32().iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-6));
    }
}
