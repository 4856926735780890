//! From logits to tags and entities, a batch at a time.

use std::ops::Range;

use retune_data::{Examples, Tokens};
use retune_metrics::{Entity, Tag, entities};

use super::EntityTags;
use crate::AdaptError;
use crate::tasks::alignment::{Alignment, rows_from, words_of};
use crate::tasks::form::{Answer, Answered, Decode, EntityAnswer};
use crate::tasks::single_label::most_probable;

/// The examples whose rows come, one after the other.
pub(super) struct TagDecode<'a> {
    form: &'a EntityTags,
    examples: &'a Examples,
    tokens: &'a Tokens,
    current: Option<Decoding>,
}

/// An example whose rows come one after the other.
struct Decoding {
    text: String,
    words: Vec<Range<usize>>,
    rows: Range<usize>,
    /// Where the words are in each of the rows.
    places: Vec<Vec<[u32; 2]>>,
    /// The class of each word so far, and how probable it is.
    predicted: Vec<(usize, f32)>,
}

impl<'a> TagDecode<'a> {
    /// Nothing read yet.
    pub fn new(form: &'a EntityTags, examples: &'a Examples, tokens: &'a Tokens) -> Self {
        TagDecode { form, examples, tokens, current: None }
    }

    /// The example that begins with `row`.
    fn begin(&self, row: usize) -> Result<Decoding, AdaptError> {
        let example = self.examples.at(self.tokens.example(row))?;
        let (words, rows) = (words_of(&example), rows_from(row, self.tokens));
        let places = Alignment::new(&words, self.tokens, rows.clone())?.places;
        let predicted = vec![(self.form.outside(), 0.0); words.len()];
        Ok(Decoding { text: example.text, words, rows, places, predicted })
    }

    fn answer(&self, Decoding { text, words, predicted, .. }: &Decoding) -> Answered {
        let tags: Vec<Tag> = predicted.iter().map(|(class, _)| self.form.tags[*class]).collect();
        let characters = |byte: usize| text[..byte].chars().count();
        let entity = |Entity { kind, words: of }: Entity| {
            let range = words[of.start].start..words[of.end - 1].end;
            let sum: f32 = predicted[of.clone()].iter().map(|(_, score)| score).sum();
            EntityAnswer {
                start: characters(range.start),
                end: characters(range.end),
                text: text[range].to_string(),
                kind: self.form.kind_name(kind).to_string(),
                score: sum / of.len().max(1) as f32,
            }
        };
        let entities = entities(&tags).into_iter().map(entity).collect();
        let names = predicted.iter().map(|(class, _)| self.form.labels.name(*class).unwrap_or_default());
        Answered {
            answer: Answer::Entities { entities, tags: Some(names.map(str::to_string).collect()) },
            logits: None,
        }
    }
}

impl Decode for TagDecode<'_> {
    fn add(&mut self, rows: &[usize], logits: &[f32]) -> Result<Vec<Answered>, AdaptError> {
        let labels = self.form.labels.len().max(1);
        let (mut answers, mut first) = (Vec::new(), 0);
        for row in rows {
            let mut under_way = match self.current.take() {
                Some(under_way) => under_way,
                None => self.begin(*row)?,
            };
            for [token, word] in &under_way.places[row - under_way.rows.start] {
                let at = (first + *token as usize) * labels;
                let logits = logits.get(at..at + labels).unwrap_or_default();
                under_way.predicted[*word as usize] = most_probable(logits);
            }
            first += self.tokens.length(*row);
            if row + 1 == under_way.rows.end {
                answers.push(self.answer(&under_way));
            } else {
                self.current = Some(under_way);
            }
        }
        Ok(answers)
    }
}
