use super::product::matrix;
use super::same_device;
use crate::backend::{Ends, Product};
use crate::{Result, Tape, Tensor, Var};

/// A magnitude for each row of a weight with a low-rank branch.
#[derive(Clone, Copy)]
pub struct Magnitude<'a> {
    /// `[out]`
    pub magnitude: &'a Var,
    /// `[out, in]`
    pub weight: &'a Var,
    /// The squared norm of each row of the weight: `[out]`.
    pub squares: &'a Tensor,
    /// `[rank, in]`
    pub a: &'a Var,
    /// `[out, rank]`
    pub b: &'a Var,
    /// What the branch is multiplied with.
    pub scale: f32,
}

/// `magnitude / ||weight + scale b a||`, row by row: `[out]` (Liu et al. 2024, DoRA, eq. 5).
///
/// The norm is a constant to the gradient, as in section 4.3 of the paper. It is taken without the dense sum:
/// `||W||^2 + 2 s (W a^T) . b + s^2 (b a a^T) . b`. Errors if sizes or devices do not fit.
pub fn magnitude(tape: &Tape, magnitude: Magnitude<'_>) -> Result<Var> {
    const OP: &str = "magnitude";
    let Magnitude { magnitude, weight, squares, a, b, scale } = magnitude;
    let (out, width, rank) = (weight.value().rows(), weight.value().columns(), a.value().rows());
    magnitude.value().expect(OP, &[out], "a magnitude of shape")?;
    squares.expect(OP, &[out], "squares of shape")?;
    a.value().expect(OP, &[rank, width], "a low-rank a of shape")?;
    b.value().expect(OP, &[out, rank], "a low-rank b of shape")?;
    let device = same_device(OP, magnitude, &[weight, a, b])?;
    let backend = device.backend();
    let (a, b) = (a.value(), b.value());
    let mut gram = Tensor::empty(device, &[rank, rank])?;
    let product = Product { left: matrix(a), right: matrix(a).t(), scale: 1.0 };
    backend.gemm(gram.values_mut()?, &[product], false, Ends::default());
    // 2 s W a^T + s^2 b a a^T, whose product with b is what the branch adds to the squares.
    let mut meets = Tensor::empty(device, &[out, rank])?;
    let products = [
        Product { left: matrix(weight.value()), right: matrix(a).t(), scale: 2.0 * scale },
        Product { left: matrix(b), right: matrix(&gram), scale: scale * scale },
    ];
    backend.gemm(meets.values_mut()?, &products, false, Ends::default());
    let mut whole = Tensor::empty(device, &[out])?;
    backend.copy(squares.values(), whole.values_mut()?);
    backend.dot_rows(meets.f32(), b.f32(), whole.f32_mut()?, true);
    let mut value = Tensor::empty(device, &[out])?;
    backend.divide_by_root(magnitude.value().f32(), whole.f32(), value.f32_mut()?);

    Ok(tape.record(value, &[magnitude], || {
        let node = magnitude.node();
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let mut back = Tensor::empty(device, &[out])?;
            backend.divide_by_root(gradient.f32(), whole.f32(), back.f32_mut()?);
            sink.add(node, back)
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;
    use crate::random::Key;

    fn random(shape: &[usize], salt: u64) -> Tensor {
        let stream = &mut Key::new(salt).stream();
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal()).collect();
        Tensor::from_slice(crate::Device::Cpu, shape, &values).unwrap()
    }

    fn squares(weight: &Tensor) -> Tensor {
        let sums: Vec<f32> =
            weight.f32().chunks(weight.columns()).map(|row| row.iter().map(|x| x * x).sum()).collect();
        Tensor::from_slice(crate::Device::Cpu, &[sums.len()], &sums).unwrap()
    }

    #[test]
    fn the_norm_is_that_of_the_dense_sum_and_the_magnitude_has_a_gradient() {
        let [weight, a, b] = [random(&[5, 7], 1), random(&[3, 7], 2), random(&[5, 3], 3)];
        let squares = squares(&weight);
        let mut dense: Vec<f64> = weight.f32().iter().map(|x| f64::from(*x)).collect();
        for (place, x) in dense.iter_mut().enumerate() {
            let (row, column) = (place / 7, place % 7);
            let branch = (0..3).map(|k| f64::from(b.f32()[row * 3 + k]) * f64::from(a.f32()[k * 7 + column]));
            *x += 1.75 * branch.sum::<f64>();
        }
        let [weight, a, b] = [weight, a, b].map(Var::constant);
        let call = |tape: &Tape, m: &Var| {
            magnitude(
                tape,
                Magnitude { magnitude: m, weight: &weight, squares: &squares, a: &a, b: &b, scale: 1.75 },
            )
        };
        let ones = Var::constant(Tensor::from_slice(crate::Device::Cpu, &[5], &[1.0; 5]).unwrap());
        let got = call(&Tape::inference(), &ones).unwrap();
        for (row, got) in dense.chunks(7).zip(got.value().f32()) {
            let expected = 1.0 / row.iter().map(|x| x * x).sum::<f64>().sqrt();
            assert!((f64::from(*got) / expected - 1.0).abs() < 1e-6, "{got} and {expected}");
        }
        Check::new("magnitude", &[&[5]]).run(|tape, vars| call(tape, &vars[0]));
    }
}
