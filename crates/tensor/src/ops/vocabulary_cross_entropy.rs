use super::product::matrix;
use super::same_device;
use crate::backend::{Ends, Product};
use crate::{Device, Error, Result, Tape, Tensor, Var};

/// Logits that exist at once, in values: enough rows that reading the vocabulary's weight costs little beside the product.
const CHUNK: usize = if cfg!(test) { 1 << 20 } else { 52 << 20 };

/// Bytes of hidden states that stay in the second cache. So many rows are as fast as any number of them, since what they are
/// multiplied with is read but once.
const NEAR: usize = 640 << 10;

/// Fewer rows than these are not fast, wherever they lie.
const ENOUGH: usize = 256;

/// The cross-entropy of `x weight^T` against one word of the vocabulary a token; a scalar, the sum divided by `denominator`.
///
/// `x` is `[tokens, hidden]`, `weight` `[vocabulary, hidden]`, of either type each; sums and the logits are f32. The logits
/// of all tokens never exist: they are made some tokens at a time, and their gradient is multiplied on at once, so that what
/// is kept for the backward is the gradients themselves (as in Liger Kernel, Hsu et al. 2024). Errors if a target is not in
/// the vocabulary, or sizes or devices do not fit.
pub fn vocabulary_cross_entropy(
    tape: &Tape,
    x: &Var,
    weight: &Var,
    targets: &[u32],
    denominator: f32,
) -> Result<Var> {
    let device = check(x.value(), weight.value(), targets)?;
    same_device(OP, x, &[weight])?;
    let backend = device.backend();
    let wanted =
        |var: &Var| (tape.is_recording() && var.needs_gradient()).then(|| var.value().shape().to_vec());
    let mut dx = wanted(x).map(|shape| Tensor::empty_as(device, x.value().dtype(), &shape)).transpose()?;
    let mut dweight = wanted(weight).map(|shape| Tensor::empty(device, &shape)).transpose()?;
    if let Some(dweight) = &mut dweight
        && targets.is_empty()
    {
        backend.zero(dweight.values_mut()?);
    }
    let gradient = (dx.is_some() || dweight.is_some()).then_some(1.0 / denominator);
    let mut losses = Tensor::empty(device, &[targets.len()])?;
    let weight_matrix = matrix(weight.value());
    each_chunk(x.value(), weight.value(), targets, losses.f32_mut()?, gradient, |first, dlogits| {
        let (tokens, columns) = (dlogits.rows(), x.value().columns());
        let dlogits = matrix(dlogits);
        if let Some(dx) = &mut dx {
            let product = Product { left: dlogits, right: weight_matrix, scale: 1.0 };
            let out = dx.values_mut()?.part(first * columns, tokens * columns);
            backend.gemm(out, &[product], false, Ends::default());
        }
        if let Some(dweight) = &mut dweight {
            let read = matrix(x.value()).rows(first, tokens);
            let product = Product { left: dlogits.t(), right: read, scale: 1.0 };
            backend.gemm(dweight.values_mut()?, &[product], first > 0, Ends::default());
        }
        Ok(())
    })?;
    let mut value = Tensor::zeros(device, &[])?;
    let total: f64 = losses.f32().iter().map(|loss| f64::from(*loss)).sum();
    value.f32_mut()?.fill((total / f64::from(denominator)) as f32);

    Ok(tape.record(value, &[x, weight], || {
        let nodes = [x.node(), weight.node()];
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let factor = gradient.item().unwrap_or(1.0);
            for (node, gradient) in nodes.into_iter().zip([dx, dweight]) {
                let Some(mut gradient) = gradient else { continue };
                if factor.to_bits() != 1.0f32.to_bits() {
                    backend.scale(gradient.values_mut()?, factor);
                }
                sink.add(node, gradient)?;
            }
            Ok(())
        }
    }))
}

/// The cross-entropy of each token by itself: `[tokens]`, as [`vocabulary_cross_entropy`] sums them.
pub fn vocabulary_losses(x: &Tensor, weight: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let device = check(x, weight, targets)?;
    let mut losses = Tensor::empty(device, &[targets.len()])?;
    each_chunk(x, weight, targets, losses.f32_mut()?, None, |_, _| Ok(()))?;
    Ok(losses)
}

const OP: &str = "vocabulary_cross_entropy";

fn check(x: &Tensor, weight: &Tensor, targets: &[u32]) -> Result<Device> {
    let (vocabulary, hidden) = (weight.rows(), x.columns());
    weight.expect(OP, &[vocabulary, hidden], "a weight of shape")?;
    if targets.len() != x.rows() {
        return Err(Error::shape(OP, format!("{} targets", x.rows()), targets.len()));
    }
    if let Some(bad) = targets.iter().find(|target| **target as usize >= vocabulary) {
        return Err(Error::Index { op: OP, what: "target", index: *bad as usize, len: vocabulary });
    }
    Ok(x.device())
}

