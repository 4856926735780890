//! Attention over ragged rows: a row and a key head are one task, queries go through it in tiles, and no matrix larger
//! than tile x row exists (after Dao et al. 2022: the backward computes the probabilities again from `lse`). A tile meets
//! only the keys that one of its queries sees.
//!
//! Keys and values are packed once a task, as the right operands that they are. Left operands are read where they lie:
//! queries in their tensor, probabilities in the order in which they were made.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{Left, Out, Packed, Panels, Room, has_pairs, pack};
use super::math::{self, dot, sum};
use super::parallel::{Disjoint, vectorised};
use crate::backend::{AttentionInputs, AttentionSaved, AttentionShape, Layout, Matrix};
use crate::dtype::{DType, Element, Values};

/// Queries a tile: whole tiles of every kind of product.
const TILE: usize = 48;

thread_local! {
    /// Operands, scores and sums of this thread's task. It is taken out meanwhile, and grows to the most that was asked for.
    static SCRATCH: RefCell<Room> = RefCell::default();
}

/// Runs `work` with so many values of 32 bits of whatever was there, each part from a cache line on.
fn with_scratch<const PARTS: usize>(parts: [usize; PARTS], work: impl FnOnce([&mut [u32]; PARTS])) {
    let mut scratch = SCRATCH.take();
    let mut rest = scratch.take::<u32>(total(&parts));
    work(parts.map(|len| {
        let (part, others) = std::mem::take(&mut rest).split_at_mut(len.next_multiple_of(16));
        rest = others;
        &mut part[..len]
    }));
    SCRATCH.set(scratch);
}

fn total(parts: &[usize]) -> usize {
    parts.iter().map(|len| len.next_multiple_of(16)).sum()
}

/// The bytes that a thread holds for the backward of such attention, which is more than its forward.
pub(in crate::backend) fn workspace(
    shape: AttentionShape,
    layout: &Layout,
    queries: &Layout,
    dtype: DType,
) -> usize {
    let lengths = |layout: &Layout| -> Vec<usize> {
        layout.cu_seqlens().windows(2).map(|ends| ends[1] - ends[0]).collect()
    };
    let rows = lengths(layout).into_iter().zip(lengths(queries));
    let values = rows.map(|(length, queries)| {
        let sizes = Sizes { shape, length, queries };
        total(&if on_pairs(dtype) { sizes.backward::<u32>() } else { sizes.backward::<f32>() })
    });
    values.max().unwrap_or(0) * size_of::<u32>()
}

/// Whether products of such tensors are computed on pairs of bf16.
fn on_pairs(dtype: DType) -> bool {
    dtype == DType::Bf16 && has_pairs()
}

/// What a task's parts depend on.
#[derive(Clone, Copy)]
struct Sizes {
    shape: AttentionShape,
    /// The row's keys.
    length: usize,
    /// The row's queries.
    queries: usize,
}

impl Sizes {
    /// Keys or values as columns of a right operand.
    fn columns<P: Packed>(&self) -> usize {
        self.length.next_multiple_of(P::tile()[1]) * self.shape.head_size.div_ceil(P::VALUES)
    }

    /// The same as its depth.
    fn depth<P: Packed>(&self) -> usize {
        self.shape.head_size.next_multiple_of(P::tile()[1]) * self.length.div_ceil(P::VALUES)
    }

    fn rows(&self) -> usize {
        TILE.min(self.queries)
    }

    /// The most keys that a tile of queries meets.
    fn keys<P: Packed>(&self) -> usize {
        let window = self.shape.window.unwrap_or(self.length).min(self.length);
        self.length.min(self.rows() + 2 * window + P::tile()[1]).next_multiple_of(P::VALUES)
    }

    fn forward<P: Packed>(&self) -> [usize; 6] {
        let (rows, keys, size) = (self.rows(), self.keys::<P>(), self.shape.head_size);
        let asking = rows.next_multiple_of(P::tile()[0]) * size.div_ceil(P::VALUES);
        [self.columns::<P>(), self.depth::<P>(), asking, rows * keys, rows * keys / P::VALUES, rows * size]
    }

    fn backward<P: Packed>(&self) -> [usize; 12] {
        let (rows, keys, size) = (self.rows(), self.keys::<P>(), self.shape.head_size);
        let [tall, wide] = P::tile();
        [
            self.columns::<P>(),
            self.columns::<P>(),
            self.depth::<P>(),
            rows.next_multiple_of(tall) * size.div_ceil(P::VALUES),
            size.next_multiple_of(wide) * rows.div_ceil(P::VALUES),
            rows * keys,
            rows * keys,
            keys,
            (rows.div_ceil(P::VALUES) * keys + tall).max(rows * keys / P::VALUES),
            rows * size,
            self.length * size,
            self.length * size,
        ]
    }
}

