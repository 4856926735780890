//! Every op that activations go through, in bf16 beside the same in f32: of the same rounded inputs, values and gradients
//! differ by no more than their rounding.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop at the place")]

mod draw;
mod network;

use std::sync::Arc;

use draw::draw;
use network::{Batch, Network, Sizes};
use retune_tensor::backend::{Activation, AttentionShape, Dropout, Layout, Rotary};
use retune_tensor::ops::{
    LayerNormOptions, Linear, Lookup, LowRank, add, attention, attention_of_first, attention_over, cast,
    dropout, embedding, gate, gated, layer_norm, linear, mean_rows, place_rows, prepend_rows, rms_norm,
    rotary, rotate, scale, scale_columns, scale_rows, select_columns, select_rows, transpose,
    vocabulary_cross_entropy,
};
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Gradients, Parameters, Result, Tape, Tensor, Var};

const LENGTHS: [usize; 4] = [37, 1, 70, 5];
const TOKENS: usize = 113;

fn layout() -> Arc<Layout> {
    Arc::new(Layout::new(&LENGTHS, &[7, 0, 1 << 33, 2]))
}

fn dropped() -> Option<Dropout> {
    Some(Dropout { probability: 0.2, key: Key::new(4) })
}

/// The output and the gradients by all inputs of `op`, whose first `activations` inputs flow as `dtype`.
fn run(
    op: &dyn Fn(&Tape, &[Var]) -> Result<Var>,
    inputs: &[Tensor],
    activations: usize,
    dtype: DType,
) -> Vec<Tensor> {
    let mut parameters = Parameters::new();
    for (index, input) in inputs.iter().enumerate() {
        let id = parameters.add(format!("input {index}"), input.clone()).unwrap();
        parameters.get_mut(id).trainable = true;
    }
    let tape = Tape::recording();
    let vars: Vec<Var> = parameters
        .iter()
        .enumerate()
        .map(|(index, (id, _))| {
            let var = tape.parameter(&parameters, id);
            if index < activations { cast(&tape, &var, dtype).unwrap() } else { var }
        })
        .collect();
    let out = op(&tape, &vars).unwrap();
    assert_eq!(out.value().dtype(), dtype, "what flows keeps its type");
    let out = cast(&tape, &out, DType::F32).unwrap();
    let weighting = rounded(&draw("weighting", out.value().shape()));
    let node = out.node();
    let loss = tape.record(Tensor::zeros(Device::Cpu, &[]).unwrap(), &[&out], || {
        move |_, sink: &mut retune_tensor::Sink<'_>| sink.add(node, weighting)
    });
    let mut gradients = Gradients::new();
    tape.backward(&loss, &mut gradients).unwrap();
    let mut results = vec![out.value().clone()];
    results.extend(gradients.iter().map(|(_, gradient)| gradient.to_dense().unwrap()));
    assert_eq!(results.len(), 1 + inputs.len(), "each input has a gradient");
    results
}

fn rounded(tensor: &Tensor) -> Tensor {
    tensor.to(DType::Bf16).unwrap().to(DType::F32).unwrap()
}

