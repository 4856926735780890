use std::ops::Range;

use crate::{Error, Result, Tape, Tensor, Var};

/// The columns `range` of `x` `[tokens, columns]`: `[tokens, range.len()]`. Errors if it does not lie inside.
///
/// One product may so give what is used apart, such as query, key and value.
pub fn select_columns(tape: &Tape, x: &Var, range: Range<usize>) -> Result<Var> {
    let (rows, columns) = (x.value().rows(), x.value().columns());
    if range.start > range.end || range.end > columns {
        return Err(Error::shape("select_columns", format!("columns of 0..{columns}"), range));
    }
    let (first, sizes) = (range.start, [columns, range.len()]);
    let device = x.value().device();
    let backend = device.backend();
    let dtype = x.value().dtype();
    let mut value = Tensor::empty_as(device, dtype, &[rows, range.len()])?;
    backend.select_columns(x.value().values(), sizes, first, value.values_mut()?);
    Ok(tape.record(value, &[x], || {
        let node = x.node();
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            sink.accumulate_as(node, device, dtype, &[rows, columns], |mut sums, adds| {
                if !adds {
                    backend.zero(sums.reborrow());
                }
                backend.select_columns_backward(gradient.values(), sizes, first, sums);
                Ok(())
            })
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::add;
    use crate::ops::check::{Check, layout};

    #[test]
    fn gradients_follow_finite_differences() {
        // Two parts that overlap, so that gradients meet.
        Check::new("select_columns", &[&[11, 13]]).run(|tape, vars| {
            let left = select_columns(tape, &vars[0], 2..7)?;
            let right = select_columns(tape, &vars[0], 5..10)?;
            add(tape, &left, &right, &layout(), None)
        });
    }

    #[test]
    fn columns_outside_are_named() {
        let x = Var::constant(Tensor::zeros(crate::Device::Cpu, &[3, 5]).unwrap());
        let error = select_columns(&Tape::inference(), &x, 3..6).unwrap_err();
        assert_eq!(error.to_string(), "select_columns: expected columns of 0..5, got 3..6");
    }
}
