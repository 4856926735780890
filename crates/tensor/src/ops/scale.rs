use super::cast::in_f32;
use super::{copy, owned, same_device};
use crate::backend::{Activation, Ends};
use crate::{DType, Result, Tape, Tensor, Var};

/// `factor * x`, of any shape.
#[expect(clippy::float_cmp, reason = "only a factor of exactly 1 changes nothing")]
pub fn scale(tape: &Tape, x: &Var, factor: f32) -> Result<Var> {
    if factor == 1.0 {
        return Ok(x.clone());
    }
    if x.value().dtype() != DType::F32 {
        return in_f32(tape, [x], |[x]| scale(tape, x, factor));
    }
    let backend = x.value().device().backend();
    let mut value = copy(x.value())?;
    backend.scale(value.values_mut()?, factor);
    Ok(tape.record(value, &[x], || {
        let node = x.node();
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let mut gradient = owned(gradient)?;
            backend.scale(gradient.values_mut()?, factor);
            sink.add(node, gradient)
        }
    }))
}

/// `activation(x * factors + bias)`, each column with its own factor.
///
/// `x` is `[tokens, columns]`, `factors` and `bias` `[columns]`.
/// Errors if sizes or devices do not fit.
pub fn scale_columns(
    tape: &Tape,
    x: &Var,
    factors: &Var,
    bias: Option<&Var>,
    activation: Activation,
) -> Result<Var> {
    const OP: &str = "scale_columns";
    if x.value().dtype() != DType::F32 {
        return in_f32(tape, [x, factors], |[x, factors]| scale_columns(tape, x, factors, bias, activation));
    }
    let (rows, columns) = (x.value().rows(), x.value().columns());
    // A column of factors, or a matrix with one row, is as good.
    if factors.value().len() != columns {
        factors.value().expect(OP, &[columns], "factors of shape")?;
    }
    let mut inputs = vec![x, factors];
    if let Some(bias) = bias {
        bias.value().expect(OP, &[columns], "a bias of shape")?;
        inputs.push(bias);
    }
    let device = same_device(OP, x, &inputs)?;
    let backend = device.backend();
    let shape = [rows, columns];
    let mut value = Tensor::empty(device, &shape)?;
    let needed = tape.is_recording() && inputs.iter().any(|input| input.needs_gradient());
    let mut before = match activation {
        Activation::Identity => None,
        _ => needed.then(|| Tensor::empty(device, &shape)).transpose()?,
    };
    let before_activation = before.as_mut().map(Tensor::values_mut).transpose()?;
    let ends = Ends { bias: bias.map(|bias| bias.value().f32()), activation, before_activation };
    backend.scale_columns(x.value().f32(), factors.value().f32(), ends, value.f32_mut()?);

    Ok(tape.record(value, &inputs, || {
        let (x_node, factors_node, bias_node) = (x.node(), factors.node(), bias.and_then(Var::node));
        let factors_shape = factors.value().shape().to_vec();
        let x = factors_node.map(|_| x.keep());
        let factors = x_node.map(|_| factors.value().clone());
        move |mut gradient: Tensor, sink: &mut crate::Sink<'_>| {
            if let Some(before) = before {
                gradient = owned(gradient)?;
                backend.activation_backward(activation, before.values(), gradient.values_mut()?);
            }
            if bias_node.is_some() {
                sink.accumulate(bias_node, device, &[columns], |sums, adds| {
                    backend.sum_rows(gradient.values(), sums, adds);
                    Ok(())
                })?;
            }
            if let Some(x) = x {
                let x = x.value()?;
                sink.accumulate(factors_node, device, &factors_shape, |sums, adds| {
                    backend.dot_columns(gradient.f32(), x.f32(), sums, adds);
                    Ok(())
                })?;
            }
            let Some(factors) = factors else { return Ok(()) };
            let mut dx = Tensor::empty(device, &shape)?;
            backend.scale_columns(gradient.f32(), factors.f32(), Ends::default(), dx.f32_mut()?);
            sink.add(x_node, dx)
        }
    }))
}

/// `x * factors`, each row with its own factor: `x` is `[rows, columns]`, `factors` `[rows]`.
///
/// Errors if sizes or devices do not fit.
pub fn scale_rows(tape: &Tape, x: &Var, factors: &Var) -> Result<Var> {
    const OP: &str = "scale_rows";
    if x.value().dtype() != DType::F32 {
        return in_f32(tape, [x, factors], |[x, factors]| scale_rows(tape, x, factors));
    }
    let shape = [x.value().rows(), x.value().columns()];
    // A column of factors is as good as a row of them.
    if factors.value().len() != shape[0] {
        factors.value().expect(OP, &shape[..1], "factors of shape")?;
    }
    let device = same_device(OP, x, &[factors])?;
    let backend = device.backend();
    let mut value = Tensor::empty(device, &shape)?;
    backend.scale_rows(x.value().f32(), factors.value().f32(), value.f32_mut()?);

    Ok(tape.record(value, &[x, factors], || {
        let (x_node, factors_node) = (x.node(), factors.node());
        let factors_shape = factors.value().shape().to_vec();
        let x = factors_node.map(|_| x.value().clone());
        let factors = x_node.map(|_| factors.value().clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            if let Some(x) = x {
                sink.accumulate(factors_node, device, &factors_shape, |sums, adds| {
                    backend.dot_rows(gradient.f32(), x.f32(), sums, adds);
                    Ok(())
                })?;
            }
            let Some(factors) = factors else { return Ok(()) };
            let mut dx = Tensor::empty(device, &shape)?;
            backend.scale_rows(gradient.f32(), factors.f32(), dx.f32_mut()?);
            sink.add(x_node, dx)
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        for factor in [4.0, -0.3] {
            Check::new("scale", &[&[11, 13]]).run(|tape, vars| scale(tape, &vars[0], factor));
        }
        for activation in [Activation::Identity, Activation::Gelu, Activation::Tanh] {
            Check::new("scale_columns", &[&[11, 7], &[7, 1], &[7]])
                .run(|tape, vars| scale_columns(tape, &vars[0], &vars[1], Some(&vars[2]), activation));
        }
        for factors in [&[5][..], &[5, 1]] {
            Check::new("scale_rows", &[&[5, 7], factors])
                .run(|tape, vars| scale_rows(tape, &vars[0], &vars[1]));
        }
    }

    #[test]
    fn each_column_and_row_has_its_own_factor() {
        let var = |shape: &[usize], values: &[f32]| {
            Var::constant(Tensor::from_slice(crate::Device::Cpu, shape, values).unwrap())
        };
        let (tape, x) = (Tape::inference(), var(&[2, 3], &[1.0, 2.0, -3.0, 4.0, 5.0, 6.0]));
        let (factors, bias) = (var(&[3], &[2.0, -1.0, 0.5]), var(&[3], &[1.0, 0.0, 0.5]));
        let scaled = scale_columns(&tape, &x, &factors, Some(&bias), Activation::Relu).unwrap();
        assert_eq!(scaled.value().f32(), [3.0, 0.0, 0.0, 9.0, 0.0, 3.5]);
        let scaled = scale_rows(&tape, &x, &var(&[2], &[2.0, -1.0])).unwrap();
        assert_eq!(scaled.value().f32(), [2.0, 4.0, -6.0, -4.0, -5.0, -6.0]);
        let error = scale_rows(&tape, &x, &factors).unwrap_err();
        assert_eq!(error.to_string(), "scale_rows: expected factors of shape [2], got [3]");
    }
}
