use super::{copy, owned};
use crate::{Result, Tape, Tensor, Var};

/// `factor * x`, of any shape.
#[expect(clippy::float_cmp, reason = "only a factor of exactly 1 changes nothing")]
pub fn scale(tape: &Tape, x: &Var, factor: f32) -> Result<Var> {
    if factor == 1.0 {
        return Ok(x.clone());
    }
    let backend = x.value().device().backend();
    let mut value = copy(x.value())?;
    backend.scale(value.f32_mut()?, factor);
    Ok(tape.record(value, &[x], || {
        let node = x.node();
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let mut gradient = owned(gradient)?;
            backend.scale(gradient.f32_mut()?, factor);
            sink.add(node, gradient)
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        for factor in [4.0, -0.3] {
            Check::new("scale", &[&[11, 13]]).run(|tape, vars| scale(tape, &vars[0], factor));
        }
    }
}
