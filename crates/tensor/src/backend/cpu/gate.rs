//! Gated linear units (Shazeer 2020): `y = f(a) b`, of two tensors, or of the halves of each row of one.

use rayon::prelude::*;

use super::activation::{Curve, with_curve};
use super::parallel::{BLOCK, rows_per_block, vectorised};
use crate::backend::Activation;
use crate::dtype::Element;

pub(super) fn forward<E: Element>(activation: Activation, gate: &[E], up: &[E], out: &mut [E]) {
    out.par_chunks_mut(BLOCK).zip(gate.par_chunks(BLOCK)).zip(up.par_chunks(BLOCK)).for_each(
        |((out, gate), up)| {
            vectorised(
                #[inline(always)]
                || product(activation, gate, up, out),
            );
        },
    );
}

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
            || product_backward(activation, [gate, up, gradient], [dgate, dup]),
        );
    });
}

/// `values [tokens, 2 columns]`: a, then b.
pub(super) fn forward_of_halves<E: Element>(
    activation: Activation,
    values: &[E],
    columns: usize,
    out: &mut [E],
) {
    if columns == 0 {
        return;
    }
    let rows = rows_per_block(2 * columns);
    out.par_chunks_mut(rows * columns).zip(values.par_chunks(2 * rows * columns)).for_each(
        |(out, values)| {
            vectorised(
                #[inline(always)]
                || {
                    for (out, row) in out.chunks_exact_mut(columns).zip(values.chunks_exact(2 * columns)) {
                        let (a, b) = row.split_at(columns);
                        product(activation, a, b, out);
                    }
                },
            );
        },
    );
}

pub(super) fn backward_of_halves<E: Element>(
    activation: Activation,
    values: &[E],
    gradient: &[E],
    columns: usize,
    out: &mut [E],
) {
    if columns == 0 {
        return;
    }
    let rows = rows_per_block(2 * columns);
    out.par_chunks_mut(2 * rows * columns)
        .zip(values.par_chunks(2 * rows * columns))
        .zip(gradient.par_chunks(rows * columns))
        .for_each(|((out, values), gradient)| {
            vectorised(
                #[inline(always)]
                || {
                    let rows = out.chunks_exact_mut(2 * columns).zip(values.chunks_exact(2 * columns));
                    for ((out, row), gradient) in rows.zip(gradient.chunks_exact(columns)) {
                        let ((a, b), (da, db)) = (row.split_at(columns), out.split_at_mut(columns));
                        product_backward(activation, [a, b, gradient], [da, db]);
                    }
                },
            );
        });
}

#[inline(always)]
fn product<E: Element>(activation: Activation, a: &[E], b: &[E], out: &mut [E]) {
    with_curve!(activation, F => {
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = E::put(F::value(a.get()) * b.get());
        }
    });
}

/// `da = dy b f'(a)`, `db = dy f(a)`
#[inline(always)]
fn product_backward<E: Element>(
    activation: Activation,
    [a, b, gradient]: [&[E]; 3],
    [da, db]: [&mut [E]; 2],
) {
    with_curve!(activation, F => {
        let inputs = a.iter().zip(b).zip(gradient);
        for (((a, b), gradient), (da, db)) in inputs.zip(da.iter_mut().zip(db)) {
            let gradient = gradient.get();
            let (active, back) = F::both(a.get(), gradient * b.get());
            *da = E::put(back);
            *db = E::put(active * gradient);
        }
    });
}
