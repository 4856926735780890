//! The most confident mistakes: what is worth looking at first.

use super::Mistake;

/// The most confident of the mistakes that were seen, and never more of them in memory than twice that.
#[derive(Debug)]
pub(super) struct Mistakes {
    most: usize,
    kept: Vec<Mistake>,
}

impl Mistakes {
    pub fn new(most: usize) -> Self {
        Mistakes { most, kept: Vec::new() }
    }

    pub fn add(&mut self, mistake: Mistake) {
        if self.most == 0 {
            return;
        }
        self.kept.push(mistake);
        if self.kept.len() >= 2 * self.most {
            self.cut();
        }
    }

    /// The most confident first; equal ones in the order of the file.
    pub fn sorted(mut self) -> Vec<Mistake> {
        self.cut();
        self.kept
    }

    fn cut(&mut self) {
        self.kept.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.kept.truncate(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::About;

    #[test]
    fn the_most_confident_stay_in_order() {
        let mut mistakes = Mistakes::new(3);
        for (example, score) in [0.5, 0.9, 0.1, 0.9, 0.7, 0.95, 0.2].into_iter().enumerate() {
            let (expected, predicted) = (vec!["a".into()], "b".into());
            mistakes.add(Mistake { example, about: About::Text, expected, predicted, score });
        }
        let kept: Vec<usize> = mistakes.sorted().iter().map(|mistake| mistake.example).collect();
        assert_eq!(kept, [5, 1, 3]);
    }
}
