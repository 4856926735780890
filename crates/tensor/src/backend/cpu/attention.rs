//! Attention over ragged rows: a row and a key head are one task, queries go through it in tiles, and no matrix larger
//! than tile x row exists (after Dao et al. 2022: the backward computes the probabilities again from `lse`).

use rayon::prelude::*;

use super::gemm::block;
use super::math::{self, sum, sum2};
use super::parallel::{Disjoint, vectorised};
use crate::backend::{AttentionInputs, AttentionSaved, AttentionShape, Layout, Matrix, Product};

/// Queries a tile.
const TILE: usize = 64;

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
    fn heads(&self) -> std::ops::Range<usize> {
        let group = self.shape.heads / self.shape.kv_heads;
        self.kv_head * group..(self.kv_head + 1) * group
    }

    /// The tiles of the row's queries.
    fn tiles(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let queries = self.queries;
        (0..queries).step_by(TILE).map(move |first| first..(first + TILE).min(queries))
    }

    /// How many keys the queries up to `end` see.
    fn keys(&self, end: usize) -> usize {
        if self.shape.causal { end } else { self.length }
    }

    /// Queries `tile` of a `[queries, heads, head_size]` tensor.
    fn queries(&self, values: &'a [f32], head: usize, tile: &std::ops::Range<usize>) -> Matrix<'a> {
        self.view(values, head, self.shape.heads, self.first_query + tile.start, tile.len())
    }

    /// The first `keys` of a `[tokens, kv_heads, head_size]` tensor.
    fn entries(&self, values: &'a [f32], keys: usize) -> Matrix<'a> {
        self.view(values, self.kv_head, self.shape.kv_heads, self.start, keys)
    }

    fn view(&self, values: &'a [f32], head: usize, heads: usize, first: usize, rows: usize) -> Matrix<'a> {
        let (size, stride) = (self.shape.head_size, heads * self.shape.head_size);
        let data = &values[first * stride + head * size..];
        Matrix { data, shape: [rows, size], strides: [stride, 1] }
    }

    /// Where the queries from `first` on begin in a `[queries, heads, head_size]` output.
    fn query_place(&self, head: usize, first: usize) -> usize {
        ((self.first_query + first) * self.shape.heads + head) * self.shape.head_size
    }

    /// Where the row begins in a `[tokens, kv_heads, head_size]` output.
    fn key_place(&self) -> usize {
        (self.start * self.shape.kv_heads + self.kv_head) * self.shape.head_size
    }

    /// The scores of a tile, scaled: `[tile, keys]`.
    fn scores(&self, head: usize, tile: &std::ops::Range<usize>, keys: usize, scores: &mut [f32]) {
        let left = self.queries(self.inputs.query, head, tile);
        let right = self.entries(self.inputs.key, keys).t();
        multiply(scores, keys, left, right, self.shape.scale);
    }

    /// How many of `keys` the query at `position` sees.
    fn seen(&self, position: usize, keys: usize) -> usize {
        if self.shape.causal { position + 1 } else { keys }
    }

    /// Drops probabilities (or their gradients) of one query, as the forward did.
    #[inline(always)]
    fn drop(&self, head: usize, position: usize, values: &mut [f32]) {
        if let Some(dropout) = self.inputs.dropout {
            let key = dropout.key.with(head as u64);
            dropout.mask(key, self.inputs.queries.counters()[self.first_query + position], values);
        }
    }
}

pub(super) fn forward(shape: AttentionShape, inputs: AttentionInputs<'_>, out: &mut [f32], lse: &mut [f32]) {
    let (queries, stride) = (inputs.queries.tokens(), shape.heads * shape.head_size);
    let (out, lse) = (Disjoint::new(out), Disjoint::new(lse));
    Task::all(shape, inputs).for_each(|task| {
        let mut scratch = vec![0.0; TILE.min(task.queries) * task.length];
        for head in task.heads() {
            for tile in task.tiles() {
                let keys = task.keys(tile.end);
                let scores = &mut scratch[..tile.len() * keys];
                task.scores(head, &tile, keys, scores);
                let first = head * queries + task.first_query + tile.start;
                #[expect(unsafe_code, reason = "a row and a head are no chunk of a slice")]
                // SAFETY: this task alone has this row and head.
                let lse = unsafe { lse.slice(first..first + tile.len()) };
                vectorised(|| {
                    for ((row, lse), position) in scores.chunks_exact_mut(keys).zip(lse).zip(tile.clone()) {
                        let (row, hidden) = row.split_at_mut(task.seen(position, keys));
                        hidden.fill(0.0);
                        let largest = math::max(row);
                        row.iter_mut().for_each(|x| *x = math::exp(*x - largest));
                        let total = sum(row, |x| x);
                        *lse = largest + total.ln();
                        row.iter_mut().for_each(|x| *x /= total);
                        task.drop(head, position, row);
                    }
                });
                let left = Matrix::new(scores, tile.len(), keys);
                let product = Product { left, right: task.entries(inputs.value, keys), scale: 1.0 };
                #[expect(unsafe_code, reason = "a row and a head are no chunk of a slice")]
                // SAFETY: this task alone has this row and head.
                unsafe {
                    block(&out, task.query_place(head, tile.start), stride, &product, false);
                }
            }
        }
    });
}

/// With P the probabilities, M the mask and D = rowsum(dO * O):
/// dV = (P M)^T dO, dS = P * ((dO V^T) M - D), dQ = scale dS K, dK = scale dS^T Q.
pub(super) fn backward(
    shape: AttentionShape,
    inputs: AttentionInputs<'_>,
    saved: AttentionSaved<'_>,
    [dquery, dkey, dvalue]: [&mut [f32]; 3],
) {
    let queries = inputs.queries.tokens();
    let [dquery, dkey, dvalue] = [Disjoint::new(dquery), Disjoint::new(dkey), Disjoint::new(dvalue)];
    let (stride, kv_stride) = (shape.heads * shape.head_size, shape.kv_heads * shape.head_size);
    Task::all(shape, inputs).for_each(|task| {
        if task.length == 0 {
            return;
        }
        let size = TILE.min(task.queries) * task.length;
        let mut scratch = vec![0.0; 3 * size];
        let (probabilities, rest) = scratch.split_at_mut(size);
        let (dropped, dscores) = rest.split_at_mut(size);
        let mut written = 0;
        for head in task.heads() {
            for tile in task.tiles() {
                let (rows, keys) = (tile.len(), task.keys(tile.end));
                let probabilities = &mut probabilities[..rows * keys];
                let dropped = &mut dropped[..rows * keys];
                let dscores = &mut dscores[..rows * keys];
                let dout = task.queries(saved.gradient, head, &tile);
                let out = task.queries(saved.out, head, &tile);
                task.scores(head, &tile, keys, probabilities);
                multiply(dscores, keys, dout, task.entries(inputs.value, keys).t(), 1.0);
                let lse = &saved.lse[head * queries + task.first_query..];
                vectorised(|| {
                    let rows = probabilities.chunks_exact_mut(keys).zip(dropped.chunks_exact_mut(keys));
                    let rows = rows.zip(dscores.chunks_exact_mut(keys)).zip(tile.clone());
                    for (((p, dropped), ds), position) in rows {
                        let row = position - tile.start;
                        let slice = |matrix: &Matrix<'_>| row * stride..(row * stride + matrix.shape[1]);
                        let along = sum2(&dout.data[slice(&dout)], &out.data[slice(&out)], |a, b| a * b);
                        let seen = task.seen(position, keys);
                        p[..seen].iter_mut().for_each(|x| *x = math::exp(*x - lse[position]));
                        p[seen..].fill(0.0);
                        dropped.copy_from_slice(p);
                        task.drop(head, position, &mut dropped[..seen]);
                        task.drop(head, position, &mut ds[..seen]);
                        ds.iter_mut().zip(p.iter()).for_each(|(ds, p)| *ds = p * (*ds - along));
                        ds[seen..].fill(0.0);
                    }
                });
                let (dropped, dscores) = (Matrix::new(dropped, rows, keys), Matrix::new(dscores, rows, keys));
                let query = task.queries(inputs.query, head, &tile);
                let dvalues = Product { left: dropped.t(), right: dout, scale: 1.0 };
                let dkeys = Product { left: dscores.t(), right: query, scale: shape.scale };
                let keys_now = task.entries(inputs.key, keys);
                let dqueries = Product { left: dscores, right: keys_now, scale: shape.scale };
                #[expect(unsafe_code, reason = "a row and a head are no chunk of a slice")]
                // SAFETY: this task alone has this row and these heads.
                unsafe {
                    block(&dquery, task.query_place(head, tile.start), stride, &dqueries, false);
                    add_rows(&dkey, task.key_place(), kv_stride, &dkeys, written);
                    add_rows(&dvalue, task.key_place(), kv_stride, &dvalues, written);
                }
                written = written.max(keys);
            }
        }
    });
}

/// `out = scale left right`, all of it.
fn multiply(out: &mut [f32], columns: usize, left: Matrix<'_>, right: Matrix<'_>, scale: f32) {
    #[expect(unsafe_code, reason = "the product's function is made for shared outputs")]
    // SAFETY: the output is borrowed uniquely.
    unsafe {
        block(&Disjoint::new(out), 0, columns, &Product { left, right, scale }, false);
    }
}

/// Adds a product to the rows that were written before, and writes the others.
///
/// # Safety
/// As of [`block`].
#[expect(unsafe_code, reason = "a row and a head are no chunk of a slice")]
unsafe fn add_rows(out: &Disjoint<'_>, start: usize, stride: usize, product: &Product<'_>, written: usize) {
    let rows = product.left.shape[0];
    let written = written.min(rows);
    let part = |first, rows| Product { left: product.left.rows(first, rows), ..*product };
    // SAFETY: the caller's.
    unsafe {
        block(out, start, stride, &part(0, written), true);
        block(out, start + written * stride, stride, &part(written, rows - written), false);
    }
}
