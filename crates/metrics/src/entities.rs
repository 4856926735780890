//! Named entities: what tags say, and how many of the entities that are there were found.
//!
//! The scores equal `seqeval`'s with `zero_division=0`: an entity is found if its type, its first and its last word are
//! right. By its default any change of type or of prefix begins or ends an entity, so a broken sequence such as `O I-x` has
//! one; in its strict mode an entity must be written as the scheme has it.

use std::ops::Range;

use serde::Serialize;

use crate::ratio::ratio;
use crate::{Bootstrap, ClassScore, Intervals, MetricError, Tally};

/// The place of a word in an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prefix {
    /// In none.
    O,
    /// At its beginning.
    B,
    /// Inside.
    I,
    /// At its end.
    E,
    /// It is all of it.
    S,
}

/// The tag of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    /// Where it is in an entity.
    pub prefix: Prefix,
    /// The number of the entity's type; of a word in none it says nothing.
    pub kind: u32,
}

impl Tag {
    /// Of a word in no entity.
    pub const OUTSIDE: Tag = Tag { prefix: Prefix::O, kind: u32::MAX };
}

/// What the strict mode takes for well written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// IOB2: `B`, then any number of `I` of its type.
    Iob2,
    /// IOBES: `S`, or `B`, any number of `I` and `E`, all of one type.
    Iobes,
}

/// An entity: its type and its words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entity {
    /// The number of its type.
    pub kind: u32,
    /// Its words.
    pub words: Range<usize>,
}

/// The entities of a sentence, as `seqeval` and `conlleval` read them: also where tags do not follow a scheme.
pub fn entities(tags: &[Tag]) -> Vec<Entity> {
    let (mut found, mut previous, mut start) = (Vec::new(), Tag::OUTSIDE, 0);
    for (place, tag) in tags.iter().chain([&Tag::OUTSIDE]).enumerate() {
        let other = previous.kind != tag.kind;
        if ends(previous.prefix, tag.prefix) || (previous.prefix != Prefix::O && other) {
            found.push(Entity { kind: previous.kind, words: start..place });
        }
        if starts(previous.prefix, tag.prefix) || (tag.prefix != Prefix::O && other) {
            start = place;
        }
        previous = *tag;
    }
    found
}

fn ends(previous: Prefix, prefix: Prefix) -> bool {
    match previous {
        Prefix::E | Prefix::S => true,
        Prefix::B | Prefix::I => matches!(prefix, Prefix::B | Prefix::S | Prefix::O),
        Prefix::O => false,
    }
}

fn starts(previous: Prefix, prefix: Prefix) -> bool {
    match prefix {
        Prefix::B | Prefix::S => true,
        Prefix::E | Prefix::I => matches!(previous, Prefix::E | Prefix::S | Prefix::O),
        Prefix::O => false,
    }
}

/// The entities of a sentence that are written as the scheme has it, as `seqeval` reads them in its strict mode. A prefix
/// that the scheme has not, which is an error there, is in no entity.
pub fn strict_entities(tags: &[Tag], strictness: Strictness) -> Vec<Entity> {
    let mut found = Vec::new();
    let mut place = 0;
    while let Some(first) = tags.get(place) {
        let starts = match strictness {
            Strictness::Iob2 => first.prefix == Prefix::B,
            Strictness::Iobes => matches!(first.prefix, Prefix::B | Prefix::S),
        };
        let start = place;
        place += 1;
        if !starts {
            continue;
        }
        let mut last = *first;
        while let Some(tag) = tags.get(place) {
            let inside = match strictness {
                Strictness::Iob2 => tag.prefix == Prefix::I,
                Strictness::Iobes => matches!(tag.prefix, Prefix::I | Prefix::E),
            };
            if !(inside && tag.kind == last.kind && matches!(last.prefix, Prefix::B | Prefix::I)) {
                break;
            }
            last = *tag;
            place += 1;
        }
        let whole = match strictness {
            Strictness::Iob2 => true,
            Strictness::Iobes => matches!(last.prefix, Prefix::E | Prefix::S),
        };
        if whole {
            found.push(Entity { kind: last.kind, words: start..place });
        }
    }
    found
}

