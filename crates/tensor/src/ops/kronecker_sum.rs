use super::same_device;
use crate::backend::KroneckerSum;
use crate::{Error, Result, Tape, Tensor, Var};

/// The weight of a parametrised hypercomplex layer (Mahabadi et al. 2021, eq. 5 and 6): `sum over i of rule_i (x) (left_i
/// right_i)`, transposed to `[out, in]` as linear layers have it.
///
/// `rule` is `[n, n, n]`, `left` `[n, in / n, rank]`, `right` `[n, rank, out / n]`. Errors if sizes or devices do not fit.
pub fn kronecker_sum(tape: &Tape, rule: &Var, left: &Var, right: &Var) -> Result<Var> {
    const OP: &str = "kronecker_sum";
    let (&[n, down, rank], &[_, _, across]) = (left.value().shape(), right.value().shape()) else {
        return Err(Error::shape(OP, "factors of three dimensions", left.value().shape()));
    };
    rule.value().expect(OP, &[n, n, n], "a rule of shape")?;
    right.value().expect(OP, &[n, rank, across], "a right factor of shape")?;
    let device = same_device(OP, rule, &[left, right])?;
    let backend = device.backend();
    let sizes = [n, down, across, rank];
    let mut value = Tensor::empty(device, &[n * across, n * down])?;
    let [rule_value, left_value, right_value] = [rule, left, right].map(|var| var.value().clone());
    let factors =
        KroneckerSum { rule: rule_value.f32(), left: left_value.f32(), right: right_value.f32(), sizes };
    backend.kronecker_sum(&factors, value.f32_mut()?);
    Ok(tape.record(value, &[rule, left, right], || {
        let nodes = [rule.node(), left.node(), right.node()];
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let [mut by_rule, mut by_left, mut by_right] = [
                Tensor::zeros(device, rule_value.shape())?,
                Tensor::zeros(device, left_value.shape())?,
                Tensor::zeros(device, right_value.shape())?,
            ];
            let mut out = [by_rule.f32_mut()?, by_left.f32_mut()?, by_right.f32_mut()?];
            let (rule, left, right) = (rule_value.f32(), left_value.f32(), right_value.f32());
            backend.kronecker_sum_backward(
                &KroneckerSum { rule, left, right, sizes },
                gradient.f32(),
                &mut out,
            );
            for (node, sums) in nodes.into_iter().zip([by_rule, by_left, by_right]) {
                sink.add(node, sums)?;
            }
            Ok(())
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;
    use crate::{Device, Tensor};

    #[test]
    fn gradients_follow_finite_differences() {
        for (n, down, across, rank) in [(2, 3, 5, 1), (3, 1, 2, 2), (1, 4, 3, 2)] {
            let shapes: [&[usize]; 3] = [&[n, n, n], &[n, down, rank], &[n, rank, across]];
            Check::new("kronecker_sum", &shapes)
                .run(|tape, vars| kronecker_sum(tape, &vars[0], &vars[1], &vars[2]));
        }
    }

    #[test]
    fn the_sum_of_products_is_the_one_on_paper() {
        let constant = |shape: &[usize], values: &[f32]| {
            Var::constant(Tensor::from_slice(Device::Cpu, shape, values).unwrap())
        };
        // [[1, 2], [3, 4]] (x) [[5], [7]] [[1, 10, 100]] + [[0, 1], [0, 0]] (x) [[1], [0]] [[1, 1, 1]]
        let rule = constant(&[2, 2, 2], &[1.0, 2.0, 3.0, 4.0, 0.0, 1.0, 0.0, 0.0]);
        let left = constant(&[2, 2, 1], &[5.0, 7.0, 1.0, 0.0]);
        let right = constant(&[2, 1, 3], &[1.0, 10.0, 100.0, 1.0, 1.0, 1.0]);
        let out = kronecker_sum(&Tape::inference(), &rule, &left, &right).unwrap();
        assert_eq!(out.value().shape(), [6, 4]);
        // Row by output, column by input.
        let expected = [
            [5.0, 7.0, 15.0, 21.0],
            [50.0, 70.0, 150.0, 210.0],
            [500.0, 700.0, 1500.0, 2100.0],
            [11.0, 14.0, 20.0, 28.0],
            [101.0, 140.0, 200.0, 280.0],
            [1001.0, 1400.0, 2000.0, 2800.0],
        ];
        assert_eq!(out.value().f32(), expected.concat());
    }

    #[test]
    fn factors_that_do_not_fit_are_named() {
        let zeros = |shape: &[usize]| Var::constant(Tensor::zeros(Device::Cpu, shape).unwrap());
        let call = |rule: &[usize], left: &[usize], right: &[usize]| {
            kronecker_sum(&Tape::inference(), &zeros(rule), &zeros(left), &zeros(right))
                .unwrap_err()
                .to_string()
        };
        let error = call(&[2, 2, 3], &[2, 5, 1], &[2, 1, 3]);
        assert_eq!(error, "kronecker_sum: expected a rule of shape [2, 2, 2], got [2, 2, 3]");
        let error = call(&[2, 2, 2], &[2, 5, 1], &[2, 4, 3]);
        assert_eq!(error, "kronecker_sum: expected a right factor of shape [2, 1, 3], got [2, 4, 3]");
        let error = call(&[2, 2, 2], &[2, 5], &[2, 4, 3]);
        assert_eq!(error, "kronecker_sum: expected factors of three dimensions, got [2, 5]");
    }
}
