//! Operands on their way into the innermost loops: laid out in the order in which these read.

use crate::backend::Matrix;

/// A cache line of values, so that no vector that is read lies across two of them.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Room for packed values, which grows to the most that was asked for.
#[derive(Default)]
pub(super) struct Room(Vec<Line>);

#[expect(unsafe_code, reason = "a line is plain values, and bytemuck's derive is not worth a dependency")]
// SAFETY: sixteen f32 without padding; any bits are a value.
unsafe impl bytemuck::Zeroable for Line {}
#[expect(unsafe_code, reason = "likewise")]
// SAFETY: likewise.
unsafe impl bytemuck::Pod for Line {}

impl Room {
    /// `len` values of whatever was there.
    pub(super) fn take(&mut self, len: usize) -> &mut [f32] {
        let lines = len.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line::default());
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }
}

/// Packs the rows of `matrix` in tiles of `tall`: `out[tile, first + column, row of the tile] = scale * matrix`, where a
/// tile is `depth` deep. Rows beyond the last become 0, so that every tile is whole. Columns of a matrix are the rows of
/// its transpose.
#[inline(always)]
pub(super) fn pack(matrix: Matrix<'_>, scale: f32, tall: usize, [first, depth]: [usize; 2], out: &mut [f32]) {
    let Matrix { data, shape: [rows, columns], strides: [down, right] } = matrix;
    for (tile, top) in out.chunks_exact_mut(tall * depth).zip((0..rows).step_by(tall)) {
        let tile = &mut tile[first * tall..][..columns * tall];
        let here = tall.min(rows - top);
        if here < tall {
            tile.fill(0.0);
        }
        if down == 1 {
            for (to, column) in tile.chunks_exact_mut(tall).zip(0..) {
                let from = &data[column * right + top..][..here];
                to.iter_mut().zip(from).for_each(|(to, from)| *to = *from * scale);
            }
        } else if right == 1 && here == tall {
            across(data, top, down, columns, scale, tall, tile);
        } else {
            for row in 0..here {
                for column in 0..columns {
                    tile[column * tall + row] = data[(top + row) * down + column * right] * scale;
                }
            }
        }
    }
}

/// Rows that lie in memory as rows: turned eight columns at a time, so that what is written stays near.
#[inline(always)]
fn across(data: &[f32], top: usize, down: usize, columns: usize, scale: f32, tall: usize, tile: &mut [f32]) {
    let whole = columns / 8 * 8;
    for first in (0..whole).step_by(8) {
        let to = &mut tile[first * tall..][..8 * tall];
        for row in 0..tall {
            let from = &data[(top + row) * down + first..][..8];
            for column in 0..8 {
                to[column * tall + row] = from[column] * scale;
            }
        }
    }
    for row in 0..tall {
        for column in whole..columns {
            tile[column * tall + row] = data[(top + row) * down + column] * scale;
        }
    }
}
