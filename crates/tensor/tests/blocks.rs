//! Quantised blocks against `golden/blocks.safetensors`, which `oracle/blocks.py` makes and describes.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;

use retune_tensor::backend::{Ends, Layout, Matrix, Product};
use retune_tensor::{BlockType, Blocks, DType, Device, Gradients, Parameters, Tape, Tensor, Var, ops};
use safetensors::SafeTensors;

fn golden(name: &str) -> (Vec<u8>, Vec<f32>) {
    let file = SafeTensors::deserialize(include_bytes!("golden/blocks.safetensors")).unwrap();
    let bytes = |end: &str| file.tensor(&format!("{name}.{end}")).unwrap().data().to_vec();
    let values = bytes("values");
    (bytes("blocks"), values.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

#[test]
fn each_type_is_read_to_the_bit() {
    for kind in BlockType::IN_FILES.into_iter().filter(|kind| *kind != BlockType::F16) {
        let (bytes, values) = golden(kind.name());
        assert_eq!(bytes.len(), kind.bytes(values.len(), values.len()), "{kind}");
        let blocks = Blocks::new(kind, &bytes, values.len(), values.len());
        let same = |got: &[f32], want: &[f32]| {
            assert_eq!(got.len(), want.len());
            for (place, (got, want)) in got.iter().zip(want).enumerate() {
                assert_eq!(got.to_bits(), want.to_bits(), "{kind} {place}: {got} {want}");
            }
        };
        same(&blocks.dense(), &values);
        // Any part, as products read it.
        for (first, count) in
            [(0, 1), (1, 7), (31, 2), (33, 300), (255, 258), (511, 513), (values.len() - 3, 3)]
        {
            let mut out = vec![0.0; count];
            blocks.from(first).read(&mut out);
            same(&out, &values[first..first + count]);
        }
        // What is not there is left alone.
        let mut out = [7.0; 5];
        blocks.from(values.len() - 2).read(&mut out);
        same(&out, &[&values[values.len() - 2..], &[7.0; 3]].concat());
        assert!(blocks.from(values.len() + 9).is_empty());
    }
}

/// `values` of `oracle/own_blocks.py`, and what it leaves of them.
fn reference(name: &str) -> (Tensor, Tensor) {
    let file = SafeTensors::deserialize(include_bytes!("golden/own_blocks.safetensors")).unwrap();
    let tensor = |name: &str| {
        let view = file.tensor(name).unwrap();
        let values: Vec<f32> =
            view.data().as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        Tensor::from_slice(Device::Cpu, view.shape(), &values).unwrap()
    };
    (tensor("values"), tensor(name))
}

#[test]
fn what_is_not_a_number_does_not_become_one() {
    for kind in [BlockType::Nf4, BlockType::Int8] {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![0.25; 96];
            values[37] = broken;
            let made = Tensor::from_slice(Device::Cpu, &[3, 32], &values).unwrap().to(DType::Blocks(kind));
            let back = made.unwrap().to(DType::F32).unwrap();
            assert!(back.f32().iter().any(|value| !value.is_finite()), "{kind} of {broken}");
        }
    }
}

#[test]
fn blocks_that_are_made_here_are_those_of_the_reference() {
    for (kind, tolerance) in [(BlockType::Nf4, 2e-5), (BlockType::Int8, 1e-3)] {
        let (values, want) = reference(kind.name());
        let made = values.to(DType::Blocks(kind)).unwrap();
        assert_eq!((made.dtype(), made.shape()), (DType::Blocks(kind), values.shape()));
        let back = made.to(DType::F32).unwrap();
        let most = want.f32().iter().fold(0.0f32, |most, x| most.max(x.abs()));
        // Where a value lies in the middle between two places, either is right; no more than a few do.
        let apart =
            back.f32().iter().zip(want.f32()).filter(|(got, want)| (*got - *want).abs() > tolerance * most);
        assert!(apart.count() <= 3, "{kind}");
        // Blocks of blocks are the same.
        assert_eq!(made.to(DType::Bf16).unwrap().to(DType::F32).unwrap().shape(), values.shape());
        let Err(error) = values.to(DType::Blocks(BlockType::Q4K)) else { panic!("made") };
        assert!(error.to_string().contains("nf4 or int8"), "{error}");
    }
    // At most 0.6 bytes a value.
    let large =
        Tensor::zeros(Device::Meta, &[4096, 4096]).unwrap().to(DType::Blocks(BlockType::Nf4)).unwrap();
    let bytes = large.dtype().bytes(large.len(), 4096).unwrap();
    assert!(bytes * 10 < large.len() * 6, "{bytes}");
}

/// A weight of `[rows, columns]` in blocks: bytes of the golden file again and again, or quantised here.
fn weight(kind: BlockType, [rows, columns]: [usize; 2]) -> Tensor {
    if kind.is_made() {
        let values: Vec<f32> = (0..rows * columns).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.01).collect();
        let dense = Tensor::from_slice(Device::Cpu, &[rows, columns], &values).unwrap();
        return dense.to(DType::Blocks(kind)).unwrap();
    }
    let bytes = match kind {
        BlockType::F16 => (0..2 * 4096u32)
            .map(|i| if i % 2 == 0 { (i * 7 % 251) as u8 } else { 0x20 + (i % 23) as u8 })
            .collect(),
        _ => golden(kind.name()).0,
    };
    let mut tensor = Tensor::empty_as(Device::Cpu, DType::Blocks(kind), &[rows, columns]).unwrap();
    // Without the block whose factor is -1.5, beside which all others would be nothing.
    let bytes = &bytes[3 * kind.block_bytes()..];
    let whole = bytes.len() / kind.block_bytes() * kind.block_bytes();
    tensor
        .bytes_mut()
        .unwrap()
        .iter_mut()
        .zip(bytes[..whole].iter().cycle())
        .for_each(|(to, from)| *to = *from);
    tensor
}

