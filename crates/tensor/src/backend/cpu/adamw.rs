//! AdamW: one read and one write of weight and moments for each step, or for many steps of a row that has no gradient.

use rayon::prelude::*;

use super::parallel::{BLOCK, Disjoint, rows_per_block, vectorised};
use crate::backend::AdamW;

/// What a step does to every value.
pub(super) struct Factors {
    betas: [f32; 2],
    epsilon: f32,
    /// The learning rate over the first moment's correction.
    rate: f32,
    /// The root of the second moment's correction.
    root: f32,
    /// What the weight is multiplied with.
    decay: f32,
    gradient_scale: f32,
}

impl Factors {
    pub(super) fn new(step: &AdamW) -> Self {
        let power = |beta: f32| 1.0 - f64::from(beta).powf(step.step as f64);
        let [beta1, beta2] = step.betas;
        Factors {
            betas: step.betas,
            epsilon: step.epsilon,
            rate: (f64::from(step.learning_rate) / power(beta1)) as f32,
            root: power(beta2).sqrt() as f32,
            decay: 1.0 - step.learning_rate * step.weight_decay,
            gradient_scale: step.gradient_scale,
        }
    }

    #[inline(always)]
    pub(super) fn update(&self, gradient: f32, weight: &mut f32, first: &mut f32, second: &mut f32) {
        let [beta1, beta2] = self.betas;
        let g = gradient * self.gradient_scale;
        *first += (g - *first) * (1.0 - beta1);
        *second = *second * beta2 + g * g * (1.0 - beta2);
        *weight = *weight * self.decay - self.rate * *first / (second.sqrt() / self.root + self.epsilon);
    }

    /// Whether where both moments are 0 a step without a gradient is no more than the decay.
    fn is_sound(&self) -> bool {
        self.rate.is_finite() && self.epsilon > 0.0
    }
}

pub(super) fn step(step: AdamW, gradient: &[f32], weight: &mut [f32], [first, second]: [&mut [f32]; 2]) {
    let factors = Factors::new(&step);
    let (first, second) = (Disjoint::new(first), Disjoint::new(second));
    weight.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK)).enumerate().for_each(
        |(index, (weight, gradient))| {
            let range = index * BLOCK..index * BLOCK + weight.len();
            #[expect(
                unsafe_code,
                reason = "four slices in step; zip of four parallel iterators costs more than it shows"
            )]
            // SAFETY: the range is this block's own.
            let (first, second) = unsafe { (first.slice(range.clone()), second.slice(range)) };
            vectorised(
                #[inline(always)]
                || {
                    for (((w, g), m), v) in weight.iter_mut().zip(gradient).zip(first).zip(second) {
                        factors.update(*g, w, m, v);
                    }
                },
            );
        },
    );
}

/// The steps of each of `rows` from its place in `from` on: the last with its `gradient`, if there are any, all others
/// without one.
pub(super) fn rows(
    steps: &[AdamW],
    (rows, from): (&[u32], &[u32]),
    gradient: Option<&[f32]>,
    columns: usize,
    weight: &mut [f32],
    [first, second]: [&mut [f32]; 2],
) {
    assert!(rows.is_sorted_by(|one, next| one < next), "rows of a table, rising, each once");
    let steps: Vec<Factors> = steps.iter().map(Factors::new).collect();
    let (missed, last) = steps.split_at(steps.len() - usize::from(gradient.is_some()));
    let [weight, first, second] = [weight, first, second].map(Disjoint::new);
    // Rows have missed very different numbers of steps.
    let block = rows_per_block(columns).div_ceil(4);
    rows.par_chunks(block).zip(from.par_chunks(block)).enumerate().for_each(|(index, (rows, from))| {
        vectorised(
            #[inline(always)]
            || {
                for (place, (row, from)) in rows.iter().zip(from).enumerate() {
                    let range = *row as usize * columns..(*row as usize + 1) * columns;
                    #[expect(unsafe_code, reason = "chosen rows of a table are no chunks of a slice")]
                    // SAFETY: rows rise, so no two are the same, and each is in one block.
                    let (weight, first, second) = unsafe {
                        (weight.slice(range.clone()), first.slice(range.clone()), second.slice(range))
                    };
                    let missed = missed.get(*from as usize..).unwrap_or_default();
                    catch_up(missed, weight, first, second);
                    let (Some(gradient), [last]) = (gradient, last) else { continue };
                    let gradient = &gradient[(index * block + place) * columns..][..columns];
                    for (((w, g), m), v) in weight.iter_mut().zip(gradient).zip(first).zip(second) {
                        last.update(*g, w, m, v);
                    }
                }
            },
        );
    });
}

/// Steps without a gradient, with the values in registers: as many of them as a step of all rows, and none of its passes
/// over memory.
#[inline(always)]
fn catch_up(steps: &[Factors], weight: &mut [f32], first: &mut [f32], second: &mut [f32]) {
    const WIDTH: usize = 64;
    if steps.is_empty() {
        return;
    }
    // Rows that were never seen: most of them, in most trainings.
    let never = steps.iter().all(Factors::is_sound)
        && first.iter().chain(second.iter()).fold(0, |bits, x| bits | x.to_bits()) == 0;
    if never && steps.iter().all(|step| step.decay.to_bits() == 1f32.to_bits()) {
        return;
    }
    for ((weight, first), second) in
        weight.chunks_mut(WIDTH).zip(first.chunks_mut(WIDTH)).zip(second.chunks_mut(WIDTH))
    {
        let n = weight.len();
        let [mut w, mut m, mut v] = [[0.0f32; WIDTH]; 3];
        w[..n].copy_from_slice(weight);
        if never {
            for step in steps {
                w.iter_mut().for_each(|w| *w *= step.decay);
            }
            weight.copy_from_slice(&w[..n]);
            continue;
        }
        m[..n].copy_from_slice(first);
        v[..n].copy_from_slice(second);
        for step in steps {
            for ((w, m), v) in w.iter_mut().zip(&mut m).zip(&mut v) {
                step.update(0.0, w, m, v);
            }
        }
        weight.copy_from_slice(&w[..n]);
        first.copy_from_slice(&m[..n]);
        second.copy_from_slice(&v[..n]);
    }
}
