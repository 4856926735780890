//! Inputs at the edge: values that are no numbers, huge ones, and sizes of one and of none.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod draw;
mod pass;

use std::sync::Arc;

use draw::draw;
use pass::pass;
use retune_tensor::backend::{Activation, AttentionShape, Dropout, Layout, Rotary};
use retune_tensor::ops::{
    BinaryCrossEntropyOptions, CrossEntropyOptions, LayerNormOptions, Linear, Lookup, LowRank, add,
    attention, binary_cross_entropy, cross_entropy, dropout, embedding, gate, gated, layer_norm, linear,
    mean_rows, rms_norm, rotary, select_columns, select_rows, squared_error,
};
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Gradients, Result, Tape, Tensor, Var};

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_slice(Device::Cpu, shape, values).unwrap()
}

fn layout(lengths: &[usize]) -> Arc<Layout> {
    let ids: Vec<u64> = (0..lengths.len() as u64).collect();
    Arc::new(Layout::new(lengths, &ids))
}

fn dropped(probability: f32) -> Option<Dropout> {
    Some(Dropout { probability, key: Key::new(1) })
}

fn plain<'a>(weight: &'a Var, bias: Option<&'a Var>, activation: Activation) -> Linear<'a> {
    Linear { activation, ..Linear::plain(weight, bias) }
}

fn shape(heads: usize, kv_heads: usize, head_size: usize, causal: bool) -> AttentionShape {
    AttentionShape { heads, kv_heads, head_size, scale: 1.0, causal, window: None }
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::Identity,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Silu,
    Activation::Tanh,
];

#[test]
fn a_nan_in_the_input_reaches_the_output() {
    // A place in the vectorised part of a row, and one in its rest.
    for place in [2, 20] {
        let mut values = draw("values", &[1, 21]).f32().to_vec();
        values[place] = f32::NAN;
        let x = Var::constant(tensor(&[1, 21], &values));
        let column = Var::constant(tensor(&[21, 1], &values));
        let constant = |shape: &[usize]| Var::constant(draw("constant", shape));
        let (one, weight, bias) = (constant(&[1, 1]), constant(&[21]), constant(&[21]));
        let (tape, layout, column_layout) = (Tape::inference(), layout(&[1]), layout(&[21]));
        let has_nan = |what: &str, out: Result<Var>| {
            assert!(out.unwrap().value().f32().iter().any(|x| x.is_nan()), "{what} hides a NaN at {place}");
        };
        for activation in ACTIVATIONS {
            let out = linear(&tape, &column, &column_layout, plain(&one, None, activation));
            has_nan(&format!("{activation:?}"), out);
        }
        let norm = LayerNormOptions {
            weight: &weight,
            bias: Some(&bias),
            epsilon: 1e-5,
            residual: None,
            dropout: dropped(0.99),
        };
        has_nan("layer_norm", layer_norm(&tape, &x, &layout, norm));
        has_nan("dropout", dropout(&tape, &x, &layout, dropped(0.99)));
        has_nan("select_rows", select_rows(&tape, &x, &[0]));
        has_nan("select_columns", select_columns(&tape, &x, place..place + 1));
        has_nan("mean_rows", mean_rows(&tape, &x, &layout));
        has_nan("add", add(&tape, &x, &constant(&[1, 21]), &layout, dropped(0.99)));
        let even = Var::constant(tensor(&[1, 22], &[&values[..], &[0.5]].concat()));
        has_nan("rotary", rotary(&tape, &even, &layout, &Rotary::new(22, 10.0)));
        for activation in ACTIVATIONS {
            has_nan("gated", gated(&tape, &even, activation));
        }
        let lookup = Lookup { table: &x, ids: Arc::from([0]), padding_idx: Some(0) };
        has_nan("embedding", embedding(&tape, &[lookup], DType::F32));
        let good = constant(&[21, 1]);
        for inputs in [[&column, &good, &good], [&good, &column, &good], [&good, &good, &column]] {
            has_nan("attention", attention(&tape, inputs, &column_layout, shape(1, 1, 1, true), None));
        }
        for target in [0, 2, 20] {
            let options = CrossEntropyOptions { class_weights: None, label_smoothing: 0.0, denominator: 1.0 };
            has_nan("cross_entropy", cross_entropy(&tape, &x, &[target], options));
        }
        let targets: Vec<f32> = (0..21).map(|place| (place % 2) as f32).collect();
        let options = BinaryCrossEntropyOptions { positive_weights: None, denominator: 21.0 };
        has_nan("binary_cross_entropy", binary_cross_entropy(&tape, &x, &targets, options));
        has_nan("squared_error", squared_error(&tape, &x, &targets, 21.0));
        assert!(Device::Cpu.backend().sum_of_squares(&values).is_nan());
    }
}

