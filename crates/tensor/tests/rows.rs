//! Gradients of looked-up rows, and their updates, have the bits of whole tables.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod draw;

use std::sync::Arc;

use draw::draw;
use retune_tensor::backend::{AdamW, Layout};
use retune_tensor::ops::{Linear, Lookup, add, embedding, linear};
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Gradient, Gradients, ParamId, Parameters, Sink, Tape, Tensor, Var};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// A scalar whose gradient by `out` is `dy`.
fn weighted(tape: &Tape, out: &Var, dy: &Tensor) -> Var {
    let (node, dy) = (out.node(), dy.clone());
    tape.record(Tensor::zeros(Device::Cpu, &[]).unwrap(), &[out], || {
        move |_: Tensor, sink: &mut Sink<'_>| sink.add(node, dy)
    })
}

/// A trained table.
fn table(shape: &[usize]) -> (Parameters, ParamId) {
    let mut parameters = Parameters::new();
    let id = parameters.add("table", draw("table", shape)).unwrap();
    parameters.get_mut(id).trainable = true;
    (parameters, id)
}

/// The gradient of a lookup of these ids: of the table itself, or of a copy that is made on the tape.
fn look_up(gradients: &mut Gradients, (parameters, id): &(Parameters, ParamId), ids: &[u32], copied: bool) {
    let tape = Tape::recording();
    let mut table = tape.parameter(parameters, *id);
    if copied {
        let (value, node) = (table.value().clone(), table.node());
        table = tape.record(value, &[&table], || {
            move |gradient: Tensor, sink: &mut Sink<'_>| sink.add(node, gradient)
        });
    }
    let lookup = Lookup { table: &table, ids: ids.into(), padding_idx: Some(1) };
    let out = embedding(&tape, &[lookup], DType::F32).unwrap();
    let loss = weighted(&tape, &out, &draw("dy", out.value().shape()));
    tape.backward(&loss, gradients).unwrap();
}

#[test]
fn a_lookup_gives_the_rows_it_saw_and_the_bits_of_the_whole_table() {
    let ids = [5, 1, 0, 5, 6, 1, 5];
    for shape in [[7, 5], [3001, 7], [4000, 24]] {
        let table = table(&shape);
        let [rows, dense] = [false, true].map(|copied| {
            let mut gradients = Gradients::new();
            look_up(&mut gradients, &table, &ids, copied);
            gradients
        });
        let (Some(Gradient::Rows(seen)), Some(Gradient::Dense(_))) = (rows.get(table.1), dense.get(table.1))
        else {
            panic!("one of rows and one of all")
        };
        // The padding has none, and is read all the same.
        assert_eq!(seen.rows(), [0, 1, 5, 6]);
        assert!(seen.values().f32()[shape[1]..2 * shape[1]].iter().all(|x| *x == 0.0));
        let [rows_of, all] = [&rows, &dense].map(|gradients| gradients.get(table.1).unwrap());
        assert_eq!(rows_of.shape(), shape);
        assert_eq!(bits(&rows_of.f32()), bits(&all.f32()));
        assert_eq!(bits(rows_of.to_dense().unwrap().f32()), bits(&all.f32()));
        assert_eq!(rows.norm().to_bits(), dense.norm().to_bits());
        assert!(!rows_of.is_zero() && rows.norm() > 0.0);
    }
}

#[test]
fn norms_of_rows_in_many_blocks_are_those_of_the_whole_table() {
    for (columns, step) in [(7, 13), (8, 400), (13, 1), (768, 3)] {
        let shape = [5003, columns];
        let ids: Vec<u32> = (2..5003).step_by(step).chain([5002]).collect();
        let table = table(&shape);
        let mut gradients = Gradients::new();
        look_up(&mut gradients, &table, &ids, false);
        gradients.scale(0.3).unwrap();
        let whole = gradients.get(table.1).unwrap().to_dense().unwrap();
        let squares = Device::Cpu.backend().sum_of_squares(whole.f32());
        assert_eq!(gradients.norm().to_bits(), squares.sqrt().to_bits(), "{columns} columns");
    }
}

