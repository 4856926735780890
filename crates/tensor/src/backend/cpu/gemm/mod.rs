//! Products, behind one function (after Goto and van de Geijn 2008). The depth goes by in rounds; in each the right
//! operand is packed once for all, then each task packs some rows of the left one, multiplies, and applies the ends to
//! what it wrote while that is in cache.
//!
//! Each value of the output is the sum over its rounds of sums in the order of the depth. Nothing else of shape or threads
//! enters: a row has the same bits whichever rows are beside it.

mod kernel;
mod pack;

use std::cell::RefCell;

use rayon::prelude::*;

use self::kernel::{Panels, TILE};
use self::pack::{Room, pack};
use super::elementwise::activate;
use super::parallel::{Disjoint, vectorised};
use crate::backend::{Ends, Product};

/// The depth of a round: a tile of each operand of this depth fits in the nearest two caches.
const DEPTH: usize = 768;

/// Values of the left operand that a task packs: they stay in the second cache.
const LEFT: usize = 56 * 1024;

/// Columns that the ends are applied to at once.
const COLUMNS: usize = 256;

/// Below this many multiplications a product is one task: sharing it out costs more than it saves.
const SMALL: usize = 1 << 18;

thread_local! {
    /// Packed rows of the left operand, of this thread's task.
    static ROWS: RefCell<Room> = RefCell::default();
    /// The packed right operand of the product that this thread asked for. It is taken out meanwhile: while this thread
    /// waits for others, it may be given a task that asks for a product.
    static RIGHT: RefCell<Room> = RefCell::default();
}

/// A part of one product's depth.
struct Segment<'a> {
    product: &'a Product<'a>,
    first: usize,
    depth: usize,
}

/// What is multiplied in one go: parts whose depths follow one another, as if they were one product.
struct Round<'a> {
    segments: Vec<Segment<'a>>,
    depth: usize,
}

