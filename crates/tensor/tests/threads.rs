//! The same bits on any number of threads: every kernel, forward and backward.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod draw;
mod network;
mod pass;

use std::sync::Arc;

use draw::draw;
use network::{Batch, Network, Sizes};
use pass::pass;
use retune_tensor::backend::{Activation, AdamW, AttentionShape, Dropout, Layout, Rotary};
use retune_tensor::ops::{
    CrossEntropyOptions, LayerNormOptions, Linear, Lookup, LowRank, add, attention, attention_of_first,
    cross_entropy, dropout, embedding, gate, gated, layer_norm, linear, mean_rows, prepend_rows, rms_norm,
    rotary, select_columns, select_rows, transpose, vocabulary_cross_entropy,
};
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Gradients, Result, Tape, Tensor, Var};

const DROPOUT: Option<f32> = Some(0.25);

fn dropped(probability: Option<f32>) -> Option<Dropout> {
    probability.map(|probability| Dropout { probability, key: Key::new(3) })
}

/// Runs `work` on pools of 1, 2, 3 and 5 threads and compares every bit of what it gives.
fn same_bits(what: &str, work: impl Fn() -> Vec<Tensor> + Sync) {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&work)
    };
    let alone = on(1);
    let finite = |tensor: &Tensor| tensor.f32().iter().all(|x| x.is_finite());
    assert!(alone.iter().all(finite), "{what}: a value is not finite, or was never written");
    for threads in [2, 3, 5] {
        for (index, (left, right)) in alone.iter().zip(on(threads)).enumerate() {
            let differs = left.f32().iter().zip(right.f32()).position(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(differs, None, "{what}: result {index} on {threads} threads");
        }
    }
}

/// The output of an op and the gradient of each input, on every number of threads.
fn op_has_same_bits(
    what: &str,
    inputs: &[&[usize]],
    out: Option<&[usize]>,
    op: impl Fn(&Tape, &[Var]) -> Result<Var> + Sync,
) {
    let inputs: Vec<_> =
        inputs.iter().enumerate().map(|(index, shape)| draw(&format!("{what}{index}"), shape)).collect();
    let dy = out.map(|shape| draw(what, shape));
    same_bits(what, || {
        let (value, mut results) = pass(&inputs, dy.as_ref(), &op);
        results.push(value);
        results
    });
}

#[test]
fn linear_layers() {
    // Small, in blocks, and each size as small as it can be.
    let sizes = [
        [257, 129, 65],
        [641, 771, 387],
        [2048, 24, 33],
        [1, 771, 387],
        [641, 1, 387],
        [641, 771, 1],
        [641, 771, 2],
        [1, 1, 3000],
        [5, 7, 0],
        [0, 7, 5],
    ];
    for [tokens, out, width] in sizes {
        let layout = Arc::new(Layout::new(&[tokens], &[9]));
        for activation in [Activation::Identity, Activation::Gelu] {
            op_has_same_bits(
                &format!("linear {tokens} {out} {width} {activation:?}"),
                &[&[tokens, width], &[out, width], &[out]],
                Some(&[tokens, out]),
                |tape, vars| {
                    let whole = Linear { activation, ..Linear::plain(&vars[1], Some(&vars[2])) };
                    linear(tape, &vars[0], &layout, whole)
                },
            );
        }
    }
}

#[test]
fn low_rank_branches() {
    for ([tokens, out, width, rank], probability) in
        [([257, 129, 65, 5], DROPOUT), ([641, 771, 387, 8], DROPOUT), ([641, 771, 387, 8], None)]
    {
        let layout = Arc::new(Layout::new(&[tokens - 40, 40], &[9, 1 << 35]));
        op_has_same_bits(
            &format!("low rank {tokens} {out} {width} {rank} {probability:?}"),
            &[&[tokens, width], &[out, width], &[out], &[rank, width], &[out, rank]],
            Some(&[tokens, out]),
            |tape, vars| {
                let (a, b, dropout) = (&vars[3], &vars[4], dropped(probability));
                let low_rank = Some(LowRank { a, b, scale: 1.75, dropout });
                let activation = Activation::GeluTanh;
                let whole = Linear { low_rank, activation, ..Linear::plain(&vars[1], Some(&vars[2])) };
                linear(tape, &vars[0], &layout, whole)
            },
        );
    }
}

#[test]
fn layer_norms() {
    for [tokens, columns] in [[1031, 259], [3, 20_011], [4099, 1], [1, 7]] {
        let layout = Arc::new(Layout::new(&[tokens], &[2]));
        op_has_same_bits(
            &format!("layer norm {tokens} {columns}"),
            &[&[tokens, columns], &[columns], &[columns], &[tokens, columns]],
            Some(&[tokens, columns]),
            |tape, vars| {
                let (weight, bias, residual) = (&vars[1], Some(&vars[2]), Some(&vars[3]));
                let dropout = dropped(DROPOUT);
                let options = LayerNormOptions { weight, bias, epsilon: 1e-5, residual, dropout };
                layer_norm(tape, &vars[0], &layout, options)
            },
        );
    }
}

