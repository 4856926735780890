//! Texts that are longer than a model reads: in windows that overlap.

use std::collections::HashMap;
use std::ops::Range;

use retune_model::ModelError;
use retune_model::tokenizer::{Pieces, Tokenizer};

use crate::error::DataError;
use crate::examples::Examples;
use crate::number_lists::NumberLists;
use crate::store::damaged;
use crate::tokens::{Tokens, TokensError, narrow};

/// Parts `tokens` into windows of at most `room`, each of which repeats the last `overlap` tokens of the one before, as
/// the `tokenizers` library does; an overlap that leaves no progress is half a window. No tokens are one empty window.
pub fn windows(tokens: usize, room: usize, overlap: usize) -> impl Iterator<Item = Range<usize>> {
    let room = room.max(1);
    let step = room.saturating_sub(overlap).max(if overlap < room { 1 } else { room.div_ceil(2) });
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let start = next?;
        let end = (start + room).min(tokens);
        next = (end < tokens).then_some(start + step);
        Some(start..end)
    })
}

impl Tokens {
    /// Encodes texts, each in as many windows as it needs.
    ///
    /// Errors if the tokenizer cannot encode a text, or `max_length` leaves no room.
    pub fn of_texts(
        tokenizer: &Tokenizer,
        examples: &Examples,
        max_length: usize,
        overlap: usize,
    ) -> Result<Self, TokensError> {
        // Pieces are larger than ids by far: only those of a chunk exist at a time.
        const CHUNK: usize = 1024;
        let frame = tokenizer.text_frame()?;
        let Some(room) = max_length.checked_sub(frame.len()).filter(|room| *room >= 1) else {
            let message = format!(
                "a max_length of {max_length} has no room for a text beside {} special tokens",
                frame.len()
            );
            return Err(ModelError::Tokenizer { path: tokenizer.path().to_path_buf(), message }.into());
        };
        let (mut tokens, mut held) = (Tokens::default(), TextWindows::default());
        for chunk in examples.chunks(CHUNK) {
            let chunk = chunk?;
            let texts: Vec<&str> = chunk.iter().map(|example| example.text.as_str()).collect();
            for (example, text) in chunk.iter().zip(tokenizer.pieces_batch(&texts)?) {
                tokens.add_example(text.ids.len() + frame.len());
                let count = text.ids.len();
                for (number, window) in (0..).zip(windows(count, room, overlap)) {
                    let (ids, types) = frame.row(&text.ids[window.clone()]);
                    if ids.is_empty() {
                        let message = format!(
                            "line {} of the data gives no token, and no special token is added",
                            example.line
                        );
                        return Err(
                            ModelError::Tokenizer { path: tokenizer.path().to_path_buf(), message }.into()
                        );
                    }
                    let of = tokens.add_part((&ids, types), 0, example, number)?;
                    let last = window.end == count;
                    held.add([of, narrow(ids.len())], last, frame.first(), &text.spans[window])?;
                }
            }
        }
        Ok(tokens.with_windows(held))
    }

    /// Encodes questions over texts: the second text of an example is the question, which stands first and whole in each
    /// window of the text. A question that would take more than half of a row is cut.
    ///
    /// Errors if the tokenizer cannot encode a text, joins two in an unknown way, or `max_length` leaves no room.
    pub fn of_questions(
        tokenizer: &Tokenizer,
        examples: &Examples,
        max_length: usize,
        overlap: usize,
    ) -> Result<Self, TokensError> {
        // Pieces are larger than ids by far: only those of a chunk exist at a time.
        const CHUNK: usize = 1024;
        let frame = tokenizer.pair_frame()?;
        let Some(room) = max_length.checked_sub(frame.len()).filter(|room| *room >= 2) else {
            let message = format!(
                "a max_length of {max_length} has no room for a question and a text beside {} special tokens",
                frame.len()
            );
            return Err(ModelError::Tokenizer { path: tokenizer.path().to_path_buf(), message }.into());
        };
        let (mut tokens, mut held) = (Tokens::default(), TextWindows::default());
        for chunk in examples.chunks(CHUNK) {
            let chunk = chunk?;
            // Many questions are about one text.
            let mut numbers: HashMap<&str, usize> = HashMap::new();
            let mut texts = Vec::new();
            let text_of: Vec<usize> = chunk
                .iter()
                .map(|example| {
                    *numbers.entry(&example.text).or_insert_with(|| {
                        texts.push(example.text.as_str());
                        texts.len() - 1
                    })
                })
                .collect();
            // As in transformers' script, where a question's first blanks would be a token of their own.
            let questions: Vec<&str> = chunk
                .iter()
                .map(|example| example.pair.as_deref().unwrap_or_default().trim_start())
                .collect();
            let (questions, texts) = (tokenizer.pieces_batch(&questions)?, tokenizer.pieces_batch(&texts)?);
            for ((example, question), text) in chunk.iter().zip(&questions).zip(text_of) {
                let Pieces { ids, spans } = &texts[text];
                tokens.add_example(question.ids.len() + ids.len() + frame.len());
                let kept = &question.ids[..question.ids.len().min(room / 2)];
                let lost = question.ids.len() - kept.len();
                let begins = frame.second(kept.len());
                let room = room - kept.len();
                if ids.len() > room && overlap >= room {
                    held.crowded += 1;
                }
                for (number, window) in (0..).zip(windows(ids.len(), room, overlap)) {
                    let (row, types) = frame.row(kept, &ids[window.clone()]);
                    let lost = if number == 0 { lost } else { 0 };
                    let of = tokens.add_part((&row, types), lost, example, number)?;
                    let last = window.end == ids.len();
                    held.add([of, narrow(row.len())], last, begins, &spans[window])?;
                }
            }
        }
        Ok(tokens.with_windows(held))
    }
}