/// Entities found, given and there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    right: u64,
    given: u64,
    gold: u64,
}

impl Counts {
    fn of(right: u64, given: usize, gold: usize) -> Self {
        Counts { right, given: given as u64, gold: gold as u64 }
    }

    fn add(&mut self, other: Counts) {
        self.right += other.right;
        self.given += other.given;
        self.gold += other.gold;
    }

    fn score(self) -> ClassScore {
        let [right, given, gold] = [self.right, self.given, self.gold].map(|count| count as f64);
        let (precision, recall) = (ratio(right, given), ratio(right, gold));
        // As seqeval computes it, from both and not from the counts: the last bit may differ.
        let f1 = ratio(2.0 * precision * recall, precision + recall);
        ClassScore { precision, recall, f1, support: self.gold }
    }
}

/// Of one sentence, small enough to be kept for intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sentence {
    right: u32,
    given: u32,
    gold: u32,
    right_words: u32,
    words: u32,
}

/// The entities of many sentences: a count a type, and twenty bytes a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntityCounts {
    strictness: Strictness,
    kinds: Vec<Counts>,
    strict: Counts,
    sentences: Vec<Sentence>,
}

/// The scores over a set of sentences, as they are reported and saved; all are in 0..=1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntityReport {
    /// F1 of all entities: `seqeval`'s default.
    pub f1: f64,
    /// Of the entities given, the share that are there.
    pub precision: f64,
    /// Of the entities there, the share that are given.
    pub recall: f64,
    /// The mean F1, each type counting the same.
    pub f1_macro: f64,
    /// F1 in `seqeval`'s strict mode.
    pub f1_strict: f64,
    /// Precision in its strict mode.
    pub precision_strict: f64,
    /// Recall in its strict mode.
    pub recall_strict: f64,
    /// The share of words with the right tag: it is high where entities are few, so it never stands for F1.
    pub token_accuracy: f64,
    /// Sentences the scores are over.
    pub rows: u64,
}

impl EntityCounts {
    /// Nothing counted yet, of entities of so many types.
    pub fn new(kinds: usize, strictness: Strictness) -> Self {
        let kinds = vec![Counts::default(); kinds];
        EntityCounts { strictness, kinds, strict: Counts::default(), sentences: Vec::new() }
    }

    /// Counts one sentence, and says what it adds to F1: entities right, given and there.
    ///
    /// # Errors
    /// If gold and predicted tags are not as many, or a type is none; the sentence is then not counted.
    pub fn record(&mut self, gold: &[Tag], predicted: &[Tag]) -> Result<Tally, MetricError> {
        if gold.len() != predicted.len() {
            return Err(MetricError::LengthMismatch { gold: gold.len(), predicted: predicted.len() });
        }
        for (label, tags) in [("gold", gold), ("predicted", predicted)] {
            let outside = |tag: &&Tag| tag.prefix != Prefix::O && tag.kind as usize >= self.kinds.len();
            if let Some(tag) = tags.iter().find(outside) {
                let (row, class) = (self.sentences.len() as u64, tag.kind as usize);
                return Err(MetricError::ClassOutOfRange { label, row, class, classes: self.kinds.len() });
            }
        }
        let (there, given) = (entities(gold), entities(predicted));
        there.iter().for_each(|entity| self.kinds[entity.kind as usize].gold += 1);
        given.iter().for_each(|entity| self.kinds[entity.kind as usize].given += 1);
        let mut right = 0;
        for entity in common(&there, &given) {
            self.kinds[entity.kind as usize].right += 1;
            right += 1;
        }
        let [strict_gold, strict_given] =
            [gold, predicted].map(|tags| strict_entities(tags, self.strictness));
        let strict_right = common(&strict_gold, &strict_given).count() as u64;
        self.strict.add(Counts::of(strict_right, strict_given.len(), strict_gold.len()));
        let same = |(one, other): &(&Tag, &Tag)| {
            one.prefix == other.prefix && (one.kind == other.kind || one.prefix == Prefix::O)
        };
        let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.sentences.push(Sentence {
            right,
            given: narrow(given.len()),
            gold: narrow(there.len()),
            right_words: narrow(gold.iter().zip(predicted).filter(same).count()),
            words: narrow(gold.len()),
        });
        Ok([f64::from(right), given.len() as f64, there.len() as f64, 0.0])
    }

