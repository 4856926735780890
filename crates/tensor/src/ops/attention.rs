use std::sync::Arc;

use super::{check_dropout, same_device, same_type};
use crate::backend::{AttentionInputs, AttentionSaved, AttentionShape, Dropout, Layout};
use crate::{Error, Result, Tape, Tensor, Var};

/// `dropout(softmax(scale query key^T)) value`, each row of the batch by itself (Vaswani et al. 2017, eq. 1).
///
/// `query` is `[tokens, heads * head_size]`; `key` and `value` `[tokens, kv_heads * head_size]`, where each key head
/// serves `heads / kv_heads` query heads in turn. With a window a token sees itself and that many to either side
/// (Beltagy et al. 2020), and the work is linear in the length of a row; the memory always is. Errors if sizes or
/// devices do not fit.
pub fn attention(
    tape: &Tape,
    inputs: [&Var; 3],
    layout: &Arc<Layout>,
    shape: AttentionShape,
    dropout: Option<Dropout>,
) -> Result<Var> {
    attend(tape, inputs, [layout, layout], shape, dropout)
}

/// The same for the first tokens of each row alone: `query` is `[rows, heads * head_size]`, with `pooled` its layout.
///
/// A classifier reads no other token of its last block, so nothing else of it needs to be computed.
pub fn attention_of_first(
    tape: &Tape,
    inputs: [&Var; 3],
    pooled: &Arc<Layout>,
    layout: &Arc<Layout>,
    shape: AttentionShape,
    dropout: Option<Dropout>,
) -> Result<Var> {
    let first_of_each = pooled.rows() == layout.rows() && pooled.tokens() == layout.rows();
    let none_empty = layout.cu_seqlens().windows(2).all(|ends| ends[0] < ends[1]);
    if shape.causal || !first_of_each || !none_empty {
        return Err(Error::shape(
            "attention",
            "one query for each row of a batch without empty rows",
            pooled.rows(),
        ));
    }
    attend(tape, inputs, [pooled, layout], shape, dropout)
}

/// The same where the rows of keys and values are longer than those of queries, each of which sees all of its row's:
/// `queries` and `keys` lay them out. A prefix before the keys of each row is such a case.
pub fn attention_over(
    tape: &Tape,
    inputs: [&Var; 3],
    [queries, keys]: [&Arc<Layout>; 2],
    shape: AttentionShape,
    dropout: Option<Dropout>,
) -> Result<Var> {
    let rows = || queries.cu_seqlens().windows(2).zip(keys.cu_seqlens().windows(2));
    let fits = queries.rows() == keys.rows() && rows().all(|(q, k)| q[1] - q[0] <= k[1] - k[0]);
    // Where a query stands among longer keys nobody says, so that it can see all of them or none.
    if shape.causal || shape.window.is_some() || !fits {
        return Err(Error::shape(
            "attention",
            "as many rows of keys as of queries, none shorter, each seen whole",
            shape,
        ));
    }
    attend(tape, inputs, [queries, keys], shape, dropout)
}

