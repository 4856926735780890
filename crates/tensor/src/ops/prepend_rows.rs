use std::sync::Arc;

use super::same_device;
use crate::backend::Layout;
use crate::{Result, Tape, Tensor, ValuesMut, Var};

/// Each row of a batch behind rows that all of them share: `prefix` is `[count, columns]`, `x` `[tokens, columns]` as
/// `layout` lays it out, and the result lies as [`Layout::behind`] says.
///
/// The prefix gets the sum of the gradients over the rows, in their order. Errors if sizes or devices do not fit.
pub fn prepend_rows(tape: &Tape, prefix: &Var, x: &Var, layout: &Arc<Layout>) -> Result<Var> {
    const OP: &str = "prepend_rows";
    let (count, tokens, columns) = (prefix.value().rows(), layout.tokens(), x.value().columns());
    x.value().expect(OP, &[tokens, columns], "rows of shape")?;
    prefix.value().expect(OP, &[count, columns], "a prefix of shape")?;
    let device = same_device(OP, prefix, &[x])?;
    let backend = device.backend();
    // Which row of prefix and `x`, one after another, each row of the result is.
    let mut index = Vec::with_capacity(count * layout.rows() + tokens);
    for ends in layout.cu_seqlens().windows(2) {
        index.extend((0..count).chain(count + ends[0]..count + ends[1]));
    }
    let dtype = x.value().dtype();
    let mut value = Tensor::empty_as(device, dtype, &[index.len(), columns])?;
    let shared = prefix.value().to(dtype)?;
    backend.prepend_rows(shared.values(), x.value().values(), &index, columns, value.values_mut()?);
    drop(shared);

    Ok(tape.record(value, &[prefix, x], || {
        let (prefix, x) = (prefix.node(), x.node());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            if prefix.is_some() {
                // Below the numbers of tokens that fit in memory, and u32::MAX is none of the prefix.
                let row = |row: &usize| if *row < count { *row as u32 } else { u32::MAX };
                let rows: Vec<u32> = index.iter().map(row).collect();
                sink.accumulate(prefix, device, &[count, columns], |sums, adds| {
                    if !adds {
                        backend.zero(ValuesMut::F32(sums));
                    }
                    backend.embedding_backward(gradient.values(), &rows, columns, Some(u32::MAX), sums);
                    Ok(())
                })?;
            }
            if x.is_some() {
                let own: Vec<usize> = (0..index.len()).filter(|place| index[*place] >= count).collect();
                let mut dx = Tensor::empty_as(device, dtype, &[tokens, columns])?;
                backend.select_rows(gradient.values(), &own, columns, dx.values_mut()?);
                sink.add(x, dx)?;
            }
            Ok(())
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::ops::check::{Check, layout};

    #[test]
    fn gradients_follow_finite_differences() {
        for count in [1, 3] {
            Check::new("prepend_rows", &[&[count, 5], &[11, 5]])
                .run(|tape, vars| prepend_rows(tape, &vars[0], &vars[1], &layout()));
        }
        // Twice the same, so that its gradients meet.
        Check::new("prepend_rows twice", &[&[2, 3], &[11, 3]]).run(|tape, vars| {
            let once = prepend_rows(tape, &vars[0], &vars[1], &layout())?;
            prepend_rows(tape, &vars[0], &once, &Arc::new(layout().behind(2)))
        });
    }

    #[test]
    fn every_row_begins_with_the_prefix_an_empty_one_too() {
        let layout = Arc::new(Layout::new(&[1, 0, 2], &[4, 5, 1 << 40]));
        let var = |shape: &[usize], values: &[f32]| {
            Var::constant(Tensor::from_slice(Device::Cpu, shape, values).unwrap())
        };
        let prefix = var(&[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let x = var(&[3, 2], &[-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]);
        let out = prepend_rows(&Tape::inference(), &prefix, &x, &layout).unwrap();
        let expected = [
            [1.0, 2.0, 3.0, 4.0, -1.0, -2.0].as_slice(),
            &[1.0, 2.0, 3.0, 4.0],
            &[1.0, 2.0, 3.0, 4.0, -3.0, -4.0, -5.0, -6.0],
        ];
        assert_eq!(out.value().f32(), expected.concat());
        assert_eq!(layout.behind(2), Layout::new(&[3, 2, 4], &[4, 5, 1 << 40]));
    }

    #[test]
    fn sizes_that_do_not_fit_are_told() {
        let zeros = |shape: &[usize]| Var::constant(Tensor::zeros(Device::Cpu, shape).unwrap());
        let tape = Tape::inference();
        for (prefix, x, expected) in [
            (zeros(&[2, 3]), zeros(&[11, 5]), "prepend_rows: expected a prefix of shape [2, 5], got [2, 3]"),
            (zeros(&[2, 5]), zeros(&[9, 5]), "prepend_rows: expected rows of shape [11, 5], got [9, 5]"),
        ] {
            let error = prepend_rows(&tape, &prefix, &x, &layout()).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
