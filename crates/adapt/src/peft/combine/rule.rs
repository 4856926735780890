//! What becomes of numbers of several adapters that stand at one place.

use retune_tensor::random::Key;

/// Which numbers stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// All of them.
    None,
    /// Those farthest from 0 (TIES).
    Magnitude,
    /// Some, drawn, and the others make up for the lost (DARE).
    Random,
}

/// What the majority among signs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MajoritySign {
    /// The sign of the sum.
    Total,
    /// The sign that more of them have.
    Frequency,
}

/// How numbers are added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Which stay.
    pub prune: Prune,
    /// The share that stays.
    pub density: f64,
    /// The mean of those that agree with the majority of signs (TIES), and not the sum of all.
    pub elect: Option<MajoritySign>,
}

impl Rule {
    /// `parts` are of one length, with a weight and a key for the draws each.
    pub(super) fn add(&self, parts: &[&[f32]], weights: &[f32], keys: &[Key]) -> Vec<f32> {
        let parts: Vec<Vec<f32>> = parts.iter().zip(keys).map(|(part, key)| self.kept(part, *key)).collect();
        let length = parts.first().map_or(0, Vec::len);
        let at = |place: usize| parts.iter().zip(weights).map(move |(part, weight)| (part[place], *weight));
        (0..length)
            .map(|place| match self.elect {
                None => at(place).map(|(x, weight)| x * weight).sum(),
                Some(majority) => elected(at(place), majority),
            })
            .collect()
    }

    /// Numbers with those that are dropped as 0.
    fn kept(&self, values: &[f32], key: Key) -> Vec<f32> {
        let mut kept = values.to_vec();
        match self.prune {
            // As `peft`: at a density of 1 nothing is dropped, and nothing is scaled up.
            _ if self.density >= 1.0 => {}
            Prune::None => {}
            Prune::Magnitude => {
                let count = (self.density * values.len() as f64) as usize;
                let mut order: Vec<usize> = (0..values.len()).collect();
                order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()));
                order.iter().skip(count).for_each(|place| kept[*place] = 0.0);
            }
            Prune::Random => {
                let (mut stream, density) = (key.stream(), self.density as f32);
                for x in &mut kept {
                    *x = if stream.uniform() < density { *x / density } else { 0.0 };
                }
            }
        }
        kept
    }
}

/// The mean of the weighted numbers whose sign is that of the majority, weights left out of the vote as in `peft`.
fn elected(numbers: impl Iterator<Item = (f32, f32)> + Clone, majority: MajoritySign) -> f32 {
    // 0 has no vote and agrees with nobody.
    let sign = |x: f32| {
        if x > 0.0 {
            1.0
        } else if x < 0.0 {
            -1.0
        } else {
            0.0
        }
    };
    let vote: f32 = numbers
        .clone()
        .map(|(x, _)| match majority {
            MajoritySign::Total => x,
            MajoritySign::Frequency => sign(x),
        })
        .sum();
    let agrees = |x: f32| if vote >= 0.0 { x > 0.0 } else { x < 0.0 };
    let agreed: Vec<f32> = numbers.filter(|(x, _)| agrees(*x)).map(|(x, weight)| x * weight).collect();
    agreed.iter().sum::<f32>() / agreed.len().max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(prune: Prune, density: f64, elect: Option<MajoritySign>) -> Rule {
        Rule { prune, density, elect }
    }

    fn add(rule: Rule, parts: &[&[f32]], weights: &[f32]) -> Vec<f32> {
        let keys: Vec<Key> = (0..parts.len() as u64).map(Key::new).collect();
        rule.add(parts, weights, &keys)
    }

    #[test]
    fn the_papers_steps_by_hand() {
        // Yadav et al. 2023, figure 1: trim, elect, mean of those that agree.
        let parts: [&[f32]; 3] = [&[3.0, -1.0, 0.5, 0.0], &[-1.0, -2.0, 4.0, 0.0], &[2.0, 3.5, -0.25, 0.0]];
        let ties = |density, sign| add(rule(Prune::Magnitude, density, Some(sign)), &parts, &[1.0, 2.0, 1.0]);
        assert_eq!(ties(1.0, MajoritySign::Total), [2.5, 3.5, 4.25, 0.0]);
        assert_eq!(ties(1.0, MajoritySign::Frequency), [2.5, -2.5, 4.25, 0.0]);
        // Two of four stay: [3, -1], [-2, 4], [2, 3.5].
        assert_eq!(ties(0.5, MajoritySign::Total), [2.5, 3.5, 8.0, 0.0]);
        let pruned = add(rule(Prune::Magnitude, 0.25, None), &parts, &[1.0, 2.0, -1.0]);
        assert_eq!(pruned, [3.0, -3.5, 8.0, 0.0]);
    }

    #[test]
    fn what_is_dropped_at_random_is_made_up_for() {
        let ones = vec![1.0f32; 40_000];
        let dropped = rule(Prune::Random, 0.3, None).add(&[&ones], &[1.0], &[Key::new(7)]);
        let kept = dropped.iter().filter(|x| **x != 0.0).count() as f64 / 40_000.0;
        assert!((kept - 0.3).abs() < 0.01, "{kept}");
        assert!(dropped.iter().all(|x| *x == 0.0 || (x - 1.0 / 0.3).abs() < 1e-6));
        // Another key drops others.
        assert_ne!(dropped, rule(Prune::Random, 0.3, None).add(&[&ones], &[1.0], &[Key::new(8)]));
    }
}
