//! Products, behind one function (after Goto and van de Geijn 2008). The depth goes by in rounds; in each the right
//! operand is packed once for all, then each task packs some rows of the left one, multiplies, and applies the ends to
//! what it wrote while that is in cache.
//!
//! Each value of the output is the sum over its rounds of sums in the order of the depth. Nothing else of shape or threads
//! enters: a row has the same bits whichever rows are beside it.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocks;
mod kernel;
mod pack;
#[cfg(test)]
mod tests;
mod thin;
#[cfg(target_arch = "x86_64")]
mod thin_avx512;
#[cfg(target_arch = "x86_64")]
mod turn_avx512;
mod units;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

pub(super) use self::kernel::{Left, Out, Panels};
pub(super) use self::pack::{Packed, Room, pack};
use super::activation::activate;
use super::math::widen;
use super::parallel::{Disjoint, vectorised};
use crate::backend::{Activation, Ends, Matrix, Product};
use crate::dtype::{DType, Element, ValuesMut, bf16};

/// The depth of a round, in packed units: a tile of each operand of this depth fits in the nearest two caches.
const DEPTH: usize = 768;

/// The same of pairs of bf16. Deeper, so that a sum rarely needs a second round, and a place to wait for it.
const PAIRS_DEPTH: usize = 1536;

/// Units of the left operand that a task packs: they stay in the second cache.
const LEFT: usize = 100 * 1024;

/// Columns that the ends are applied to at once.
const COLUMNS: usize = 256;

/// So many tiles of rows are few: they stay near while all columns go by.
const FEW: usize = 4;

/// Units of a left operand that stays in the second cache while columns of the right one are packed beside it.
const NEAR: usize = 160 * 1024;

/// Columns that a task packs at once where rows are few.
const FEW_COLUMNS: usize = 64;

/// Below this many multiplications a product is one task: sharing it out costs more than it saves.
const SMALL: usize = 1 << 18;

thread_local! {
    /// Packed rows of the left operand, of this thread's task.
    static ROWS: RefCell<Room> = RefCell::default();
    /// Packed columns of the right operand, of this thread's task, where rows are few.
    static SOME_COLUMNS: RefCell<Room> = RefCell::default();
    /// The packed right operand of the product that this thread asked for. It is taken out meanwhile: while this thread
    /// waits for others, it may be given a task that asks for a product.
    static RIGHT: RefCell<Room> = RefCell::default();
    /// Sums of a product of several rounds that are rounded once they are whole; taken out likewise.
    static ALL_SUMS: RefCell<Room> = RefCell::default();
}

/// Whether products of these are computed on pairs of bf16: one of the operands is bf16, and the machine has such
/// products. Elsewhere bf16 is widened as it is packed.
fn on_pairs(products: &[Product<'_>]) -> bool {
    let half = |matrix: &Matrix<'_>| matrix.data.dtype() == DType::Bf16;
    has_pairs() && products.iter().any(|product| half(&product.left) || half(&product.right))
}

/// Whether this machine multiplies pairs of bf16.
pub(super) fn has_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    return avx512::PAIRS.is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Multiplications with additions of pairs in registers alone, in this thread: floating point operations done. None where
/// the machine has none.
pub(super) fn pairs_in_registers(turns: usize) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    return avx512::PAIRS.map(|pairs| pairs.registers(turns));
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = turns;
        None
    }
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
    /// In packed units.
    depth: usize,
}

