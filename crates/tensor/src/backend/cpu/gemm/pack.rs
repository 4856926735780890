//! Operands on their way into the innermost loops: laid out in the order in which these read.

use crate::backend::Matrix;
use crate::backend::cpu::parallel::vectorised;

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
pub(super) fn pack(matrix: Matrix<'_>, scale: f32, tall: usize, [first, depth]: [usize; 2], out: &mut [f32]) {
    // The tiles of each kind of vector, so that the loops over a tile's rows have no ends to look for.
    match tall {
        6 => tiles::<6>(matrix, scale, first, depth, out),
        8 => tiles::<8>(matrix, scale, first, depth, out),
        12 => tiles::<12>(matrix, scale, first, depth, out),
        16 => tiles::<16>(matrix, scale, first, depth, out),
        32 => tiles::<32>(matrix, scale, first, depth, out),
        _ => {
            for tile in (0..matrix.shape[0]).step_by(tall) {
                let rows = tall.min(matrix.shape[0] - tile);
                let out = &mut out[(tile * depth + first * tall)..];
                line_by_line(matrix.rows(tile, rows), scale, tall, out);
            }
        }
    }
}

fn tiles<const TALL: usize>(matrix: Matrix<'_>, scale: f32, first: usize, depth: usize, out: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            let Matrix { data, shape: [rows, columns], strides: [down, right] } = matrix;
            let whole = rows / TALL;
            if down == 1 {
                // All tiles of a column before the next: what lies side by side is read at once.
                for column in 0..columns {
                    let from = &data[column * right..][..whole * TALL];
                    for (tile, from) in from.as_chunks::<TALL>().0.iter().enumerate() {
                        let to = &mut out[(tile * depth + first + column) * TALL..][..TALL];
                        for row in 0..TALL {
                            to[row] = from[row] * scale;
                        }
                    }
                }
            }
            let done = if down == 1 { whole } else { 0 };
            for tile in done..rows.div_ceil(TALL) {
                let top = tile * TALL;
                let to = &mut out[(tile * depth + first) * TALL..][..columns * TALL];
                if right == 1 && tile < whole {
                    across::<TALL>(&data[top * down..], down, scale, to);
                } else {
                    line_by_line(matrix.rows(top, TALL.min(rows - top)), scale, TALL, to);
                }
            }
        },
    );
}

/// Rows that lie in memory as rows: turned eight columns at a time, so that what is read and written stays near.
#[inline(always)]
fn across<const TALL: usize>(data: &[f32], down: usize, scale: f32, tile: &mut [f32]) {
    let (tile, _) = tile.as_chunks_mut::<TALL>();
    let whole = tile.len() / 8 * 8;
    let (chunks, rest) = tile.split_at_mut(whole);
    let (chunks, _) = chunks.as_chunks_mut::<8>();
    for (index, to) in chunks.iter_mut().enumerate() {
        for row in 0..TALL {
            let from = &data[row * down + index * 8..][..8];
            for column in 0..8 {
                to[column][row] = from[column] * scale;
            }
        }
    }
    for (column, to) in rest.iter_mut().enumerate() {
        for row in 0..TALL {
            to[row] = data[row * down + whole + column] * scale;
        }
    }
}

/// Few rows, or rows of any strides: one tile, value by value.
fn line_by_line(matrix: Matrix<'_>, scale: f32, tall: usize, tile: &mut [f32]) {
    let Matrix { data, shape: [rows, columns], strides: [down, right] } = matrix;
    for (column, to) in tile.chunks_exact_mut(tall).take(columns).enumerate() {
        for (row, to) in to.iter_mut().enumerate() {
            *to = if row < rows { data[row * down + column * right] * scale } else { 0.0 };
        }
    }
}
