//! Attention over ragged rows: a row and a key head are one task, queries go through it in tiles, and no matrix larger
//! than tile x row exists (after Dao et al. 2022: the backward computes the probabilities again from `lse`). A tile meets
//! only the keys that one of its queries sees.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::gemm::block;
use super::math::{self, sum, sum2};
use super::parallel::{Disjoint, vectorised};
use crate::backend::{AttentionInputs, AttentionSaved, AttentionShape, Layout, Matrix, Product};
use crate::dtype::{Element, Values};

/// Queries a tile.
const TILE: usize = 64;

thread_local! {
    /// Scores and sums of this thread's task. It is taken out meanwhile, and grows to the most that was asked for.
    static SCRATCH: RefCell<Vec<f32>> = RefCell::default();
}

/// Runs `work` with `len` values of whatever was there.
fn with_scratch(len: usize, work: impl FnOnce(&mut [f32])) {
    let mut scratch = SCRATCH.take();
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    work(&mut scratch[..len]);
    SCRATCH.set(scratch);
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

    /// The keys that some query of `tile` sees: what the first sees begins them, what the last sees ends them.
    fn keys(&self, tile: &Range<usize>) -> Range<usize> {
        self.seen(tile.start).start..self.seen(tile.end - 1).end
    }

    /// The most scores that a tile has.
    fn most_scores(&self) -> usize {
        let rows = TILE.min(self.queries);
        rows * self.length.min(rows + 2 * self.window())
    }

    /// Queries `tile` of a `[queries, heads, head_size]` tensor.
    fn queries(&self, values: Values<'a>, head: usize, tile: &Range<usize>) -> Matrix<'a> {
        self.view(values, head, self.shape.heads, self.first_query + tile.start, tile.len())
    }

    /// The row's `keys` of a `[tokens, kv_heads, head_size]` tensor.
    fn entries(&self, values: Values<'a>, keys: &Range<usize>) -> Matrix<'a> {
        self.view(values, self.kv_head, self.shape.kv_heads, self.start + keys.start, keys.len())
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

    /// The scores of a tile, before they are scaled: `[tile, keys]`.
    fn scores(&self, head: usize, tile: &Range<usize>, keys: &Range<usize>, scores: &mut [f32]) {
        let left = self.queries(self.inputs.query, head, tile);
        let right = self.entries(self.inputs.key, keys).t();
        multiply(scores, keys.len(), left, right);
    }

    /// Drops probabilities of one query and the keys that it sees, and multiplies the others with `factor`.
    #[inline(always)]
    fn drop(&self, head: usize, position: usize, factor: f32, values: &mut [f32]) {
        if let Some(dropout) = self.inputs.dropout {
            let key = dropout.key.with(head as u64);
            dropout.mask(key, self.inputs.queries.counters()[self.first_query + position], factor, values);
        } else {
            for x in values.iter_mut() {
                *x *= factor;
            }
        }
    }
}

pub(super) fn forward<E: Element>(
    shape: AttentionShape,
    inputs: AttentionInputs<'_>,
    out: &mut [E],
    lse: &mut [f32],
) {
    let (queries, stride) = (inputs.queries.tokens(), shape.heads * shape.head_size);
    let (out, lse) = (Disjoint::new(out), Disjoint::new(lse));
    Task::all(shape, inputs).for_each(|task| {
        with_scratch(task.most_scores(), |scratch| {
            for head in task.heads() {
                for tile in task.tiles() {
                    let keys = task.keys(&tile);
                    let columns = keys.len();
                    let scores = &mut scratch[..tile.len() * columns];
                    task.scores(head, &tile, &keys, scores);
                    let first = head * queries + task.first_query + tile.start;
                    #[expect(unsafe_code, reason = "a row and a head are no chunk of a slice")]
                    // SAFETY: this task alone has this row and head.
                    let lse = unsafe { lse.slice(first..first + tile.len()) };
                    vectorised(
                        #[inline(always)]
                        || {
                            for ((row, lse), position) in
                                scores.chunks_exact_mut(columns).zip(lse).zip(tile.clone())
                            {
                                let row = only_seen(row, &keys, &task.seen(position));
                                for x in row.iter_mut() {
                                    *x *= shape.scale;
                                }
                                let largest = math::max(row);
                                for x in row.iter_mut() {
                                    *x = math::exp(*x - largest);
                                }
                                let total = sum(row, |x| x);
                                *lse = largest + total.ln();
                                task.drop(head, position, 1.0 / total, row);
                            }
                        },
                    );
                    let left = Matrix::new(&*scores, tile.len(), columns);
                    let product = Product { left, right: task.entries(inputs.value, &keys), scale: 1.0 };
                    #[expect(unsafe_code, reason = "a row and a head are no chunk of a slice")]
                    // SAFETY: this task alone has this row and head.
                    unsafe {
                        block(&out, task.query_place(head, tile.start), stride, &product, false);
                    }
                }
            }
        })
    });
}

/// With P the probabilities, M the mask and D = rowsum(dO * O):
/// dV = (P M)^T dO, dS = P * ((dO V^T) M - D), dQ = scale dS K, dK = scale dS^T Q.
pub(super) fn backward<E: Element>(
    shape: AttentionShape,
    inputs: AttentionInputs<'_>,
    saved: AttentionSaved<'_>,
    [dquery, dkey, dvalue]: [&mut [E]; 3],
) {
    let queries = inputs.queries.tokens();
    let [dquery, dkey, dvalue] = [Disjoint::new(dquery), Disjoint::new(dkey), Disjoint::new(dvalue)];
    let (stride, size) = (shape.heads * shape.head_size, shape.head_size);
    let (gradient, out) = (E::of(saved.gradient), E::of(saved.out));
    Task::all(shape, inputs).for_each(|task| {
        if task.length == 0 {
            return;
        }
        let most = task.most_scores();
        with_scratch(3 * most + 2 * task.length * size, |scratch| {
            let (probabilities, rest) = scratch.split_at_mut(most);
            let (dropped, rest) = rest.split_at_mut(most);
            let (dscores, sums) = rest.split_at_mut(most);
            // Summed in f32 over tiles and heads.
            sums.fill(0.0);
            let (dkeys, dvalues) = sums.split_at_mut(task.length * size);
            for head in task.heads() {
                for tile in task.tiles() {
                    let keys = task.keys(&tile);
                    let (rows, columns) = (tile.len(), keys.len());
                    let probabilities = &mut probabilities[..rows * columns];
                    let dropped = &mut dropped[..rows * columns];
                    let dscores = &mut dscores[..rows * columns];
                    let dout = task.queries(saved.gradient, head, &tile);
                    task.scores(head, &tile, &keys, probabilities);
                    multiply(dscores, columns, dout, task.entries(inputs.value, &keys).t());
                    let lse = &saved.lse[head * queries + task.first_query..];
                    vectorised(
                        #[inline(always)]
                        || {
                            let rows = probabilities
                                .chunks_exact_mut(columns)
                                .zip(dropped.chunks_exact_mut(columns));
                            let rows = rows.zip(dscores.chunks_exact_mut(columns)).zip(tile.clone());
                            for (((p, dropped), ds), position) in rows {
                                let place = task.query_place(head, position);
                                let (gradient, out) = (&gradient[place..][..size], &out[place..][..size]);
                                let along = sum2(gradient, out, |a, b| a * b);
                                let seen = task.seen(position);
                                let p = only_seen(p, &keys, &seen);
                                let (dropped, ds) =
                                    (only_seen(dropped, &keys, &seen), only_seen(ds, &keys, &seen));
                                let lse = lse[position];
                                for x in p.iter_mut() {
                                    *x = math::exp(*x * shape.scale - lse);
                                }
                                dropped.copy_from_slice(p);
                                task.drop(head, position, 1.0, dropped);
                                // P M is there already, so the mask is drawn once.
                                for ((ds, p), dropped) in ds.iter_mut().zip(p.iter()).zip(dropped.iter()) {
                                    *ds = *ds * dropped - p * along;
                                }
                            }
                        },
                    );
                    let (dropped, dscores) =
                        (Matrix::new(&*dropped, rows, columns), Matrix::new(&*dscores, rows, columns));
                    let query = task.queries(inputs.query, head, &tile);
                    let keys_now = task.entries(inputs.key, &keys);
                    let places = keys.start * size..keys.end * size;
                    add_product(&mut dvalues[places.clone()], dropped.t(), dout, 1.0);
                    add_product(&mut dkeys[places], dscores.t(), query, shape.scale);
                    let dqueries = Product { left: dscores, right: keys_now, scale: shape.scale };
                    #[expect(unsafe_code, reason = "a row and a head are no chunk of a slice")]
                    // SAFETY: this task alone has this row and these heads.
                    unsafe {
                        block(&dquery, task.query_place(head, tile.start), stride, &dqueries, false);
                    }
                }
            }
            let sums = dkeys.chunks_exact(size.max(1)).zip(dvalues.chunks_exact(size.max(1)));
            for (key, (dkeys, dvalues)) in sums.enumerate() {
                let range = task.key_place(key)..task.key_place(key) + size;
                #[expect(unsafe_code, reason = "a row and a head are no chunk of a slice")]
                // SAFETY: this task alone has this row and key head.
                let outs = unsafe { [dkey.slice(range.clone()), dvalue.slice(range)] };
                for (out, sums) in outs.into_iter().zip([dkeys, dvalues]) {
                    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = E::put(*sum));
                }
            }
        });
    });
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

/// `out = left right`, all of it.
fn multiply(out: &mut [f32], columns: usize, left: Matrix<'_>, right: Matrix<'_>) {
    #[expect(unsafe_code, reason = "the product's function is made for shared outputs")]
    // SAFETY: the output is borrowed uniquely.
    unsafe {
        block(&Disjoint::new(out), 0, columns, &Product { left, right, scale: 1.0 }, false);
    }
}

/// `out += scale left right`, all of it.
fn add_product(out: &mut [f32], left: Matrix<'_>, right: Matrix<'_>, scale: f32) {
    let columns = right.shape[1];
    #[expect(unsafe_code, reason = "the product's function is made for shared outputs")]
    // SAFETY: the output is borrowed uniquely.
    unsafe {
        block(&Disjoint::new(out), 0, columns, &Product { left, right, scale }, true);
    }
}
