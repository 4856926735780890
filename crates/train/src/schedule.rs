use serde::{Deserialize, Serialize};

/// How the learning rate goes on after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Down to 0 in a straight line.
    #[default]
    Linear,
    /// Down to 0 along half a cosine (Loshchilov and Hutter 2016).
    Cosine,
    /// It stays.
    Constant,
}

/// The learning rate of each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// After the warm-up.
    pub shape: Shape,
    /// The highest rate.
    pub learning_rate: f64,
    /// Steps of a straight climb from 0.
    pub warmup_steps: u64,
    /// All steps.
    pub total_steps: u64,
}

impl Schedule {
    /// The rate of `step`, counted from 0: what transformers' schedules of the same names give.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * step as f64 / self.warmup_steps.max(1) as f64;
        }
        let rest = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = ((step - self.warmup_steps) as f64 / rest).min(1.0);
        self.learning_rate
            * match self.shape {
                Shape::Linear => 1.0 - progress,
                Shape::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
                Shape::Constant => 1.0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of transformers' get_scheduler("linear" | "cosine" | "constant_with_warmup"), 3 of 10 steps warm-up.
    #[test]
    fn schedules_are_those_of_transformers() {
        let at =
            |shape, step| Schedule { shape, learning_rate: 1.0, warmup_steps: 3, total_steps: 10 }.at(step);
        let cases = [
            (Shape::Linear, [0.0, 0.333_333_333, 1.0, 0.571_428_571, 0.142_857_143]),
            (Shape::Cosine, [0.0, 0.333_333_333, 1.0, 0.611_260_467, 0.049_515_566]),
            (Shape::Constant, [0.0, 0.333_333_333, 1.0, 1.0, 1.0]),
        ];
        for (shape, expected) in cases {
            for (step, expected) in [0, 1, 3, 6, 9].into_iter().zip(expected) {
                assert!(
                    (at(shape, step) - expected).abs() < 1e-8,
                    "{shape:?} at {step}: {}",
                    at(shape, step)
                );
            }
        }
    }
}