/// The depths of all products, cut into rounds of about [`DEPTH`]; a narrow product joins the round before it.
fn rounds<'a>(products: &'a [Product<'a>]) -> Vec<Round<'a>> {
    let mut rounds: Vec<Round<'a>> = Vec::new();
    for product in products {
        let whole = product.left.shape[1];
        // A rest too small for a round of its own makes the others a little deeper.
        let parts = (whole.saturating_sub(DEPTH / 3)).div_ceil(DEPTH).max(1);
        let each = whole.div_ceil(parts);
        for first in (0..whole).step_by(each.max(1)) {
            let depth = each.min(whole - first);
            let segment = Segment { product, first, depth };
            match rounds.last_mut() {
                Some(round) if round.depth + depth <= DEPTH + DEPTH / 3 => {
                    round.depth += depth;
                    round.segments.push(segment);
                }
                _ => rounds.push(Round { segments: vec![segment], depth }),
            }
        }
    }
    if rounds.is_empty() {
        // Sums over nothing are 0, and the ends are applied to them.
        rounds.push(Round { segments: Vec::new(), depth: 1 });
    }
    rounds
}

/// The bytes that the packed right operand takes.
pub(in crate::backend) fn workspace(products: &[Product<'_>]) -> usize {
    let columns = products.first().map_or(0, |product| product.right.shape[1]);
    let deepest = rounds(products).iter().map(|round| round.depth).max().unwrap_or(0);
    columns.next_multiple_of(TILE[1]) * deepest * size_of::<f32>()
}

/// Rows of a task: what the second cache holds of them, but so few that there are tasks for all threads.
fn rows_of_task(m: usize, depth: usize, tall: usize) -> usize {
    let most = (LEFT / depth.max(1)).clamp(tall, 192);
    let tasks = m.div_ceil(most).max(m.div_ceil(4 * tall).min(8));
    m.div_ceil(tasks.next_multiple_of(2)).next_multiple_of(tall)
}

pub(super) fn gemm(out: &mut [f32], products: &[Product<'_>], accumulate: bool, ends: Ends<'_>) {
    let Some(first) = products.first() else { return };
    let (m, n) = (first.left.shape[0], first.right.shape[1]);
    if m == 0 || n == 0 {
        return;
    }
    assert!(out.len() >= m * n, "gemm: the output is smaller than the product");
    for Product { left, right, .. } in products {
        let fits = left.is_inside() && right.is_inside() && left.shape[1] == right.shape[0];
        assert!(fits && [left.shape[0], right.shape[1]] == [m, n], "gemm: operands that do not fit");
    }
    let [tall, wide] = *TILE;
    let rounds = rounds(products);
    let work: usize = rounds.iter().map(|round| round.depth).sum::<usize>() * m * n;
    let deepest = rounds.iter().map(|round| round.depth).max().unwrap_or(0);
    let height = if work <= SMALL { m.next_multiple_of(tall) } else { rows_of_task(m, deepest, tall) };
    // Few rows leave threads without work unless columns are shared out too.
    let across =
        if work <= SMALL { 1 } else { 8usize.div_ceil(m.div_ceil(height)).min(n.div_ceil(4 * wide)) };
    let width = n.div_ceil(across).next_multiple_of(wide);
    let across = n.div_ceil(width);

    let out = Disjoint::new(out);
    let Ends { bias, activation, before_activation } = ends;
    let before = before_activation.map(Disjoint::new);
    let last = rounds.len() - 1;
    let mut room = RIGHT.take();
    for (index, round) in rounds.iter().enumerate() {
        let right = room.take(n.next_multiple_of(wide) * round.depth);
        round.pack_right(right, n, wide, work <= SMALL);
        let right = &*right;
        (0..m.div_ceil(height) * across).into_par_iter().with_max_len(1).for_each(|task| {
            let (top, left) = (task / across * height, task % across * width);
            let (rows, columns) = (height.min(m - top), width.min(n - left));
            ROWS.with_borrow_mut(|room| {
                let packed = room.take(rows.next_multiple_of(tall) * round.depth);
                round.pack_left(packed, top, rows, tall);
                for column in (left..left + columns).step_by(COLUMNS) {
                    let columns = COLUMNS.min(left + columns - column);
                    let start = top * n + column;
                    let panels = Panels {
                        left: packed,
                        right: &right[column * round.depth..],
                        depth: round.depth,
                        out: out.pointer(start..start + (rows - 1) * n + columns),
                        stride: n,
                        shape: [rows, columns],
                        adds: accumulate || index > 0,
                    };
                    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
                    // SAFETY: the pointer is good for the shape by its assertion, and this task alone has this block.
                    unsafe {
                        panels.multiply();
                    }
                    if index < last {
                        continue;
                    }
                    vectorised(
                        #[inline(always)]
                        || {
                            for row in top..top + rows {
                                let range = row * n + column..row * n + column + columns;
                                #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
                                // SAFETY: this task alone writes this block of the output.
                                let values = unsafe { out.slice(range.clone()) };
                                if let Some(bias) = bias {
                                    values.iter_mut().zip(&bias[column..]).for_each(|(x, bias)| *x += bias);
                                }
                                if let Some(before) = &before {
                                    #[expect(
                                        unsafe_code,
                                        reason = "a block of columns is no chunk of a slice"
                                    )]
                                    // SAFETY: likewise.
                                    unsafe { before.slice(range) }.copy_from_slice(values);
                                }
                                activate(activation, values);
                            }
                        },
                    );
                }
            });
        });
    }
    RIGHT.set(room);
}

impl Round<'_> {
    /// All columns of the right operand, shared out; each tile of them is `wide`.
    fn pack_right(&self, out: &mut [f32], columns: usize, wide: usize, alone: bool) {
        let tiles = if alone { columns.div_ceil(wide) } else { 4 };
        let width = tiles * wide;
        out.par_chunks_mut((width * self.depth).max(1)).enumerate().for_each(|(index, out)| {
            let first = index * width;
            if self.segments.is_empty() {
                out.fill(0.0);
            }
            let mut done = 0;
            for Segment { product, first: top, depth } in &self.segments {
                let part = product.right.rows(*top, *depth).columns(first, width.min(columns - first));
                pack(part.t(), 1.0, wide, [done, self.depth], out);
                done += depth;
            }
        });
    }

    /// Some rows of the left operand, times their factor; each tile of them is `tall`.
    fn pack_left(&self, out: &mut [f32], top: usize, rows: usize, tall: usize) {
        if self.segments.is_empty() {
            out.fill(0.0);
        }
        let mut done = 0;
        for Segment { product, first, depth } in &self.segments {
            let part = product.left.rows(top, rows).columns(*first, *depth);
            pack(part, product.scale, tall, [done, self.depth], out);
            done += depth;
        }
    }
}

