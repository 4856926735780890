//! Which token of which row stands for a word: the first of its tokens, in the window that shows most of what is around it.

use std::ops::Range;

use retune_data::{DataError, Example, Label, TextWindow, Tokens, Word, split_words};

/// Where the words of an example are among the tokens of its rows.
#[derive(Debug)]
pub(super) struct Alignment {
    /// Of each row the words that stand in it: the token among the row's, and the word among the example's.
    pub places: Vec<Vec<[u32; 2]>>,
    /// Words that have no token of their own.
    pub lost: Vec<usize>,
}

/// The words that a file gives, with their tags.
pub(super) fn given(example: &Example) -> Option<&[Word]> {
    match &example.label {
        Some(Label::Words(words)) => Some(words),
        _ => None,
    }
}

/// The words of an example, as the file has them or as a text is parted: their bytes in its text.
pub(super) fn words_of(example: &Example) -> Vec<Range<usize>> {
    match given(example) {
        Some(words) => words.iter().map(Word::range).collect(),
        None => split_words(&example.text),
    }
}

impl Alignment {
    /// Of the `words` of the example whose windows are `rows` of `tokens`. Errors if the system cannot read these again.
    pub fn new(words: &[Range<usize>], tokens: &Tokens, rows: Range<usize>) -> Result<Self, DataError> {
        // Of each word the row, the token there and how far that is from where the window cuts the text.
        let mut best: Vec<Option<(usize, usize, usize)>> = vec![None; words.len()];
        for row in rows.clone() {
            let TextWindow { spans, begins, .. } = tokens.windows().row(row)?;
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
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let mut alignment = Alignment { places: vec![Vec::new(); rows.len()], lost: Vec::new() };
        for (word, place) in best.into_iter().enumerate() {
            match place {
                Some((row, token, _)) => {
                    alignment.places[row - rows.start].push([narrow(token), narrow(word)]);
                }
                None => alignment.lost.push(word),
            }
        }
        Ok(alignment)
    }
}

/// The rows of the example that begins with `row`.
pub(super) fn rows_from(row: usize, tokens: &Tokens) -> Range<usize> {
    let of = tokens.example(row);
    row..(row..tokens.len()).find(|row| tokens.example(*row) != of).unwrap_or(tokens.len())
}