#[test]
fn activations_of_huge_values_keep_to_their_limits() {
    let ends = [-f32::MAX, -1e30, -1e4, -40.0, 40.0, 1e4, 1e30, f32::MAX];
    let one = tensor(&[1, 1], &[1.0]);
    for activation in ACTIVATIONS {
        let x = tensor(&[8, 1], &ends);
        let dy = tensor(&[8, 1], &[1.0; 8]);
        let (y, gradients) = pass(&[x, one.clone()], Some(&dy), |tape, vars| {
            linear(tape, &vars[0], &layout(&[8]), plain(&vars[1], None, activation))
        });
        let (low, high) = match activation {
            Activation::Identity => (1.0, 1.0),
            Activation::Tanh => (0.0, 0.0),
            _ => (0.0, 1.0),
        };
        for ((x, y), dx) in ends.iter().zip(y.f32()).zip(gradients[0].f32()) {
            let slope = if *x < 0.0 { low } else { high };
            let limit = if activation == Activation::Tanh { x.signum() } else { slope * x };
            assert!((y - limit).abs() <= 1e-6 * limit.abs() + 1e-15, "{activation:?}({x}) = {y}");
            // The approximation of GELU by tanh cubes its input: PyTorch's derivative is no number there either.
            if activation != Activation::GeluTanh || x.abs() < 1e10 {
                assert!((dx - slope).abs() <= 1e-6, "{activation:?}'({x}) = {dx}");
            }
        }
    }
}

#[test]
fn cross_entropy_of_huge_logits() {
    let options = CrossEntropyOptions { class_weights: None, label_smoothing: 0.0, denominator: 1.0 };
    let run = |logits: &[f32], target| {
        let (loss, gradients) = pass(&[tensor(&[1, logits.len()], logits)], None, |tape, vars| {
            cross_entropy(tape, &vars[0], &[target], options)
        });
        (loss.item().unwrap(), gradients[0].f32().to_vec())
    };
    let ln2 = std::f32::consts::LN_2;
    for huge in [1e3, 1e8, 1e30, f32::MAX] {
        // Two classes share the largest logit: the loss is ln 2, however large it is.
        let (loss, gradient) = run(&[huge, -huge, huge], 0);
        assert!((loss - ln2).abs() < 1e-6, "{huge}: {loss}");
        for (got, want) in gradient.iter().zip([-0.5, 0.0, 0.5]) {
            assert!((got - want).abs() < 1e-6, "{huge}: {gradient:?}");
        }
    }
    let (loss, gradient) = run(&[1e30, -1e30], 1);
    assert!((loss / 2e30 - 1.0).abs() < 1e-6 && gradient == [1.0, -1.0], "{loss} {gradient:?}");
    let (loss, gradient) = run(&[f32::NEG_INFINITY, 0.0, 0.0], 2);
    assert!((loss - ln2).abs() < 1e-6 && gradient == [0.0, 0.5, -0.5], "{loss} {gradient:?}");
    // One class is no choice.
    assert_eq!(run(&[-3.7], 0), (0.0, vec![0.0]));
}

#[test]
fn attention_of_huge_scores_takes_the_largest() {
    let [query, key] = [tensor(&[3, 1], &[1e15, -1e15, 1e15]), tensor(&[3, 1], &[1e15, 2e15, -1e15])];
    let value = tensor(&[3, 1], &[5.0, 7.0, 11.0]);
    let dy = tensor(&[3, 1], &[1.0, 10.0, 100.0]);
    let (y, gradients) = pass(&[query, key, value], Some(&dy), |tape, vars| {
        attention(tape, [&vars[0], &vars[1], &vars[2]], &layout(&[3]), shape(1, 1, 1, false), None)
    });
    assert_eq!(y.f32(), [7.0, 11.0, 7.0]);
    assert_eq!(gradients[0].f32(), [0.0; 3]);
    assert_eq!(gradients[2].f32(), [0.0, 101.0, 10.0]);
}

