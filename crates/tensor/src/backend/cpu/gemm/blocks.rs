//! Operands whose values lie in blocks of a few bits: a part at a time is read into f32 and packed like any other, so that the
//! whole of it is never there.

use std::cell::RefCell;

use super::pack::{Packed, Room, pack};
use crate::Blocks;
use crate::backend::Matrix;

/// How much of the depth is read at once: what is read stays in the second cache.
const AT_ONCE: usize = 256;

thread_local! {
    /// What this thread has read.
    static PART: RefCell<Room> = RefCell::default();
}

/// As [`pack`], of a `matrix` that looks at `blocks`.
pub(super) fn pack_blocks<P: Packed>(
    matrix: Matrix<'_>,
    blocks: Blocks<'_>,
    scale: f32,
    tall: usize,
    [first, depth]: [usize; 2],
    out: &mut [P],
) {
    let Matrix { shape: [rows, columns], strides: [down, right], .. } = matrix;
    PART.with_borrow_mut(|room| {
        for start in (0..columns).step_by(AT_ONCE) {
            let count = AT_ONCE.min(columns - start);
            let part = room.take::<f32>(rows * count);
            let strides = if right == 1 {
                for (row, part) in part.chunks_exact_mut(count).enumerate() {
                    blocks.from(row * down + start).read(part);
                }
                [count, 1]
            } else if down == 1 {
                for (column, part) in part.chunks_exact_mut(rows).enumerate() {
                    blocks.from((start + column) * right).read(part);
                }
                [1, rows]
            } else {
                // No operand of ours lies so; it is read all the same.
                for (place, value) in part.iter_mut().enumerate() {
                    let (row, column) = (place / count, start + place % count);
                    blocks.from(row * down + column * right).read(std::slice::from_mut(value));
                }
                [count, 1]
            };
            let part = Matrix { data: (&*part).into(), shape: [rows, count], strides };
            pack(part, scale, tall, [first + start.div_ceil(P::VALUES), depth], out);
        }
    });
}