/// The largest difference of two tensors, as a share of the largest value.
fn apart(left: &Tensor, right: &Tensor) -> f32 {
    assert_eq!(left.shape(), right.shape());
    assert_eq!((left.dtype(), right.dtype()), (DType::F32, DType::F32), "gradients by f32 inputs are f32");
    let largest = left.f32().iter().fold(1e-3f32, |most, x| most.max(x.abs()));
    left.f32().iter().zip(right.f32()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

/// The first `activations` of the `shapes` flow; the others are weights.
fn check(name: &str, activations: usize, shapes: &[&[usize]], op: impl Fn(&Tape, &[Var]) -> Result<Var>) {
    let inputs: Vec<Tensor> = shapes
        .iter()
        .enumerate()
        .map(|(index, shape)| rounded(&draw(&format!("{name} {index}"), shape)))
        .collect();
    let wide = run(&op, &inputs, activations, DType::F32);
    let narrow = run(&op, &inputs, activations, DType::Bf16);
    for (place, (wide, narrow)) in wide.iter().zip(&narrow).enumerate() {
        let apart = apart(wide, narrow);
        assert!(apart < 0.02, "{name}, result {place}: {apart}");
    }
}

#[test]
fn linear_layers() {
    for activation in [Activation::Identity, Activation::Gelu, Activation::Silu] {
        let shapes: [&[usize]; 3] = [&[TOKENS, 45], &[71, 45], &[71]];
        check("linear", 1, &shapes, |tape, vars| {
            let bias = Some(&vars[2]);
            linear(tape, &vars[0], &layout(), Linear { activation, ..Linear::plain(&vars[1], bias) })
        });
    }
    for dropout in [None, dropped()] {
        let shapes: [&[usize]; 4] = [&[TOKENS, 45], &[71, 45], &[5, 45], &[71, 5]];
        check("low rank", 1, &shapes, |tape, vars| {
            let low_rank = Some(LowRank { a: &vars[2], b: &vars[3], scale: 0.7, dropout });
            let activation = Activation::Identity;
            linear(
                tape,
                &vars[0],
                &layout(),
                Linear { low_rank, activation, ..Linear::plain(&vars[1], None) },
            )
        });
    }
}

#[test]
fn frozen_weights_of_either_type() {
    // A frozen weight in bf16 is the weight, rounded: the same products, to the last bit.
    let (x, weight) = (draw("x", &[TOKENS, 45]), rounded(&draw("weight", &[71, 45])));
    let x = Var::constant(x.to(DType::Bf16).unwrap());
    let out = |weight: Tensor| {
        let weight = &Var::constant(weight);
        let layer = Linear::plain(weight, None);
        let out = linear(&Tape::inference(), &x, &layout(), layer).unwrap();
        out.value().to(DType::F32).unwrap().f32().to_vec()
    };
    assert_eq!(out(weight.clone()), out(weight.to(DType::Bf16).unwrap()));
}

#[test]
fn norms() {
    for dropout in [None, dropped()] {
        check("layer norm", 2, &[&[TOKENS, 45], &[TOKENS, 45], &[45], &[45]], |tape, vars| {
            let (weight, bias, residual) = (&vars[2], Some(&vars[3]), Some(&vars[1]));
            let options = LayerNormOptions { weight, bias, epsilon: 1e-5, residual, dropout };
            layer_norm(tape, &vars[0], &layout(), options)
        });
    }
}

#[test]
fn attentions() {
    for (kv_heads, causal, window) in [(4, false, None), (2, true, None), (1, false, Some(9))] {
        let kv_width = kv_heads * 16;
        let shape = AttentionShape { heads: 4, kv_heads, head_size: 16, scale: 0.3, causal, window };
        let shapes: [&[usize]; 3] = [&[TOKENS, 64], &[TOKENS, kv_width], &[TOKENS, kv_width]];
        check("attention", 3, &shapes, |tape, vars| {
            attention(tape, [&vars[0], &vars[1], &vars[2]], &layout(), shape, dropped())
        });
    }
    let shape =
        AttentionShape { heads: 4, kv_heads: 4, head_size: 16, scale: 0.3, causal: false, window: None };
    let pooled = Arc::new(layout().pooled());
    check("attention of first", 3, &[&[4, 64], &[TOKENS, 64], &[TOKENS, 64]], |tape, vars| {
        attention_of_first(tape, [&vars[0], &vars[1], &vars[2]], &pooled, &layout(), shape, None)
    });
    let keys = Arc::new(layout().behind(3));
    let longer = keys.tokens();
    check("attention over", 3, &[&[TOKENS, 64], &[longer, 64], &[longer, 64]], |tape, vars| {
        attention_over(tape, [&vars[0], &vars[1], &vars[2]], [&layout(), &keys], shape, None)
    });
}

#[test]
fn passes_over_values() {
    let wide: &[usize] = &[TOKENS, 46];
    check("gated", 1, &[wide], |tape, vars| gated(tape, &vars[0], Activation::Gelu));
    check("gate", 2, &[wide, wide], |tape, vars| gate(tape, &vars[0], &vars[1], Activation::Silu));
    check("rms norm", 1, &[wide, &[46]], |tape, vars| rms_norm(tape, &vars[0], &vars[1], 1e-5));
    check("rms norm of heads", 1, &[wide, &[23]], |tape, vars| rms_norm(tape, &vars[0], &vars[1], 1e-5));
    check("rotary", 1, &[&[TOKENS, 48]], |tape, vars| {
        rotary(tape, &vars[0], &layout(), &Rotary::new(12, 100.0))
    });
    check("dropout", 1, &[wide], |tape, vars| dropout(tape, &vars[0], &layout(), dropped()));
    check("add", 2, &[wide, wide], |tape, vars| add(tape, &vars[0], &vars[1], &layout(), dropped()));
    check("scale", 1, &[wide], |tape, vars| scale(tape, &vars[0], 0.3));
    check("scale columns", 1, &[wide, &[46], &[46]], |tape, vars| {
        scale_columns(tape, &vars[0], &vars[1], Some(&vars[2]), Activation::Silu)
    });
    check("scale rows", 1, &[wide, &[TOKENS]], |tape, vars| scale_rows(tape, &vars[0], &vars[1]));
    check("rotate", 1, &[&[TOKENS, 15], &[5, 3, 3]], |tape, vars| rotate(tape, &vars[0], &vars[1]));
}

#[test]
fn rows_and_columns() {
    let wide: &[usize] = &[TOKENS, 46];
    check("select rows", 1, &[wide], |tape, vars| select_rows(tape, &vars[0], &[3, 0, 3, 112]));
    check("transpose", 1, &[wide], |tape, vars| transpose(tape, &vars[0]));
    check("select columns", 1, &[wide], |tape, vars| select_columns(tape, &vars[0], 5..40));
    check("mean of rows", 1, &[wide], |tape, vars| mean_rows(tape, &vars[0], &layout()));
    check("place rows", 2, &[&[2, 46], &[1, 46]], |tape, vars| {
        place_rows(tape, &[(&vars[0], &[4, 1]), (&vars[1], &[2])], [5, 46])
    });
    // A prefix is a weight.
    check("prepend rows", 1, &[wide, &[3, 46]], |tape, vars| {
        prepend_rows(tape, &vars[1], &vars[0], &layout())
    });
    let ids: Arc<[u32]> = Arc::from([3, 1, 3, 0]);
    let tables: Vec<Tensor> = ["words", "types"].map(|name| rounded(&draw(name, &[5, 46]))).into();
    let run = |dtype| {
        run(
            &|tape, vars| {
                let lookup = |table| Lookup { table, ids: ids.clone(), padding_idx: None };
                embedding(tape, &[lookup(&vars[0]), lookup(&vars[1])], dtype)
            },
            &tables,
            0,
            dtype,
        )
    };
    for (wide, narrow) in run(DType::F32).iter().zip(&run(DType::Bf16)) {
        assert!(apart(wide, narrow) < 0.02);
    }
}

#[test]
fn losses_over_a_vocabulary() {
    let shapes: [&[usize]; 2] = [&[TOKENS, 45], &[71, 45]];
    let inputs: Vec<Tensor> =
        shapes.iter().enumerate().map(|(i, shape)| rounded(&draw(&format!("words {i}"), shape))).collect();
    let targets: Vec<u32> = (0..TOKENS as u32).map(|token| token * 29 % 71).collect();
    let run = |dtype| {
        let mut parameters = Parameters::new();
        for (index, input) in inputs.iter().enumerate() {
            let id = parameters.add(format!("input {index}"), input.clone()).unwrap();
            parameters.get_mut(id).trainable = true;
        }
        let tape = Tape::recording();
        let vars: Vec<Var> = parameters.iter().map(|(id, _)| tape.parameter(&parameters, id)).collect();
        let x = cast(&tape, &vars[0], dtype).unwrap();
        let loss = vocabulary_cross_entropy(&tape, &x, &vars[1], &targets, 9.0).unwrap();
        let mut gradients = Gradients::new();
        tape.backward(&loss, &mut gradients).unwrap();
        let mut results = vec![loss.value().clone()];
        results.extend(gradients.iter().map(|(_, gradient)| gradient.to_dense().unwrap()));
        results
    };
    for (wide, narrow) in run(DType::F32).iter().zip(&run(DType::Bf16)) {
        assert!(apart(wide, narrow) < 0.02);
    }
}

#[test]
fn a_whole_network_follows_the_one_in_f32() {
    let sizes = Sizes { entries: 97, hidden: 132, heads: 6, kv_heads: 2, rank: 5, classes: 7 };
    let run = |dtype| {
        let network = Network::new(Device::Cpu, sizes, |_| true);
        let batch = Batch::new(&[(4, 70), (1 << 33, 1), (2, 130), (0, 64)], &sizes);
        let tape = Tape::recording();
        let loss = match dtype {
            DType::F32 => network.loss(&tape, &batch, 4.0, &mut Vec::new()),
            _ => network.loss_as(dtype, &tape, &batch, 4.0, &mut Vec::new()),
        };
        let mut gradients = Gradients::new();
        tape.backward(&loss, &mut gradients).unwrap();
        let mut results = vec![loss.value().clone()];
        results.extend(gradients.iter().map(|(_, gradient)| gradient.to_dense().unwrap()));
        results
    };
    let (wide, narrow) = (run(DType::F32), run(DType::Bf16));
    assert_eq!(wide.len(), narrow.len());
    for (place, (wide, narrow)) in wide.iter().zip(&narrow).enumerate() {
        let square = |tensor: &Tensor| tensor.f32().iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let apart: f64 =
            wide.f32().iter().zip(narrow.f32()).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        let share = (apart / square(wide).max(1e-12)).sqrt();
        assert!(share < 0.05, "result {place}: {share}");
    }
}