    /// The F1 of sentences, from the sum of what [`EntityCounts::record`] said of each.
    pub fn f1_of(tally: &Tally) -> f64 {
        let [right, given, gold, _] = *tally;
        let (precision, recall) = (ratio(right, given), ratio(right, gold));
        ratio(2.0 * precision * recall, precision + recall)
    }

    /// The scores of each type: `[kinds]`.
    pub fn per_kind(&self) -> Vec<ClassScore> {
        self.kinds.iter().map(|counts| counts.score()).collect()
    }

    /// The number of sentences recorded.
    pub fn rows(&self) -> u64 {
        self.sentences.len() as u64
    }

    /// All the scores. The macro average is over types that are there or were given.
    pub fn report(&self) -> EntityReport {
        let mut all = Counts::default();
        self.kinds.iter().for_each(|counts| all.add(*counts));
        let met = || self.kinds.iter().filter(|counts| counts.given + counts.gold > 0);
        let f1_sum: f64 = met().map(|counts| counts.score().f1).sum();
        let (pooled, strict) = (all.score(), self.strict.score());
        let words = |count: fn(&Sentence) -> u32| self.sentences.iter().map(|s| f64::from(count(s))).sum();
        EntityReport {
            f1: pooled.f1,
            precision: pooled.precision,
            recall: pooled.recall,
            f1_macro: ratio(f1_sum, met().count() as f64),
            f1_strict: strict.f1,
            precision_strict: strict.precision,
            recall_strict: strict.recall,
            token_accuracy: ratio(words(|s| s.right_words), words(|s| s.words)),
            rows: self.rows(),
        }
    }

    /// The intervals of F1, precision, recall and token accuracy, over sentences drawn anew.
    ///
    /// # Errors
    /// As [`Bootstrap::over_rows`].
    pub fn intervals(&self, bootstrap: &Bootstrap) -> Result<Intervals, MetricError> {
        let ends = bootstrap.over_rows(self.sentences.len(), |drawn| {
            let mut counts = Counts::default();
            let (mut right_words, mut words) = (0.0, 0.0);
            for sentence in drawn.iter().map(|row| self.sentences[*row]) {
                counts.add(Counts {
                    right: sentence.right.into(),
                    given: sentence.given.into(),
                    gold: sentence.gold.into(),
                });
                right_words += f64::from(sentence.right_words);
                words += f64::from(sentence.words);
            }
            let score = counts.score();
            [score.f1, score.precision, score.recall, ratio(right_words, words)]
        })?;
        Ok(bootstrap.named(["f1", "precision", "recall", "token_accuracy"], ends))
    }
}

/// What two lists in the order of the text have in common: entities of one sentence never overlap.
fn common<'e>(one: &'e [Entity], other: &'e [Entity]) -> impl Iterator<Item = &'e Entity> {
    let mut rest = other.iter().peekable();
    one.iter().filter(move |entity| {
        while rest.next_if(|next| next.words.start < entity.words.start).is_some() {}
        rest.peek().is_some_and(|next| next == entity)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_scores_zero() {
        let report = EntityCounts::new(2, Strictness::Iob2).report();
        assert!([report.f1, report.f1_strict, report.token_accuracy].iter().all(|x| x.to_bits() == 0));
        assert!(EntityCounts::new(2, Strictness::Iob2).intervals(&Bootstrap::default()).is_err());
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_not_counted() {
        let mut counts = EntityCounts::new(2, Strictness::Iob2);
        let beyond = Tag { prefix: Prefix::B, kind: 2 };
        assert!(counts.record(&[Tag::OUTSIDE], &[beyond]).is_err());
        assert!(counts.record(&[Tag::OUTSIDE], &[]).is_err());
        assert_eq!(counts.rows(), 0);
    }
}