/// Forward and back, as a linear layer multiplies: `x W^T` and `y W`.
fn products(x: &Tensor, y: &Tensor, weight: &Tensor) -> [Vec<f32>; 2] {
    let [rows, columns] = [weight.rows(), weight.columns()];
    let matrix = |tensor: &Tensor| (tensor.rows(), tensor.columns());
    let ends = Ends::default;
    let backend = Device::Cpu.backend();
    let mut out = [vec![0.0; x.rows() * rows], vec![0.0; y.rows() * columns]];
    let w = Matrix::new(weight.values(), rows, columns);
    let [forward, back] = &mut out;
    let (m, k) = matrix(x);
    backend.gemm(
        forward.into(),
        &[Product { left: Matrix::new(x.values(), m, k), right: w.t(), scale: 1.0 }],
        false,
        ends(),
    );
    let (m, k) = matrix(y);
    backend.gemm(
        back.into(),
        &[Product { left: Matrix::new(y.values(), m, k), right: w, scale: 1.0 }],
        false,
        ends(),
    );
    out
}

#[test]
fn products_of_blocks_are_those_of_the_dense_weight_to_the_bit() {
    let made = [BlockType::Nf4, BlockType::Int8];
    for kind in BlockType::IN_FILES.into_iter().chain(made) {
        // Deeper than a round, wider than a task, and neither whole tiles; and small ones.
        for shape in [[333, 1792], [40, 256], [1, 512]] {
            let blocks = weight(kind, shape);
            let dense = blocks.to(DType::F32).unwrap();
            assert!(dense.f32().iter().any(|x| *x != 0.0), "{kind}");
            for dtype in [DType::F32, DType::Bf16] {
                for tokens in [1, 3, 50] {
                    let values = |columns: usize, step: usize| {
                        let values: Vec<f32> =
                            (0..tokens * columns).map(|i| ((i * step % 89) as f32 - 44.0) * 0.02).collect();
                        Tensor::from_slice(Device::Cpu, &[tokens, columns], &values)
                            .unwrap()
                            .to(dtype)
                            .unwrap()
                    };
                    let (x, y) = (values(shape[1], 31), values(shape[0], 17));
                    // bf16 beside a dense weight that is f32 rounds it alike as it is packed.
                    let (got, want) = (products(&x, &y, &blocks), products(&x, &y, &dense));
                    for (got, want) in got.iter().zip(&want) {
                        let same = got.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(same, "{kind} {shape:?} {dtype} {tokens}");
                    }
                }
            }
        }
    }
}