/// What each row of tokens holds of a text, where texts are read in windows.
#[derive(Debug, Default)]
pub struct TextWindows {
    /// Of each row: its example, its length, whether it is the last of that, and where the text begins; then of each token
    /// of the text how far behind the one before it begins, and how many bytes it stands for.
    rows: NumberLists,
    crowded: usize,
}

/// A row that holds a part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextWindow {
    /// The example that the row is of.
    pub example: usize,
    /// How many tokens the row has.
    pub length: usize,
    /// Whether it is the last of its example.
    pub last: bool,
    /// The token of the row with which the text begins.
    pub begins: usize,
    /// The bytes of the text that each of its tokens stands for, from there on.
    pub spans: Vec<[u32; 2]>,
}

impl TextWindows {
    /// Adds a row of so many tokens. Errors if the system has no room for it.
    fn add(
        &mut self,
        [example, length]: [u32; 2],
        last: bool,
        begins: usize,
        spans: &[[u32; 2]],
    ) -> Result<(), DataError> {
        let mut before = 0;
        let steps = spans.iter().flat_map(|[start, end]| {
            // Tokens that stand for nothing may lie before the one before them: small steps back are small numbers too.
            let step = start.wrapping_sub(std::mem::replace(&mut before, *start)).cast_signed();
            [((step << 1) ^ (step >> 31)).cast_unsigned(), end.wrapping_sub(*start)]
        });
        self.rows.push([example, length, u32::from(last), narrow(begins)].into_iter().chain(steps))
    }

    /// How many questions leave so little of a row that windows of their texts share less than they should: half of it.
    pub fn crowded(&self) -> usize {
        self.crowded
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row at `row`.
    ///
    /// # Errors
    /// The system cannot read it again, or there is none.
    pub fn row(&self, row: usize) -> Result<TextWindow, DataError> {
        let numbers = self.rows.get(row)?;
        let ([example, length, last, begins], steps) = numbers.split_first_chunk().ok_or_else(damaged)?;
        let mut start = 0_u32;
        let (pairs, _) = steps.as_chunks();
        let spans = pairs.iter().map(|[step, count]| {
            start = start.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg());
            [start, start.wrapping_add(*count)]
        });
        Ok(TextWindow {
            example: *example as usize,
            length: *length as usize,
            last: *last == 1,
            begins: *begins as usize,
            spans: spans.collect(),
        })
    }
}

impl TextWindow {
    /// The tokens of the row with which the bytes `answer` of the text begin and end. None if the row does not hold all of
    /// them.
    pub fn positions(&self, answer: Range<usize>) -> Option<[usize; 2]> {
        let TextWindow { begins, spans, .. } = self;
        let (first, last) = (spans.first()?, spans.last()?);
        let [start, end] = [answer.start, answer.end].map(|byte| u32::try_from(byte).unwrap_or(u32::MAX));
        if first[0] > start || last[1] < end {
            return None;
        }
        // The last token that begins there or before, and the first that ends there or behind.
        let starts = spans.iter().take_while(|span| span[0] <= start).count().saturating_sub(1);
        let ends = spans.len() - spans.iter().rev().take_while(|span| span[1] >= end).count();
        Some([begins + starts, begins + ends])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_overlap_and_reach_the_end() {
        let of = |tokens, room, overlap| {
            windows(tokens, room, overlap).map(|window| (window.start, window.end)).collect::<Vec<_>>()
        };
        assert_eq!(of(10, 4, 1), [(0, 4), (3, 7), (6, 10)]);
        assert_eq!(of(11, 4, 1), [(0, 4), (3, 7), (6, 10), (9, 11)]);
        assert_eq!(of(4, 4, 1), [(0, 4)]);
        assert_eq!(of(0, 4, 1), [(0, 0)]);
        assert_eq!(of(5, 2, 0), [(0, 2), (2, 4), (4, 5)]);
        assert_eq!(of(5, 3, 2), [(0, 3), (1, 4), (2, 5)]);
        // An overlap that would never end.
        assert_eq!(of(7, 4, 4), [(0, 4), (2, 6), (4, 7)]);
        assert_eq!(of(3, 0, 9), [(0, 1), (1, 2), (2, 3)]);
    }
}
