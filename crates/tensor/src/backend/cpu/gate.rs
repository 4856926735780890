//! A gated linear unit over two products.

use rayon::prelude::*;

use super::elementwise::{activate, differentiate};
use super::parallel::{BLOCK, vectorised};
use crate::backend::Activation;
use crate::dtype::Element;

/// Values that are widened at once.
const PIECE: usize = 1024;

pub(super) fn forward<E: Element>(activation: Activation, gate: &[E], up: &[E], out: &mut [E]) {
    out.par_chunks_mut(BLOCK).zip(gate.par_chunks(BLOCK)).zip(up.par_chunks(BLOCK)).for_each(
        |((out, gate), up)| {
            vectorised(
                #[inline(always)]
                || {
                    let mut piece = [0.0; PIECE];
                    let inputs = gate.chunks(PIECE).zip(up.chunks(PIECE));
                    for (out, (gate, up)) in out.chunks_mut(PIECE).zip(inputs) {
                        let active = &mut piece[..gate.len()];
                        active.iter_mut().zip(gate).for_each(|(to, x)| *to = x.get());
                        activate(activation, active);
                        for ((out, x), up) in out.iter_mut().zip(active.iter()).zip(up) {
                            *out = E::put(x * up.get());
                        }
                    }
                },
            );
        },
    );
}

/// With `y = f(a) b`: `da = dy b f'(a)`, `db = dy f(a)`.
pub(super) fn backward<E: Element>(
    activation: Activation,
    [gate, up, gradient]: [&[E]; 3],
    [dgate, dup]: [&mut [E]; 2],
) {
    let inputs = gate.par_chunks(BLOCK).zip(up.par_chunks(BLOCK)).zip(gradient.par_chunks(BLOCK));
    let outputs = dgate.par_chunks_mut(BLOCK).zip(dup.par_chunks_mut(BLOCK));
    inputs.zip(outputs).for_each(|(((gate, up), gradient), (dgate, dup))| {
        vectorised(
            #[inline(always)]
            || {
                let mut piece = [0.0; PIECE];
                let inputs = gate.chunks(PIECE).zip(up.chunks(PIECE)).zip(gradient.chunks(PIECE));
                let outputs = dgate.chunks_mut(PIECE).zip(dup.chunks_mut(PIECE));
                for (((gate, up), gradient), (dgate, dup)) in inputs.zip(outputs) {
                    let piece = &mut piece[..gate.len()];
                    for ((d, g), up) in piece.iter_mut().zip(gradient).zip(up) {
                        *d = g.get() * up.get();
                    }
                    differentiate(activation, gate, piece);
                    dgate.iter_mut().zip(piece.iter()).for_each(|(to, d)| *to = E::put(*d));
                    piece.iter_mut().zip(gate).for_each(|(to, x)| *to = x.get());
                    activate(activation, piece);
                    for ((to, x), g) in dup.iter_mut().zip(piece.iter()).zip(gradient) {
                        *to = E::put(x * g.get());
                    }
                }
            },
        );
    });
}
