use retune_tensor::{ParamId, Parameters, Result as TensorResult, Tape, Tensor, Var, ops};
use serde_json::Value;

use super::super::{Adapter, DuringTraining, Update};
use super::{A, B, E};
use crate::AdaptError;

/// Shares out the ranks: as `peft`'s allocator, step by step.
pub(super) struct Budget {
    /// Steps before ranks fall, after they have fallen, and all.
    initial: u64,
    last: u64,
    total: u64,
    delta_t: u64,
    betas: [f32; 2],
    orthogonal_weight: f32,
    /// The mean rank at the end, times the layers.
    target: usize,
    /// A loaded adapter has lost what it had to lose.
    is_shared_out: bool,
    sites: Vec<Site>,
}

/// One layer's.
struct Site {
    a: Scored,
    b: Scored,
    e: Scored,
    /// 1 for each direction that it keeps, once ranks are final.
    kept: (String, Tensor),
}

/// A tensor, its smoothed importance and the smoothed change of that.
struct Scored {
    id: ParamId,
    names: [String; 2],
    averages: [Tensor; 2],
}

impl Scored {
    fn new(name: &str, id: ParamId, parameters: &Parameters) -> TensorResult<Self> {
        let value = &parameters.get(id).value;
        let zeros = || Tensor::zeros(value.device(), value.shape());
        let names = ["importance", "uncertainty"].map(|what| format!("{what}.{name}"));
        Ok(Scored { id, names, averages: [zeros()?, zeros()?] })
    }

    fn update(&mut self, parameters: &Parameters, update: Update<'_>, betas: [f32; 2]) -> TensorResult<()> {
        let Some(gradient) = update.gradients.get(self.id) else { return Ok(()) };
        let weights = parameters.get(self.id).value.f32();
        let [importance, uncertainty] = &mut self.averages;
        let averages = importance.f32_mut()?.iter_mut().zip(uncertainty.f32_mut()?);
        for ((importance, uncertainty), (w, g)) in averages.zip(weights.iter().zip(gradient.f32().iter())) {
            let now = (w * g * update.gradient_scale).abs();
            *importance = betas[0] * *importance + (1.0 - betas[0]) * now;
            *uncertainty = betas[1] * *uncertainty + (1.0 - betas[1]) * (now - *importance).abs();
        }
        Ok(())
    }

    fn score(&self, place: usize) -> f64 {
        let at = |average: &Tensor| average.f32().get(place).map_or(0.0, |x| f64::from(*x));
        at(&self.averages[0]) * at(&self.averages[1])
    }
}

impl Site {
    /// How many directions it has left.
    fn kept(&self) -> usize {
        self.kept.1.f32().iter().filter(|kept| **kept > 0.0).count()
    }

    /// The importance of each direction (eq. 7): of its `E`, and the means of its row of `A` and its column of `B`.
    fn scores(&self) -> Vec<f64> {
        let rank = self.e.averages[0].rows();
        let (width, out) = (self.a.averages[0].columns(), self.b.averages[0].rows());
        let mean = |count: usize, score: &dyn Fn(usize) -> f64| {
            (0..count).map(score).sum::<f64>() / count.max(1) as f64
        };
        (0..rank)
            .map(|k| {
                self.e.score(k)
                    + mean(width, &|j| self.a.score(k * width + j))
                    + mean(out, &|i| self.b.score(i * rank + k))
            })
            .collect()
    }
}

impl Budget {
    /// Of an adapter that has `[initial, last, total]` steps before it.
    pub(super) fn new(
        adapter: &Adapter,
        parameters: &Parameters,
        [initial, last, total]: [u64; 3],
    ) -> Result<Self, AdaptError> {
        let number = |key: &str, usual: f64| adapter.number(key).unwrap_or(usual);
        let mut sites = Vec::new();
        for (name, e) in &adapter.tensors {
            let Some(site) = name.strip_suffix(E) else { continue };
            let id = |end: &str| parameters.find(&format!("{site}{end}"));
            let (Some(a), Some(b)) = (id(A), id(B)) else { continue };
            if !parameters.get(*e).trainable {
                continue;
            }
            let value = &parameters.get(*e).value;
            let mut kept = Tensor::empty(value.device(), value.shape())?;
            kept.f32_mut()?.fill(1.0);
            sites.push(Site {
                a: Scored::new(&format!("{site}{A}"), a, parameters)?,
                b: Scored::new(&format!("{site}{B}"), b, parameters)?,
                e: Scored::new(name, *e, parameters)?,
                kept: (format!("kept.{name}"), kept),
            });
        }
        Ok(Budget {
            initial,
            last,
            total,
            delta_t: (number("deltaT", 1.0) as u64).max(1),
            betas: ["beta1", "beta2"].map(|key| number(key, 0.85) as f32),
            orthogonal_weight: number("orth_reg_weight", 0.5) as f32,
            target: number("target_r", 8.0) as usize * sites.len(),
            is_shared_out: !matches!(adapter.config.get("rank_pattern"), None | Some(Value::Null)),
            sites,
        })
    }