#[test]
fn lookups_add_up_and_whole_gradients_beside_them() {
    let table = table(&[7, 5]);
    let mut sum = Gradients::new();
    let mut expected = [0.0f64; 35];
    let mut count = |ids: &[u32]| {
        let dy = draw("dy", &[ids.len(), 5]);
        for (id, dy) in ids.iter().zip(dy.f32().chunks(5)) {
            let row = &mut expected[*id as usize * 5..][..5];
            row.iter_mut().zip(dy).for_each(|(sum, g)| *sum += f64::from(*g) * f64::from(u8::from(*id != 1)));
        }
    };
    let mut seen = Vec::new();
    for ids in [&[3, 4, 3][..], &[4], &[1, 6, 3], &[]] {
        look_up(&mut sum, &table, ids, false);
        count(ids);
        let Some(Gradient::Rows(rows)) = sum.get(table.1) else { panic!("rows alone") };
        seen.push(rows.rows().to_vec());
    }
    assert_eq!(seen, [vec![3, 4], vec![3, 4], vec![1, 3, 4, 6], vec![1, 3, 4, 6]]);
    // Rows, all, and rows again.
    for (ids, copied) in [(&[0, 3][..], true), (&[2, 0], false)] {
        look_up(&mut sum, &table, ids, copied);
        count(ids);
        assert!(matches!(sum.get(table.1), Some(Gradient::Dense(_))));
    }
    for (got, expected) in sum.get(table.1).unwrap().f32().iter().zip(expected) {
        assert!((f64::from(*got) - expected).abs() < 1e-5, "{got} {expected}");
    }
}

#[test]
fn a_product_with_a_table_that_was_looked_up_gives_all_of_it() {
    // In the backward the rows come first.
    let (parameters, id) = table(&[5, 5]);
    let run = |ids: [&[u32]; 1], apart: bool| {
        let tape = Tape::recording();
        let var = tape.parameter(&parameters, id);
        let layout = Arc::new(Layout::new(&[5], &[0]));
        let weight = if apart { &Var::constant(var.value().clone()) } else { &var };
        let x = Var::constant(draw("x", &[5, 5]));
        let layer = Linear::plain(weight, None);
        let product = linear(&tape, &x, &layout, layer).unwrap();
        let [ids] = ids.map(Into::into);
        let found = embedding(&tape, &[Lookup { table: &var, ids, padding_idx: None }], DType::F32).unwrap();
        let out = add(&tape, &product, &found, &layout, None).unwrap();
        let loss = weighted(&tape, &out, &draw("dy", &[5, 5]));
        let mut gradients = Gradients::new();
        tape.backward(&loss, &mut gradients).unwrap();
        gradients
    };
    let (both, rows) = (run([&[0, 4, 4, 2, 0]], false), run([&[0, 4, 4, 2, 0]], true));
    assert!(
        matches!(both.get(id), Some(Gradient::Dense(_))) && matches!(rows.get(id), Some(Gradient::Rows(_)))
    );
    let weight = {
        let (dy, x) = (draw("dy", &[5, 5]), draw("x", &[5, 5]));
        let at = |row: usize, column: usize| -> f64 {
            (0..5).map(|t| f64::from(dy.f32()[t * 5 + row]) * f64::from(x.f32()[t * 5 + column])).sum()
        };
        (0..25).map(|place| at(place / 5, place % 5)).collect::<Vec<_>>()
    };
    let (both, rows) = (both.get(id).unwrap().f32(), rows.get(id).unwrap().f32());
    for ((both, rows), weight) in both.iter().zip(rows.iter()).zip(weight) {
        assert!((f64::from(*both) - f64::from(*rows) - weight).abs() < 1e-5);
    }
}