#[test]
fn attentions() {
    // Rows of none and of one token, and rows of more than one tile of queries.
    let lengths = [67, 1, 0, 200, 64, 3, 129];
    let tokens = lengths.iter().sum();
    let layout = Arc::new(Layout::new(&lengths, &[4, 1, 0, 9, 1 << 40, 5, 6]));
    for (heads, kv_heads, head_size, causal, window, probability) in [
        (4, 4, 5, false, None, None),
        (4, 4, 5, true, None, DROPOUT),
        (6, 2, 17, false, None, DROPOUT),
        (6, 2, 17, true, None, None),
        (3, 1, 1, true, None, DROPOUT),
        (6, 2, 17, false, Some(11), DROPOUT),
        (4, 4, 5, true, Some(70), None),
    ] {
        let (width, kv_width) = (heads * head_size, kv_heads * head_size);
        let shape = AttentionShape { heads, kv_heads, head_size, scale: 0.4, causal, window };
        op_has_same_bits(
            &format!("attention {shape:?} {probability:?}"),
            &[&[tokens, width], &[tokens, kv_width], &[tokens, kv_width]],
            Some(&[tokens, width]),
            |tape, vars| {
                attention(tape, [&vars[0], &vars[1], &vars[2]], &layout, shape, dropped(probability))
            },
        );
    }
}

#[test]
fn the_first_tokens_through_a_window() {
    let lengths = [67, 1, 200, 3];
    let layout = Arc::new(Layout::new(&lengths, &[4, 1, 9, 6]));
    let pooled = Arc::new(layout.pooled());
    let shape =
        AttentionShape { heads: 4, kv_heads: 2, head_size: 5, scale: 0.4, causal: false, window: Some(7) };
    let tokens = layout.tokens();
    op_has_same_bits(
        "first tokens through a window",
        &[&[4, 20], &[tokens, 10], &[tokens, 10]],
        Some(&[4, 20]),
        |tape, vars| {
            let inputs = [&vars[0], &vars[1], &vars[2]];
            attention_of_first(tape, inputs, &pooled, &layout, shape, dropped(DROPOUT))
        },
    );
}

#[test]
fn gates_rotations_sums_and_means() {
    let layout = Arc::new(Layout::new(&[700, 0, 1, 330], &[1, 2, 1 << 34, 7]));
    op_has_same_bits("gated", &[&[1031, 154]], Some(&[1031, 77]), |tape, vars| {
        gated(tape, &vars[0], Activation::Gelu)
    });
    op_has_same_bits("gate", &[&[1031, 77], &[1031, 77]], Some(&[1031, 77]), |tape, vars| {
        gate(tape, &vars[0], &vars[1], Activation::Silu)
    });
    op_has_same_bits("rms norm", &[&[1031, 77], &[77]], Some(&[1031, 77]), |tape, vars| {
        rms_norm(tape, &vars[0], &vars[1], 1e-5)
    });
    op_has_same_bits("transpose", &[&[1031, 77]], Some(&[77, 1031]), |tape, vars| transpose(tape, &vars[0]));
    op_has_same_bits("rotary", &[&[1031, 66]], Some(&[1031, 66]), |tape, vars| {
        rotary(tape, &vars[0], &layout, &Rotary::new(22, 1e4))
    });
    op_has_same_bits("add", &[&[1031, 77], &[1031, 77]], Some(&[1031, 77]), |tape, vars| {
        add(tape, &vars[0], &vars[1], &layout, dropped(DROPOUT))
    });
    op_has_same_bits("mean of rows", &[&[1031, 77]], Some(&[4, 77]), |tape, vars| {
        mean_rows(tape, &vars[0], &layout)
    });
    op_has_same_bits("selected columns", &[&[1031, 77]], Some(&[1031, 31]), |tape, vars| {
        select_columns(tape, &vars[0], 40..71)
    });
}

#[test]
fn losses_over_a_vocabulary() {
    // Two chunks of tokens.
    let targets: Vec<u32> = (0..700).map(|token| token * 37 % 30_011).collect();
    op_has_same_bits("vocabulary", &[&[700, 19], &[30_011, 19]], None, |tape, vars| {
        vocabulary_cross_entropy(tape, &vars[0], &vars[1], &targets, 9.0)
    });
}

