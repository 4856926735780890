use super::same_device;
use crate::backend::RmsNorm;
use crate::{Error, Result, Tape, Tensor, Var};

/// `x / sqrt(mean(x^2) + epsilon) * weight` over each group of as many columns as the weight has (Zhang and Sennrich 2019,
/// eq. 4): of a whole token, or of each of its heads.
///
/// `x` and the result are `[tokens, columns]`, `weight` `[columns]` or a part of that. What is saved is `x`, which the
/// residual stream holds anyway, and a number a group. Errors if sizes or devices do not fit.
pub fn rms_norm(tape: &Tape, x: &Var, weight: &Var, epsilon: f32) -> Result<Var> {
    const OP: &str = "rms_norm";
    let (columns, group) = (x.value().columns(), weight.value().len());
    weight.value().expect(OP, &[group], "a weight of shape")?;
    if group == 0 || !columns.is_multiple_of(group) {
        return Err(Error::shape(OP, format!("columns in groups of {group}"), x.value().shape()));
    }
    let device = same_device(OP, x, &[weight])?;
    let backend = device.backend();
    let (dtype, shape, groups) = (x.value().dtype(), x.value().shape().to_vec(), x.value().len() / group);
    let mut value = Tensor::empty_as(device, dtype, &shape)?;
    let mut rstd = Tensor::empty(device, &[groups])?;
    let norm = RmsNorm { x: x.value().values(), weight: weight.value().f32(), epsilon };
    backend.rms_norm(&norm, value.values_mut()?, rstd.f32_mut()?);

    let recorded = tape.record(value, &[x, weight], || {
        let (x_node, weight_node) = (x.node(), weight.node());
        let (x, weight) = (x.value().clone(), weight.value().clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let norm = RmsNorm { x: x.values(), weight: weight.f32(), epsilon };
            sink.accumulate(weight_node, device, &[group], |sums, adds| {
                backend.rms_norm_weight_backward(gradient.values(), &norm, rstd.f32(), sums, adds);
                Ok(())
            })?;
            sink.accumulate_as(x_node, device, dtype, &shape, |sums, adds| {
                backend.rms_norm_backward(gradient.values(), &norm, rstd.f32(), sums, adds);
                Ok(())
            })
        }
    });
    Ok(recorded.remade_by(|| {
        let (x, weight) = (x.value().clone(), weight.value().clone());
        move || {
            let mut value = Tensor::empty_as(device, dtype, x.shape())?;
            let mut rstd = Tensor::empty(device, &[groups])?;
            let norm = RmsNorm { x: x.values(), weight: weight.f32(), epsilon };
            backend.rms_norm(&norm, value.values_mut()?, rstd.f32_mut()?);
            Ok(value)
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
        Check::new("rms_norm", &[&[11, 13], &[13]])
            .run(|tape, vars| rms_norm(tape, &vars[0], &vars[1], 1e-5));
        // Each head by itself.
        Check::new("rms_norm of heads", &[&[11, 15], &[5]])
            .run(|tape, vars| rms_norm(tape, &vars[0], &vars[1], 1e-3));
        // Beside the residual stream, whose gradient is there first.
        Check::new("rms_norm in a stream", &[&[11, 7], &[7]]).run(|tape, vars| {
            let normal = rms_norm(tape, &vars[0], &vars[1], 1e-5)?;
            add(tape, &normal, &vars[0], &layout(), None)
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let zeros = |shape: &[usize]| Var::constant(Tensor::zeros(crate::Device::Cpu, shape).unwrap());
        let error = rms_norm(&Tape::inference(), &zeros(&[3, 8]), &zeros(&[5]), 1e-5).unwrap_err();
        assert_eq!(error.to_string(), "rms_norm: expected columns in groups of 5, got [3, 8]");
    }
}
