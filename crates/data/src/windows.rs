//! Texts that are longer than a model reads: in windows that overlap.

use std::collections::HashMap;
use std::ops::Range;

use retune_model::ModelError;
use retune_model::tokenizer::Tokenizer;

use crate::examples::Examples;
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
        let mut tokens = Tokens::default();
        for chunk in examples.chunks(CHUNK) {
            let chunk = chunk?;
            let texts: Vec<&str> = chunk.iter().map(|example| example.text.as_str()).collect();
            for (example, text) in chunk.iter().zip(tokenizer.pieces_batch(&texts)?) {
                let place = tokens.add_spans(&text.spans);
                tokens.add_example(text.ids.len() + frame.len());
                for (number, window) in windows(text.ids.len(), room, overlap).enumerate() {
                    let row = frame.row(&text.ids[window.clone()]);
                    if row.0.is_empty() {
                        let message = format!(
                            "line {} of the data gives no token, and no special token is added",
                            example.line
                        );
                        return Err(
                            ModelError::Tokenizer { path: tokenizer.path().to_path_buf(), message }.into()
                        );
                    }
                    let held = [frame.first(), place + window.start, window.len()];
                    tokens.add_window(row, held, 0, example, number as u64)?;
                }
            }
        }
        Ok(tokens)
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
        let mut tokens = Tokens::default();
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
            let places: Vec<usize> = texts.iter().map(|text| tokens.add_spans(&text.spans)).collect();
            for ((example, question), text) in chunk.iter().zip(&questions).zip(text_of) {
                let (ids, place) = (&texts[text].ids, places[text]);
                tokens.add_example(question.ids.len() + ids.len() + frame.len());
                let kept = &question.ids[..question.ids.len().min(room / 2)];
                let lost = question.ids.len() - kept.len();
                let begins = frame.second(kept.len());
                let room = room - kept.len();
                if ids.len() > room && overlap >= room {
                    tokens.note_crowded();
                }
                for (number, window) in windows(ids.len(), room, overlap).enumerate() {
                    let row = frame.row(kept, &ids[window.clone()]);
                    let held = [begins, place + window.start, window.len()];
                    let lost = if number == 0 { lost } else { 0 };
                    tokens.add_window(row, held, lost, example, number as u64)?;
                }
            }
        }
        Ok(tokens)
    }
}

/// What each row of tokens holds of a text, where texts are read in windows.
#[derive(Debug, Clone, Default)]
pub struct TextWindows {
    rows: Vec<Row>,
    /// The bytes of the texts that their tokens stand for.
    spans: Vec<[u32; 2]>,
    crowded: usize,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    example: u32,
    length: u32,
    begins: u32,
    /// Among all spans.
    first: usize,
    count: u32,
}

/// A row that holds a part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextWindow<'a> {
    /// The example that the row is of.
    pub example: usize,
    /// How many tokens the row has.
    pub length: usize,
    /// The token of the row with which the text begins.
    pub begins: usize,
    /// The bytes of the text that each of its tokens stands for, from there on.
    pub spans: &'a [[u32; 2]],
}

impl TextWindows {
    pub(crate) fn add_spans(&mut self, spans: &[[u32; 2]]) -> usize {
        self.spans.extend_from_slice(spans);
        self.spans.len() - spans.len()
    }

    pub(crate) fn add(&mut self, example: u32, length: usize, [begins, first, count]: [usize; 3]) {
        let row =
            Row { example, length: narrow(length), begins: narrow(begins), first, count: narrow(count) };
        self.rows.push(row);
    }

    pub(crate) fn note_crowded(&mut self) {
        self.crowded += 1;
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

    /// The row at `row`; an empty one where there is none.
    pub fn row(&self, row: usize) -> TextWindow<'_> {
        let Some(Row { example, length, begins, first, count }) = self.rows.get(row).copied() else {
            return TextWindow { example: 0, length: 0, begins: 0, spans: &[] };
        };
        TextWindow {
            example: example as usize,
            length: length as usize,
            begins: begins as usize,
            spans: self.spans.get(first..first + count as usize).unwrap_or_default(),
        }
    }
}

impl TextWindow<'_> {
    /// The tokens of the row with which the bytes `answer` of the text begin and end. None if the row does not hold all of
    /// them.
    pub fn positions(&self, answer: Range<usize>) -> Option<[usize; 2]> {
        let TextWindow { begins, spans, .. } = *self;
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