fn attend(
    tape: &Tape,
    [query, key, value]: [&Var; 3],
    [queries, layout]: [&Arc<Layout>; 2],
    shape: AttentionShape,
    dropout: Option<Dropout>,
) -> Result<Var> {
    const OP: &str = "attention";
    if shape.heads == 0 || shape.kv_heads == 0 || !shape.heads.is_multiple_of(shape.kv_heads) {
        return Err(Error::shape(OP, "a number of key heads that divides the query heads", shape));
    }
    check_dropout(OP, dropout)?;
    let (asking, tokens) = (queries.tokens(), layout.tokens());
    let (width, kv_width) = (shape.heads * shape.head_size, shape.kv_heads * shape.head_size);
    query.value().expect(OP, &[asking, width], "a query of shape")?;
    key.value().expect(OP, &[tokens, kv_width], "a key of shape")?;
    value.value().expect(OP, &[tokens, kv_width], "a value of shape")?;
    let dtype = same_type(OP, query, &[key, value])?;
    let device = same_device(OP, query, &[key, value])?;
    let backend = device.backend();

    let mut out = Tensor::empty_as(device, dtype, &[asking, width])?;
    let mut lse = Tensor::empty(device, &[shape.heads, asking])?;
    let inputs = AttentionInputs {
        query: query.value().values(),
        key: key.value().values(),
        value: value.value().values(),
        layout,
        queries,
        dropout,
    };
    backend.attention(shape, inputs, out.values_mut()?, lse.f32_mut()?);

    Ok(tape.record(out, &[query, key, value], || {
        let nodes = [query.node(), key.node(), value.node()];
        let [query, key, value] = [query, key, value].map(|var| var.value().clone());
        let (queries, layout) = (queries.clone(), layout.clone());
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            let inputs = AttentionInputs {
                query: query.values(),
                key: key.values(),
                value: value.values(),
                layout: &layout,
                queries: &queries,
                dropout,
            };
            let saved = AttentionSaved { lse: lse.f32(), gradient: gradient.values() };
            let mut dquery = Tensor::empty_as(device, dtype, &[asking, width])?;
            let mut dkey = Tensor::empty_as(device, dtype, &[tokens, kv_width])?;
            let mut dvalue = Tensor::empty_as(device, dtype, &[tokens, kv_width])?;
            let gradients = [dquery.values_mut()?, dkey.values_mut()?, dvalue.values_mut()?];
            backend.attention_backward(shape, inputs, saved, gradients);
            for (node, gradient) in nodes.into_iter().zip([dquery, dkey, dvalue]) {
                sink.add(node, gradient)?;
            }
            Ok(())
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::ops::check::{Check, ROWS, layout};
    use crate::random::Key;

    fn shape(heads: usize, kv_heads: usize, causal: bool) -> AttentionShape {
        AttentionShape { heads, kv_heads, head_size: 5, scale: 0.7, causal, window: None }
    }

    #[test]
    fn the_largest_of_huge_scores_takes_all() {
        // As scores are rounded they are some hundreds apart from what they are.
        let size = 32;
        let layout = Arc::new(Layout::new(&[3], &[0]));
        let shape = AttentionShape {
            heads: 1,
            kv_heads: 1,
            head_size: size,
            scale: (size as f32).powf(-0.5),
            causal: false,
            window: None,
        };
        let var = |value: &dyn Fn(usize, usize) -> f32| {
            let values: Vec<f32> = (0..3 * size).map(|i| value(i / size, i % size)).collect();
            Var::constant(Tensor::from_slice(Device::Cpu, &[3, size], &values).unwrap())
        };
        for factor in [1e4f32, 3.3e4, 1.07e5, 7.7e6] {
            let query = var(&|_, _| factor);
            let key = var(&|row, column| if row == 1 { factor + column as f32 } else { -factor });
            let value = var(&|row, column| (row * size + column) as f32);
            let out = attention(&Tape::inference(), [&query, &key, &value], &layout, shape, None).unwrap();
            for row in out.value().f32().chunks_exact(size) {
                assert_eq!(row, &value.value().f32()[size..2 * size], "{factor}");
            }
        }
    }

    #[test]
    fn gradients_follow_finite_differences() {
        for (heads, kv_heads, causal) in [(2, 2, false), (2, 2, true), (4, 2, true), (3, 1, false)] {
            for dropout in [None, Some(Dropout { probability: 0.3, key: Key::new(4) })] {
                let (width, kv_width) = (heads * 5, kv_heads * 5);
                Check::new("attention", &[&[11, width], &[11, kv_width], &[11, kv_width]]).run(
                    |tape, vars| {
                        let inputs = [&vars[0], &vars[1], &vars[2]];
                        attention(tape, inputs, &layout(), shape(heads, kv_heads, causal), dropout)
                    },
                );
            }
        }
    }

    #[test]
    fn gradients_through_a_window_follow_finite_differences() {
        for (kv_heads, causal, window) in
            [(2, false, 1), (1, false, 2), (2, true, 1), (2, false, 0), (1, true, 9)]
        {
            let dropout = (window == 2).then_some(Dropout { probability: 0.3, key: Key::new(4) });
            let kv_width = kv_heads * 5;
            Check::new("windowed attention", &[&[11, 10], &[11, kv_width], &[11, kv_width]]).run(
                |tape, vars| {
                    let shape = AttentionShape { window: Some(window), ..shape(2, kv_heads, causal) };
                    attention(tape, [&vars[0], &vars[1], &vars[2]], &layout(), shape, dropout)
                },
            );
        }
    }

    #[test]
    fn a_window_over_tiles_is_a_mask() {
        // Longer than two tiles, so that whole tiles of keys are left out.
        let lengths = [200, 1, 70];
        let (tokens, window) = (lengths.iter().sum::<usize>(), 5);
        let layout = Arc::new(Layout::new(&lengths, &[3, 1, 2]));
        let stream = &mut Key::new(12).stream();
        let tensors = [(); 3].map(|()| {
            let values: Vec<f32> = (0..tokens * 5).map(|_| stream.normal()).collect();
            Tensor::from_slice(crate::Device::Cpu, &[tokens, 5], &values).unwrap()
        });
        for causal in [false, true] {
            let vars = tensors.clone().map(Var::constant);
            let shape = AttentionShape { window: Some(window), ..shape(1, 1, causal) };
            let out = attention(&Tape::inference(), [&vars[0], &vars[1], &vars[2]], &layout, shape, None);
            let out = out.unwrap();
            let [query, key, value] = [0, 1, 2].map(|index: usize| tensors[index].f32());
            for ends in layout.cu_seqlens().windows(2) {
                for token in ends[0]..ends[1] {
                    let last = if causal { token } else { (token + window).min(ends[1] - 1) };
                    let seen = token.saturating_sub(window).max(ends[0])..=last;
                    let weight = |other: usize| {
                        let pairs = query[token * 5..][..5].iter().zip(&key[other * 5..][..5]);
                        (0.7 * pairs.map(|(q, k)| f64::from(q * k)).sum::<f64>()).exp()
                    };
                    let total: f64 = seen.clone().map(weight).sum();
                    for channel in 0..5 {
                        let sum =
                            seen.clone().map(|other| weight(other) * f64::from(value[other * 5 + channel]));
                        let got = f64::from(out.value().f32()[token * 5 + channel]);
                        let want = sum.sum::<f64>() / total;
                        assert!((got - want).abs() < 1e-5, "token {token}: {got}, expected {want}");
                    }
                }
            }
        }
        Check::new("window over tiles", &[&[tokens, 5], &[tokens, 5], &[tokens, 5]]).sampled(40).run(
            |tape, vars| {
                let shape = AttentionShape { window: Some(window), ..shape(1, 1, false) };
                attention(tape, [&vars[0], &vars[1], &vars[2]], &layout, shape, None)
            },
        );
    }

    #[test]
    fn the_first_tokens_alone_are_those_of_all() {
        for window in [None, Some(2)] {
            the_first_tokens_alone(AttentionShape { window, ..shape(4, 2, false) });
        }
    }

    fn the_first_tokens_alone(shape: AttentionShape) {
        let dropout = Some(Dropout { probability: 0.3, key: Key::new(4) });
        let (layout, pooled) = (layout(), Arc::new(layout().pooled()));
        let starts = &layout.cu_seqlens()[..layout.rows()];
        // By the long way and by the short one: the same values and, through one check each, the same gradients.
        Check::new("attention of first", &[&[11, 20], &[11, 10], &[11, 10]]).run(|tape, vars| {
            let all = attention(tape, [&vars[0], &vars[1], &vars[2]], &layout, shape, dropout)?;
            let long = crate::ops::select_rows(tape, &all, starts)?;
            let first = crate::ops::select_rows(tape, &vars[0], starts)?;
            let short =
                attention_of_first(tape, [&first, &vars[1], &vars[2]], &pooled, &layout, shape, dropout)?;
            let apart = long.value().f32().iter().zip(short.value().f32()).map(|(a, b)| (a - b).abs());
            assert!(apart.fold(0.0, f32::max) < 1e-6);
            Ok(short)
        });
    }

    #[test]
    fn longer_keys_are_seen_by_every_query() {
        let (queries, keys) = (layout(), Arc::new(layout().behind(2)));
        let tokens = keys.tokens();
        for dropout in [None, Some(Dropout { probability: 0.3, key: Key::new(4) })] {
            Check::new("attention over", &[&[11, 20], &[tokens, 10], &[tokens, 10]]).run(|tape, vars| {
                let inputs = [&vars[0], &vars[1], &vars[2]];
                attention_over(tape, inputs, [&queries, &keys], shape(4, 2, false), dropout)
            });
        }
        // The queries that have their own places in the longer rows find the same.
        let stream = &mut Key::new(5).stream();
        let [query, key, value] = [20, 10, 10].map(|columns| {
            let values: Vec<f32> = (0..tokens * columns).map(|_| stream.normal()).collect();
            Var::constant(Tensor::from_slice(crate::Device::Cpu, &[tokens, columns], &values).unwrap())
        });
        let own: Vec<usize> = keys.cu_seqlens().windows(2).flat_map(|ends| ends[0] + 2..ends[1]).collect();
        let tape = Tape::inference();
        let select = |x: &Var| crate::ops::select_rows(&tape, x, &own).unwrap();
        let long = attention(&tape, [&query, &key, &value], &keys, shape(4, 2, false), None).unwrap();
        let inputs = [&select(&query), &key, &value];
        let short = attention_over(&tape, inputs, [&queries, &keys], shape(4, 2, false), None).unwrap();
        let apart = select(&long)
            .value()
            .f32()
            .iter()
            .zip(short.value().f32())
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(apart < 1e-6, "{apart}");
        for (layouts, shape) in [
            ([&keys, &queries], shape(4, 2, false)),
            ([&queries, &keys], shape(4, 2, true)),
            ([&queries, &keys], AttentionShape { window: Some(2), ..shape(4, 2, false) }),
        ] {
            assert!(attention_over(&tape, inputs, layouts, shape, None).is_err());
        }
    }

    #[test]
    fn a_row_in_a_batch_is_the_row_alone() {
        let stream = &mut Key::new(2).stream();
        let mut draw = |columns| {
            let values: Vec<f32> = (0..11 * columns).map(|_| stream.normal()).collect();
            Tensor::from_slice(crate::Device::Cpu, &[11, columns], &values).unwrap()
        };
        let tensors = [draw(10), draw(10), draw(10)];
        let run = |tensors: &[Tensor; 3], layout: Layout| {
            let vars = tensors.clone().map(Var::constant);
            let inputs = [&vars[0], &vars[1], &vars[2]];
            let dropout = Some(Dropout { probability: 0.2, key: Key::new(8) });
            attention(&Tape::inference(), inputs, &Arc::new(layout), shape(2, 2, true), dropout).unwrap()
        };
        let together = run(&tensors, (*layout()).clone());
        let mut start = 0;
        for (row, length) in ROWS.into_iter().enumerate() {
            let cut = |tensor: &Tensor| {
                let part = &tensor.f32()[start * 10..(start + length) * 10];
                Tensor::from_slice(crate::Device::Cpu, &[length, 10], part).unwrap()
            };
            let id = layout().row_ids()[row];
            let alone =
                run(&[cut(&tensors[0]), cut(&tensors[1]), cut(&tensors[2])], Layout::new(&[length], &[id]));
            assert_eq!(alone.value().f32(), cut(together.value()).f32(), "row {row}");
            start += length;
        }
    }

    #[test]
    fn a_long_row_takes_memory_linear_in_its_length() {
        let tokens = 300;
        let layout = Arc::new(Layout::new(&[tokens], &[3]));
        Check::new("attention over tiles", &[&[tokens, 5], &[tokens, 5], &[tokens, 5]]).sampled(40).run(
            |tape, vars| attention(tape, [&vars[0], &vars[1], &vars[2]], &layout, shape(1, 1, true), None),
        );
    }
}
