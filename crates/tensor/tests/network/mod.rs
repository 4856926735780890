//! A small encoder through every op, on any device: the tests of whole passes share it.

use std::cell::RefCell;
use std::sync::Arc;

use retune_tensor::backend::{Activation, AttentionShape, Dropout, Layout, Rotary};
use retune_tensor::ops::{
    CrossEntropyOptions, LayerNormOptions, Linear, Lookup, LowRank, add, attention, cast, cross_entropy,
    dropout, embedding, gated, layer_norm, linear, mean_rows, rotary, select_columns, select_rows,
};
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Parameters, Tape, Tensor, Var};

/// How many positions the network knows.
const POSITIONS: usize = 200;

#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Of the vocabulary.
    pub(crate) entries: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) rank: usize,
    pub(crate) classes: usize,
}

impl Sizes {
    fn kv_width(&self) -> usize {
        self.hidden / self.heads * self.kv_heads
    }
}

/// Rows whose tokens and label follow from their id alone, so that a row is the same in every batch.
pub(crate) struct Batch {
    layout: Arc<Layout>,
    ids: Arc<[u32]>,
    positions: Arc<[u32]>,
    labels: Vec<u32>,
}

impl Batch {
    /// Of rows with these ids and lengths.
    pub(crate) fn new(rows: &[(u64, usize)], sizes: &Sizes) -> Self {
        let (row_ids, lengths): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
        let (mut ids, mut labels) = (Vec::new(), Vec::new());
        for (row, length) in rows {
            let mut stream = Key::new(5).with(*row).stream();
            labels.push(stream.below(sizes.classes as u32));
            ids.extend((0..*length).map(|_| stream.below(sizes.entries as u32)));
        }
        let positions = lengths.iter().flat_map(|length| 0..*length as u32).collect();
        Batch { layout: Arc::new(Layout::new(&lengths, &row_ids)), ids: ids.into(), positions, labels }
    }
}

pub(crate) struct Network {
    pub(crate) parameters: Parameters,
    sizes: Sizes,
}

impl Network {
    /// With random weights, of which those are trained that `trained` says.
    pub(crate) fn new(device: Device, sizes: Sizes, trained: impl Fn(&str) -> bool) -> Self {
        let Sizes { entries, hidden, rank, classes, .. } = sizes;
        let mut parameters = Parameters::new();
        let shapes: &[(&str, &[usize])] = &[
            ("words", &[entries, hidden]),
            ("positions", &[POSITIONS, hidden]),
            ("norm.weight", &[hidden]),
            ("norm.bias", &[hidden]),
            ("dense.weight", &[hidden, hidden]),
            ("dense.bias", &[hidden]),
            ("dense.a", &[rank, hidden]),
            ("dense.b", &[hidden, rank]),
            ("query", &[hidden, hidden]),
            ("key_value", &[2 * sizes.kv_width(), hidden]),
            ("gated", &[2 * hidden, hidden]),
            ("classifier.weight", &[classes, hidden]),
            ("classifier.bias", &[classes]),
        ];
        for (name, shape) in shapes {
            let mut tensor = Tensor::zeros(device, shape).unwrap();
            let mut stream = Key::new(1).with_name(name).stream();
            tensor.f32_mut().unwrap().iter_mut().for_each(|x| *x = 0.3 * stream.normal());
            let id = parameters.add(*name, tensor).unwrap();
            parameters.get_mut(id).trainable = trained(name);
        }
        Network { parameters, sizes }
    }

    fn var(&self, tape: &Tape, name: &str) -> Var {
        tape.parameter(&self.parameters, self.parameters.find(name).unwrap())
    }

    /// The sum of the rows' losses over `denominator`, with dropout wherever there can be some. The shape of each value
    /// on the way goes to `shapes`.
    pub(crate) fn loss(
        &self,
        tape: &Tape,
        batch: &Batch,
        denominator: f32,
        shapes: &mut Vec<Vec<usize>>,
    ) -> Var {
        self.loss_as(DType::F32, tape, batch, denominator, shapes)
    }

