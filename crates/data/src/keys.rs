//! What makes rows alike: their texts and labels as numbers.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::error::DataError;
use crate::examples::{Example, Examples};
use crate::label::Label;

/// A number for each row's text and one for its label: rows are alike where they are equal.
///
/// Two different texts of a million have the same number once in 30 million files, and twelve bytes a row are what a large
/// file may cost; their words themselves would be many times that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    texts: Vec<u64>,
    labels: Vec<u32>,
}

impl Keys {
    /// Those of `examples`: of their texts but for case and white space, of questions over a text that
    /// of the text, of prompts and conversations with what is learnt behind.
    ///
    /// # Errors
    /// The system cannot read the rows again.
    pub fn of(examples: &Examples) -> Result<Self, DataError> {
        Self::of_each(examples, false)
    }

    /// The same, but that questions over one text are alike only where they ask the same.
    ///
    /// # Errors
    /// As of [`Keys::of`].
    pub fn with_questions(examples: &Examples) -> Result<Self, DataError> {
        Self::of_each(examples, true)
    }

    fn of_each(examples: &Examples, questions: bool) -> Result<Self, DataError> {
        let mut keys =
            Keys { texts: Vec::with_capacity(examples.len()), labels: Vec::with_capacity(examples.len()) };
        for example in examples.iter() {
            let example = example?;
            keys.texts.push(text(&example, questions));
            let mut label = DefaultHasher::new();
            // The text of a label is all of it.
            format!("{:?}", example.label).hash(&mut label);
            keys.labels.push((label.finish() >> 32) as u32);
        }
        Ok(keys)
    }

    /// Those of the rows at the places `chosen`.
    pub fn pick(&self, chosen: &[u32]) -> Self {
        let places = || chosen.iter().map(|place| *place as usize);
        Keys {
            texts: places().filter_map(|place| self.texts.get(place).copied()).collect(),
            labels: places().filter_map(|place| self.labels.get(place).copied()).collect(),
        }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// What stands for a row's label.
    pub fn label(&self, row: usize) -> u32 {
        self.labels[row]
    }

    /// Whether two rows have the same label.
    pub fn same_label(&self, row: usize, other: usize) -> bool {
        self.labels[row] == self.labels[other]
    }

    /// For each row the first one with the same text.
    pub fn groups(&self) -> Vec<u32> {
        let mut groups = vec![0; self.len()];
        self.each_group(|rows| rows.iter().for_each(|row| groups[*row as usize] = rows[0]));
        groups
    }

    /// Shows the rows of each text, in rising order, to `look`.
    pub fn each_group(&self, mut look: impl FnMut(&[u32])) {
        // Rows are counted in four bytes: see the table.
        let mut order: Vec<u32> = (0..u32::try_from(self.len()).unwrap_or(u32::MAX)).collect();
        order.sort_unstable_by_key(|row| (self.texts[*row as usize], *row));
        order.chunk_by(|a, b| self.texts[*a as usize] == self.texts[*b as usize]).for_each(&mut look);
    }

    /// Which of the rows of `eval` have a text that these have too.
    pub fn shared_with(&self, eval: &Keys) -> Vec<usize> {
        let wanted: HashSet<u64> = eval.texts.iter().copied().collect();
        let known: HashSet<u64> = self.texts.iter().copied().filter(|text| wanted.contains(text)).collect();
        (0..eval.len()).filter(|row| known.contains(&eval.texts[*row])).collect()
    }
}

fn text(example: &Example, questions: bool) -> u64 {
    let mut hash = DefaultHasher::new();
    let mut add = |text: &str| {
        for word in text.split_whitespace() {
            word.chars().flat_map(char::to_lowercase).for_each(|c| u32::from(c).hash(&mut hash));
            u32::from(' ').hash(&mut hash);
        }
        u32::MAX.hash(&mut hash);
    };
    add(&example.text);
    // Questions over one text must not be parted: one tells of the other.
    if questions || !matches!(example.label, Some(Label::Answers(_))) {
        example.pair.as_deref().map(&mut add);
    }
    // One prompt may have many answers, and many conversations begin with the same words.
    if let Some(Label::Lesson(lesson)) = &example.label {
        add(&lesson.learnt());
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_alike_by_words_and_not_by_their_spelling() {
        let rows = [
            ("a b", None),
            ("A  b ", None),
            ("ab", None),
            ("a b", Some("c")),
            ("a", Some("b c")),
            ("a b c", None),
        ];
        let example = |(row, (text, pair)): (usize, &(&str, Option<&str>))| Example {
            row: row as u64,
            line: row as u64 + 2,
            text: (*text).to_owned(),
            pair: pair.map(str::to_owned),
            label: (row % 2 == 0).then_some(Label::Number(row as f64)),
        };
        let examples: Vec<Example> = rows.iter().enumerate().map(example).collect();
        let keys = Keys::of(&examples.into()).unwrap();
        assert_eq!(keys.groups(), [0, 0, 2, 3, 4, 5]);
        assert!(keys.same_label(1, 3) && !keys.same_label(0, 2));
        assert_eq!(keys.pick(&[2, 3]).shared_with(&keys), [2, 3]);
    }
}
