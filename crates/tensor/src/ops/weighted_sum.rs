use super::{copy, same_device};
use crate::{Result, Tape, Tensor, Var};

/// The sum of scalars, each with its weight: a loss and what is added to it. Errors if one is no scalar, or lives on
/// another device than the first. Of none it is 0.
pub fn weighted_sum(tape: &Tape, scalars: &[(Var, f32)]) -> Result<Var> {
    const OP: &str = "weighted_sum";
    let inputs: Vec<&Var> = scalars.iter().map(|(var, _)| var).collect();
    for input in &inputs {
        input.value().expect(OP, &[], "a scalar of shape")?;
    }
    let device = match inputs.first() {
        Some(first) => same_device(OP, first, &inputs)?,
        None => crate::Device::Cpu,
    };
    let backend = device.backend();
    let mut value = Tensor::zeros(device, &[])?;
    let sum = scalars.iter().map(|(var, weight)| var.value().item().unwrap_or_default() * weight).sum();
    value.f32_mut()?.fill(sum);
    Ok(tape.record(value, &inputs, || {
        let nodes: Vec<_> = scalars.iter().map(|(var, weight)| (var.node(), *weight)).collect();
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            for (node, weight) in nodes {
                if node.is_some() {
                    let mut part = copy(&gradient)?;
                    backend.scale(part.values_mut()?, weight);
                    sink.add(node, part)?;
                }
            }
            Ok(())
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        Check::new("weighted_sum", &[&[], &[]]).run(|tape, vars| {
            weighted_sum(tape, &[(vars[0].clone(), 3.0), (vars[1].clone(), -0.5), (vars[0].clone(), 0.25)])
        });
    }
}