/// One row of the batch and one of its key heads.
struct Task<'a> {
    shape: AttentionShape,
    inputs: AttentionInputs<'a>,
    /// The row's keys.
    start: usize,
    length: usize,
    /// The row's queries.
    first_query: usize,
    queries: usize,
    kv_head: usize,
}

impl<'a> Task<'a> {
    /// All tasks of a batch.
    fn all(
        shape: AttentionShape,
        inputs: AttentionInputs<'a>,
    ) -> impl IndexedParallelIterator<Item = Task<'a>> {
        let layout: &Layout = inputs.layout;
        (0..layout.rows() * shape.kv_heads).into_par_iter().with_max_len(8).map(move |task| {
            let (row, kv_head) = (task / shape.kv_heads, task % shape.kv_heads);
            let range = |layout: &Layout| {
                let start = layout.cu_seqlens()[row];
                (start, layout.cu_seqlens()[row + 1] - start)
            };
            let ((start, length), (first_query, queries)) = (range(layout), range(inputs.queries));
            Task { shape, inputs, start, length, first_query, queries, kv_head }
        })
    }

    /// The query heads that ask this key head.
    fn heads(&self) -> Range<usize> {
        let group = self.shape.heads / self.shape.kv_heads;
        self.kv_head * group..(self.kv_head + 1) * group
    }

    /// The tiles of the row's queries.
    fn tiles(&self) -> impl Iterator<Item = Range<usize>> {
        let queries = self.queries;
        (0..queries).step_by(TILE).map(move |first| first..(first + TILE).min(queries))
    }

    /// The keys that the query at `position` sees.
    #[inline(always)]
    fn seen(&self, position: usize) -> Range<usize> {
        let window = self.window();
        let end = if self.shape.causal { position + 1 } else { (position + 1 + window).min(self.length) };
        position.saturating_sub(window)..end
    }

    /// How far a query sees to either side; no further than the row is long.
    #[inline(always)]
    fn window(&self) -> usize {
        self.shape.window.unwrap_or(self.length).min(self.length)
    }

    /// The keys that some query of `tile` sees: what the first sees begins them, what the last sees ends them. They begin
    /// where a tile of packed keys does.
    fn keys<P: Packed>(&self, tile: &Range<usize>) -> Range<usize> {
        let start = self.seen(tile.start).start;
        start - start % P::tile()[1]..self.seen(tile.end - 1).end
    }

    fn sizes(&self) -> Sizes {
        Sizes { shape: self.shape, length: self.length, queries: self.queries }
    }

    /// Queries `tile` of a `[queries, heads, head_size]` tensor.
    fn asking(&self, values: Values<'a>, head: usize, tile: &Range<usize>) -> Matrix<'a> {
        self.view(values, head, self.shape.heads, self.first_query + tile.start, tile.len())
    }

    /// The row's keys of a `[tokens, kv_heads, head_size]` tensor.
    fn entries(&self, values: Values<'a>) -> Matrix<'a> {
        self.view(values, self.kv_head, self.shape.kv_heads, self.start, self.length)
    }

    fn view(&self, values: Values<'a>, head: usize, heads: usize, first: usize, rows: usize) -> Matrix<'a> {
        let (size, stride) = (self.shape.head_size, heads * self.shape.head_size);
        let data = values.from(first * stride + head * size);
        Matrix { data, shape: [rows, size], strides: [stride, 1] }
    }

    /// Where the queries from `first` on begin in a `[queries, heads, head_size]` output.
    fn query_place(&self, head: usize, first: usize) -> usize {
        ((self.first_query + first) * self.shape.heads + head) * self.shape.head_size
    }

    /// Where the keys from `first` on begin in a `[tokens, kv_heads, head_size]` output.
    fn key_place(&self, first: usize) -> usize {
        ((self.start + first) * self.shape.kv_heads + self.kv_head) * self.shape.head_size
    }

    /// Drops probabilities of one query and the keys that it sees.
    #[inline(always)]
    fn drop(&self, head: usize, position: usize, values: &mut [f32]) {
        if let Some(dropout) = self.inputs.dropout {
            let key = dropout.key.with(head as u64);
            dropout.mask(key, self.inputs.queries.counters()[self.first_query + position], 1.0, values);
        }
    }
}

/// The rows of a matrix as a right operand's columns: `[tile, depth, column]`.
fn columns_of<P: Packed>(matrix: Matrix<'_>, out: &mut [P]) {
    let depth = matrix.shape[1].div_ceil(P::VALUES);
    pack(matrix, 1.0, P::tile()[1], [0, depth], out);
}

/// The rows of a matrix as a left operand: where they lie, if they lie as they are multiplied, else packed into `room`.
fn left_of<'a, P: Packed>(matrix: Matrix<'a>, room: &'a mut [P]) -> Left<'a, P> {
    if let Some(left) = Left::of(&matrix) {
        return left;
    }
    let depth = matrix.shape[1].div_ceil(P::VALUES);
    pack(matrix, 1.0, P::tile()[0], [0, depth], room);
    Left::packed(room, depth)
}

/// Each of the rows of `columns` values packed along itself.
#[inline(always)]
fn pack_rows<P: Packed>(values: &[f32], columns: usize, out: &mut [P]) {
    let units = columns.div_ceil(P::VALUES);
    for (row, out) in values.chunks_exact(columns).zip(out.chunks_exact_mut(units)) {
        P::pack_row(row, out);
    }
}

/// The same across rows, as the transpose is packed.
#[inline(always)]
fn pack_columns<P: Packed>(values: &[f32], columns: usize, out: &mut [P]) {
    for (rows, out) in values.chunks(P::VALUES * columns).zip(out.chunks_exact_mut(columns)) {
        let (first, last) = rows.split_at(columns);
        match last {
            [] if P::VALUES > 1 => {
                for (out, first) in out.iter_mut().zip(first) {
                    *out = P::join::<f32, false>(*first, 0.0, 1.0);
                }
            }
            // Of one value a unit, the first is the last.
            [] => P::join_all::<f32, false>(first, first, 1.0, out),
            last => P::join_all::<f32, false>(first, last, 1.0, out),
        }
    }
}

/// `out (+)= left right`, all of it: `shape` values, summed over `depth` units, of right tiles `right_tile` apart.
fn multiply<P: Packed>(
    left: Left<'_, P>,
    right: &[P],
    [right_tile, depth]: [usize; 2],
    shape: [usize; 2],
    out: &mut [f32],
    adds: bool,
) {
    assert!(out.len() >= shape[0] * shape[1], "attention: a product larger than its room");
    let stride = shape[1];
    let out = Out::Sums { place: out.as_mut_ptr(), adds };
    let panels = Panels { left, right, right_tile, depth, out, stride, shape };
    #[expect(unsafe_code, reason = "the product's function is made for shared outputs")]
    // SAFETY: the output is borrowed uniquely and as large as the shape.
    unsafe {
        panels.multiply();
    }
}

pub(super) fn forward<E: Element>(
    shape: AttentionShape,
    inputs: AttentionInputs<'_>,
    out: &mut [E],
    lse: &mut [f32],
) {
    if on_pairs(E::DTYPE) {
        forward_of::<u32, E>(shape, inputs, out, lse);
    } else {
        forward_of::<f32, E>(shape, inputs, out, lse);
    }
}

fn forward_of<P: Packed, E: Element>(
    shape: AttentionShape,
    inputs: AttentionInputs<'_>,
    out: &mut [E],
    lse: &mut [f32],
) {
    let (queries, size) = (inputs.queries.tokens(), shape.head_size);
    let wide = P::tile()[1];
    let (out, lse) = (Disjoint::new(out), Disjoint::new(lse));
    Task::all(shape, inputs).for_each(|task| {
        if task.queries == 0 || size == 0 {
            return;
        }
        with_scratch(task.sizes().forward::<P>(), |[key, value, asking, scores, weights, sums]| {
            let (key, value): (&mut [P], &mut [P]) =
                (bytemuck::cast_slice_mut(key), bytemuck::cast_slice_mut(value));
            let (asking, weights): (&mut [P], &mut [P]) =
                (bytemuck::cast_slice_mut(asking), bytemuck::cast_slice_mut(weights));
            let (scores, sums): (&mut [f32], &mut [f32]) =
                (bytemuck::cast_slice_mut(scores), bytemuck::cast_slice_mut(sums));
            let (deep, long) = (size.div_ceil(P::VALUES), task.length.div_ceil(P::VALUES));
            columns_of(task.entries(inputs.key), key);
            columns_of(task.entries(inputs.value).t(), value);
            for head in task.heads() {
                for tile in task.tiles() {
                    let keys = task.keys::<P>(&tile);
                    let (rows, columns) = (tile.len(), keys.len());
                    let scores = &mut scores[..rows * columns];
                    let query = left_of(task.asking(inputs.query, head, &tile), asking);
                    let depth = [wide * deep, deep];
                    multiply(query, &key[keys.start * deep..], depth, [rows, columns], scores, false);
                    let first = head * queries + task.first_query + tile.start;
                    #[expect(unsafe_code, reason = "a row and a head are no chunk of a slice")]
                    // SAFETY: this task alone has this row and head.
                    let lse = unsafe { lse.slice(first..first + rows) };
                    let mut totals = [0.0; TILE];
                    P::vectorised(
                        #[inline(always)]
                        || {
                            for (index, row) in scores.chunks_exact_mut(columns).enumerate() {
                                let position = tile.start + index;
                                let row = only_seen(row, &keys, &task.seen(position));
                                let largest = math::max(row, |x| x * shape.scale);
                                for x in row.iter_mut() {
                                    // Rounded as the largest was, which thus becomes 1, however large it is.
                                    *x = math::exp(*x * shape.scale - largest);
                                }
                                totals[index] = sum(row, |x| x);
                                lse[index] = largest + totals[index].ln();
                                task.drop(head, position, row);
                            }
                            pack_rows(scores, columns, weights);
                        },
                    );
                    let units = columns.div_ceil(P::VALUES);
                    let left = Left::Rows(&*weights, units);
                    let value = &value[keys.start / P::VALUES * wide..];
                    multiply(left, value, [wide * long, units], [rows, size], sums, false);
                    P::vectorised(
                        #[inline(always)]
                        || {
                            for (index, sums) in sums[..rows * size].chunks_exact(size).enumerate() {
                                let place = task.query_place(head, tile.start + index);
                                #[expect(unsafe_code, reason = "a row and a head are no chunk of a slice")]
                                // SAFETY: this task alone has this row and head.
                                let out = unsafe { out.slice(place..place + size) };
                                let factor = 1.0 / totals[index];
                                for (out, sum) in out.iter_mut().zip(sums) {
                                    *out = E::put(sum * factor);
                                }
                            }
                        },
                    );
                }
            }
        })
    });
}

/// With P the probabilities, M the mask and D = rowsum((P M) * (dO V^T)), which is rowsum(dO * O):
/// dV = (P M)^T dO, dS = scale P * ((dO V^T) M - D), dQ = dS K, dK = dS^T Q.
pub(super) fn backward<E: Element>(
    shape: AttentionShape,
    inputs: AttentionInputs<'_>,
    saved: AttentionSaved<'_>,
    gradients: [&mut [E]; 3],
) {
    if on_pairs(E::DTYPE) {
        backward_of::<u32, E>(shape, inputs, saved, gradients);
    } else {
        backward_of::<f32, E>(shape, inputs, saved, gradients);
    }
}

fn backward_of<P: Packed, E: Element>(
    shape: AttentionShape,
    inputs: AttentionInputs<'_>,
    saved: AttentionSaved<'_>,
    [dquery, dkey, dvalue]: [&mut [E]; 3],
) {
    let (queries, size) = (inputs.queries.tokens(), shape.head_size);
    let wide = P::tile()[1];
    let [dquery, dkey, dvalue] = [Disjoint::new(dquery), Disjoint::new(dkey), Disjoint::new(dvalue)];
    Task::all(shape, inputs).for_each(|task| {
        if task.length == 0 || size == 0 {
            return;
        }
        with_scratch(task.sizes().backward::<P>(), |parts| {
            let [columns_key, columns_value, deep_key, asking, deep_asking, rest @ ..] = parts;
            let [scores, dscores, row, packed, sums, dkeys, dvalues] = rest;
            let [columns_key, columns_value, deep_key, asking, deep_asking, packed] =
                [columns_key, columns_value, deep_key, asking, deep_asking, packed]
                    .map(|part| bytemuck::cast_slice_mut::<u32, P>(part));
            let [scores, dscores, probabilities, sums, dkeys, dvalues] =
                [scores, dscores, row, sums, dkeys, dvalues].map(bytemuck::cast_slice_mut::<u32, f32>);
            let (deep, long) = (size.div_ceil(P::VALUES), task.length.div_ceil(P::VALUES));
            columns_of(task.entries(inputs.key), columns_key);
            columns_of(task.entries(inputs.value), columns_value);
            columns_of(task.entries(inputs.key).t(), deep_key);
            // Summed in f32 over tiles and heads.
            dkeys.fill(0.0);
            dvalues.fill(0.0);
            for head in task.heads() {
                let lse = &saved.lse[head * queries + task.first_query..];
                for tile in task.tiles() {
                    let keys = task.keys::<P>(&tile);
                    let (rows, columns) = (tile.len(), keys.len());
                    let (scores, dscores) = (&mut scores[..rows * columns], &mut dscores[..rows * columns]);
                    let query = task.asking(inputs.query, head, &tile);
                    let dout = task.asking(saved.gradient, head, &tile);
                    let depth = [wide * deep, deep];
                    let key = &columns_key[keys.start * deep..];
                    multiply(left_of(query, asking), key, depth, [rows, columns], scores, false);
                    let value = &columns_value[keys.start * deep..];
                    multiply(left_of(dout, asking), value, depth, [rows, columns], dscores, false);
                    P::vectorised(
                        #[inline(always)]
                        || {
                            let rows =
                                scores.chunks_exact_mut(columns).zip(dscores.chunks_exact_mut(columns));
                            for ((dropped, ds), position) in rows.zip(tile.clone()) {
                                let seen = task.seen(position);
                                let dropped = only_seen(dropped, &keys, &seen);
                                let ds = only_seen(ds, &keys, &seen);
                                let probabilities = &mut probabilities[..seen.len()];
                                let lse = lse[position];
                                for (p, dropped) in probabilities.iter_mut().zip(dropped.iter_mut()) {
                                    *p = math::exp(*dropped * shape.scale - lse);
                                    *dropped = *p;
                                }
                                // P M is needed as well, so the mask is drawn once.
                                task.drop(head, position, dropped);
                                let along = dot(dropped, ds);
                                for ((ds, p), dropped) in
                                    ds.iter_mut().zip(probabilities.iter()).zip(dropped.iter())
                                {
                                    *ds = (*ds * dropped - p * along) * shape.scale;
                                }
                            }
                            pack_columns(scores, columns, packed);
                        },
                    );
                    let (short, units) = (rows.div_ceil(P::VALUES), columns.div_ceil(P::VALUES));
                    let places = keys.start * size..keys.end * size;
                    let depth = [wide * short, short];
                    columns_of(dout.t(), deep_asking);
                    let left = Left::transposed(&*packed, columns);
                    multiply(left, deep_asking, depth, [columns, size], &mut dvalues[places.clone()], true);
                    P::vectorised(
                        #[inline(always)]
                        || pack_columns(dscores, columns, packed),
                    );
                    columns_of(query.t(), deep_asking);
                    let left = Left::transposed(&*packed, columns);
                    multiply(left, deep_asking, depth, [columns, size], &mut dkeys[places], true);
                    P::vectorised(
                        #[inline(always)]
                        || pack_rows(dscores, columns, packed),
                    );
                    let key = &deep_key[keys.start / P::VALUES * wide..];
                    let left = Left::Rows(&*packed, units);
                    multiply(left, key, [wide * long, units], [rows, size], sums, false);
                    for (sums, position) in sums[..rows * size].chunks_exact(size).zip(tile) {
                        put(&dquery, task.query_place(head, position), sums);
                    }
                }
            }
            let sums = dkeys.chunks_exact(size).zip(dvalues.chunks_exact(size));
            for (key, (dkeys, dvalues)) in sums.enumerate() {
                put(&dkey, task.key_place(key), dkeys);
                put(&dvalue, task.key_place(key), dvalues);
            }
        });
    });
}

/// Rounds a row's sums to their place, which is the calling task's alone.
fn put<E: Element>(out: &Disjoint<'_, E>, first: usize, sums: &[f32]) {
    #[expect(unsafe_code, reason = "a row and a head are no chunk of a slice")]
    // SAFETY: a task has its row and heads alone.
    let out = unsafe { out.slice(first..first + sums.len()) };
    vectorised(
        #[inline(always)]
        || {
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = E::put(*sum);
            }
        },
    );
}

/// The part of a query's `row` of scores, one for each of `keys`, that it sees; the rest becomes zero.
#[inline(always)]
fn only_seen<'a>(row: &'a mut [f32], keys: &Range<usize>, seen: &Range<usize>) -> &'a mut [f32] {
    let (row, after) = row.split_at_mut(seen.end - keys.start);
    let (before, row) = row.split_at_mut(seen.start - keys.start);
    before.fill(0.0);
    after.fill(0.0);
    row
}
