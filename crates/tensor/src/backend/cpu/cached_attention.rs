//! Attention of a row's last tokens over keys and values that lie in a cache. There are few queries, so nothing is packed: the
//! keys are read once for the heads that share them, as they lie.

use std::ops::Range;

use rayon::prelude::*;

use super::math::{self, dot, sum, widen};
use super::parallel::{Disjoint, vectorised};
use crate::backend::{AttentionShape, CachedRow, Layout};
use crate::dtype::Element;

/// A row and a key head are one task.
pub(super) fn forward<E: Element>(
    shape: AttentionShape,
    query: &[E],
    queries: &Layout,
    rows: &[CachedRow<'_>],
    out: &mut [E],
) {
    let (group, size) = (shape.heads / shape.kv_heads, shape.head_size);
    let out = Disjoint::new(out);
    (0..rows.len() * shape.kv_heads).into_par_iter().with_max_len(1).for_each(|task| {
        let (row, kv_head) = (task / shape.kv_heads, task % shape.kv_heads);
        let (cached, ends) = (rows[row], &queries.cu_seqlens()[row..row + 2]);
        let head = Head {
            keys: E::of(cached.key),
            values: E::of(cached.value),
            stride: shape.kv_heads * size,
            first: kv_head * size,
            size,
        };
        let (mut room, mut sums) = (Vec::new(), vec![0.0; group * size]);
        for token in ends[0]..ends[1] {
            let position = cached.length - (ends[1] - token);
            let window = shape.window.unwrap_or(position).min(position);
            let place = (token * shape.heads + kv_head * group) * size;
            let asking: Vec<f32> =
                query[place..place + group * size].iter().map(|x| x.get() * shape.scale).collect();
            head.attend(&asking, position - window..position + 1, &mut room, &mut sums);
            #[expect(unsafe_code, reason = "heads of a token are shared out between tasks")]
            // SAFETY: a task alone has these heads of its row's tokens.
            let out = unsafe { out.slice(place..place + group * size) };
            out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = E::put(*sum));
        }
    });
}

/// The keys and values of a row that some query heads share.
struct Head<'a, E> {
    keys: &'a [E],
    values: &'a [E],
    /// From one key to the next.
    stride: usize,
    /// Where the first lies.
    first: usize,
    size: usize,
}

impl<E: Element> Head<'_, E> {
    fn at<'a>(&self, entries: &'a [E], token: usize) -> &'a [E] {
        &entries[token * self.stride + self.first..][..self.size]
    }

    /// `sums = softmax(asking keys^T) values` over the keys `seen`, for each of the heads that ask; `room` is for scores and a key.
    fn attend(&self, asking: &[f32], seen: Range<usize>, room: &mut Vec<f32>, sums: &mut [f32]) {
        let (count, size) = (seen.len(), self.size);
        room.clear();
        room.resize(asking.len() / size.max(1) * count + size, 0.0);
        let (key, scores) = room.split_at_mut(size);
        vectorised(
            #[inline(always)]
            || {
                for (index, token) in seen.clone().enumerate() {
                    widen(self.at(self.keys, token), key);
                    for (asking, scores) in asking.chunks_exact(size).zip(scores.chunks_exact_mut(count)) {
                        scores[index] = dot(asking, key);
                    }
                }
                for scores in scores.chunks_exact_mut(count) {
                    let most = math::max(scores, |x| x);
                    for score in scores.iter_mut() {
                        *score = math::exp(*score - most);
                    }
                    let total = sum(scores, |x| x);
                    for score in scores.iter_mut() {
                        *score /= total;
                    }
                }
                sums.fill(0.0);
                for (index, token) in seen.clone().enumerate() {
                    let value = self.at(self.values, token);
                    for (scores, sums) in scores.chunks_exact(count).zip(sums.chunks_exact_mut(size)) {
                        for (sum, value) in sums.iter_mut().zip(value) {
                            *sum += scores[index] * value.get();
                        }
                    }
                }
            },
        );
    }
}
