use crate::backend::Cayley;
use crate::{Error, Result, Tape, Tensor, Var};

/// Rotations `[blocks, block, block]` of `angles` `[blocks, block (block - 1) / 2]`, which are the values above the
/// diagonals of skew-symmetric matrices, row by row (Qiu et al. 2023, OFT, section 3.2). All 0 gives the identity.
///
/// Errors if a row has another length.
pub fn cayley(tape: &Tape, angles: &Var, block: usize, kind: Cayley) -> Result<Var> {
    let (blocks, width) = (angles.value().rows(), angles.value().columns());
    let wanted = block * block.saturating_sub(1) / 2;
    if width != wanted {
        return Err(Error::shape("cayley", format!("rows of {wanted} values"), angles.value().shape()));
    }
    let device = angles.value().device();
    let backend = device.backend();
    let mut value = Tensor::empty(device, &[blocks, block, block])?;
    backend.cayley(angles.value().f32(), block, kind, value.f32_mut()?);
    Ok(tape.record(value, &[angles], || {
        let (node, angles) = (angles.node(), angles.value().clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let mut back = Tensor::empty(device, angles.shape())?;
            backend.cayley_backward(angles.f32(), block, kind, gradient.f32(), back.f32_mut()?);
            sink.add(node, back)
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        let kinds = [2, 3, 4, 5, 7].map(|terms| Cayley::Neumann { terms });
        for kind in [Cayley::Exact].into_iter().chain(kinds) {
            Check::new("cayley", &[&[2, 6]]).run(|tape, vars| {
                // Near the identity, where the series is used.
                let half = Var::constant(Tensor::from_slice(crate::Device::Cpu, &[6], &[0.3; 6]).unwrap());
                let angles = crate::ops::scale_columns(
                    tape,
                    &vars[0],
                    &half,
                    None,
                    crate::backend::Activation::Identity,
                )?;
                cayley(tape, &angles, 4, kind)
            });
        }
    }

    #[test]
    fn the_exact_map_is_a_rotation_and_a_series_comes_near() {
        let angles = Tensor::from_slice(crate::Device::Cpu, &[1, 3], &[0.05, -0.1, 0.2]).unwrap();
        let angles = Var::constant(angles);
        let of = |kind| cayley(&Tape::inference(), &angles, 3, kind).unwrap().value().f32().to_vec();
        let exact = of(Cayley::Exact);
        for i in 0..3 {
            for j in 0..3 {
                let dot: f32 = (0..3).map(|k| exact[i * 3 + k] * exact[j * 3 + k]).sum();
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((dot - expected).abs() < 1e-6);
            }
        }
        // The exact map turns the other way than the series of peft does; both are rotations by the same angles.
        let series = of(Cayley::Neumann { terms: 12 });
        for i in 0..3 {
            for j in 0..3 {
                assert!((exact[i * 3 + j] - series[j * 3 + i]).abs() < 1e-5, "{exact:?} {series:?}");
            }
        }
    }
}
