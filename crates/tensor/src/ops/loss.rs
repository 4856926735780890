//! What all losses share: one scalar from logits, whose gradient is computed on the way.

use crate::backend::Backend;
use crate::{Result, Tape, Tensor, Var};

/// Records the scalar that `compute` makes of the logits: it is given the backend, the logits, the place of the scalar
/// and, where the tape wants it, that of the gradient by the logits.
pub(super) fn scalar_loss(
    tape: &Tape,
    logits: &Var,
    compute: impl FnOnce(&dyn Backend, &[f32], &mut [f32], Option<&mut [f32]>),
) -> Result<Var> {
    let device = logits.value().device();
    let backend = device.backend();
    let mut value = Tensor::zeros(device, &[])?;
    // The gradient costs one more pass while the logits are in cache, and saves keeping them.
    let mut dlogits = match logits.node() {
        Some(_) if tape.is_recording() => Some(Tensor::empty(device, logits.value().shape())?),
        _ => None,
    };
    let gradient = dlogits.as_mut().map(Tensor::f32_mut).transpose()?;
    compute(backend, logits.value().f32(), value.f32_mut()?, gradient);

    Ok(tape.record(value, &[logits], || {
        let node = logits.node();
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let Some(mut dlogits) = dlogits else { return Ok(()) };
            if let Some(factor) = gradient.item()
                && factor.to_bits() != 1.0f32.to_bits()
            {
                backend.scale(dlogits.values_mut()?, factor);
            }
            sink.add(node, dlogits)
        }
    }))
}
