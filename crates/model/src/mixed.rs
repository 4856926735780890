//! A batch whose rows use different adapters of one base. What is the same for all of them runs over the whole batch;
//! where they differ, the rows of each go through what is theirs and come back into their places. So neither layers nor
//! methods know of other rows, and a row gives the same bits as in a batch of its own kind.

use std::collections::BTreeSet;
use std::sync::Arc;

use retune_tensor::backend::Layout;
use retune_tensor::{DType, Error, ParamId, Parameters, Result, Tape, Var, ops};

use crate::{Batch, Forward, Hooks};

/// An adapter on its base: the base's weights under their ids, some with other values, the adapter's own behind them, and
/// its hooks.
#[derive(Debug, Clone, Copy)]
pub struct Adapted<'a> {
    /// Weights that are the base's own share its memory.
    pub parameters: &'a Parameters,
    /// What the adapter put at the base's sites.
    pub hooks: &'a Hooks,
}

/// Lets what `parameters` have of the base use the memory that `first` has it in, where their values are the same: it is
/// resident once, and known to be no adapter's own.
pub fn share_base(parameters: &mut Parameters, first: &Parameters) {
    for ((_, own), (_, other)) in parameters.iter_mut().zip(first.iter()) {
        let same_place = own.name == other.name && own.value.shape() == other.value.shape();
        if same_place && own.value.values() == other.value.values() {
            own.value = other.value.clone();
        }
    }
}

/// Which rows of a batch use which adapter.
pub struct Mixture<'a> {
    /// What is the same for all rows is computed with.
    first: Adapted<'a>,
    groups: Vec<Group<'a>>,
    /// Weights of the base that have not the same values for all groups.
    own: BTreeSet<ParamId>,
}

/// The rows of one adapter.
struct Group<'a> {
    adapted: Adapted<'a>,
    rows: Vec<usize>,
    batch: Batch,
}

impl<'a> Mixture<'a> {
    /// `which` names for each row of `batch` its adapter among `adapted`, all of one base. Errors if it names none.
    pub fn new(adapted: &[Adapted<'a>], which: &[usize], batch: &Batch) -> Result<Self> {
        let (what, len) = ("adapter", adapted.len());
        let error = |index| Error::Index { op: "mixture", what, index, len };
        let chosen = |row: usize| which.get(row).copied().unwrap_or(len);
        if let Some(bad) = (0..batch.rows()).map(chosen).find(|adapter| *adapter >= len) {
            return Err(error(bad));
        }
        let mut groups: Vec<Group<'a>> = Vec::new();
        for (adapter, adapted) in adapted.iter().enumerate() {
            let rows: Vec<usize> = (0..batch.rows()).filter(|row| chosen(*row) == adapter).collect();
            if !rows.is_empty() {
                groups.push(Group { adapted: *adapted, batch: batch.of_rows(&rows), rows });
            }
        }
        let first = groups.first().map(|group| group.adapted).or(adapted.first().copied());
        let first = first.ok_or_else(|| error(0))?;
        let mut own = BTreeSet::new();
        for Group { adapted, .. } in &groups {
            for ((id, one), (_, other)) in first.parameters.iter().zip(adapted.parameters.iter()) {
                // A place may be the base's in one and the adapter's own in another, which no layer of the base asks for.
                if !one.value.shares(&other.value) {
                    own.insert(id);
                }
            }
        }
        Ok(Mixture { first, groups, own })
    }

    /// For each adapter that has rows, which these are.
    pub fn rows(&self) -> impl Iterator<Item = &[usize]> {
        self.groups.iter().map(|group| group.rows.as_slice())
    }
}

impl<'a> Forward<'a> {
    /// A pass without dropout over a batch whose rows use different adapters. It is for answers: adapters have the same ids
    /// for weights of their own, and gradients would meet.
    pub fn mixed(tape: &'a Tape, mixture: &'a Mixture<'a>, batch: &'a Batch, dtype: DType) -> Self {
        let Adapted { parameters, hooks } = mixture.first;
        Forward {
            tape,
            parameters,
            hooks,
            batch,
            dropout: None,
            mixture: Some(mixture),
            dtype,
            recompute: false,
            cache: None,
        }
    }