#[test]
fn frozen_matrices_stay_blocks_and_trained_ones_do_not() {
    let mut parameters = Parameters::new();
    let kind = DType::Blocks(BlockType::Q8_0);
    let mut add = |name: &str| parameters.add(name, weight(BlockType::Q8_0, [5, 64])).unwrap();
    let (frozen, trained, wanted) = (add("frozen"), add("trained"), add("wanted"));
    parameters.get_mut(trained).trainable = true;
    parameters.widen(|id| id == wanted).unwrap();
    parameters.keep_frozen_as(DType::Bf16, &[wanted]).unwrap();
    let dtype = |id| parameters.get(id).value.dtype();
    assert_eq!([dtype(frozen), dtype(trained), dtype(wanted)], [kind, DType::F32, DType::F32]);
    let mut value = parameters.get(frozen).value.clone();
    assert!(value.values_mut().is_err() && value.f32().is_empty());
    let back = parameters.get(frozen).value.to(DType::F32).unwrap();
    assert_eq!(back.f32(), weight(BlockType::Q8_0, [5, 64]).to(DType::F32).unwrap().f32());
}

/// The loss of a look-up, two layers of which one is kept the other way round, and a vocabulary; its gradient at what is looked up
/// beside.
fn pass(x: &Tensor, weights: &[Tensor; 3]) -> (f32, Vec<f32>) {
    let mut parameters = Parameters::new();
    let id = parameters.add("x", x.clone()).unwrap();
    parameters.get_mut(id).trainable = true;
    let tape = Tape::recording();
    let [table, first, second] = weights.each_ref().map(|weight| Var::constant(weight.clone()));
    let ids: Arc<[u32]> = (0..x.rows() as u32).map(|row| row * 5 % 40).collect();
    let lookup = ops::Lookup { table: &table, ids, padding_idx: None };
    let words = ops::embedding(&tape, &[lookup], DType::F32).unwrap();
    let layout = Arc::new(Layout::new(&[x.rows()], &[0]));
    let x = ops::add(&tape, &tape.parameter(&parameters, id), &words, &layout, None).unwrap();
    let hidden = ops::linear(&tape, &x, &layout, ops::Linear::plain(&first, None)).unwrap();
    let turned = ops::Linear { transposed: true, ..ops::Linear::plain(&second, None) };
    let hidden = ops::linear(&tape, &hidden, &layout, turned).unwrap();
    let targets: Vec<u32> = (0..x.value().rows() as u32).map(|row| row * 7 % 40).collect();
    let loss = ops::vocabulary_cross_entropy(&tape, &hidden, &table, &targets, 3.0).unwrap();
    let mut gradients = Gradients::new();
    tape.backward(&loss, &mut gradients).unwrap();
    (loss.value().item().unwrap(), gradients.get(id).unwrap().f32().to_vec())
}

#[test]
fn gradients_go_through_blocks_as_through_the_dense_weights() {
    for kind in [BlockType::Q4_1, BlockType::Q8_0, BlockType::Q6K, BlockType::Nf4, BlockType::Int8] {
        let blocks = [[40, 256], [256, 256], [256, 256]].map(|shape| {
            let blocks = weight(kind, shape);
            if !kind.is_made() {
                return blocks;
            }
            // Small weights, so that the loss is no plain maximum.
            let small: Vec<f32> = blocks.to(DType::F32).unwrap().f32().iter().map(|x| x * 0.2).collect();
            Tensor::from_slice(Device::Cpu, &shape, &small).unwrap().to(DType::Blocks(kind)).unwrap()
        });
        let dense = blocks.each_ref().map(|weight| weight.to(DType::F32).unwrap());
        let values: Vec<f32> = (0..3 * 256).map(|i| ((i * 13 % 83) as f32 - 41.0) * 0.01).collect();
        let x = Tensor::from_slice(Device::Cpu, &[3, 256], &values).unwrap();
        let ((loss, gradient), (dense_loss, dense_gradient)) = (pass(&x, &blocks), pass(&x, &dense));
        assert_eq!(loss.to_bits(), dense_loss.to_bits(), "{kind}");
        assert!(gradient.iter().zip(&dense_gradient).all(|(a, b)| a.to_bits() == b.to_bits()), "{kind}");
        if !kind.is_made() {
            continue;
        }
        // Along the gradient itself the loss rises by its square.
        let along = |step: f32| {
            let moved: Vec<f32> = values.iter().zip(&gradient).map(|(x, g)| x + step * g).collect();
            f64::from(pass(&Tensor::from_slice(Device::Cpu, &[3, 256], &moved).unwrap(), &blocks).0)
        };
        let square: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
        let step = 1e-2 / square.sqrt() as f32;
        let rise = (along(step) - along(-step)) / (2.0 * f64::from(step));
        assert!((rise / square - 1.0).abs() < 2e-2, "{kind}: {rise} {square}");
    }
}
