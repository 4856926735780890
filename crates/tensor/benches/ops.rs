//! What the kernels take, by the sizes of BERT base and MiniLM: `cargo bench -p retune-tensor`.

use divan::Bencher;
use divan::counter::ItemsCount;
use retune_tensor::Device;
use retune_tensor::backend::{
    Activation, AdamW, AttentionInputs, AttentionSaved, AttentionShape, Dropout, Ends, LayerNorm, Layout,
    Matrix, Product,
};
use retune_tensor::random::Key;

fn main() {
    divan::main();
}

fn dropout() -> Option<Dropout> {
    Some(Dropout { probability: 0.1, key: Key::new(3) })
}

fn draw(count: usize) -> Vec<f32> {
    let stream = &mut Key::new(1).stream();
    (0..count).map(|_| stream.uniform() - 0.5).collect()
}

/// Tokens, width of the output, width of the input.
const LINEARS: [[usize; 3]; 6] = [
    [2048, 768, 768],
    [2048, 3072, 768],
    [2048, 768, 3072],
    [4096, 384, 384],
    [4096, 1536, 384],
    [4096, 384, 1536],
];

/// Items are floating point operations.
#[divan::bench(args = LINEARS)]
fn forward(bencher: Bencher, [tokens, to, from]: [usize; 3]) {
    let (x, weight, mut out) = (draw(tokens * from), draw(to * from), vec![0.0; tokens * to]);
    bencher.counter(ItemsCount::new(2 * tokens * to * from)).bench_local(|| {
        let right = Matrix::new(&weight, to, from).t();
        let product = Product { left: Matrix::new(&x, tokens, from), right, scale: 1.0 };
        Device::Cpu.backend().gemm((&mut out).into(), &[product], false, Ends::default());
    });
}

#[divan::bench(args = LINEARS)]
fn gradient_of_input(bencher: Bencher, [tokens, to, from]: [usize; 3]) {
    let (gradient, weight, mut out) = (draw(tokens * to), draw(to * from), vec![0.0; tokens * from]);
    bencher.counter(ItemsCount::new(2 * tokens * to * from)).bench_local(|| {
        let right = Matrix::new(&weight, to, from);
        let product = Product { left: Matrix::new(&gradient, tokens, to), right, scale: 1.0 };
        Device::Cpu.backend().gemm((&mut out).into(), &[product], false, Ends::default());
    });
}

#[divan::bench(args = LINEARS)]
fn gradient_of_weight(bencher: Bencher, [tokens, to, from]: [usize; 3]) {
    let (gradient, x, mut out) = (draw(tokens * to), draw(tokens * from), vec![0.0; to * from]);
    bencher.counter(ItemsCount::new(2 * tokens * to * from)).bench_local(|| {
        let left = Matrix::new(&gradient, tokens, to).t();
        let product = Product { left, right: Matrix::new(&x, tokens, from), scale: 1.0 };
        Device::Cpu.backend().gemm((&mut out).into(), &[product], false, Ends::default());
    });
}

/// Rows, tokens a row, heads, channels of a head; items are pairs of tokens.
const ATTENTIONS: [[usize; 4]; 3] = [[16, 128, 12, 64], [32, 128, 12, 32], [1, 2048, 12, 64]];

fn shape(heads: usize, head_size: usize) -> AttentionShape {
    let scale = 1.0 / (head_size as f32).sqrt();
    AttentionShape { heads, kv_heads: heads, head_size, scale, causal: false, window: None }
}