/// Makes the logits, some tokens at a time, and of them the losses; `with` is given the number of the first token and the
/// gradient by the logits where there is to be one, scaled by `gradient`.
fn each_chunk(
    x: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    losses: &mut [f32],
    gradient: Option<f32>,
    mut with: impl FnMut(usize, &Tensor) -> Result<()>,
) -> Result<()> {
    let (device, vocabulary) = (x.device(), weight.rows());
    let backend = device.backend();
    let near = NEAR / x.dtype().bytes(x.columns(), x.columns()).unwrap_or(NEAR).max(1);
    let most = (CHUNK / vocabulary.max(1)).min(if near < ENOUGH { usize::MAX } else { near }).max(1);
    // No chunk is a small rest, which the weight would be packed for as well.
    let rows = targets.len().div_ceil(targets.len().div_ceil(most).max(1)).max(1);
    let mut losses = losses.chunks_mut(rows);
    for (index, targets) in targets.chunks(rows).enumerate() {
        let (first, tokens) = (index * rows, targets.len());
        let mut logits = Tensor::empty(device, &[tokens, vocabulary])?;
        let (left, right) = (matrix(x).rows(first, tokens), matrix(weight).t());
        let product = Product { left, right, scale: 1.0 };
        backend.gemm(logits.values_mut()?, &[product], false, Ends::default());
        let losses = losses.next().unwrap_or_default();
        backend.token_losses(logits.f32_mut()?, targets, losses, gradient);
        if gradient.is_some() {
            with(first, &logits)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;
    use crate::ops::{CrossEntropyOptions, Linear, cross_entropy, linear};
    use crate::random::Key;

    #[test]
    fn gradients_follow_finite_differences() {
        Check::new("vocabulary_cross_entropy", &[&[7, 5], &[13, 5]]).run(|tape, vars| {
            vocabulary_cross_entropy(tape, &vars[0], &vars[1], &[0, 12, 2, 2, 7, 3, 0], 3.5)
        });
    }

    #[test]
    fn chunks_are_the_whole() {
        // A vocabulary so large that a chunk has five tokens, of eleven.
        let vocabulary = CHUNK / 5 - 7;
        let draw = |name: &str, shape: [usize; 2]| {
            let stream = &mut Key::new(5).with_name(name).stream();
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| 0.3 * stream.normal()).collect();
            Tensor::from_slice(Device::Cpu, &shape, &values).unwrap()
        };
        let (x, weight) = (draw("x", [11, 2]), draw("weight", [vocabulary, 2]));
        let targets: Vec<u32> = (0..11).map(|token| (token * 271_829) % vocabulary as u32).collect();
        let run = |fused: bool| {
            let mut parameters = crate::Parameters::new();
            let ids = [("x", &x), ("weight", &weight)].map(|(name, value)| {
                let id = parameters.add(name, value.clone()).unwrap();
                parameters.get_mut(id).trainable = true;
                id
            });
            let tape = Tape::recording();
            let [x, weight] = ids.map(|id| tape.parameter(&parameters, id));
            let loss = if fused {
                vocabulary_cross_entropy(&tape, &x, &weight, &targets, 4.0).unwrap()
            } else {
                let layout = std::sync::Arc::new(crate::backend::Layout::new(&[11], &[0]));
                let layer = Linear::plain(&weight, None);
                let logits = linear(&tape, &x, &layout, layer).unwrap();
                let options =
                    CrossEntropyOptions { class_weights: None, label_smoothing: 0.0, denominator: 4.0 };
                cross_entropy(&tape, &logits, &targets, options).unwrap()
            };
            let loss = crate::ops::scale(&tape, &loss, 0.5).unwrap();
            let mut gradients = crate::Gradients::new();
            tape.backward(&loss, &mut gradients).unwrap();
            let gradients = ids.map(|id| gradients.get(id).unwrap().f32().to_vec());
            (loss.value().f32().to_vec(), gradients)
        };
        let ((loss, gradients), (whole, expected)) = (run(true), run(false));
        let apart = |left: &[f32], right: &[f32]| {
            let largest = right.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            left.iter().zip(right).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / largest
        };
        assert!(apart(&loss, &whole) < 1e-6);
        for (got, expected) in gradients.iter().zip(&expected) {
            assert!(apart(got, expected) < 1e-5);
        }
        let losses = vocabulary_losses(&x, &weight, &targets).unwrap();
        let mean = losses.f32().iter().sum::<f32>() / 8.0;
        assert!((mean - loss[0]).abs() < 1e-5 * mean);
    }

    #[test]
    fn no_tokens_are_no_loss() {
        let mut parameters = crate::Parameters::new();
        let weight = parameters.add("weight", Tensor::zeros(Device::Cpu, &[5, 3]).unwrap()).unwrap();
        parameters.get_mut(weight).trainable = true;
        let tape = Tape::recording();
        let x = Var::constant(Tensor::zeros(Device::Cpu, &[0, 3]).unwrap());
        let loss =
            vocabulary_cross_entropy(&tape, &x, &tape.parameter(&parameters, weight), &[], 1.0).unwrap();
        assert_eq!(loss.value().item(), Some(0.0));
        let mut gradients = crate::Gradients::new();
        tape.backward(&loss, &mut gradients).unwrap();
        assert!(gradients.get(weight).unwrap().is_zero());
    }

    #[test]
    fn a_target_outside_is_named() {
        let zeros = |shape: &[usize]| Var::constant(Tensor::zeros(Device::Cpu, shape).unwrap());
        let error =
            vocabulary_cross_entropy(&Tape::inference(), &zeros(&[2, 3]), &zeros(&[5, 3]), &[4, 5], 1.0);
        let expected = "vocabulary_cross_entropy: target 5 is out of range, expected less than 5";
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
}
