use crate::backend::Activation;
use crate::{Error, Result, Tape, Tensor, Var};

/// `activation(x[:, ..n]) * x[:, n..]`, the gated linear unit over one product of both halves (Shazeer 2020).
///
/// `x` is `[tokens, 2 n]`, the result `[tokens, n]`. Errors if the width is odd.
pub fn gated(tape: &Tape, x: &Var, activation: Activation) -> Result<Var> {
    let (tokens, width) = (x.value().rows(), x.value().columns());
    if !width.is_multiple_of(2) {
        return Err(Error::shape("gated", "an even width", x.value().shape()));
    }
    let columns = width / 2;
    let device = x.value().device();
    let backend = device.backend();
    let mut value = Tensor::empty_as(device, x.value().dtype(), &[tokens, columns])?;
    backend.gated(activation, x.value().values(), columns, value.values_mut()?);
    let recorded = tape.record(value, &[x], || {
        let (node, x) = (x.node(), x.value().clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let mut dx = Tensor::empty_as(device, x.dtype(), &[tokens, width])?;
            backend.gated_backward(activation, x.values(), gradient.values(), columns, dx.values_mut()?);
            sink.add(node, dx)
        }
    });
    Ok(recorded.remade_by(|| {
        let x = x.value().clone();
        move || {
            let mut value = Tensor::empty_as(device, x.dtype(), &[tokens, columns])?;
            backend.gated(activation, x.values(), columns, value.values_mut()?);
            Ok(value)
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        for activation in
            [Activation::Identity, Activation::Gelu, Activation::GeluTanh, Activation::Silu, Activation::Tanh]
        {
            Check::new("gated", &[&[11, 14]]).run(|tape, vars| gated(tape, &vars[0], activation));
        }
    }

    #[test]
    fn the_first_half_is_activated_and_an_odd_width_is_refused() {
        let x = |shape: &[usize], values: &[f32]| {
            Var::constant(Tensor::from_slice(crate::Device::Cpu, shape, values).unwrap())
        };
        let tape = Tape::inference();
        let out = gated(&tape, &x(&[2, 4], &[-3.0, 2.0, 5.0, -7.0, 1.0, 4.0, -0.5, 3.0]), Activation::Relu);
        assert_eq!(out.unwrap().value().f32(), [0.0, -14.0, -0.5, 12.0]);
        let error = gated(&tape, &x(&[1, 3], &[0.0; 3]), Activation::Relu).unwrap_err();
        assert_eq!(error.to_string(), "gated: expected an even width, got [1, 3]");
    }
}
