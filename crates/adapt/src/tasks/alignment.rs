//! Which token of which row stands for a word: the first of its tokens, in the window that shows most of what is around it.

use std::ops::Range;

use retune_data::{Example, Label, TextWindow, Tokens, Word, split_words};

/// Where the words of some examples are among their tokens.
#[derive(Debug)]
pub(super) struct Alignment {
    /// For each example the words, as the file has them or as a text is parted.
    words: Vec<Vec<Range<usize>>>,
    /// The words that each row stands for: the token among the row's, and the word among the example's.
    places: Vec<[u32; 2]>,
    /// Where those of each row begin.
    first_of_row: Vec<usize>,
    /// Words that have no token of their own: the example, and the word among its.
    lost: Vec<[usize; 2]>,
}

/// The words that a file gives, with their tags.
pub(super) fn given(example: &Example) -> Option<&[Word]> {
    match &example.label {
        Some(Label::Words(words)) => Some(words),
        _ => None,
    }
}

impl Alignment {
    /// Of `examples`, whose windows are the rows of `tokens`.
    pub fn new(examples: &[Example], tokens: &Tokens) -> Self {
        let words_of = |example: &Example| match given(example) {
            Some(words) => words.iter().map(Word::range).collect(),
            None => split_words(&example.text),
        };
        let words: Vec<Vec<Range<usize>>> = examples.iter().map(words_of).collect();
        let mut alignment = Alignment { words, places: Vec::new(), first_of_row: vec![0], lost: Vec::new() };
        let mut row = 0;
        for example in 0..alignment.words.len() {
            let rows =
                row..(row..tokens.len()).find(|row| tokens.example(*row) != example).unwrap_or(tokens.len());
            row = rows.end;
            alignment.add(example, tokens, rows);
        }
        alignment
    }

    fn add(&mut self, example: usize, tokens: &Tokens, rows: Range<usize>) {
        let words = &self.words[example];
        // Of each word the row, the token there and how far that is from where the window cuts the text.
        let mut best: Vec<Option<(usize, usize, usize)>> = vec![None; words.len()];
        for row in rows.clone() {
            let TextWindow { spans, begins, .. } = tokens.windows().row(row);
            let (cut_before, cut_behind) = (row > rows.start, row + 1 < rows.end);
            let mut token = 0;
            for (word, range) in words.iter().enumerate() {
                // A token may stand for nothing, such as a mark at the beginning of a text.
                while spans
                    .get(token)
                    .is_some_and(|[start, end]| *end as usize <= range.start || start == end)
                {
                    token += 1;
                }
                let Some([start, _]) = spans.get(token).filter(|[start, _]| (*start as usize) < range.end)
                else {
                    continue;
                };
                // The window begins in the middle of this word.
                let inside = token == 0 && cut_before && (*start as usize) > range.start;
                let before = if cut_before { token } else { usize::MAX };
                let behind = if cut_behind { spans.len() - 1 - token } else { usize::MAX };
                let seen = before.min(behind);
                if !inside && best[word].is_none_or(|(_, _, most)| seen > most) {
                    best[word] = Some((row, begins + token, seen));
                }
                // A token stands for the first of the words that it covers.
                token += 1;
            }
        }
        for (word, _) in best.iter().enumerate().filter(|(_, place)| place.is_none()) {
            self.lost.push([example, word]);
        }
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        for row in rows {
            let here = best.iter().enumerate().filter_map(|(word, place)| {
                place.filter(|(of, ..)| *of == row).map(|(_, token, _)| [narrow(token), narrow(word)])
            });
            self.places.extend(here);
            self.first_of_row.push(self.places.len());
        }
    }

    /// The words of an example: their bytes in its text.
    pub fn words(&self, example: usize) -> &[Range<usize>] {
        &self.words[example]
    }

    /// The words that stand in `row`: the token among the row's, and the word among the example's.
    pub fn places(&self, row: usize) -> &[[u32; 2]] {
        &self.places[self.first_of_row[row]..self.first_of_row[row + 1]]
    }

    /// Words that have no token: the example, and the word among its.
    pub fn lost(&self) -> &[[usize; 2]] {
        &self.lost
    }
}