    fn start(&self) -> usize {
        self.sites.iter().map(|site| site.e.averages[0].rows()).sum()
    }

    /// The ranks that all layers have together after `step` (eq. 12).
    fn at(&self, step: u64) -> usize {
        let (from, to) = (self.start() as f64, self.target as f64);
        let end = self.total.saturating_sub(self.last);
        if step <= self.initial || end <= self.initial {
            return self.start();
        }
        let left = 1.0 - (step - self.initial) as f64 / (end - self.initial) as f64;
        ((from - to) * left.max(0.0).powi(3) + to) as usize
    }

    /// Takes the `E` of the least important directions away until `budget` are left; which are kept is noted.
    fn mask(&mut self, parameters: &mut Parameters, budget: usize) -> TensorResult<()> {
        let scores: Vec<Vec<f64>> = self.sites.iter().map(Site::scores).collect();
        let mut all = scores.concat();
        all.sort_by(f64::total_cmp);
        let lost = all.len().saturating_sub(budget);
        // The most important one that is lost; all as unimportant go with it.
        let Some(threshold) = lost.checked_sub(1).and_then(|place| all.get(place)).copied() else {
            return Ok(());
        };
        for (site, scores) in self.sites.iter_mut().zip(scores) {
            let kept = site.kept.1.f32_mut()?;
            kept.iter_mut()
                .zip(scores)
                .for_each(|(kept, score)| *kept = f32::from(u8::from(score > threshold)));
        }
        self.drop_lost(parameters)
    }

    fn drop_lost(&self, parameters: &mut Parameters) -> TensorResult<()> {
        for site in &self.sites {
            let e = parameters.get_mut(site.e.id).value.f32_mut()?;
            e.iter_mut()
                .zip(site.kept.1.f32())
                .for_each(|(e, kept)| *e = if *kept == 0.0 { 0.0 } else { *e });
        }
        Ok(())
    }
}

impl DuringTraining for Budget {
    fn penalty(&self, tape: &Tape, parameters: &Parameters) -> TensorResult<Option<Var>> {
        if self.orthogonal_weight == 0.0 || self.sites.is_empty() {
            return Ok(None);
        }
        let weight = self.orthogonal_weight / (2 * self.sites.len()) as f32;
        let mut norms = Vec::new();
        for site in &self.sites {
            for (part, side) in [(&site.a, ops::Side::Rows), (&site.b, ops::Side::Columns)] {
                let part = tape.parameter(parameters, part.id);
                norms.push((ops::orthogonality(tape, &part, side)?, weight));
            }
        }
        Ok(Some(ops::weighted_sum(tape, &norms)?))
    }

    fn reads_gradients(&self) -> bool {
        true
    }

    fn after_update(&mut self, parameters: &mut Parameters, update: Update<'_>) -> TensorResult<()> {
        if self.is_shared_out {
            return Ok(());
        }
        let end = self.total.saturating_sub(self.last);
        let step = update.step;
        if step > end {
            // A training that went back to a checkpoint, or passed a step over, may not have come by the end.
            let kept: usize = self.sites.iter().map(Site::kept).sum();
            return if kept > self.target {
                self.mask(parameters, self.target)
            } else {
                self.drop_lost(parameters)
            };
        }
        if step < end {
            for site in &mut self.sites {
                for part in [&mut site.a, &mut site.b, &mut site.e] {
                    part.update(parameters, update, self.betas)?;
                }
            }
        }
        let due = step > self.initial && step.is_multiple_of(self.delta_t);
        if step == end || due { self.mask(parameters, self.at(step)) } else { Ok(()) }
    }

    fn state(&mut self) -> Vec<(&str, &mut Tensor)> {
        let mut state = Vec::new();
        for site in &mut self.sites {
            for Scored { names, averages, .. } in [&mut site.a, &mut site.b, &mut site.e] {
                state.extend(names.iter().map(String::as_str).zip(averages));
            }
            state.push((&*site.kept.0, &mut site.kept.1));
        }
        state
    }

    fn finish(&self, adapter: &mut Adapter) {
        for (key, value) in [("tinit", self.initial), ("tfinal", self.last), ("total_step", self.total)] {
            adapter.config.insert(key.into(), value.into());
        }
    }
}
