use std::ops::Range;

use crate::backend::{AttentionShape, CachedRow, Layout};
use crate::{DType, Device, Error, Result, Tensor, Values, ValuesMut, Var};

const OP: &str = "attention_cached";

/// Keys that are added at once, at least: a row is not moved for each token.
const ROOM: usize = 64;

/// The keys and values that one block has seen of one row, with room for more.
#[derive(Debug, Clone)]
pub struct KeyValues {
    key: Tensor,
    value: Tensor,
}

impl KeyValues {
    /// None yet, of this width and type.
    pub fn new(device: Device, dtype: DType, width: usize) -> Result<Self> {
        let empty = || Tensor::empty_as(device, dtype, &[0, width]);
        Ok(KeyValues { key: empty()?, value: empty()? })
    }

    /// Puts the tokens `from` of `key` and `value`, `[tokens, width]`, at the place `at` of the row and behind. What stood there
    /// is replaced. Errors if sizes or types do not fit.
    pub fn put(&mut self, at: usize, [key, value]: [&Tensor; 2], from: Range<usize>) -> Result<()> {
        for (own, new) in [(&mut self.key, key), (&mut self.value, value)] {
            let width = own.columns();
            let fits = new.columns() == width && new.dtype() == own.dtype() && from.end <= new.rows();
            if !fits || at > own.rows() {
                return Err(Error::shape(
                    OP,
                    format!("keys of width {width} behind those there"),
                    new.shape(),
                ));
            }
            let needed = at + from.len();
            if needed > own.rows() {
                let room = needed.max(own.rows() + own.rows() / 2).next_multiple_of(ROOM);
                let mut larger = Tensor::empty_as(own.device(), own.dtype(), &[room, width])?;
                put(own.values(), 0..at * width, larger.values_mut()?, 0);
                *own = larger;
            }
            put(new.values(), from.start * width..from.end * width, own.values_mut()?, at * width);
        }
        Ok(())
    }
}

/// Copies a range of values to where `at` says; nothing where there is no data.
fn put(from: Values<'_>, range: Range<usize>, to: ValuesMut<'_>, at: usize) {
    fn copy<T: Copy>(from: &[T], range: Range<usize>, to: &mut [T], at: usize) {
        let len = range.len();
        if let (Some(from), Some(to)) = (from.get(range), to.get_mut(at..at + len)) {
            to.copy_from_slice(from);
        }
    }
    match (from, to) {
        (Values::F32(from), ValuesMut::F32(to)) => copy(from, range, to, at),
        (Values::Bf16(from), ValuesMut::Bf16(to)) => copy(from, range, to, at),
        _ => {}
    }
}