    /// Whether rows differ in the values of `ids`, or any has a hook at a place, as `hooked` says.
    pub(crate) fn differs(
        &self,
        ids: impl IntoIterator<Item = ParamId>,
        hooked: impl Fn(&Hooks) -> bool,
    ) -> bool {
        let Some(mixture) = self.mixture else { return false };
        ids.into_iter().any(|id| mixture.own.contains(&id))
            || mixture.groups.iter().any(|group| hooked(group.adapted.hooks))
    }

    /// What `of` is of the hooks of each row.
    pub(crate) fn count(&self, of: impl Fn(&Hooks) -> usize) -> Vec<usize> {
        let mut counts = vec![of(self.hooks); self.batch.rows()];
        for group in self.mixture.iter().flat_map(|mixture| &mixture.groups) {
            group.rows.iter().for_each(|row| counts[*row] = of(group.adapted.hooks));
        }
        counts
    }

    /// What `of` is for the rows of each adapter: for all at once where nothing is mixed.
    pub(crate) fn of_each<T>(&self, of: impl Fn(&Forward<'_>) -> Result<T>) -> Result<Vec<T>> {
        let Some(mixture) = self.mixture else { return Ok(vec![of(self)?]) };
        mixture.groups.iter().map(|group| of(&self.alone(group))).collect()
    }

    /// What `layer` makes of the rows of each adapter by themselves, told the number of the adapter: `inputs` lie as
    /// `layout` says, and what is made of each.
    pub fn each(
        &self,
        inputs: &[&Var],
        layout: &Arc<Layout>,
        layer: impl Fn(usize, &Forward<'_>, &[Var], &Arc<Layout>) -> Result<Var>,
    ) -> Result<Vec<Var>> {
        let Some(mixture) = self.mixture else {
            let inputs: Vec<Var> = inputs.iter().map(|input| (*input).clone()).collect();
            return Ok(vec![layer(0, self, &inputs, layout)?]);
        };
        let each = mixture.groups.iter().enumerate().map(|(number, group)| {
            let own = tokens(layout, &group.rows);
            let inputs = inputs.iter().map(|input| ops::select_rows(self.tape, input, &own));
            let inputs: Vec<Var> = inputs.collect::<Result<_>>()?;
            layer(number, &self.alone(group), &inputs, &Arc::new(layout.of_rows(&group.rows)))
        });
        each.collect()
    }

    /// The same in one, which lies as `out` says.
    pub(crate) fn apart(
        &self,
        inputs: &[&Var],
        [layout, out]: [&Arc<Layout>; 2],
        layer: impl Fn(usize, &Forward<'_>, &[Var], &Arc<Layout>) -> Result<Var>,
    ) -> Result<Var> {
        let mut parts = self.each(inputs, layout, layer)?;
        let (Some(mixture), Some(first)) = (self.mixture, parts.first()) else {
            let nothing = Error::Index { op: "mixture", what: "adapter", index: 0, len: 0 };
            return parts.pop().ok_or(nothing);
        };
        let columns = first.value().columns();
        let places: Vec<Vec<usize>> = mixture.rows().map(|rows| tokens(out, rows)).collect();
        let parts: Vec<_> = parts.iter().zip(places.iter().map(Vec::as_slice)).collect();
        ops::place_rows(self.tape, &parts, [out.tokens(), columns])
    }

    /// The pass as it is for the rows of one adapter.
    fn alone<'g>(&self, group: &'g Group<'_>) -> Forward<'g>
    where
        'a: 'g,
    {
        let Adapted { parameters, hooks } = group.adapted;
        Forward { parameters, hooks, batch: &group.batch, mixture: None, ..*self }
    }
}

/// Where the tokens of some rows lie.
fn tokens(layout: &Layout, rows: &[usize]) -> Vec<usize> {
    let ends = layout.cu_seqlens();
    rows.iter().flat_map(|row| ends[*row]..ends[row + 1]).collect()
}
