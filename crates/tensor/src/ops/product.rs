use super::same_device;
use crate::backend::{Ends, Matrix, Product};
use crate::{Error, Result, Tape, Tensor, Var};

/// `left right`: `[m, k]` times `[k, n]`. Errors if sizes or devices do not fit.
pub fn product(tape: &Tape, left: &Var, right: &Var) -> Result<Var> {
    const OP: &str = "product";
    let (m, k, n) = (left.value().rows(), left.value().columns(), right.value().columns());
    if right.value().rows() != k {
        return Err(Error::shape(OP, format!("{k} rows"), right.value().shape()));
    }
    let device = same_device(OP, left, &[right])?;
    let backend = device.backend();
    let mut value = Tensor::empty(device, &[m, n])?;
    let whole = Product { left: matrix(left.value()), right: matrix(right.value()), scale: 1.0 };
    backend.gemm(value.values_mut()?, &[whole], false, Ends::default());

    Ok(tape.record(value, &[left, right], || {
        let nodes = [left.node(), right.node()];
        let (left, right) = (left.value().clone(), right.value().clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let gradient = matrix(&gradient);
            let products = [
                Product { left: gradient, right: matrix(&right).t(), scale: 1.0 },
                Product { left: matrix(&left).t(), right: gradient, scale: 1.0 },
            ];
            for ((node, product), shape) in nodes.into_iter().zip(products).zip([[m, k], [k, n]]) {
                sink.accumulate(node, device, &shape, |sums, adds| {
                    backend.gemm(sums.into(), &[product], adds, Ends::default());
                    Ok(())
                })?;
            }
            Ok(())
        }
    }))
}

/// A tensor as a matrix.
pub(super) fn matrix(tensor: &Tensor) -> Matrix<'_> {
    Matrix::new(tensor.values(), tensor.rows(), tensor.columns())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        Check::new("product", &[&[5, 3], &[3, 7]]).run(|tape, vars| product(tape, &vars[0], &vars[1]));
    }

    #[test]
    fn rows_and_columns_must_meet() {
        let zeros = |shape: &[usize]| Var::constant(Tensor::zeros(crate::Device::Cpu, shape).unwrap());
        let error = product(&Tape::inference(), &zeros(&[5, 3]), &zeros(&[4, 7])).unwrap_err();
        assert_eq!(error.to_string(), "product: expected 3 rows, got [4, 7]");
    }
}