/// The depths of all products, in units of `values`, cut into rounds of about `most`; a narrow product joins the round
/// before it.
fn rounds<'a>(products: &'a [Product<'a>], values: usize, most: usize) -> Vec<Round<'a>> {
    let mut rounds: Vec<Round<'a>> = Vec::new();
    for product in products {
        let whole = product.left.shape[1].div_ceil(values);
        // A rest too small for a round of its own makes the others a little deeper.
        let parts = (whole.saturating_sub(most / 3)).div_ceil(most).max(1);
        let each = whole.div_ceil(parts);
        for first in (0..whole).step_by(each.max(1)) {
            let depth = each.min(whole - first);
            let end = ((first + depth) * values).min(product.left.shape[1]);
            let segment = Segment { product, first: first * values, depth: end - first * values };
            match rounds.last_mut() {
                Some(round) if round.depth + depth <= most + most / 3 => {
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

fn rounds_of<'a, P: Packed>(products: &'a [Product<'a>]) -> Vec<Round<'a>> {
    rounds(products, P::VALUES, if P::VALUES == 1 { DEPTH } else { PAIRS_DEPTH })
}

/// The bytes that the packed right operand takes, and sums that wait for their last round.
pub(in crate::backend) fn workspace(out: DType, products: &[Product<'_>]) -> usize {
    if on_pairs(products) { workspace_of::<u32>(out, products) } else { workspace_of::<f32>(out, products) }
}

fn workspace_of<P: Packed>(out: DType, products: &[Product<'_>]) -> usize {
    let Some(first) = products.first() else { return 0 };
    let (rows, columns) = (first.left.shape[0], first.right.shape[1]);
    let rounds = rounds_of::<P>(products);
    let deepest = rounds.iter().map(|round| round.depth).max().unwrap_or(0);
    let waiting = if out == DType::Bf16 && rounds.len() > 1 { rows * columns } else { 0 };
    let [tall, wide] = P::tile();
    let few = are_few(rows, columns, deepest, tall);
    let packed = if few { 0 } else { columns.next_multiple_of(wide) * deepest };
    (packed + waiting) * size_of::<u32>()
}

/// Whether rows of such a depth are few beside the columns: then one task has them all.
fn are_few(rows: usize, columns: usize, depth: usize, tall: usize) -> bool {
    rows.div_ceil(tall) <= FEW || (rows * depth <= NEAR && columns >= 16 * rows)
}

/// How many tasks share `tiles` of rows: so many that the second cache holds what each packs and there is work for all
/// threads.
fn tasks_of(tiles: usize, depth: usize, tall: usize) -> usize {
    let most = (LEFT / depth.max(1) / tall).clamp(1, 16);
    let tasks = tiles.div_ceil(most).max(tiles.div_ceil(4).min(8));
    tasks.next_multiple_of(2).min(tiles)
}

pub(super) fn gemm(out: ValuesMut<'_>, products: &[Product<'_>], accumulate: bool, ends: Ends<'_>) {
    let out = match (out, products) {
        (ValuesMut::F32(out), [product]) if ends.are_none() => {
            check(out.len(), products);
            if thin::multiply(out, product, accumulate) {
                return;
            }
            ValuesMut::F32(out)
        }
        (out, _) => out,
    };
    match (on_pairs(products), out) {
        (false, ValuesMut::F32(out)) => multiply::<f32, _>(out, products, accumulate, ends),
        (false, ValuesMut::Bf16(out)) => multiply::<f32, _>(out, products, accumulate, ends),
        (true, ValuesMut::F32(out)) => multiply::<u32, _>(out, products, accumulate, ends),
        (true, ValuesMut::Bf16(out)) => multiply::<u32, _>(out, products, accumulate, ends),
    }
}

/// Panics where operands and output do not fit: an op has checked that they do.
fn check(out: usize, products: &[Product<'_>]) {
    let Some(first) = products.first() else { return };
    let (m, n) = (first.left.shape[0], first.right.shape[1]);
    assert!(out >= m * n, "gemm: the output is smaller than the product");
    for Product { left, right, .. } in products {
        let fits = left.is_inside() && right.is_inside() && left.shape[1] == right.shape[0];
        assert!(fits && [left.shape[0], right.shape[1]] == [m, n], "gemm: operands that do not fit");
    }
}

fn multiply<P: Packed, E: Element>(
    out: &mut [E],
    products: &[Product<'_>],
    accumulate: bool,
    ends: Ends<'_>,
) {
    let Some(first) = products.first() else { return };
    let (m, n) = (first.left.shape[0], first.right.shape[1]);
    if m == 0 || n == 0 {
        return;
    }
    check(out.len(), products);
    let [tall, wide] = P::tile();
    let rounds = rounds_of::<P>(products);
    let work: usize = rounds.iter().map(|round| round.depth).sum::<usize>() * m * n;
    let deepest = rounds.iter().map(|round| round.depth).max().unwrap_or(0);
    // Tiles of rows are shared out evenly: the last task is as long as the first.
    let tiles = m.div_ceil(tall);
    // Where rows are few one task has them all, so it alone reads its columns: it packs them itself, a part at a time, and they
    // are read from memory once and never written there.
    let few = are_few(m, n, deepest, tall);
    let down = if few || work <= SMALL { 1 } else { tasks_of(tiles, deepest, tall) };
    // Few rows leave threads without work unless columns are shared out too.
    let most = if few { 32 } else { 8usize.div_ceil(down) };
    let across = if work <= SMALL { 1 } else { most.min(n.div_ceil(4 * wide)) };
    let width = n.div_ceil(across).next_multiple_of(wide);
    let across = n.div_ceil(width);

    let at_once = if few { FEW_COLUMNS } else { COLUMNS };

    let last = rounds.len() - 1;
    let (mut room, mut all_sums) = (RIGHT.take(), ALL_SUMS.take());
    // Where sums are collected: in the output if it is f32, in a place of the product's or of each task's own if not.
    let waits = E::DTYPE != DType::F32 && last > 0;
    let waiting = Disjoint::new(all_sums.take::<f32>(if waits { m * n } else { 0 }));
    let Ends { bias, activation, before_activation } = ends;
    let before = before_activation.map(|before| Disjoint::new(E::of_mut(before)));
    assert!(!accumulate || before.is_none(), "gemm: what is activated is not added to what is there");
    let finish = Finish { out: Disjoint::new(out), columns: n, accumulate, bias, activation, before };
    for (index, round) in rounds.iter().enumerate() {
        let right = room.take::<P>(if few { 0 } else { n.next_multiple_of(wide) * round.depth });
        if !few {
            round.pack_right(right, n, work <= SMALL);
        }
        let right = &*right;
        (0..down * across).into_par_iter().with_max_len(1).for_each(|task| {
            let (index_down, left) = (task / across, task % across * width);
            let [top, bottom] = [index_down, index_down + 1].map(|task| (task * tiles / down * tall).min(m));
            let (rows, columns) = (bottom - top, width.min(n - left));
            ROWS.with_borrow_mut(|room| {
                let in_place = round.left_in_place::<P>(top, rows);
                let packed_left = in_place.unwrap_or_else(|| {
                    let packed = room.take::<P>(rows.next_multiple_of(tall) * round.depth);
                    round.pack_left(packed, top, rows);
                    Left::packed(packed, round.depth)
                });
                let mut some = SOME_COLUMNS.take();
                for column in (left..left + columns).step_by(at_once) {
                    let columns = at_once.min(left + columns - column);
                    let right = if few {
                        let packed = some.take::<P>(columns.next_multiple_of(wide) * round.depth);
                        round.pack_columns(packed, column, columns);
                        packed
                    } else {
                        &right[column * round.depth..]
                    };
                    let start = top * n + column;
                    let range = start..start + (rows - 1) * n + columns;
                    let out = if waits {
                        Out::Sums { place: waiting.pointer(range), adds: index > 0 }
                    } else if E::DTYPE == DType::F32 {
                        let place = finish.out.pointer(range).cast::<f32>();
                        Out::Sums { place, adds: index > 0 || accumulate }
                    } else {
                        // What is kept is what is activated.
                        let place = finish.before.as_ref().unwrap_or(&finish.out).pointer(range);
                        let bias = bias.map(|bias| &bias[column..]);
                        Out::Rounded { place: place.cast::<bf16>(), bias, adds: accumulate }
                    };
                    let panels = Panels {
                        left: packed_left,
                        right,
                        right_tile: wide * round.depth,
                        depth: round.depth,
                        out,
                        stride: n,
                        shape: [rows, columns],
                    };
                    let block = (top..top + rows, column..column + columns);
                    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
                    // SAFETY: the pointer is good for the shape by its assertion, and this task alone has this block.
                    unsafe {
                        panels.multiply();
                        match out {
                            Out::Sums { place, .. } if index == last => finish.sums(block, place),
                            Out::Rounded { .. } => finish.rounded(block),
                            Out::Sums { .. } => {}
                        }
                    }
                }
                SOME_COLUMNS.set(some);
            });
        });
    }
    RIGHT.set(room);
    ALL_SUMS.set(all_sums);
}

/// What is done to sums once they are whole.
struct Finish<'a, E> {
    out: Disjoint<'a, E>,
    /// Of the output.
    columns: usize,
    /// Whether they are added to what is there. What is f32 was added before.
    accumulate: bool,
    bias: Option<&'a [f32]>,
    activation: Activation,
    before: Option<Disjoint<'a, E>>,
}

impl<E: Element> Finish<'_, E> {
    /// What is left to do where a block of the product was rounded: to activate it.
    ///
    /// # Safety
    /// No one else may touch this block of the outputs meanwhile.
    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
    unsafe fn rounded(&self, (rows, columns): (Range<usize>, Range<usize>)) {
        if self.activation == Activation::Identity {
            return;
        }
        vectorised(
            #[inline(always)]
            || {
                let mut values = [0.0; COLUMNS];
                let values = &mut values[..columns.len()];
                for row in rows {
                    let range = row * self.columns + columns.start..row * self.columns + columns.end;
                    // SAFETY: the caller's.
                    let out = unsafe { self.out.slice(range.clone()) };
                    match &self.before {
                        // SAFETY: likewise.
                        Some(before) => widen(unsafe { before.slice(range) }, values),
                        None => widen(out, values),
                    }
                    activate(self.activation, values);
                    out.iter_mut().zip(values.iter()).for_each(|(out, x)| *out = E::put(*x));
                }
            },
        );
    }

    /// The same where there are sums, rows of the output apart; f32 stays where it is.
    ///
    /// # Safety
    /// `sums` must be good for that, and no one else may touch this block of it or of the outputs meanwhile.
    #[expect(unsafe_code, reason = "a block of columns is no chunk of a slice")]
    unsafe fn sums(&self, (rows, columns): (Range<usize>, Range<usize>), sums: *mut f32) {
        let rounds = E::DTYPE != DType::F32;
        vectorised(
            #[inline(always)]
            || {
                for (index, row) in rows.enumerate() {
                    let range = row * self.columns + columns.start..row * self.columns + columns.end;
                    // SAFETY: the caller's.
                    let values = unsafe {
                        std::slice::from_raw_parts_mut(sums.wrapping_add(index * self.columns), columns.len())
                    };
                    if let Some(bias) = self.bias {
                        values.iter_mut().zip(&bias[columns.start..]).for_each(|(x, bias)| *x += bias);
                    }
                    if rounds && self.accumulate {
                        // SAFETY: likewise.
                        let out = unsafe { self.out.slice(range.clone()) };
                        values.iter_mut().zip(out).for_each(|(x, out)| *x += out.get());
                    }
                    if rounds && self.activation != Activation::Identity {
                        // What is kept is what is activated.
                        values.iter_mut().for_each(|x| *x = E::put(*x).get());
                    }
                    if let Some(before) = &self.before {
                        // SAFETY: likewise.
                        let before = unsafe { before.slice(range.clone()) };
                        before.iter_mut().zip(values.iter()).for_each(|(before, x)| *before = E::put(*x));
                    }
                    activate(self.activation, values);
                    if rounds {
                        // SAFETY: likewise.
                        let out = unsafe { self.out.slice(range) };
                        out.iter_mut().zip(values.iter()).for_each(|(out, x)| *out = E::put(*x));
                    }
                }
            },
        );
    }
}

impl Round<'_> {
    /// All columns of the right operand, shared out; each tile of them is as wide as the kernel's.
    fn pack_right<P: Packed>(&self, out: &mut [P], columns: usize, alone: bool) {
        let wide = P::tile()[1];
        let tiles = if alone { columns.div_ceil(wide) } else { 2 };
        let width = tiles * wide;
        out.par_chunks_mut((width * self.depth).max(1)).enumerate().for_each(|(index, out)| {
            let first = index * width;
            self.pack_columns(out, first, width.min(columns - first));
        });
    }

    /// So many columns of the right operand from `first` on.
    fn pack_columns<P: Packed>(&self, out: &mut [P], first: usize, columns: usize) {
        if self.segments.is_empty() {
            out.fill(P::zeroed());
        }
        let mut done = 0;
        for Segment { product, first: top, depth } in &self.segments {
            let part = product.right.rows(*top, *depth).columns(first, columns);
            pack(part.t(), 1.0, P::tile()[1], [done, self.depth], out);
            done += depth.div_ceil(P::VALUES);
        }
    }

    /// Some rows of the left operand where they lie, if that is as they are multiplied.
    fn left_in_place<P: Packed>(&self, top: usize, rows: usize) -> Option<Left<'_, P>> {
        let [Segment { product, first, depth }] = self.segments[..] else { return None };
        let part = product.left.rows(top, rows).columns(first, depth);
        (product.scale.to_bits() == 1.0f32.to_bits()).then(|| Left::of(&part)).flatten()
    }

    /// Some rows of the left operand, times their factor; each tile of them is as tall as the kernel's.
    fn pack_left<P: Packed>(&self, out: &mut [P], top: usize, rows: usize) {
        if self.segments.is_empty() {
            out.fill(P::zeroed());
        }
        let mut done = 0;
        for Segment { product, first, depth } in &self.segments {
            let part = product.left.rows(top, rows).columns(*first, *depth);
            pack(part, product.scale, P::tile()[0], [done, self.depth], out);
            done += depth.div_ceil(P::VALUES);
        }
    }
}