    /// The same, with activations of a type.
    pub(crate) fn loss_as(
        &self,
        dtype: DType,
        tape: &Tape,
        batch: &Batch,
        denominator: f32,
        shapes: &mut Vec<Vec<usize>>,
    ) -> Var {
        let Sizes { hidden, heads, kv_heads, .. } = self.sizes;
        let layout = &batch.layout;
        let shapes = RefCell::new(shapes);
        let seen = |var: Var| {
            shapes.borrow_mut().push(var.value().shape().to_vec());
            var
        };
        let dropped = |site| Some(Dropout { probability: 0.2, key: Key::new(2).with_name(site) });

        let (words, positions) = (self.var(tape, "words"), self.var(tape, "positions"));
        let lookup = |table, ids: &Arc<[u32]>| Lookup { table, ids: ids.clone(), padding_idx: None };
        let lookups = [lookup(&words, &batch.ids), lookup(&positions, &batch.positions)];
        let x = seen(embedding(tape, &lookups, dtype).unwrap());

        let (weight, bias) = (&self.var(tape, "norm.weight"), &self.var(tape, "norm.bias"));
        let norm = |residual, site| LayerNormOptions {
            weight,
            bias: Some(bias),
            epsilon: 1e-5,
            residual,
            dropout: dropped(site),
        };
        let x = seen(layer_norm(tape, &x, layout, norm(None, "embeddings")).unwrap());

        let (a, b) = (&self.var(tape, "dense.a"), &self.var(tape, "dense.b"));
        let (weight, bias) = (&self.var(tape, "dense.weight"), &self.var(tape, "dense.bias"));
        let low_rank = Some(LowRank { a, b, scale: 1.5, dropout: dropped("low rank") });
        let whole = Linear { low_rank, activation: Activation::Gelu, ..Linear::plain(weight, Some(bias)) };
        let x = seen(linear(tape, &x, layout, whole).unwrap());

        let project = |name, x: &Var| {
            let weight = &self.var(tape, name);
            let whole = Linear::plain(weight, None);
            seen(linear(tape, x, layout, whole).unwrap())
        };
        let [query, key_value] = ["query", "key_value"].map(|name| project(name, &x));
        let kv_width = self.sizes.kv_width();
        let key = seen(select_columns(tape, &key_value, 0..kv_width).unwrap());
        let value = seen(select_columns(tape, &key_value, kv_width..2 * kv_width).unwrap());
        let head_size = hidden / heads;
        let turned = &Rotary::new(head_size, 1e3);
        let [query, key] = [query, key].map(|x| seen(rotary(tape, &x, layout, turned).unwrap()));
        let shape =
            AttentionShape { heads, kv_heads, head_size, scale: 0.1, causal: false, window: Some(30) };
        let attended =
            seen(attention(tape, [&query, &key, &value], layout, shape, dropped("attention")).unwrap());
        let x = seen(layer_norm(tape, &attended, layout, norm(Some(&x), "output")).unwrap());
        let wide = project("gated", &x);
        let narrow = seen(gated(tape, &wide, Activation::Gelu).unwrap());
        let x = seen(add(tape, &narrow, &x, layout, dropped("gated")).unwrap());

        let pooled = Arc::new(layout.pooled());
        let first = &layout.cu_seqlens()[..layout.rows()];
        let first = seen(select_rows(tape, &x, first).unwrap());
        let mean = seen(mean_rows(tape, &x, layout).unwrap());
        let x = seen(add(tape, &mean, &first, &pooled, None).unwrap());
        let x = seen(dropout(tape, &x, &pooled, dropped("pooled")).unwrap());
        let (weight, bias) = (&self.var(tape, "classifier.weight"), &self.var(tape, "classifier.bias"));
        let logits = seen(linear(tape, &x, &pooled, Linear::plain(weight, Some(bias))).unwrap());
        let logits = cast(tape, &logits, DType::F32).unwrap();
        let options = CrossEntropyOptions { class_weights: None, label_smoothing: 0.1, denominator };
        seen(cross_entropy(tape, &logits, &batch.labels, options).unwrap())
    }
}