#[test]
fn embeddings_of_repeated_ids_and_selected_rows() {
    let (tokens, columns) = (3001, 301);
    let stream = &mut Key::new(6).stream();
    let mut ids = |entries| -> Arc<[u32]> { (0..tokens).map(|_| stream.below(entries)).collect() };
    let (words, types) = (ids(11), ids(2));
    op_has_same_bits(
        "embedding",
        &[&[11, columns], &[2, columns]],
        Some(&[tokens, columns]),
        |tape, vars| {
            let words = Lookup { table: &vars[0], ids: words.clone(), padding_idx: Some(3) };
            embedding(
                tape,
                &[words, Lookup { table: &vars[1], ids: types.clone(), padding_idx: None }],
                DType::F32,
            )
        },
    );
    let index: Vec<usize> = ids(500).iter().map(|id| *id as usize).collect();
    op_has_same_bits("select rows", &[&[500, columns]], Some(&[tokens, columns]), |tape, vars| {
        select_rows(tape, &vars[0], &index)
    });
}

#[test]
fn dropouts_and_cross_entropies() {
    let layout = Arc::new(Layout::new(&[700, 331], &[1, 1 << 34]));
    op_has_same_bits("dropout", &[&[1031, 77]], Some(&[1031, 77]), |tape, vars| {
        dropout(tape, &vars[0], &layout, dropped(DROPOUT))
    });
    let targets: Vec<u32> = (0..1031).map(|row| row * 7 % 77).collect();
    let weights = draw("class weights", &[77]);
    op_has_same_bits("cross-entropy", &[&[1031, 77]], None, |tape, vars| {
        let class_weights = Some(weights.f32());
        let options = CrossEntropyOptions { class_weights, label_smoothing: 0.1, denominator: 515.5 };
        cross_entropy(tape, &vars[0], &targets, options)
    });
}

#[test]
fn passes_over_values() {
    let backend = Device::Cpu.backend();
    let [values, more] = ["values", "more"].map(|name| draw(name, &[100_003]));
    same_bits("sums, scale, copy", || {
        let mut tensor = Tensor::zeros(Device::Cpu, &[100_003]).unwrap();
        backend.copy(values.values(), tensor.values_mut().unwrap());
        backend.add_assign(tensor.values_mut().unwrap(), more.values());
        backend.scale(tensor.values_mut().unwrap(), 0.3);
        let squares = bytes(backend.sum_of_squares(tensor.f32()));
        vec![tensor, squares]
    });
    same_bits("sum of rows", || {
        let mut sums = draw("sums", &[1301]);
        backend.sum_rows(values.f32()[..76 * 1301].into(), sums.f32_mut().unwrap(), true);
        vec![sums]
    });
    same_bits("adamw", || {
        let mut tensors = ["weight", "first", "second"].map(|name| draw(name, &[100_003]));
        let [weight, first, second] = &mut tensors;
        let [weight, first, second] = [weight, first, second].map(|tensor| tensor.f32_mut().unwrap());
        second.iter_mut().for_each(|v| *v = v.abs());
        let (learning_rate, betas) = (1e-2, [0.9, 0.999]);
        for step in 1..4 {
            let step =
                AdamW { learning_rate, betas, epsilon: 1e-8, weight_decay: 0.1, step, gradient_scale: 0.7 };
            backend.adamw(step, values.f32(), weight, [&mut *first, &mut *second]);
        }
        tensors.into()
    });
}

#[test]
fn a_whole_pass_and_its_gradient_norm() {
    let sizes = Sizes { entries: 97, hidden: 132, heads: 6, kv_heads: 2, rank: 5, classes: 7 };
    let network = Network::new(Device::Cpu, sizes, |_| true);
    let batch = Batch::new(&[(4, 70), (1 << 33, 1), (2, 130), (0, 64)], &sizes);
    same_bits("network", || {
        let tape = Tape::recording();
        let loss = network.loss(&tape, &batch, 4.0, &mut Vec::new());
        let mut gradients = Gradients::new();
        tape.backward(&loss, &mut gradients).unwrap();
        let mut results = vec![loss.value().clone(), bytes(gradients.norm())];
        gradients.scale(0.37).unwrap();
        results.extend(gradients.iter().map(|(_, gradient)| gradient.to_dense().unwrap()));
        results
    });
}

/// The bytes of an f64 as values of their own.
fn bytes(value: f64) -> Tensor {
    Tensor::from_slice(Device::Cpu, &[8], &value.to_le_bytes().map(f32::from)).unwrap()
}

#[test]
fn prefixes() {
    let layout = Arc::new(Layout::new(&[301, 1, 0, 77], &[5, 1, 2, 9]));
    let out = [layout.behind(7).tokens(), 131];
    op_has_same_bits("prepended", &[&[7, 131], &[379, 131]], Some(&out), |tape, vars| {
        prepend_rows(tape, &vars[0], &vars[1], &layout)
    });
}