/// `out[start + i * stride + j] (+)= product[i, j]`, in this thread.
///
/// # Safety
/// No other task may touch these places of `out` meanwhile; it may touch those between them.
#[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
pub(super) unsafe fn block(
    out: &Disjoint<'_>,
    start: usize,
    stride: usize,
    product: &Product<'_>,
    adds: bool,
) {
    let Product { left, right, scale } = *product;
    let ([rows, depth], columns) = (left.shape, right.shape[1]);
    assert!(
        left.is_inside() && right.is_inside() && right.shape[0] == depth,
        "gemm: operands that do not fit"
    );
    if rows == 0 || columns == 0 {
        return;
    }
    if depth == 0 {
        for row in (0..rows).filter(|_| !adds) {
            // SAFETY: the caller keeps others away.
            unsafe { out.slice(start + row * stride..start + row * stride + columns) }.fill(0.0);
        }
        return;
    }
    let [tall, wide] = *TILE;
    ROWS.with_borrow_mut(|room| {
        let heights = rows.next_multiple_of(tall) * depth;
        let widths = columns.next_multiple_of(wide) * depth;
        // The second begins at a cache line too.
        let (packed_left, packed_right) =
            room.take(heights.next_multiple_of(16) + widths).split_at_mut(heights.next_multiple_of(16));
        pack(left, scale, tall, [0, depth], packed_left);
        pack(right.t(), 1.0, wide, [0, depth], packed_right);
        let panels = Panels {
            left: &packed_left[..heights],
            right: packed_right,
            depth,
            out: out.pointer(start..start + (rows - 1) * stride + columns),
            stride,
            shape: [rows, columns],
            adds,
        };
        // SAFETY: the pointer is good for the shape by its assertion; the caller keeps others away.
        unsafe {
            panels.multiply();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Matrix;

    #[test]
    fn narrow_products_join_the_round_before_them() {
        let data = vec![0.0; 3072];
        let product = |depth| Product {
            left: Matrix::new(&data, 1, depth),
            right: Matrix::new(&data, depth, 1),
            scale: 1.0,
        };
        let depths = |products: &[Product<'_>]| -> Vec<usize> {
            rounds(products).iter().map(|round| round.depth).collect()
        };
        assert_eq!(depths(&[product(768), product(8)]), [776]);
        assert_eq!(depths(&[product(1000)]), [1000]);
        assert_eq!(depths(&[product(2048)]), [683, 683, 682]);
        assert_eq!(depths(&[product(3072), product(16)]), [768, 768, 768, 784]);
        assert_eq!(depths(&[product(0)]), [1]);
    }

    #[test]
    fn products_of_every_layout_are_the_plain_sum() {
        // Several rounds, tiles and blocks that end early, one row and one column, and a narrow second product.
        for [m, n, depth] in [[131, 533, 1701], [1, 700, 900], [67, 1, 2100], [13, 17, 5], [97, 300, 1025]] {
            let draw = |count: usize, seed: usize| -> Vec<f32> {
                (0..count).map(|i| ((i * 7919 + seed * 104_729) % 23) as f32 / 11.0 - 1.0).collect()
            };
            let (left, right) = (draw(m * depth, 1), draw(depth * n, 2));
            let (down, up) = (draw(m * 3, 3), draw(3 * n, 4));
            let (bias, before) = (draw(n, 5), draw(m * n, 6));
            for (left_t, right_t) in [(false, false), (true, false), (false, true), (true, true)] {
                let view = |data, rows, columns, turned| match turned {
                    true => Matrix::new(data, columns, rows).t(),
                    false => Matrix::new(data, rows, columns),
                };
                let (a, b) = (view(&left, m, depth, left_t), view(&right, depth, n, right_t));
                let (c, d) = (view(&down, m, 3, left_t), view(&up, 3, n, right_t));
                let products =
                    [Product { left: a, right: b, scale: 0.5 }, Product { left: c, right: d, scale: -2.0 }];
                let mut out = before.clone();
                gemm(&mut out, &products, true, Ends { bias: Some(&bias), ..Ends::default() });
                let at = |matrix: Matrix<'_>, row: usize, column: usize| {
                    f64::from(matrix.data[row * matrix.strides[0] + column * matrix.strides[1]])
                };
                for (index, got) in out.iter().enumerate().step_by(if m * n > 1000 { 37 } else { 1 }) {
                    let (row, column) = (index / n, index % n);
                    let sum = |left, right, depth| {
                        (0..depth).map(|k| at(left, row, k) * at(right, k, column)).sum::<f64>()
                    };
                    let want = 0.5 * sum(a, b, depth) - 2.0 * sum(c, d, 3)
                        + f64::from(bias[column])
                        + f64::from(before[index]);
                    let apart = (f64::from(*got) - want).abs();
                    assert!(apart < 2e-3, "{m} x {n} x {depth} at [{row}, {column}]: {got}, expected {want}");
                }
            }
        }
    }

    #[test]
    fn a_row_alone_has_the_bits_it_has_among_others() {
        let (rows, columns, depth) = (150, 130, 1500);
        let draw = |count: usize| -> Vec<f32> { (0..count).map(|i| (i as f32 * 0.37).sin()).collect() };
        let (left, right) = (draw(rows * depth), draw(depth * columns));
        let run = |first: usize, count: usize| {
            let mut out = vec![0.0; count * columns];
            let left = Matrix::new(&left, rows, depth).rows(first, count);
            let product = Product { left, right: Matrix::new(&right, depth, columns), scale: 1.0 };
            gemm(&mut out, &[product], false, Ends::default());
            out
        };
        let all = run(0, rows);
        for row in [0, 5, 77, 149] {
            let alone: Vec<u32> = run(row, 1).iter().map(|x| x.to_bits()).collect();
            let among: Vec<u32> = all[row * columns..][..columns].iter().map(|x| x.to_bits()).collect();
            assert_eq!(alone, among, "row {row}");
        }
    }
}
