use super::cast::in_f32;
use super::product::matrix;
use super::same_device;
use crate::backend::{Ends, Product};
use crate::{DType, Error, Result, Tape, Tensor, Var};

/// Each block of channels of `x` times its own matrix: `x` is `[tokens, blocks * block]`, `rotations`
/// `[blocks, block, block]`.
///
/// Errors if sizes or devices do not fit.
pub fn rotate(tape: &Tape, x: &Var, rotations: &Var) -> Result<Var> {
    const OP: &str = "rotate";
    if x.value().dtype() != DType::F32 {
        return in_f32(tape, [x, rotations], |[x, rotations]| rotate(tape, x, rotations));
    }
    let (rows, columns, block) = (x.value().rows(), x.value().columns(), rotations.value().columns());
    let blocks = columns / block.max(1);
    if blocks * block != columns {
        return Err(Error::shape(OP, format!("blocks of {block} channels"), x.value().shape()));
    }
    rotations.value().expect(OP, &[blocks, block, block], "rotations of shape")?;
    let device = same_device(OP, x, &[rotations])?;
    let backend = device.backend();
    let mut value = Tensor::empty(device, &[rows, columns])?;
    let shape = [rows, columns];
    backend.rotate_blocks(x.value().f32(), shape, rotations.value().f32(), block, false, value.f32_mut()?);

    Ok(tape.record(value, &[x, rotations], || {
        let nodes = [x.node(), rotations.node()];
        let (x, rotations) = (nodes[1].map(|_| x.keep()), rotations.value().clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            if let Some(x) = x {
                let x = x.value()?;
                let mut back = Tensor::empty(device, rotations.shape())?;
                let size = block * block;
                for (index, out) in back.f32_mut()?.chunks_exact_mut(size.max(1)).enumerate() {
                    let [x, gradient] = [&x, &gradient].map(|all| matrix(all).columns(index * block, block));
                    backend.gemm(
                        out.into(),
                        &[Product { left: x.t(), right: gradient, scale: 1.0 }],
                        false,
                        Ends::default(),
                    );
                }
                sink.add(nodes[1], back)?;
            }
            if nodes[0].is_some() {
                let mut dx = Tensor::empty(device, &[rows, columns])?;
                backend.rotate_blocks(gradient.f32(), shape, rotations.f32(), block, true, dx.f32_mut()?);
                sink.add(nodes[0], dx)?;
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
        Check::new("rotate", &[&[11, 15], &[5, 3, 3]]).run(|tape, vars| rotate(tape, &vars[0], &vars[1]));
    }

    #[test]
    fn its_work_is_counted() {
        let zeros = |shape: &[usize]| Var::constant(Tensor::zeros(crate::Device::Meta, shape).unwrap());
        crate::backend::meta::take_flops();
        rotate(&Tape::inference(), &zeros(&[11, 15]), &zeros(&[5, 3, 3])).unwrap();
        assert!(crate::backend::meta::take_flops() >= 2 * 11 * 15 * 3);
    }

    #[test]
    fn a_block_is_a_row_before_its_matrix() {
        let var = |shape: &[usize], values: &[f32]| {
            Var::constant(Tensor::from_slice(crate::Device::Cpu, shape, values).unwrap())
        };
        let x = var(&[1, 4], &[1.0, 2.0, 3.0, 4.0]);
        let rotations = var(&[2, 2, 2], &[1.0, 10.0, 100.0, 1000.0, 0.0, 1.0, 2.0, 0.0]);
        let out = rotate(&Tape::inference(), &x, &rotations).unwrap();
        assert_eq!(out.value().f32(), [201.0, 2010.0, 8.0, 3.0]);
        let error = rotate(&Tape::inference(), &var(&[1, 3], &[0.0; 3]), &rotations).unwrap_err();
        assert_eq!(error.to_string(), "rotate: expected blocks of 2 channels, got [1, 3]");
    }
}