#[test]
fn rows_that_make_up_for_steps_have_the_bits_of_all_steps() {
    for (columns, weight_decay, epsilon) in
        [(5, 0.1, 1e-8), (64, 0.0, 1e-8), (200, 0.01, 1e-6), (65, 0.3, 0.0)]
    {
        let (entries, total) = (60, 25);
        let stream = &mut Key::new(7).stream();
        // Row 0 is never seen, row 1 always; the first ten steps leave most rows without moments.
        let seen: Vec<Vec<u32>> = (0..total)
            .map(|step| {
                (1..entries)
                    .filter(|row| *row == 1 || step < 10 && *row < 8 || stream.below(9) == 0)
                    .collect()
            })
            .collect();
        let steps: Vec<AdamW> = (1..=total)
            .map(|step| AdamW {
                learning_rate: 0.01 / step as f32,
                betas: [0.9, 0.999],
                epsilon,
                weight_decay,
                step,
                gradient_scale: 0.5 + 0.1 * step as f32,
            })
            .collect();
        let mut whole =
            ["w", "m", "v"].map(|_| Tensor::zeros(Device::Cpu, &[entries as usize, columns]).unwrap());
        whole[0] = draw("w", &[entries as usize, columns]);
        let [mut w, mut m, mut v] = whole.each_ref().map(|tensor| tensor.f32().to_vec());
        let mut made = vec![0u32; entries as usize];
        let backend = Device::Cpu.backend();
        for (step, rows) in seen.iter().enumerate() {
            let gradient = draw(&format!("g{step}"), &[rows.len(), columns]);
            let mut dense = vec![0.0; entries as usize * columns];
            for (row, gradient) in rows.iter().zip(gradient.f32().chunks(columns)) {
                dense[*row as usize * columns..][..columns].copy_from_slice(gradient);
            }
            let [weight, first, second] = whole.each_mut().map(|tensor| tensor.f32_mut().unwrap());
            backend.adamw(steps[step], &dense, weight, [first, second]);
            // Before the rows are read, and with their gradient.
            let behind: Vec<u32> =
                rows.iter().copied().filter(|row| made[*row as usize] < step as u32).collect();
            for (rows, until, gradient) in [(&behind, step, None), (rows, step + 1, Some(gradient.f32()))] {
                let from: Vec<u32> = rows.iter().map(|row| made[*row as usize]).collect();
                backend.adamw_rows(
                    &steps[..until],
                    (rows, &from),
                    gradient,
                    columns,
                    &mut w,
                    [&mut m, &mut v],
                );
                rows.iter().for_each(|row| made[*row as usize] = until as u32);
            }
            for row in rows.iter().map(|row| *row as usize * columns) {
                for (whole, some) in whole.iter().zip([&w, &m, &v]) {
                    assert_eq!(bits(&whole.f32()[row..][..columns]), bits(&some[row..][..columns]));
                }
            }
        }
        let all: Vec<u32> = (0..entries).collect();
        backend.adamw_rows(&steps, (&all, &made), None, columns, &mut w, [&mut m, &mut v]);
        for (whole, some) in whole.iter().zip([&w, &m, &v]) {
            assert_eq!(bits(whole.f32()), bits(some), "{columns} columns");
        }
    }
}

#[test]
fn a_tape_that_ends_at_the_first_lookup_tells_what_it_would_read() {
    let (parameters, id) = table(&[7, 5]);
    let pass = |tape: &Tape, ids: &[u32]| {
        let table = tape.parameter(&parameters, id);
        let frozen = Var::constant(table.value().clone());
        let ids: Arc<[u32]> = ids.into();
        let lookup = |table| Lookup { table, ids: ids.clone(), padding_idx: None };
        embedding(tape, &[lookup(&frozen), lookup(&table)], DType::F32)
    };
    let tape = Tape::until_lookup();
    let ended = pass(&tape, &[3, 0, 3]);
    let seen: Vec<_> = tape.lookups(ended).unwrap().into_iter().map(|(id, ids)| (id, ids.to_vec())).collect();
    assert_eq!(seen, [(id, vec![3, 0, 3])]);
    // What is wrong with the ids is said before.
    let tape = Tape::until_lookup();
    let error = pass(&tape, &[7]);
    assert!(tape.lookups(error).unwrap_err().to_string().contains("id 7 is out of range"));
    assert!(pass(&Tape::recording(), &[3]).is_ok());
}
