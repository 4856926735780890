use crate::{DType, Result, Tape, Tensor, Var};

/// The same values as another type, each the nearest there is; `x` itself where it has that type.
///
/// The gradient comes back as the type of `x`.
pub fn cast(tape: &Tape, x: &Var, dtype: DType) -> Result<Var> {
    let own = x.value().dtype();
    if own == dtype {
        return Ok(x.clone());
    }
    Ok(tape.record(x.value().to(dtype)?, &[x], || {
        let node = x.node();
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| sink.add(node, gradient.to(own)?)
    }))
}

/// Runs an op that knows f32 alone on inputs of any type; what comes of it has the type of the first.
pub(super) fn in_f32<const N: usize>(
    tape: &Tape,
    inputs: [&Var; N],
    op: impl FnOnce([&Var; N]) -> Result<Var>,
) -> Result<Var> {
    let dtype = inputs.first().map_or(DType::F32, |first| first.value().dtype());
    let mut wide = Vec::with_capacity(N);
    for input in inputs {
        wide.push(cast(tape, input, DType::F32)?);
    }
    cast(tape, &op(std::array::from_fn(|index| &wide[index]))?, dtype)
}
