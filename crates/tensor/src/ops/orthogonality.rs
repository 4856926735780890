use super::product::matrix;
use crate::backend::{Ends, Product};
use crate::{Result, Tape, Tensor, Var};

/// Which vectors of a matrix are to be orthogonal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Its rows.
    Rows,
    /// Its columns.
    Columns,
}

/// `||p p^T - I||`, Frobenius' norm, or `||p^T p - I||` for columns: how far the vectors are from orthogonal and of
/// length 1 (Zhang et al. 2023, AdaLoRA, eq. 4, without the square, as `peft` has it). A scalar.
pub fn orthogonality(tape: &Tape, p: &Var, side: Side) -> Result<Var> {
    let device = p.value().device();
    let backend = device.backend();
    let (rows, columns) = (p.value().rows(), p.value().columns());
    let (count, turn) = match side {
        Side::Rows => (rows, false),
        Side::Columns => (columns, true),
    };
    let gram = if turn {
        Product { left: matrix(p.value()).t(), right: matrix(p.value()), scale: 1.0 }
    } else {
        Product { left: matrix(p.value()), right: matrix(p.value()).t(), scale: 1.0 }
    };
    let mut excess = Tensor::empty(device, &[count, count])?;
    backend.gemm(excess.values_mut()?, &[gram], false, Ends::default());
    let minus_one: Vec<f32> =
        (0..count * count).map(|place| if place / count == place % count { -1.0 } else { 0.0 }).collect();
    let minus_one = Tensor::from_slice(device, &[count, count], &minus_one)?;
    backend.add_assign(excess.values_mut()?, minus_one.values());
    let norm = backend.sum_of_squares(excess.f32()).sqrt();
    let mut value = Tensor::empty(device, &[])?;
    value.f32_mut()?.fill(norm as f32);

    Ok(tape.record(value, &[p], || {
        let (node, p) = (p.node(), p.value().clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let factor = f64::from(gradient.item().unwrap_or_default());
            // At 0 the norm has no slope of its own; PyTorch says 0.
            let scale = if norm > 0.0 { (2.0 * factor / norm) as f32 } else { 0.0 };
            let product = if turn {
                Product { left: matrix(&p), right: matrix(&excess), scale }
            } else {
                Product { left: matrix(&excess), right: matrix(&p), scale }
            };
            sink.accumulate(node, device, p.shape(), |sums, adds| {
                backend.gemm(sums.into(), &[product], adds, Ends::default());
                Ok(())
            })
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        for side in [Side::Rows, Side::Columns] {
            Check::new("orthogonality", &[&[3, 7]]).run(|tape, vars| orthogonality(tape, &vars[0], side));
        }
    }

    #[test]
    fn it_is_zero_for_what_is_orthogonal() {
        let p = Tensor::from_slice(crate::Device::Cpu, &[2, 3], &[0.0, 1.0, 0.0, 0.6, 0.0, 0.8]).unwrap();
        let p = Var::constant(p);
        let rows = orthogonality(&Tape::inference(), &p, Side::Rows).unwrap();
        assert!(rows.value().item().unwrap() < 1e-6);
        // Three columns in two dimensions: 0.36 - 1, 0.64 - 1 and twice 0.48 are left.
        let columns = orthogonality(&Tape::inference(), &p, Side::Columns).unwrap();
        assert!((columns.value().item().unwrap() - 1.0).abs() < 1e-6);
    }
}
