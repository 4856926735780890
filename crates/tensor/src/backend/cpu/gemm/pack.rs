//! Operands on their way into the innermost loops: laid out in the order in which these read.

use super::blocks::pack_blocks;
use super::kernel::Panels;
use crate::backend::Matrix;
use crate::backend::cpu::parallel::vectorised;
use crate::dtype::{Element, Values, with_values};

/// What operands are packed as: a value of some depth, or as many of neighbouring depths as are multiplied in one go.
pub(in crate::backend::cpu) trait Packed: bytemuck::Pod + Send + Sync {
    /// How many values it holds.
    const VALUES: usize;
    /// Rows and columns of a tile.
    fn tile() -> [usize; 2];
    /// The first value, or both of them, times `scale` if it is `SCALED`.
    fn join<E: Element, const SCALED: bool>(first: E, second: E, scale: f32) -> Self;
    /// The same of slices of one length.
    #[inline(always)]
    fn join_all<E: Element, const SCALED: bool>(first: &[E], second: &[E], scale: f32, out: &mut [Self]) {
        join_all::<Self, E, SCALED>(first, second, scale, out);
    }
    /// `TALL` rows, `down` values apart, of as many units as `tile` holds: `tile[unit, row]`.
    #[inline(always)]
    fn turn<E: Element, const SCALED: bool, const TALL: usize>(
        data: &[E],
        down: usize,
        scale: f32,
        tile: &mut [Self],
    ) {
        turn::<Self, E, SCALED, TALL>(data, down, scale, tile);
    }
    /// Runs `work`, which must be `#[inline(always)]`, compiled for the instructions that packing asks for.
    #[inline]
    fn vectorised<R>(work: impl FnOnce() -> R) -> R {
        vectorised(work)
    }
    /// A row along itself; what is missing of the last is 0.
    #[inline(always)]
    fn pack_row(row: &[f32], out: &mut [Self]) {
        pack_row(row, out);
    }
    /// The values as they lie, if they lie packed: in the order of the depth.
    fn in_place(values: Values<'_>) -> Option<&[Self]>;
    /// Computes the panels.
    fn multiply(panels: Panels<'_, Self>);
}

/// Value by value.
#[inline(always)]
pub(super) fn join_all<P: Packed, E: Element, const SCALED: bool>(
    first: &[E],
    second: &[E],
    scale: f32,
    out: &mut [P],
) {
    for (out, (first, second)) in out.iter_mut().zip(first.iter().zip(second)) {
        *out = P::join::<E, SCALED>(*first, *second, scale);
    }
}

/// Likewise.
#[inline(always)]
pub(super) fn pack_row<P: Packed>(row: &[f32], out: &mut [P]) {
    for (values, out) in row.chunks(P::VALUES).zip(out) {
        let last = values.get(P::VALUES - 1).copied().unwrap_or(0.0);
        *out = P::join::<f32, false>(values[0], last, 1.0);
    }
}

/// A cache line, so that no vector that is read lies across two of them.
#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Room for packed values, which grows to the most that was asked for.
#[derive(Default)]
pub(in crate::backend::cpu) struct Room(Vec<Line>);

#[expect(unsafe_code, reason = "a line is plain values, and bytemuck's derive is not worth a dependency")]
// SAFETY: sixteen u32 without padding; any bits are a value.
unsafe impl bytemuck::Zeroable for Line {}
#[expect(unsafe_code, reason = "likewise")]
// SAFETY: likewise.
unsafe impl bytemuck::Pod for Line {}

impl Room {
    /// `len` values of 32 bits, of whatever was there.
    pub(in crate::backend::cpu) fn take<P: bytemuck::Pod>(&mut self, len: usize) -> &mut [P] {
        let lines = len.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line::default());
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }
}

/// Packs the rows of `matrix` in tiles of `tall`: `out[tile, first + unit, row of the tile] = scale * matrix`, where a
/// unit is a column, or two, and a tile is `depth` units deep. Rows beyond the last become 0, so that every tile is whole,
/// and so does a column beyond the last. Columns of a matrix are the rows of its transpose.
pub(in crate::backend::cpu) fn pack<P: Packed>(
    matrix: Matrix<'_>,
    scale: f32,
    tall: usize,
    [first, depth]: [usize; 2],
    out: &mut [P],
) {
    if let Values::Blocks(blocks) = matrix.data {
        return pack_blocks(matrix, blocks, scale, tall, [first, depth], out);
    }
    let place = Place { shape: matrix.shape, strides: matrix.strides, scale, first, depth };
    with_values!(matrix.data, data => {
        // Only what is scaled is rounded again.
        if scale.to_bits() == 1.0f32.to_bits() {
            place.tall::<P, _, false>(data, tall, out);
        } else {
            place.tall::<P, _, true>(data, tall, out);
        }
    });
}

/// Where a matrix lies, and where it goes.
struct Place {
    shape: [usize; 2],
    strides: [usize; 2],
    scale: f32,
    first: usize,
    depth: usize,
}

impl Place {
    fn tall<P: Packed, E: Element, const SCALED: bool>(&self, data: &[E], tall: usize, out: &mut [P]) {
        // The tiles of each kind of vector, so that the loops over a tile's rows have no ends to look for.
        match tall {
            6 => self.tiles::<P, E, SCALED, 6>(data, out),
            8 => self.tiles::<P, E, SCALED, 8>(data, out),
            12 => self.tiles::<P, E, SCALED, 12>(data, out),
            16 => self.tiles::<P, E, SCALED, 16>(data, out),
            32 => self.tiles::<P, E, SCALED, 32>(data, out),
            _ => {
                for tile in 0..self.shape[0].div_ceil(tall) {
                    let out = &mut out[(tile * self.depth + self.first) * tall..];
                    self.slow::<P, E, SCALED>(data, tile * tall, 0, tall, out);
                }
            }
        }
    }

