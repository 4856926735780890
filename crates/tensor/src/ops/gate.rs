use super::{same_device, same_type};
use crate::backend::Activation;
use crate::{Result, Tape, Tensor, Var};

/// `activation(gate) * up`: the gated linear unit over two products (Shazeer 2020); [`super::gated`] is the same over one.
///
/// All are `[tokens, columns]`. Errors if sizes, types or devices do not fit.
pub fn gate(tape: &Tape, gate: &Var, up: &Var, activation: Activation) -> Result<Var> {
    const OP: &str = "gate";
    let shape = gate.value().shape().to_vec();
    up.value().expect(OP, &shape, "a second product of shape")?;
    let (dtype, device) = (same_type(OP, gate, &[up])?, same_device(OP, gate, &[up])?);
    let backend = device.backend();
    let mut value = Tensor::empty_as(device, dtype, &shape)?;
    backend.gate(activation, gate.value().values(), up.value().values(), value.values_mut()?);
    let recorded = tape.record(value, &[gate, up], || {
        let nodes = [gate.node(), up.node()];
        let (gate, up) = (gate.value().clone(), up.value().clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let mut dgate = Tensor::empty_as(device, dtype, &shape)?;
            let mut dup = Tensor::empty_as(device, dtype, &shape)?;
            let out = [dgate.values_mut()?, dup.values_mut()?];
            backend.gate_backward(activation, gate.values(), up.values(), gradient.values(), out);
            drop((gate, up, gradient));
            sink.add(nodes[0], dgate)?;
            sink.add(nodes[1], dup)
        }
    });
    Ok(recorded.remade_by(|| {
        let (gate, up) = (gate.value().clone(), up.value().clone());
        move || {
            let mut value = Tensor::empty_as(device, dtype, gate.shape())?;
            backend.gate(activation, gate.values(), up.values(), value.values_mut()?);
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
        for activation in [Activation::Silu, Activation::GeluTanh] {
            Check::new("gate", &[&[11, 7], &[11, 7]])
                .run(|tape, vars| gate(tape, &vars[0], &vars[1], activation));
        }
    }

    #[test]
    fn it_is_what_is_gated_in_one() {
        let values: Vec<f32> = (0..12).map(|i| (i as f32 - 5.0) * 0.3).collect();
        let var = |shape: &[usize], values: &[f32]| {
            Var::constant(Tensor::from_slice(crate::Device::Cpu, shape, values).unwrap())
        };
        let tape = Tape::inference();
        let apart = gate(&tape, &var(&[1, 6], &values[..6]), &var(&[1, 6], &values[6..]), Activation::Silu);
        let joint = super::super::gated(&tape, &var(&[1, 12], &values), Activation::Silu).unwrap();
        assert_eq!(apart.unwrap().value().f32(), joint.value().f32());
        let error =
            gate(&tape, &var(&[2, 6], &values), &var(&[1, 12], &values), Activation::Silu).unwrap_err();
        assert_eq!(error.to_string(), "gate: expected a second product of shape [2, 6], got [1, 12]");
    }
}