/// Causal attention of the last tokens of each row over all of it, where keys and values lie in a cache: `query` is `[tokens,
/// heads * head_size]`, which `queries` lays out, and for each of its rows there are the cached keys and values, and how many of
/// these count, those of the tokens themselves included.
///
/// It is for answers: there is no backward. Errors if sizes, types or devices do not fit, or a gradient is to come back.
pub fn attention_cached(
    query: &Var,
    queries: &Layout,
    rows: &[(&KeyValues, usize)],
    shape: AttentionShape,
) -> Result<Var> {
    if shape.kv_heads == 0 || !shape.heads.is_multiple_of(shape.kv_heads) || !shape.causal {
        return Err(Error::shape(OP, "causal heads, of keys a divisor of those of queries", shape));
    }
    if query.needs_gradient() {
        return Err(Error::shape(OP, "a query without a gradient", query.value().shape()));
    }
    let (query, asking) = (query.value(), queries.tokens());
    query.expect(OP, &[asking, shape.heads * shape.head_size], "a query of shape")?;
    let counts = queries.cu_seqlens().windows(2).map(|ends| ends[1] - ends[0]);
    let fits = |((cached, length), own): (&(&KeyValues, usize), usize)| {
        let width = shape.kv_heads * shape.head_size;
        let like = |tensor: &Tensor| {
            tensor.columns() == width
                && tensor.rows() >= *length
                && tensor.dtype() == query.dtype()
                && tensor.device() == query.device()
        };
        own <= *length && like(&cached.key) && like(&cached.value)
    };
    if rows.len() != queries.rows() || !rows.iter().zip(counts).all(fits) {
        return Err(Error::shape(OP, "as many rows of keys, none shorter than its queries", rows.len()));
    }
    let cached: Vec<CachedRow<'_>> = rows
        .iter()
        .map(|(row, length)| CachedRow { key: row.key.values(), value: row.value.values(), length: *length })
        .collect();
    let mut out = Tensor::empty_as(query.device(), query.dtype(), query.shape())?;
    query.device().backend().attention_cached(shape, query.values(), queries, &cached, out.values_mut()?);
    Ok(Var::constant(out))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::random::Key;
    use crate::{Tape, ops};

    /// The last tokens of each row over a cache are those of the whole rows, however they were put there.
    #[test]
    fn the_last_tokens_are_those_of_whole_rows() {
        let (lengths, last) = ([70, 1, 9, 130], [1, 1, 4, 3]);
        let layout = Arc::new(Layout::new(&lengths, &[7, 0, 1 << 33, 2]));
        let queries = Layout::new(&last, &[7, 0, 1 << 33, 2]);
        for (dtype, within) in [(DType::F32, 2e-6), (DType::Bf16, 2e-2)] {
            for (kv_heads, size, window) in [(4, 5, None), (2, 16, Some(3)), (1, 20, Some(100))] {
                let shape =
                    AttentionShape { heads: 4, kv_heads, head_size: size, scale: 0.7, causal: true, window };
                let stream = &mut Key::new(3).stream();
                let [query, key, value] = [4, kv_heads, kv_heads].map(|heads| {
                    let values: Vec<f32> =
                        (0..layout.tokens() * heads * size).map(|_| stream.normal()).collect();
                    let shape = [layout.tokens(), heads * size];
                    Tensor::from_slice(Device::Cpu, &shape, &values).unwrap().to(dtype).unwrap()
                });
                let mut cached = Vec::new();
                for (row, length) in lengths.into_iter().enumerate() {
                    let mut own = KeyValues::new(Device::Cpu, dtype, kv_heads * size).unwrap();
                    let (first, half) = (layout.cu_seqlens()[row], length / 2);
                    // What is taken back is written over.
                    own.put(0, [&key, &value], 0..length).unwrap();
                    own.put(0, [&key, &value], first..first + half).unwrap();
                    own.put(half, [&key, &value], first + half..first + length).unwrap();
                    cached.push(own);
                }
                let tape = Tape::inference();
                let [q, k, v] = [&query, &key, &value].map(|tensor| Var::constant(tensor.clone()));
                let whole = ops::attention(&tape, [&q, &k, &v], &layout, shape, None).unwrap();
                let ends = layout.cu_seqlens().windows(2).zip(last);
                let own: Vec<usize> = ends.flat_map(|(ends, last)| ends[1] - last..ends[1]).collect();
                let [whole, q] = [&whole, &q].map(|x| ops::select_rows(&tape, x, &own).unwrap());
                let rows: Vec<_> = cached.iter().zip(lengths).collect();
                let got = attention_cached(&q, &queries, &rows, shape).unwrap();
                let [whole, got] = [whole, got].map(|x| x.value().to(DType::F32).unwrap());
                let apart = whole.f32().iter().zip(got.f32()).map(|(a, b)| (a - b).abs());
                let apart = apart.fold(0.0, f32::max);
                assert!(apart < within, "{dtype} {shape:?}: {apart}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let shape =
            AttentionShape { heads: 2, kv_heads: 1, head_size: 4, scale: 1.0, causal: true, window: None };
        let query = Var::constant(Tensor::zeros(Device::Cpu, &[2, 8]).unwrap());
        let keys = Tensor::zeros(Device::Cpu, &[2, 4]).unwrap();
        let mut cached = KeyValues::new(Device::Cpu, DType::F32, 4).unwrap();
        assert!(cached.put(1, [&keys, &keys], 0..2).is_err(), "there is nothing before it");
        assert!(cached.put(0, [&keys, &keys], 0..3).is_err(), "there are two");
        cached.put(0, [&keys, &keys], 0..2).unwrap();
        let queries = Layout::new(&[2], &[0]);
        let run = |rows: &[(&KeyValues, usize)], shape| attention_cached(&query, &queries, rows, shape);
        assert!(run(&[(&cached, 2)], shape).is_ok());
        assert!(run(&[(&cached, 1)], shape).is_err(), "fewer keys than queries");
        assert!(run(&[(&cached, 2), (&cached, 2)], shape).is_err(), "more rows");
        assert!(run(&[(&cached, 2)], AttentionShape { causal: false, ..shape }).is_err());
        assert!(run(&[(&cached, 2)], AttentionShape { kv_heads: 2, ..shape }).is_err());
    }
}
