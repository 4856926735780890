//! How good predicted tags and their entities are, a batch at a time.

use std::ops::Range;

use retune_data::Example;
use retune_metrics::{Bootstrap, ConfusionMatrix, Entity, EntityCounts, Tag, Tally, entities};

use super::targets::TagTargets;
use crate::AdaptError;
use crate::tasks::alignment::words_of;
use crate::tasks::form::{About, LabelScore, Measured, Metrics, Mistake, Score, Scoring};
use crate::tasks::mistakes::Mistakes;
use crate::tasks::single_label::most_probable;

/// An evaluation: an example is counted when the rows of the next one come.
pub(super) struct TagScores<'a> {
    targets: &'a TagTargets,
    counts: EntityCounts,
    matrix: ConfusionMatrix,
    loss: f64,
    words: usize,
    /// The example that is under way.
    current: Option<Sentence>,
    scoring: Scoring,
    tallies: Vec<Tally>,
    mistakes: Mistakes,
}

/// An example whose rows come one after the other.
struct Sentence {
    number: usize,
    example: Example,
    gold: Vec<Tag>,
    /// The class of each of its words so far, and how probable it is.
    predicted: Vec<(usize, f32)>,
}

impl<'a> TagScores<'a> {
    /// Nothing counted yet.
    pub fn new(targets: &'a TagTargets, scoring: Scoring) -> Self {
        TagScores {
            targets,
            counts: EntityCounts::new(targets.form.kinds.len(), targets.form.strictness),
            matrix: ConfusionMatrix::new(targets.form.labels.len()),
            loss: 0.0,
            words: 0,
            current: None,
            scoring,
            tallies: Vec::new(),
            mistakes: Mistakes::new(scoring.mistakes),
        }
    }

    fn begin(&self, number: usize) -> Result<Sentence, AdaptError> {
        let example = self.targets.examples.at(number)?;
        let gold = self.targets.gold(&example)?;
        let predicted = vec![(self.targets.form.outside(), 0.0); gold.len()];
        Ok(Sentence { number, example, gold, predicted })
    }

    /// Counts an example whose rows all came.
    fn end(&mut self, sentence: &Sentence) {
        let form = &self.targets.form;
        let predicted: Vec<Tag> = sentence.predicted.iter().map(|(class, _)| form.tags[*class]).collect();
        // As many, of the form's own types.
        let Ok(tally) = self.counts.record(&sentence.gold, &predicted) else { return };
        for (gold, (class, _)) in sentence.gold.iter().zip(&sentence.predicted) {
            let counted = self.matrix.record(form.class(*gold), *class);
            debug_assert!(counted.is_ok(), "{counted:?}");
        }
        if self.scoring.tallies {
            self.tallies.push(tally);
        }
        if self.scoring.mistakes > 0 {
            self.note_mistakes(sentence, &entities(&sentence.gold), &entities(&predicted));
        }
    }

    /// Entities that are not there, and words of entities that were missed.
    fn note_mistakes(&mut self, sentence: &Sentence, gold: &[Entity], predicted: &[Entity]) {
        let form = &self.targets.form;
        let all = words_of(&sentence.example);
        let score = |words: &Range<usize>| {
            let sum: f32 = sentence.predicted[words.clone()].iter().map(|(_, score)| score).sum();
            sum / words.len().max(1) as f32
        };
        let overlapping = |entity: &Entity, others: &[Entity]| {
            let other = others
                .iter()
                .find(|other| other.words.start < entity.words.end && entity.words.start < other.words.end);
            other.map(|other| other.kind)
        };
        let wrong = |one: &[Entity], others: &[Entity]| {
            one.iter().filter(|entity| !others.contains(entity)).cloned().collect::<Vec<_>>()
        };
        let mistake = |words: &Range<usize>, gold: Option<u32>, predicted: Option<u32>| Mistake {
            example: sentence.number,
            about: About::Part(all[words.start].start..all[words.end - 1].end),
            expected: gold.map(|kind| form.kind_name(kind).to_string()).into_iter().collect(),
            predicted: predicted.map_or("", |kind| form.kind_name(kind)).to_string(),
            score: score(words),
        };
        let mut found = Vec::new();
        for entity in wrong(predicted, gold) {
            found.push(mistake(&entity.words, overlapping(&entity, gold), Some(entity.kind)));
        }
        for entity in wrong(gold, predicted) {
            // What was predicted there is a mistake already.
            if overlapping(&entity, predicted).is_none() {
                found.push(mistake(&entity.words, Some(entity.kind), None));
            }
        }
        found.into_iter().for_each(|mistake| self.mistakes.add(mistake));
    }
}

impl Score for TagScores<'_> {
    fn add(&mut self, rows: &[usize], logits: &[f32]) -> Result<(), AdaptError> {
        let labels = self.targets.form.labels.len().max(1);
        let mut first = 0;
        for row in rows {
            let row = self.targets.row(*row)?;
            let mut sentence = match self.current.take() {
                Some(sentence) if sentence.number == row.example => sentence,
                before => {
                    before.iter().for_each(|sentence| self.end(sentence));
                    self.begin(row.example)?
                }
            };
            for [token, word, target] in row.words {
                let at = (first + token as usize) * labels;
                let logits = logits.get(at..at + labels).unwrap_or_default();
                let (class, score) = most_probable(logits);
                let lse =
                    logits.get(class).map_or(f64::NAN, |logit| f64::from(*logit)) - f64::from(score).ln();
                self.loss += lse - logits.get(target as usize).map_or(f64::NAN, |logit| f64::from(*logit));
                self.words += 1;
                sentence.predicted[word as usize] = (class, score);
            }
            self.current = Some(sentence);
            first += row.length;
        }
        Ok(())
    }

    fn measure(mut self: Box<Self>, bootstrap: Option<Bootstrap>) -> Measured {
        let last = self.current.take();
        last.iter().for_each(|sentence| self.end(sentence));
        let TagScores { targets, counts, matrix, loss, words, tallies, mistakes, .. } = *self;
        let intervals = bootstrap.map(|bootstrap| counts.intervals(&bootstrap));
        Measured {
            loss: loss / (words as f64).max(1.0),
            metrics: Metrics::of(&counts.report(), counts.rows(), intervals),
            labels: LabelScore::named(&targets.form.kinds, counts.per_kind()),
            matrix: Some(matrix),
            thresholds: None,
            tallies,
            mistakes: mistakes.sorted(),
        }
    }
}
