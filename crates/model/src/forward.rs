use retune_tensor::backend::Dropout;
use retune_tensor::random::Key;
use retune_tensor::{DType, ParamId, Parameters, Result, Tape, Var, ops};

use crate::{Batch, Hooks, KvCache, Mixture};

/// All that a forward pass reads. A model's layers hold ids and sizes; what flows comes from here.
#[derive(Clone, Copy)]
pub struct Forward<'a> {
    /// Records, or not.
    pub tape: &'a Tape,
    /// The weights.
    pub parameters: &'a Parameters,
    /// What a method put at named sites.
    pub hooks: &'a Hooks,
    /// The rows.
    pub batch: &'a Batch,
    /// (seed, epoch) while training; none switches every dropout off.
    pub dropout: Option<Key>,
    /// Where rows use different adapters, which do.
    pub mixture: Option<&'a Mixture<'a>>,
    /// What flows through the model's blocks. Heads, losses and all sums are f32 whatever this is.
    pub dtype: DType,
    /// Whether blocks keep nothing but their inputs, and are gone through once more on the way back.
    pub recompute: bool,
    /// What of the rows a decoder knows already, and where it keeps what it sees. It is for answers.
    pub cache: Option<&'a KvCache>,
}

impl Forward<'_> {
    /// The value of a parameter.
    pub fn parameter(&self, id: ParamId) -> Var {
        self.tape.parameter(self.parameters, id)
    }

    /// What the blocks made, as heads take it: f32.
    pub fn for_head(&self, hidden: &Var) -> Result<Var> {
        ops::cast(self.tape, hidden, DType::F32)
    }

    /// `block` of `inputs`: a model's blocks, one after another, are what can be recomputed. It must read nothing that is
    /// trained but by the pass that it is given. Errors as it does.
    pub fn block(
        &self,
        inputs: &[&Var],
        block: impl Fn(&Forward<'_>, &[Var]) -> Result<Var> + 'static,
    ) -> Result<Var> {
        if !self.recompute || self.mixture.is_some() || self.cache.is_some() {
            return block(self, &inputs.iter().map(|input| (*input).clone()).collect::<Vec<_>>());
        }
        let Forward { dropout, dtype, .. } = *self;
        let (hooks, batch) = (self.hooks.clone(), self.batch.clone());
        self.tape.recompute(self.parameters, inputs, move |tape, parameters, inputs| {
            let (hooks, batch, mixture) = (&hooks, &batch, None);
            let (recompute, cache) = (false, None);
            block(
                &Forward { tape, parameters, hooks, batch, dropout, mixture, dtype, recompute, cache },
                inputs,
            )
        })
    }

    /// The dropout of one site, whose name keys its draws; none outside training or at probability 0.
    pub fn dropout(&self, site: &str, probability: f32) -> Option<Dropout> {
        let key = self.dropout.filter(|_| probability > 0.0)?;
        Some(Dropout { probability, key: key.with_name(site) })
    }
}
