//! One forward and backward pass through an op, by the public interface alone.

use retune_tensor::{Device, Gradients, Parameters, Result, Sink, Tape, Tensor, Var};

/// What `op` makes of `inputs`, all of them trained, and their gradients: of sum(out * dy), or of `out` itself where
/// it is a loss already.
pub(crate) fn pass(
    inputs: &[Tensor],
    dy: Option<&Tensor>,
    op: impl Fn(&Tape, &[Var]) -> Result<Var>,
) -> (Tensor, Vec<Tensor>) {
    let mut parameters = Parameters::new();
    for (index, input) in inputs.iter().enumerate() {
        let id = parameters.add(format!("input {index}"), input.clone()).unwrap();
        parameters.get_mut(id).trainable = true;
    }
    let tape = Tape::recording();
    let vars: Vec<Var> = parameters.iter().map(|(id, _)| tape.parameter(&parameters, id)).collect();
    let out = op(&tape, &vars).unwrap();
    let loss = dy.map_or_else(|| out.clone(), |dy| weighted(&tape, &out, dy));
    let mut gradients = Gradients::new();
    tape.backward(&loss, &mut gradients).unwrap();
    let gradients = parameters
        .iter()
        .map(|(id, _)| gradients.get(id).expect("each input gets a gradient").to_dense().unwrap())
        .collect();
    (out.value().clone(), gradients)
}

/// A scalar whose gradient by `out` is `dy`. Its value is zero: no test reads it.
pub(crate) fn weighted(tape: &Tape, out: &Var, dy: &Tensor) -> Var {
    assert_eq!(out.value().shape(), dy.shape(), "the weighting fits the output");
    let (node, dy) = (out.node(), dy.clone());
    let scalar = Tensor::zeros(Device::Cpu, &[]).unwrap();
    tape.record(scalar, &[out], || move |_: Tensor, sink: &mut Sink<'_>| sink.add(node, dy))
}
