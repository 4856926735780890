use crate::{Error, Result, Tape, Tensor, Var};

/// The rows `index` of `x` `[tokens, columns]`: `[index.len(), columns]`. Errors if one lies outside.
pub fn select_rows(tape: &Tape, x: &Var, index: &[usize]) -> Result<Var> {
    let (rows, columns) = (x.value().rows(), x.value().columns());
    if let Some(bad) = index.iter().find(|row| **row >= rows) {
        return Err(Error::Index { op: "select_rows", what: "row", index: *bad, len: rows });
    }
    let device = x.value().device();
    let backend = device.backend();
    let dtype = x.value().dtype();
    let mut value = Tensor::empty_as(device, dtype, &[index.len(), columns])?;
    backend.select_rows(x.value().values(), index, columns, value.values_mut()?);
    Ok(tape.record(value, &[x], || {
        let (node, index) = (x.node(), index.to_vec());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            sink.accumulate_as(node, device, dtype, &[rows, columns], |mut sums, adds| {
                if !adds {
                    backend.zero(sums.reborrow());
                }
                backend.select_rows_backward(gradient.values(), &index, columns, sums);
                Ok(())
            })
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        Check::new("select_rows", &[&[11, 3]]).run(|tape, vars| select_rows(tape, &vars[0], &[0, 4, 4, 10]));
    }
}
