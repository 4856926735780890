//! Every op's backward against finite differences, on odd sizes and ragged rows.

use std::sync::Arc;

use crate::backend::Layout;
use crate::random::Key;
use crate::{Device, Gradients, Parameters, Result, Tape, Tensor, Var};

/// The lengths of the rows of [`layout`]: eleven tokens, one row of one.
pub(super) const ROWS: [usize; 4] = [3, 1, 5, 2];

/// A ragged batch, with row ids that use more than 32 bits.
pub(super) fn layout() -> Arc<Layout> {
    Arc::new(Layout::new(&ROWS, &[7, 0, 1 << 33, 2]))
}

/// One op, called on random inputs of some shapes.
pub(super) struct Check<'a> {
    op: &'a str,
    shapes: &'a [&'a [usize]],
    /// How many values of each input are moved; all where there are fewer.
    samples: usize,
}

impl<'a> Check<'a> {
    pub(super) fn new(op: &'a str, shapes: &'a [&'a [usize]]) -> Self {
        Check { op, shapes, samples: usize::MAX }
    }

    pub(super) fn sampled(self, samples: usize) -> Self {
        Check { samples, ..self }
    }

    /// Compares the gradient of a random weighting of the op's output with central differences, for every input.
    pub(super) fn run(self, op: impl Fn(&Tape, &[Var]) -> Result<Var>) {
        let stream = &mut Key::new(11).with_name(self.op).stream();
        let mut parameters = Parameters::new();
        for (index, shape) in self.shapes.iter().enumerate() {
            let len = shape.iter().product();
            let values: Vec<f32> = (0..len).map(|_| stream.normal()).collect();
            let tensor = Tensor::from_slice(Device::Cpu, shape, &values).unwrap();
            let id = parameters.add(format!("input {index}"), tensor).unwrap();
            parameters.get_mut(id).trainable = true;
        }
        let call = |tape: &Tape, parameters: &Parameters| {
            let vars: Vec<Var> = parameters.iter().map(|(id, _)| tape.parameter(parameters, id)).collect();
            op(tape, &vars).unwrap()
        };
        let weighting = {
            let out = call(&Tape::inference(), &parameters);
            let values: Vec<f32> = (0..out.value().len()).map(|_| stream.normal()).collect();
            Tensor::from_slice(Device::Cpu, out.value().shape(), &values).unwrap()
        };
        let total = |parameters: &Parameters| -> f64 {
            let out = call(&Tape::inference(), parameters);
            out.value().f32().iter().zip(weighting.f32()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let mut gradients = Gradients::new();
        let tape = Tape::recording();
        let out = call(&tape, &parameters);
        let loss = weighted(&tape, &out, weighting.clone());
        // It may know how it is made again, and hold the inputs for that.
        drop(out);
        tape.backward(&loss, &mut gradients).unwrap();

        let ids: Vec<_> = parameters.iter().map(|(id, _)| id).collect();
        for (input, id) in ids.into_iter().enumerate() {
            let gradient =
                gradients.get(id).unwrap_or_else(|| panic!("{}: no gradient of input {input}", self.op));
            let gradient = gradient.to_dense().unwrap();
            let len = gradient.len();
            let step = len.div_ceil(self.samples).max(1);
            let scale = gradient.f32().iter().fold(0.0f32, |max, g| max.max(g.abs()));
            for place in (0..len).step_by(step) {
                const H: f32 = 1.0 / 128.0;
                let mut moved = |by: f32| {
                    let value = &mut parameters.get_mut(id).value;
                    let old = value.f32()[place];
                    value.f32_mut().unwrap()[place] = old + by;
                    let total = total(&parameters);
                    parameters.get_mut(id).value.f32_mut().unwrap()[place] = old;
                    total
                };
                let difference =
                    |h: f32, moved: &mut dyn FnMut(f32) -> f64| (moved(h) - moved(-h)) / (2.0 * f64::from(h));
                // Richardson's step removes the error of second order.
                let (coarse, fine) = (difference(H, &mut moved), difference(H / 2.0, &mut moved));
                let expected = (4.0 * fine - coarse) / 3.0;
                let got = f64::from(gradient.f32()[place]);
                let tolerance = 2e-3 * f64::from(scale.max(0.1));
                assert!(
                    (got - expected).abs() < tolerance,
                    "{}: gradient of input {input} at {place}: expected {expected}, got {got}",
                    self.op
                );
            }
        }
    }
}

/// A scalar whose gradient by `out` is `weighting`.
fn weighted(tape: &Tape, out: &Var, weighting: Tensor) -> Var {
    let node = out.node();
    tape.record(Tensor::zeros(Device::Cpu, &[]).unwrap(), &[out], || {
        move |_, sink: &mut crate::Sink<'_>| sink.add(node, weighting)
    })
}
