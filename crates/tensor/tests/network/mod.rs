//! A small encoder through every op, on any device: the tests of whole passes share it.

use std::sync::Arc;

use retune_tensor::backend::{Activation, AttentionShape, Dropout, Layout};
use retune_tensor::ops::{
    CrossEntropyOptions, LayerNormOptions, Linear, Lookup, LowRank, attention, cross_entropy, dropout,
    embedding, layer_norm, linear, select_rows,
};
use retune_tensor::random::Key;
use retune_tensor::{Device, Parameters, Tape, Tensor, Var};

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
            ("key", &[sizes.kv_width(), hidden]),
            ("value", &[sizes.kv_width(), hidden]),
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
        let Sizes { hidden, heads, kv_heads, .. } = self.sizes;
        let layout = &batch.layout;
        let mut seen = |var: Var| {
            shapes.push(var.value().shape().to_vec());
            var
        };
        let dropped = |site| Some(Dropout { probability: 0.2, key: Key::new(2).with_name(site) });

        let (words, positions) = (self.var(tape, "words"), self.var(tape, "positions"));
        let lookup = |table, ids: &Arc<[u32]>| Lookup { table, ids: ids.clone(), padding_idx: None };
        let lookups = [lookup(&words, &batch.ids), lookup(&positions, &batch.positions)];
        let x = seen(embedding(tape, &lookups).unwrap());

        let (weight, bias) = (&self.var(tape, "norm.weight"), &self.var(tape, "norm.bias"));
        let norm = |residual, site| LayerNormOptions {
            weight,
            bias,
            epsilon: 1e-5,
            residual,
            dropout: dropped(site),
        };
        let x = seen(layer_norm(tape, &x, layout, norm(None, "embeddings")).unwrap());

        let (a, b) = (&self.var(tape, "dense.a"), &self.var(tape, "dense.b"));
        let whole = Linear {
            weight: &self.var(tape, "dense.weight"),
            bias: Some(&self.var(tape, "dense.bias")),
            low_rank: Some(LowRank { a, b, scale: 1.5, dropout: dropped("low rank") }),
            activation: Activation::Gelu,
        };
        let x = seen(linear(tape, &x, layout, whole).unwrap());

        let mut project = |name| {
            let weight = &self.var(tape, name);
            let whole = Linear { weight, bias: None, low_rank: None, activation: Activation::Identity };
            seen(linear(tape, &x, layout, whole).unwrap())
        };
        let [query, key, value] = ["query", "key", "value"].map(&mut project);
        let shape = AttentionShape { heads, kv_heads, head_size: hidden / heads, scale: 0.1, causal: false };
        let attended =
            seen(attention(tape, [&query, &key, &value], layout, shape, dropped("attention")).unwrap());
        let x = seen(layer_norm(tape, &attended, layout, norm(Some(&x), "output")).unwrap());

        let first = &layout.cu_seqlens()[..layout.rows()];
        let x = seen(select_rows(tape, &x, first).unwrap());
        let pooled = Arc::new(layout.pooled());
        let x = seen(dropout(tape, &x, &pooled, dropped("pooled")).unwrap());
        let whole = Linear {
            weight: &self.var(tape, "classifier.weight"),
            bias: Some(&self.var(tape, "classifier.bias")),
            low_rank: None,
            activation: Activation::Identity,
        };
        let logits = seen(linear(tape, &x, &pooled, whole).unwrap());
        let options = CrossEntropyOptions { class_weights: None, label_smoothing: 0.1, denominator };
        seen(cross_entropy(tape, &logits, &batch.labels, options).unwrap())
    }
}