#[test]
fn a_batch_of_no_rows_gives_nothing_and_zero_gradients() {
    let none = |columns| draw("none", &[0, columns]);
    let is_zero = |(value, gradients): (Tensor, Vec<Tensor>)| {
        assert!(value.f32().iter().chain(gradients.iter().flat_map(Tensor::f32)).all(|x| *x == 0.0));
    };
    for layout in [layout(&[]), layout(&[0, 0])] {
        let branch =
            [none(5), draw("w", &[3, 5]), draw("bias", &[3]), draw("a", &[2, 5]), draw("b", &[3, 2])];
        is_zero(pass(&branch, Some(&none(3)), |tape, vars| {
            let low_rank = Some(LowRank { a: &vars[3], b: &vars[4], scale: 2.0, dropout: dropped(0.5) });
            let (weight, bias, activation) = (&vars[1], Some(&vars[2]), Activation::Gelu);
            linear(tape, &vars[0], &layout, Linear { low_rank, activation, ..Linear::plain(weight, bias) })
        }));
        let norm = [none(5), draw("weight", &[5]), draw("bias", &[5]), none(5)];
        is_zero(pass(&norm, Some(&none(5)), |tape, vars| {
            let (weight, bias, residual) = (&vars[1], Some(&vars[2]), Some(&vars[3]));
            let dropout = dropped(0.5);
            let options = LayerNormOptions { weight, bias, epsilon: 1e-5, residual, dropout };
            layer_norm(tape, &vars[0], &layout, options)
        }));
        is_zero(pass(&[none(6), none(2), none(2)], Some(&none(6)), |tape, vars| {
            let inputs = [&vars[0], &vars[1], &vars[2]];
            attention(tape, inputs, &layout, shape(3, 1, 2, false), dropped(0.5))
        }));
        is_zero(pass(&[none(6)], Some(&none(6)), |tape, vars| {
            dropout(tape, &vars[0], &layout, dropped(0.5))
        }));
        is_zero(pass(&[none(6), none(6)], Some(&none(6)), |tape, vars| {
            add(tape, &vars[0], &vars[1], &layout, dropped(0.5))
        }));
        is_zero(pass(&[none(6)], Some(&none(3)), |tape, vars| gated(tape, &vars[0], Activation::Gelu)));
        is_zero(pass(&[none(6), none(6)], Some(&none(6)), |tape, vars| {
            gate(tape, &vars[0], &vars[1], Activation::Silu)
        }));
        is_zero(pass(&[none(6), draw("weight", &[3])], Some(&none(6)), |tape, vars| {
            rms_norm(tape, &vars[0], &vars[1], 1e-5)
        }));
        is_zero(pass(&[none(6)], Some(&none(6)), |tape, vars| {
            rotary(tape, &vars[0], &layout, &Rotary::new(2, 9.0))
        }));
        is_zero(pass(&[none(6)], Some(&none(2)), |tape, vars| select_columns(tape, &vars[0], 3..5)));
        let rows = draw("rows", &[layout.rows(), 6]);
        is_zero(pass(&[none(6)], Some(&rows), |tape, vars| mean_rows(tape, &vars[0], &layout)));
    }
    is_zero(pass(&[draw("table", &[4, 3])], Some(&none(3)), |tape, vars| {
        embedding(tape, &[Lookup { table: &vars[0], ids: Arc::from([]), padding_idx: None }], DType::F32)
    }));
    is_zero(pass(&[draw("x", &[4, 3])], Some(&none(3)), |tape, vars| select_rows(tape, &vars[0], &[])));
    is_zero(pass(&[none(3)], None, |tape, vars| {
        let options = CrossEntropyOptions { class_weights: None, label_smoothing: 0.1, denominator: 4.0 };
        cross_entropy(tape, &vars[0], &[], options)
    }));
    assert!(Gradients::new().norm() == 0.0);
}