    fn tiles<P: Packed, E: Element, const SCALED: bool, const TALL: usize>(&self, data: &[E], out: &mut [P]) {
        P::vectorised(
            #[inline(always)]
            || {
                let Place { shape: [rows, columns], strides: [down, right], scale, first, depth } = *self;
                let whole = rows / TALL;
                // Units of columns that are all there.
                let units = columns / P::VALUES;
                if down == 1 && whole > 0 {
                    // All tiles of a unit before the next: what lies side by side is read at once.
                    for unit in 0..units {
                        let line = |value: usize| {
                            data[(unit * P::VALUES + value) * right..][..whole * TALL].as_chunks::<TALL>().0
                        };
                        let (upper, lower) = (line(0), line(P::VALUES - 1));
                        for tile in 0..whole {
                            let (upper, lower) = (&upper[tile], &lower[tile]);
                            let to = &mut out[(tile * depth + first + unit) * TALL..][..TALL];
                            if P::VALUES == 1 {
                                // Of a known number, which the compiler makes vectors of.
                                for row in 0..TALL {
                                    to[row] = P::join::<E, SCALED>(upper[row], upper[row], scale);
                                }
                            } else {
                                P::join_all::<E, SCALED>(upper, lower, scale, to);
                            }
                        }
                    }
                }
                for tile in 0..rows.div_ceil(TALL) {
                    let top = tile * TALL;
                    let to = &mut out[(tile * depth + first) * TALL..][..columns.div_ceil(P::VALUES) * TALL];
                    let mut done = 0;
                    if tile < whole && down == 1 {
                        done = units;
                    } else if tile < whole && right == 1 {
                        P::turn::<E, SCALED, TALL>(&data[top * down..], down, scale, &mut to[..units * TALL]);
                        done = units;
                    }
                    self.slow::<P, E, SCALED>(data, top, done, TALL, &mut to[done * TALL..]);
                }
            },
        );
    }

    /// The units from `unit` on of the rows from `top` on, value by value.
    fn slow<P: Packed, E: Element, const SCALED: bool>(
        &self,
        data: &[E],
        top: usize,
        unit: usize,
        tall: usize,
        out: &mut [P],
    ) {
        let Place { shape: [rows, columns], strides: [down, right], scale, .. } = *self;
        let units = columns.div_ceil(P::VALUES);
        for (unit, to) in (unit..units).zip(out.chunks_exact_mut(tall)) {
            for (row, to) in to.iter_mut().enumerate() {
                let value = |column: usize| match top + row < rows && column < columns {
                    true => data[(top + row) * down + column * right],
                    false => E::zeroed(),
                };
                let column = unit * P::VALUES;
                *to = P::join::<E, SCALED>(value(column), value(column + P::VALUES - 1), scale);
            }
        }
    }
}

/// Rows that lie in memory as rows: turned eight units at a time, so that what is read and written stays near.
#[inline(always)]
pub(super) fn turn<P: Packed, E: Element, const SCALED: bool, const TALL: usize>(
    data: &[E],
    down: usize,
    scale: f32,
    tile: &mut [P],
) {
    let (tile, _) = tile.as_chunks_mut::<TALL>();
    let whole = tile.len() / 8 * 8;
    let (chunks, rest) = tile.split_at_mut(whole);
    let (chunks, _) = chunks.as_chunks_mut::<8>();
    for (index, to) in chunks.iter_mut().enumerate() {
        for row in 0..TALL {
            let from = &data[row * down + index * 8 * P::VALUES..][..8 * P::VALUES];
            for unit in 0..8 {
                let (first, second) = (from[unit * P::VALUES], from[unit * P::VALUES + P::VALUES - 1]);
                to[unit][row] = P::join::<E, SCALED>(first, second, scale);
            }
        }
    }
    for (unit, to) in rest.iter_mut().enumerate() {
        for row in 0..TALL {
            let from = &data[row * down + (whole + unit) * P::VALUES..];
            to[row] = P::join::<E, SCALED>(from[0], from[P::VALUES - 1], scale);
        }
    }
}
