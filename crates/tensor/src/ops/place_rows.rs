use super::{same_device, same_type};
use crate::{Error, Result, Tape, Tensor, Var};

/// Puts the rows of several matrices into one of `shape` `[rows, columns]`: of each part `[index.len(), columns]`, where
/// each of its rows goes. Where none goes, there are zeros. It is the other way round of [`super::select_rows`].
///
/// Errors if sizes or devices do not fit, or a place lies outside.
pub fn place_rows(tape: &Tape, parts: &[(&Var, &[usize])], [rows, columns]: [usize; 2]) -> Result<Var> {
    const OP: &str = "place_rows";
    let Some(((first, _), others)) = parts.split_first() else {
        return Err(Error::shape(OP, "at least one part", 0));
    };
    let others: Vec<&Var> = others.iter().map(|(part, _)| *part).collect();
    let device = same_device(OP, first, &others)?;
    let backend = device.backend();
    for (part, index) in parts {
        part.value().expect(OP, &[index.len(), columns], "a part of shape")?;
        if let Some(bad) = index.iter().find(|row| **row >= rows) {
            return Err(Error::Index { op: OP, what: "row", index: *bad, len: rows });
        }
    }
    let dtype = same_type(OP, first, &others)?;
    let mut value = Tensor::zeros_as(device, dtype, &[rows, columns])?;
    for (part, index) in parts {
        backend.select_rows_backward(part.value().values(), index, columns, value.values_mut()?);
    }
    let inputs: Vec<&Var> = parts.iter().map(|(part, _)| *part).collect();
    Ok(tape.record(value, &inputs, || {
        let parts: Vec<_> = parts.iter().map(|(part, index)| (part.node(), index.to_vec())).collect();
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            for (node, index) in parts.into_iter().filter(|(node, _)| node.is_some()) {
                let mut own = Tensor::empty_as(device, dtype, &[index.len(), columns])?;
                backend.select_rows(gradient.values(), &index, columns, own.values_mut()?);
                sink.add(node, own)?;
            }
            Ok(())
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        Check::new("place_rows", &[&[4, 3], &[3, 3]])
            .run(|tape, vars| place_rows(tape, &[(&vars[0], &[6, 0, 2, 3]), (&vars[1], &[5, 1, 7])], [8, 3]));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let zeros = |shape: &[usize]| Var::constant(Tensor::zeros(Device::Cpu, shape).unwrap());
        let tape = Tape::inference();
        let (two, three) = (zeros(&[2, 3]), zeros(&[3, 3]));
        for (parts, expected) in [
            (vec![], "place_rows: expected at least one part, got 0"),
            (
                vec![(&two, [0, 1].as_slice()), (&three, &[2])],
                "place_rows: expected a part of shape [1, 3], got [3, 3]",
            ),
            (vec![(&two, &[0, 4])], "place_rows: row 4 is out of range, expected less than 4"),
        ] {
            let error = place_rows(&tape, &parts, [4, 3]).unwrap_err().to_string();
            assert_eq!(error, expected);
        }
    }
}
