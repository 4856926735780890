//! A step in parts is the step in one, and gradients go where they belong and nowhere else.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod draw;
mod network;
mod pass;

use std::sync::Arc;

use draw::draw;
use network::{Batch, Network, Sizes};
use pass::pass;
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::ops::{LayerNormOptions, Linear, Lookup, embedding, layer_norm, linear};
use retune_tensor::{DType, Device, Gradients, Parameters, Tape, Tensor, Var};

const SIZES: Sizes = Sizes { entries: 31, hidden: 36, heads: 6, kv_heads: 2, rank: 3, classes: 5 };

/// Ragged rows; one of a single token, one longer than a tile, an id of more than 32 bits.
const ROWS: [(u64, usize); 6] = [(11, 7), (3, 1), (1 << 36, 13), (0, 70), (8, 4), (5, 9)];

/// Errors relative to the largest value of `want`.
fn assert_close(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.shape(), want.shape(), "{what}");
    let largest = want.f32().iter().fold(0.0f32, |max, x| max.max(x.abs()));
    for (place, (got, want)) in got.f32().iter().zip(want.f32()).enumerate() {
        assert!((got - want).abs() <= 1e-5 * largest, "{what}[{place}]: got {got}, expected {want}");
    }
}

/// The loss and the gradients of [`ROWS`] in micro-batches of these sizes, under one denominator.
fn step(network: &Network, parts: &[usize]) -> (f32, Gradients) {
    let (mut total, mut gradients, mut rows) = (0.0, Gradients::new(), &ROWS[..]);
    for part in parts {
        let (now, later) = rows.split_at(*part);
        rows = later;
        let tape = Tape::recording();
        let loss = network.loss(&tape, &Batch::new(now, &SIZES), 6.0, &mut Vec::new());
        total += loss.value().item().unwrap();
        tape.backward(&loss, &mut gradients).unwrap();
    }
    assert!(rows.is_empty(), "every row has its turn");
    (total, gradients)
}

#[test]
fn micro_batches_give_the_gradients_of_one_batch() {
    let network = Network::new(Device::Cpu, SIZES, |_| true);
    let (loss, whole) = step(&network, &[6]);
    for parts in [&[3, 3][..], &[1, 2, 3], &[1; 6]] {
        let (sum, gradients) = step(&network, parts);
        assert!((sum - loss).abs() <= 1e-5 * loss, "{parts:?}: loss {sum}, expected {loss}");
        for (id, parameter) in network.parameters.iter() {
            let (got, want) = (gradients.get(id).unwrap(), whole.get(id).unwrap());
            let [got, want] = [got, want].map(|gradient| gradient.to_dense().unwrap());
            assert_close(&format!("{} in {parts:?}", parameter.name), &got, &want);
        }
    }
}

#[test]
fn frozen_parameters_get_no_gradient() {
    let (_, everything) = step(&Network::new(Device::Cpu, SIZES, |_| true), &[6]);
    let cases: [&[&str]; 5] = [
        &["dense.a", "dense.b", "classifier.weight"],
        &["dense.b"],
        &["norm.bias", "dense.bias", "classifier.bias"],
        &["words", "key"],
        &[],
    ];
    for trained in cases {
        let network = Network::new(Device::Cpu, SIZES, |name| trained.contains(&name));
        let (_, gradients) = step(&network, &[6]);
        let names: Vec<_> =
            gradients.iter().map(|(id, _)| network.parameters.get(id).name.as_str()).collect();
        let mut expected: Vec<_> = network.parameters.trainable().map(|(_, item)| &*item.name).collect();
        expected.sort_by_key(|name| network.parameters.find(name));
        assert_eq!(names, expected);
        // What is frozen beside them changes no bit of those that are trained.
        for (id, gradient) in gradients.iter() {
            assert_eq!(
                gradient.f32(),
                everything.get(id).unwrap().f32(),
                "{}",
                network.parameters.get(id).name
            );
        }
    }
}

