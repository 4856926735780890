use std::collections::BTreeMap;

use retune_tensor::backend::AdamW;
use retune_tensor::{Error, Gradient, Gradients, ParamId, Parameters, Result, Tape, Tensor, adamw_8bit};

use crate::MomentKind;
use crate::lazy_table::LazyTable;
use crate::moments::Moments;

/// What AdamW is told once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSettings {
    /// Decays of the two moments.
    pub betas: [f32; 2],
    /// Keeps the division sound.
    pub epsilon: f32,
    /// Decoupled decay; biases and norms have none.
    pub weight_decay: f32,
    /// How the moments are kept.
    pub moments: MomentKind,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        AdamWSettings { betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.01, moments: MomentKind::Full }
    }
}

/// AdamW (Loshchilov and Hutter 2019) over the trained parameters, with its moments.
#[derive(Debug)]
pub struct Optimiser {
    settings: AdamWSettings,
    moments: BTreeMap<ParamId, Moments>,
    /// Of parameters that are tables, once they had a gradient of some rows.
    tables: BTreeMap<ParamId, LazyTable>,
    lazy: bool,
    /// Shares of the learning rate, where they are not 1.
    rates: BTreeMap<ParamId, f64>,
    steps: u64,
}

impl Optimiser {
    /// Nothing seen yet: both moments 0. They are made at once, so that the memory a run needs is taken at its start.
    pub fn new(parameters: &Parameters, settings: AdamWSettings) -> Result<Self> {
        let moments = parameters
            .trainable()
            .map(|(id, parameter)| Ok((id, Moments::new(parameter, settings.moments)?)))
            .collect::<Result<_>>()?;
        let (tables, rates) = (BTreeMap::new(), BTreeMap::new());
        Ok(Optimiser { settings, moments, tables, lazy: false, rates, steps: 0 })
    }

    /// Leaves rows of tables that have no gradient until they are read: whoever reads weights or moments calls
    /// [`Optimiser::refresh`] or [`Optimiser::flush`] before. The bits are then those of updates of all rows.
    pub fn lazy(self) -> Self {
        Optimiser { lazy: true, ..self }
    }

    /// Brings up to date what `pass` is about to look up. It is called as far as its first lookup, if any row of a table is
    /// behind.
    pub fn refresh<T>(
        &mut self,
        parameters: &mut Parameters,
        pass: impl FnOnce(&Tape, &Parameters) -> Result<T>,
    ) -> Result<()> {
        if !self.tables.values().any(LazyTable::is_behind) {
            return Ok(());
        }
        let tape = Tape::until_lookup();
        let pass = pass(&tape, parameters);
        for (id, ids) in tape.lookups(pass)? {
            if let (Some(table), Some(Moments::Full(moments))) =
                (self.tables.get_mut(&id), self.moments.get_mut(&id))
            {
                table.refresh(&ids, &mut parameters.get_mut(id).value, moments)?;
            }
        }
        Ok(())
    }

    /// Brings all rows of all tables up to date.
    pub fn flush(&mut self, parameters: &mut Parameters) -> Result<()> {
        for (id, table) in &mut self.tables {
            if let Some(Moments::Full(moments)) = self.moments.get_mut(id) {
                table.flush(&mut parameters.get_mut(*id).value, moments)?;
            }
        }
        Ok(())
    }

    /// Gives each parameter its own share of the learning rate, by its name.
    pub fn with_rates(mut self, parameters: &Parameters, rate: impl Fn(&str) -> f64) -> Self {
        self.rates = parameters.trainable().map(|(id, parameter)| (id, rate(&parameter.name))).collect();
        self
    }

    /// Updates made.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The moments of each trained parameter, all that is kept of them, by what it is.
    pub fn moments(&self) -> impl Iterator<Item = (ParamId, &'static str, &Tensor)> {
        let all = self.moments.iter();
        all.flat_map(|(id, moments)| moments.tensors().into_iter().map(|(what, tensor)| (*id, what, tensor)))
    }

