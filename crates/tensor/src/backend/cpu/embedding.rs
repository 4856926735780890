//! Rows out of tables, and gradients back into them.

use rayon::prelude::*;

use super::parallel::{Disjoint, rows_per_block, vectorised};
use crate::dtype::{Element, Values, with_values};

pub(super) fn forward<E: Element>(tables: &[(Values<'_>, &[u32])], columns: usize, out: &mut [E]) {
    if columns == 0 {
        return;
    }
    let rows = rows_per_block(columns);
    out.par_chunks_mut(rows * columns).enumerate().for_each(|(index, out)| {
        vectorised(
            #[inline(always)]
            || {
                let (mut sums, mut own) = (vec![0.0; columns], vec![0.0; columns]);
                for (row, out) in out.chunks_exact_mut(columns).enumerate() {
                    let token = index * rows + row;
                    sums.fill(0.0);
                    for (table, ids) in tables {
                        if let Values::Blocks(table) = table {
                            table.from(ids[token] as usize * columns).read(&mut own);
                            sums.iter_mut().zip(&own).for_each(|(sum, x)| *sum += x);
                            continue;
                        }
                        with_values!(table, table => {
                            let from = &table[ids[token] as usize * columns..][..columns];
                            sums.iter_mut().zip(from).for_each(|(sum, x)| *sum += x.get());
                        });
                    }
                    out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = E::put(*sum));
                }
            },
        );
    });
}

/// Blocks of columns run over all tokens in order, so that the sum of a row that occurs twice has one order.
pub(super) fn backward<E: Element>(
    gradient: &[E],
    ids: &[u32],
    columns: usize,
    padding_idx: Option<u32>,
    table: &mut [f32],
) {
    let rows = ids.iter().map(|id| (padding_idx != Some(*id)).then_some(*id as usize));
    add_rows(gradient, &rows, columns, table);
}

/// `table[rows[i]] += gradient[i]` for each row there is.
pub(super) fn add_rows<E: Element, F: Element>(
    gradient: &[E],
    rows: &(impl Iterator<Item = Option<usize>> + Clone + Sync),
    columns: usize,
    table: &mut [F],
) {
    const WIDTH: usize = 128;
    let table = Disjoint::new(table);
    (0..columns.div_ceil(WIDTH)).into_par_iter().for_each(|block| {
        let part = block * WIDTH..((block + 1) * WIDTH).min(columns);
        vectorised(
            #[inline(always)]
            || {
                for (gradient, row) in gradient.chunks_exact(columns).zip(rows.clone()) {
                    let Some(row) = row else { continue };
                    let range = row * columns + part.start..row * columns + part.end;
                    #[expect(unsafe_code, reason = "a block of columns over all rows is no chunk of a slice")]
                    // SAFETY: this task alone has this block of columns, and the slice ends with the iteration.
                    let sums = unsafe { table.slice(range) };
                    let gradient = &gradient[part.clone()];
                    sums.iter_mut().zip(gradient).for_each(|(sum, g)| *sum = F::put(sum.get() + g.get()));
                }
            },
        );
    });
}