#[test]
fn gradients_one_by_one_are_those_of_all_and_leave_the_weights_free() {
    let mut network = Network::new(Device::Cpu, SIZES, |name| name != "dense.weight");
    let (_, all) = step(&network, &[6]);
    let tape = Tape::recording();
    let loss = network.loss(&tape, &Batch::new(&ROWS, &SIZES), 6.0, &mut Vec::new());
    let mut seen = Vec::new();
    tape.backward_each(&loss, |id, gradient| {
        assert_eq!(gradient.f32(), all.get(id).unwrap().f32());
        network.parameters.get_mut(id).value.f32_mut()?.fill(f32::NAN);
        seen.push(id);
        Ok(())
    })
    .unwrap();
    seen.sort();
    assert_eq!(seen, all.iter().map(|(id, _)| id).collect::<Vec<_>>());
}

#[test]
fn a_parameter_used_twice_gets_the_sum() {
    let layout = Arc::new(Layout::new(&[5], &[0]));
    let ids: Arc<[u32]> = Arc::from([2, 0, 6, 2, 2]);
    // An embedding, a layer and the projection back on the words: tied, the table serves at both ends.
    let model = |tape: &Tape, table: &Var, dense: [&Var; 2], head: &Var| {
        let mut x = embedding(tape, &[Lookup { table, ids: ids.clone(), padding_idx: None }], DType::F32)?;
        for weight in [dense[0], dense[1], head] {
            let whole = Linear { activation: Activation::Tanh, ..Linear::plain(weight, None) };
            x = linear(tape, &x, &layout, whole)?;
        }
        Ok(x)
    };
    let (table, dense, dy) = (draw("table", &[7, 5]), draw("dense", &[5, 5]), draw("dy", &[5, 7]));
    let apart = [table.clone(), dense.clone(), dense.clone(), table.clone()];
    let (value, apart) =
        pass(&apart, Some(&dy), |tape, vars| model(tape, &vars[0], [&vars[1], &vars[2]], &vars[3]));
    let (tied_value, tied) =
        pass(&[table, dense], Some(&dy), |tape, vars| model(tape, &vars[0], [&vars[1]; 2], &vars[0]));
    assert_eq!(value.f32(), tied_value.f32());
    for (what, got, [one, other]) in
        [("table", &tied[0], [&apart[0], &apart[3]]), ("dense", &tied[1], [&apart[1], &apart[2]])]
    {
        let sum: Vec<f32> = one.f32().iter().zip(other.f32()).map(|(a, b)| a + b).collect();
        assert_close(what, got, &Tensor::from_slice(one.device(), one.shape(), &sum).unwrap());
    }
}

#[test]
fn two_parameters_of_one_sum_are_scaled_once_each() {
    let mut parameters = Parameters::new();
    let tape = Tape::recording();
    let mut add = |name: &str, shape: &[usize]| {
        let id = parameters.add(name, draw(name, shape)).unwrap();
        parameters.get_mut(id).trainable = true;
        (id, tape.parameter(&parameters, id))
    };
    let [(x, x_var), (residual, residual_var)] = ["x", "residual"].map(|name| add(name, &[4, 3]));
    let [(_, weight), (_, bias)] = ["weight", "bias"].map(|name| add(name, &[3]));
    let residual_var = Some(&residual_var);
    let options = LayerNormOptions {
        weight: &weight,
        bias: Some(&bias),
        epsilon: 1e-5,
        residual: residual_var,
        dropout: None,
    };
    let out = layer_norm(&tape, &x_var, &Arc::new(Layout::new(&[4], &[0])), options).unwrap();
    let loss = pass::weighted(&tape, &out, &draw("dy", &[4, 3]));
    let mut gradients = Gradients::new();
    tape.backward(&loss, &mut gradients).unwrap();
    let before = gradients.get(x).unwrap().f32().to_vec();
    gradients.scale(0.5).unwrap();
    for id in [x, residual] {
        let halves: Vec<f32> = before.iter().map(|g| g * 0.5).collect();
        assert_eq!(gradients.get(id).unwrap().f32(), halves);
    }
}