#[divan::bench(args = ATTENTIONS)]
fn attention(bencher: Bencher, [rows, length, heads, head_size]: [usize; 4]) {
    let (tokens, width) = (rows * length, heads * head_size);
    let layout = Layout::new(&vec![length; rows], &(0..rows as u64).collect::<Vec<_>>());
    let [query, key, value] = [(); 3].map(|()| draw(tokens * width));
    let (mut out, mut lse) = (vec![0.0; tokens * width], vec![0.0; tokens * heads]);
    bencher.counter(ItemsCount::new(rows * length * length * heads)).bench_local(|| {
        let inputs = AttentionInputs {
            query: (&query).into(),
            key: (&key).into(),
            value: (&value).into(),
            layout: &layout,
            queries: &layout,
            dropout: dropout(),
        };
        Device::Cpu.backend().attention(shape(heads, head_size), inputs, (&mut out).into(), &mut lse);
    });
}

#[divan::bench(args = ATTENTIONS)]
fn attention_backward(bencher: Bencher, [rows, length, heads, head_size]: [usize; 4]) {
    let (tokens, width) = (rows * length, heads * head_size);
    let layout = Layout::new(&vec![length; rows], &(0..rows as u64).collect::<Vec<_>>());
    let [query, key, value, gradient] = [(); 4].map(|()| draw(tokens * width));
    let (mut out, mut lse) = (vec![0.0; tokens * width], vec![0.0; tokens * heads]);
    let mut gradients = [(); 3].map(|()| vec![0.0; tokens * width]);
    let inputs = AttentionInputs {
        query: (&query).into(),
        key: (&key).into(),
        value: (&value).into(),
        layout: &layout,
        queries: &layout,
        dropout: dropout(),
    };
    let backend = Device::Cpu.backend();
    backend.attention(shape(heads, head_size), inputs, (&mut out).into(), &mut lse);
    bencher.counter(ItemsCount::new(rows * length * length * heads)).bench_local(|| {
        let saved = AttentionSaved { lse: &lse, gradient: (&gradient).into() };
        let gradients = gradients.each_mut().map(Into::into);
        backend.attention_backward(shape(heads, head_size), inputs, saved, gradients);
    });
}

/// Tokens and channels; items are values.
const VALUES: [[usize; 2]; 2] = [[2048, 768], [2048, 3072]];

#[divan::bench(args = VALUES)]
fn layer_norm(bencher: Bencher, [tokens, columns]: [usize; 2]) {
    let layout = Layout::new(&[tokens], &[3]);
    let (x, residual, weight) = (draw(tokens * columns), draw(tokens * columns), draw(columns));
    let (mut out, mut normal, mut rstd) = (x.clone(), x.clone(), vec![0.0; tokens]);
    bencher.counter(ItemsCount::new(x.len())).bench_local(|| {
        let norm = LayerNorm {
            x: (&x).into(),
            residual: Some((&residual).into()),
            dropout: dropout().map(|dropout| (dropout, &layout)),
            weight: &weight,
            bias: Some(&weight),
            epsilon: 1e-12,
        };
        Device::Cpu.backend().layer_norm(&norm, (&mut out).into(), (&mut normal).into(), &mut rstd);
    });
}

#[divan::bench(args = VALUES)]
fn gelu_backward(bencher: Bencher, [tokens, columns]: [usize; 2]) {
    let (before, mut gradient) = (draw(tokens * columns), draw(tokens * columns));
    bencher.counter(ItemsCount::new(before.len())).bench_local(|| {
        Device::Cpu.backend().activation_backward(Activation::Gelu, (&before).into(), (&mut gradient).into());
    });
}

#[divan::bench(args = VALUES)]
fn adamw(bencher: Bencher, [rows, columns]: [usize; 2]) {
    let gradient = draw(rows * columns);
    let [mut weight, mut first, mut second] =
        [(); 3].map(|()| draw(rows * columns).into_iter().map(f32::abs).collect::<Vec<_>>());
    bencher.counter(ItemsCount::new(gradient.len())).bench_local(|| {
        let step = AdamW {
            learning_rate: 1e-4,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            weight_decay: 0.01,
            step: 3,
            gradient_scale: 1.0,
        };
        Device::Cpu.backend().adamw(step, &gradient, &mut weight, [&mut first, &mut second]);
    });
}
