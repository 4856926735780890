use super::{owned, same_device};
use crate::{DType, Error, Result, Tape, Tensor, Var};

/// `weight + scale left ⊗ right`, the Kronecker product of `[a, b]` and `[c, d]`; all of it `[a c, b d]`.
///
/// Errors if sizes or devices do not fit.
pub fn kronecker(tape: &Tape, weight: &Var, [left, right]: [&Var; 2], scale: f32) -> Result<Var> {
    const OP: &str = "kronecker";
    let shapes = [left, right].map(|var| [var.value().rows(), var.value().columns()]);
    let [[a, b], [c, d]] = shapes;
    if weight.value().shape() != [a * c, b * d] {
        return Err(Error::shape(
            OP,
            format!("a weight of shape {:?}", [a * c, b * d]),
            weight.value().shape(),
        ));
    }
    let inputs = [weight, left, right];
    let device = same_device(OP, weight, &inputs)?;
    let backend = device.backend();
    let mut value = owned(weight.value().to(DType::F32)?)?;
    backend.kronecker([left.value().f32(), right.value().f32()], shapes, scale, value.f32_mut()?);

    Ok(tape.record(value, &inputs, || {
        let [weight, left_node, right_node] = inputs.map(Var::node);
        let (left, right) = (left.value().clone(), right.value().clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let (mut dleft, mut dright) =
                (Tensor::empty(device, left.shape())?, Tensor::empty(device, right.shape())?);
            let out = [dleft.f32_mut()?, dright.f32_mut()?];
            backend.kronecker_backward([left.f32(), right.f32()], shapes, scale, gradient.f32(), out);
            sink.add(left_node, dleft)?;
            sink.add(right_node, dright)?;
            sink.add(weight, gradient)
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        Check::new("kronecker", &[&[6, 20], &[2, 5], &[3, 4]])
            .run(|tape, vars| kronecker(tape, &vars[0], [&vars[1], &vars[2]], 7.0 / 3.0));
    }

    #[test]
    fn each_value_of_the_left_scales_all_of_the_right() {
        let var = |shape: &[usize], values: &[f32]| {
            Var::constant(Tensor::from_slice(crate::Device::Cpu, shape, values).unwrap())
        };
        let (left, right) = (var(&[1, 2], &[1.0, -2.0]), var(&[2, 2], &[1.0, 2.0, 3.0, 4.0]));
        let weight = var(&[2, 4], &[0.5; 8]);
        let whole = kronecker(&Tape::inference(), &weight, [&left, &right], 1.0).unwrap();
        assert_eq!(whole.value().f32(), [1.5, 2.5, -1.5, -3.5, 3.5, 4.5, -5.5, -7.5]);
        let error = kronecker(&Tape::inference(), &weight, [&right, &left], 1.0).unwrap();
        assert_eq!(error.value().f32(), [1.5, -1.5, 2.5, -3.5, 3.5, -5.5, 4.5, -7.5]);
        let error = kronecker(&Tape::inference(), &right, [&left, &right], 1.0).unwrap_err();
        assert_eq!(error.to_string(), "kronecker: expected a weight of shape [2, 4], got [2, 2]");
    }
}