#[test]
fn rows_of_no_tokens_leave_the_others_as_they_are() {
    let inputs = ["q", "k", "v"].map(|name| draw(name, &[7, 4]));
    let dy = draw("dy", &[7, 4]);
    let run = |lengths: &[usize], ids: &[u64]| {
        let layout = Arc::new(Layout::new(lengths, ids));
        let (value, mut results) = pass(&inputs, Some(&dy), |tape, vars| {
            let inputs = [&vars[0], &vars[1], &vars[2]];
            attention(tape, inputs, &layout, shape(2, 2, 2, true), dropped(0.3))
        });
        results.push(value);
        results
    };
    let without = run(&[3, 4], &[5, 9]);
    for (left, right) in without.iter().zip(run(&[0, 3, 0, 4, 0], &[1, 5, 2, 9, 3])) {
        assert_eq!(left.f32(), right.f32());
    }
}

#[test]
fn sizes_of_one_and_of_none() {
    // One channel has no variance: its norm is the bias.
    let norm = [draw("x", &[5, 1]), tensor(&[1], &[3.0]), tensor(&[1], &[-0.75])];
    let dy = draw("dy", &[5, 1]);
    let (y, gradients) = pass(&norm, Some(&dy), |tape, vars| {
        let (weight, bias) = (&vars[1], Some(&vars[2]));
        let options = LayerNormOptions { weight, bias, epsilon: 1e-12, residual: None, dropout: None };
        layer_norm(tape, &vars[0], &layout(&[5]), options)
    });
    assert_eq!(y.f32(), [-0.75; 5]);
    assert_eq!((gradients[0].f32(), gradients[1].f32()), (&[0.0; 5][..], &[0.0][..]));

    // A vocabulary of one word: its gradient is the sum over all tokens.
    let (y, gradients) =
        pass(&[tensor(&[1, 1], &[2.5])], Some(&tensor(&[3, 1], &[1.0, 2.0, 4.0])), |tape, vars| {
            embedding(
                tape,
                &[Lookup { table: &vars[0], ids: Arc::from([0, 0, 0]), padding_idx: None }],
                DType::F32,
            )
        });
    assert_eq!((y.f32(), gradients[0].f32()), (&[2.5; 3][..], &[7.0][..]));

    // No input channels: what is left of a layer is its bias; and no output channels at all.
    let inputs = [draw("x", &[4, 0]), draw("w", &[2, 0]), tensor(&[2], &[1.5, -2.0])];
    let dy = tensor(&[4, 2], &[1.0; 8]);
    let (y, gradients) = pass(&inputs, Some(&dy), |tape, vars| {
        linear(tape, &vars[0], &layout(&[4]), plain(&vars[1], Some(&vars[2]), Activation::Relu))
    });
    assert_eq!(y.f32(), [1.5, 0.0].repeat(4));
    assert_eq!(gradients[2].f32(), [4.0, 0.0]);
    let inputs = [draw("x", &[4, 3]), draw("w", &[0, 3])];
    let (_, gradients) = pass(&inputs, Some(&draw("dy", &[4, 0])), |tape, vars| {
        linear(tape, &vars[0], &layout(&[4]), plain(&vars[1], None, Activation::Gelu))
    });
    assert_eq!(gradients[0].f32(), [0.0; 12]);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let x = Var::constant(draw("x", &[2, 2]));
    let tape = Tape::inference();
    for probability in [-0.1, 1.0, 1.5, f32::NAN] {
        let error = dropout(&tape, &x, &layout(&[2]), dropped(probability)).unwrap_err().to_string();
        let expected =
            format!("dropout: expected a dropout of at least 0 and less than 1, got {probability:?}");
        assert_eq!(error, expected);
    }
    for heads in [(0, 1), (1, 0), (3, 2)] {
        let shape = shape(heads.0, heads.1, 1, false);
        let error = attention(&tape, [&x, &x, &x], &layout(&[2]), shape, None).unwrap_err().to_string();
        assert!(error.starts_with("attention: expected a number of key heads"), "{error}");
    }
    // The product of these sizes is zero where it wraps around.
    let none = draw("none", &[0]);
    assert!(none.reshape(&[1 << 32, 1 << 32]).is_err());
    assert!(Tensor::from_slice(Device::Cpu, &[1 << 32, 1 << 32], &[]).is_err());
    let error = Tensor::from_slice(Device::Cpu, &[1 << 50], &[1.0]).unwrap_err().to_string();
    assert_eq!(error, "tensor: expected as many values as [1125899906842624] has, got 1");
}
