use super::product::matrix;
use super::{copy, same_device};
use crate::backend::{Ends, Product};
use crate::{Result, Tape, Tensor, Var};

/// A weight and two low-rank products beside it.
#[derive(Clone, Copy)]
pub struct Hadamard<'a> {
    /// `[out, in]`
    pub weight: &'a Var,
    /// Each `[out, rank]` and `[rank, in]`.
    pub products: [[&'a Var; 2]; 2],
    /// What their product is multiplied with.
    pub scale: f32,
}

/// `weight + scale (a1 b1) * (a2 b2)`, the products multiplied value by value (Hyeon-Woo et al. 2021, FedPara, prop. 1).
///
/// The result is `[out, in]`. The dense products are made again for the backward, not kept. Errors if sizes or devices
/// do not fit.
pub fn hadamard(tape: &Tape, hadamard: Hadamard<'_>) -> Result<Var> {
    const OP: &str = "hadamard";
    let Hadamard { weight, products: [[a1, b1], [a2, b2]], scale } = hadamard;
    let shape = [weight.value().rows(), weight.value().columns()];
    for [a, b] in [[a1, b1], [a2, b2]] {
        let rank = b.value().rows();
        a.value().expect(OP, &[shape[0], rank], "a left factor of shape")?;
        b.value().expect(OP, &[rank, shape[1]], "a right factor of shape")?;
    }
    let inputs = [weight, a1, b1, a2, b2];
    let device = same_device(OP, weight, &inputs)?;
    let backend = device.backend();
    let dense = move |a: &Tensor, b: &Tensor| {
        let mut dense = Tensor::empty(device, &shape)?;
        let product = Product { left: matrix(a), right: matrix(b), scale: 1.0 };
        backend.gemm(dense.values_mut()?, &[product], false, Ends::default());
        Ok::<_, crate::Error>(dense)
    };
    let first = dense(a1.value(), b1.value())?;
    let second = dense(a2.value(), b2.value())?;
    let mut value = Tensor::empty(device, &shape)?;
    backend.scale_columns(first.f32(), second.f32(), Ends::default(), value.f32_mut()?);
    backend.scale(value.values_mut()?, scale);
    backend.add_assign(value.values_mut()?, weight.value().values());

    Ok(tape.record(value, &inputs, || {
        let weight_node = weight.node();
        let pairs = [[a1, b1], [a2, b2]];
        let nodes = pairs.map(|pair| pair.map(Var::node));
        let pairs = pairs.map(|pair| pair.map(|var| var.value().clone()));
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            if weight_node.is_some() {
                sink.add(weight_node, copy(&gradient)?)?;
            }
            for this in 0..2 {
                let ([a, b], [other_a, other_b]) = (&pairs[this], &pairs[1 - this]);
                let other = dense(other_a, other_b)?;
                let mut back = Tensor::empty(device, &shape)?;
                backend.scale_columns(gradient.f32(), other.f32(), Ends::default(), back.f32_mut()?);
                let back = matrix(&back);
                let products = [
                    Product { left: back, right: matrix(b).t(), scale },
                    Product { left: matrix(a).t(), right: back, scale },
                ];
                for ((node, product), factor) in nodes[this].into_iter().zip(products).zip([a, b]) {
                    sink.accumulate(node, device, factor.shape(), |sums, adds| {
                        backend.gemm(sums.into(), &[product], adds, Ends::default());
                        Ok(())
                    })?;
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
        let shapes: [&[usize]; 5] = [&[5, 7], &[5, 3], &[3, 7], &[5, 2], &[2, 7]];
        Check::new("hadamard", &shapes).run(|tape, vars| {
            let products = [[&vars[1], &vars[2]], [&vars[3], &vars[4]]];
            hadamard(tape, Hadamard { weight: &vars[0], products, scale: 7.0 / 3.0 })
        });
    }

    #[test]
    fn it_is_the_sum_that_the_paper_writes() {
        let var = |shape: &[usize], values: &[f32]| {
            Var::constant(Tensor::from_slice(crate::Device::Cpu, shape, values).unwrap())
        };
        let weight = var(&[2, 2], &[1.0, 1.0, 1.0, 1.0]);
        let [a1, b1] = [var(&[2, 1], &[2.0, 3.0]), var(&[1, 2], &[1.0, -1.0])];
        let [a2, b2] = [var(&[2, 1], &[0.5, 4.0]), var(&[1, 2], &[3.0, 1.0])];
        let products = [[&a1, &b1], [&a2, &b2]];
        let whole = hadamard(&Tape::inference(), Hadamard { weight: &weight, products, scale: 2.0 }).unwrap();
        assert_eq!(whole.value().f32(), [7.0, -1.0, 73.0, -23.0]);
    }
}