    /// The same, to be brought back after `steps` updates, with the weights of then.
    pub fn resume_at(&mut self, steps: u64) -> impl Iterator<Item = (ParamId, &'static str, &mut Tensor)> {
        self.steps = steps;
        self.tables.clear();
        let all = self.moments.iter_mut();
        all.flat_map(|(id, moments)| {
            moments.tensors_mut().into_iter().map(|(what, tensor)| (*id, what, tensor))
        })
    }

    /// Begins the next update: with it each trained parameter that has a gradient is changed once, in any order. The
    /// gradients are first multiplied with `gradient_scale`.
    pub fn begin(&mut self, learning_rate: f64, gradient_scale: f32) -> Update<'_> {
        self.steps += 1;
        Update { optimiser: self, learning_rate, gradient_scale }
    }

    /// An update of all parameters at once.
    pub fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        learning_rate: f64,
        gradient_scale: f32,
    ) -> Result<()> {
        let mut update = self.begin(learning_rate, gradient_scale);
        gradients.iter().try_for_each(|(id, gradient)| update.apply(parameters, id, gradient))
    }
}

/// An update that has begun.
#[derive(Debug)]
pub struct Update<'a> {
    optimiser: &'a mut Optimiser,
    learning_rate: f64,
    gradient_scale: f32,
}

impl Update<'_> {
    /// Changes the parameter `id`, if it is trained. Errors if anyone else holds its value, or if it has rows that should
    /// have been brought up to date before the gradient was computed.
    pub fn apply(&mut self, parameters: &mut Parameters, id: ParamId, gradient: &Gradient) -> Result<()> {
        let Optimiser { settings, moments, tables, lazy, rates, steps } = &mut *self.optimiser;
        let Some(moments) = moments.get_mut(&id) else { return Ok(()) };
        let parameter = parameters.get_mut(id);
        let rate = rates.get(&id).copied().unwrap_or(1.0);
        let step = AdamW {
            learning_rate: (self.learning_rate * rate) as f32,
            betas: settings.betas,
            epsilon: settings.epsilon,
            weight_decay: if decays(&parameter.name) { settings.weight_decay } else { 0.0 },
            step: *steps,
            gradient_scale: self.gradient_scale,
        };
        let weight = &mut parameter.value;
        let was_up_to_date = match (moments, gradient) {
            (Moments::Full([first, second]), Gradient::Dense(gradient)) => {
                let moments = [first.f32_mut()?, second.f32_mut()?];
                weight.device().backend().adamw(step, gradient.f32(), weight.f32_mut()?, moments);
                !tables.get(&id).is_some_and(LazyTable::is_behind)
            }
            (Moments::Full(moments), Gradient::Rows(gradient)) => {
                let table = tables.entry(id).or_default();
                let was_up_to_date = table.update(step, gradient, weight, moments)?;
                if !*lazy {
                    table.flush(weight, moments)?;
                }
                was_up_to_date
            }
            (Moments::EightBit(moments), gradient) => {
                adamw_8bit(step, &gradient.to_dense()?, weight, moments)?;
                true
            }
        };
        if was_up_to_date {
            return Ok(());
        }
        let problem =
            "was read while some of its rows were behind in their updates; this is a fault of retune";
        Err(Error::Parameter { name: parameter.name.clone(), problem })
    }
}

/// Biases and norms are not pulled towards 0, as in the papers and in transformers.
fn decays(name: &str) -> bool {
    !(name.ends_with(".bias")
        || name.contains("LayerNorm.")
        || name.contains("layer_norm.")
        || name.contains("norm.weight")
        || name.contains(".ln_"))
}

#[cfg(test)]
mod tests {
    use super::decays;

    #[test]
    fn biases_and_norms_do_not_decay() {
        assert!(decays("bert.encoder.layer.0.attention.self.query.weight"));
        assert!(decays("base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"));
        assert!(!decays("bert.encoder.layer.0.output.dense.bias"));
        assert!(!decays("bert.embeddings.LayerNorm.weight"));
        assert!(!decays("transformer.h.0.ln_1.weight"));
        assert!(!decays("model.layers.0.post_attention_layernorm.weight"));
    }
}
