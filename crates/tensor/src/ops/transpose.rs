use crate::{Result, Tape, Tensor, Var};

/// Rows and columns exchanged: `[rows, columns]` to `[columns, rows]`.
pub fn transpose(tape: &Tape, x: &Var) -> Result<Var> {
    let (rows, columns, device) = (x.value().rows(), x.value().columns(), x.value().device());
    let turned = move |values: &Tensor, shape: [usize; 2]| {
        let mut out = Tensor::empty_as(device, values.dtype(), &[shape[1], shape[0]])?;
        device.backend().transpose(values.values(), shape, out.values_mut()?);
        Ok::<_, crate::Error>(out)
    };
    let value = turned(x.value(), [rows, columns])?;
    Ok(tape.record(value, &[x], || {
        let node = x.node();
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            sink.add(node, turned(&gradient, [columns, rows])?)
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        Check::new("transpose", &[&[37, 70]]).sampled(90).run(|tape, vars| transpose(tape, &vars[0]));
    }

    #[test]
    fn values_change_places() {
        let x = Tensor::from_slice(crate::Device::Cpu, &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let out = transpose(&Tape::inference(), &Var::constant(x)).unwrap();
        assert_eq!(out.value().shape(), [3, 2]);
        assert_eq!(out.value().f32(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
