use std::sync::Arc;

use super::same_device;
use crate::{DType, Error, Result, Tape, Tensor, Var};

/// One table and what is looked up in it.
pub struct Lookup<'a> {
    /// `[entries, columns]`
    pub table: &'a Var,
    /// The entry of each token.
    pub ids: Arc<[u32]>,
    /// An entry that gets no gradient, as PyTorch's `padding_idx`.
    pub padding_idx: Option<u32>,
}

/// The sum over the lookups of `table[ids]`: `[tokens, columns]`, as `dtype`.
///
/// Errors if an id lies outside its table, or sizes or devices do not fit.
pub fn embedding(tape: &Tape, lookups: &[Lookup<'_>], dtype: DType) -> Result<Var> {
    const OP: &str = "embedding";
    let Some(first) = lookups.first() else {
        return Err(Error::shape(OP, "at least one table", 0));
    };
    let (tokens, columns) = (first.ids.len(), first.table.value().columns());
    for Lookup { table, ids, .. } in lookups {
        let entries = table.value().rows();
        table.value().expect(OP, &[entries, columns], "a table of shape")?;
        if ids.len() != tokens {
            return Err(Error::shape(OP, format!("{tokens} ids"), ids.len()));
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= entries) {
            return Err(Error::Index { op: OP, what: "id", index: *id as usize, len: entries });
        }
    }
    tape.look_up(lookups)?;
    let inputs: Vec<&Var> = lookups.iter().map(|lookup| lookup.table).collect();
    let device = same_device(OP, first.table, &inputs)?;
    let backend = device.backend();
    let mut value = Tensor::empty_as(device, dtype, &[tokens, columns])?;
    let tables: Vec<_> = lookups.iter().map(|lookup| (lookup.table.value().values(), &*lookup.ids)).collect();
    backend.embedding(&tables, columns, value.values_mut()?);

    Ok(tape.record(value, &inputs, || {
        let lookups: Vec<_> = lookups
            .iter()
            .map(|lookup| {
                (lookup.table.node(), lookup.table.value().rows(), lookup.ids.clone(), lookup.padding_idx)
            })
            .collect();
        move |gradient: Tensor, sink: &mut crate::Sink<'_>| {
            for (node, entries, ids, padding_idx) in lookups {
                sink.add_rows(node, entries, &ids, padding_idx, &gradient)?;
            }
            Ok(())
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::Check;

    #[test]
    fn gradients_follow_finite_differences() {
        let ids: Arc<[u32]> = Arc::from([3, 1, 3, 0, 6, 3]);
        let types: Arc<[u32]> = Arc::from([0, 0, 1, 1, 0, 1]);
        Check::new("embedding", &[&[7, 5], &[2, 5]]).run(|tape, vars| {
            let lookup = |table, ids: &Arc<[u32]>| Lookup { table, ids: ids.clone(), padding_idx: None };
            embedding(tape, &[lookup(&vars[0], &ids), lookup(&vars[1], &types)], DType::F32)
        });
    }

    #[test]
    fn an_id_outside_the_table_is_named() {
        let table = Var::constant(Tensor::zeros(crate::Device::Cpu, &[7, 5]).unwrap());
        let lookup = Lookup { table: &table, ids: Arc::from([2, 7]), padding_idx: None };
        let error = embedding(&Tape::inference(), &[lookup], DType::F32).unwrap_err();
        assert_eq!(error.to_string(), "embedding: id 7 is out of range, expected less than 7");
    }
}
