use std::sync::Arc;

use retune_model::tokenizer::Tokenizer;
use retune_model::{Batch, BatchRow, ModelError};

use crate::Example;
use crate::windows::TextWindows;

/// The rows of a file as token ids, laid end to end: one allocation for all of them.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    input_ids: Vec<u32>,
    token_type_ids: Vec<u8>,
    offsets: Vec<usize>,
    /// Each row's stable number in its file, which keys its random draws.
    ids: Vec<u64>,
    /// The line on which it begins.
    lines: Vec<u64>,
    /// How many tokens were cut off.
    truncated: Vec<u32>,
    /// Which example each row is of: several rows are windows of one.
    examples: Vec<u32>,
    /// The tokens that each example has, uncut.
    full_lengths: Vec<u32>,
    /// What each row holds of its text, where texts are read in windows.
    windows: Arc<TextWindows>,
}

impl Tokens {
    /// Encodes `examples`, special tokens included, cut at `max_length`.
    pub fn new(tokenizer: &Tokenizer, examples: &[Example], max_length: usize) -> Result<Self, ModelError> {
        // Encodings are larger than ids by far: only a chunk of them exists at a time.
        const CHUNK: usize = 1024;
        let mut tokens = Tokens { offsets: vec![0], ..Tokens::default() };
        for chunk in examples.chunks(CHUNK) {
            let texts: Vec<_> =
                chunk.iter().map(|example| (example.text.as_str(), example.pair.as_deref())).collect();
            for (example, encoded) in chunk.iter().zip(tokenizer.encode_batch(&texts, max_length)?) {
                if encoded.input_ids.is_empty() {
                    let message = format!(
                        "line {} of the data gives no token, and no special token is added",
                        example.line
                    );
                    return Err(ModelError::Tokenizer { path: tokenizer.path().to_path_buf(), message });
                }
                tokens.input_ids.extend_from_slice(&encoded.input_ids);
                tokens.token_type_ids.extend(encoded.token_type_ids.iter().map(|id| u8::from(*id > 0)));
                tokens.offsets.push(tokens.input_ids.len());
                tokens.ids.push(example.row);
                tokens.lines.push(example.line);
                tokens.truncated.push(narrow(encoded.truncated));
                tokens.examples.push(narrow(tokens.full_lengths.len()));
                tokens.full_lengths.push(narrow(encoded.input_ids.len() + encoded.truncated));
            }
        }
        Ok(tokens)
    }

    /// Adds the spans of the tokens of a text, which several examples may be about. Returns where they begin.
    pub(crate) fn add_spans(&mut self, spans: &[[u32; 2]]) -> usize {
        Arc::make_mut(&mut self.windows).add_spans(spans)
    }

    /// Adds an example that is read in windows, of so many tokens before anything is cut.
    pub(crate) fn add_example(&mut self, full_length: usize) {
        self.full_lengths.push(narrow(full_length));
    }

    /// Adds a row, a window of the example that was added last. It holds `count` tokens of the text, whose spans begin at
    /// `first`, from the token `begins` of the row on; `lost` says how many tokens beside these were cut off.
    pub(crate) fn add_window(
        &mut self,
        (input_ids, token_type_ids): (Vec<u32>, Vec<u32>),
        [begins, first, count]: [usize; 3],
        lost: usize,
        example: &Example,
        number: u64,
    ) {
        if self.offsets.is_empty() {
            self.offsets.push(0);
        }
        let of = narrow(self.full_lengths.len().saturating_sub(1));
        Arc::make_mut(&mut self.windows).add(of, input_ids.len(), [begins, first, count]);
        self.input_ids.extend(input_ids);
        self.token_type_ids.extend(token_type_ids.into_iter().map(|id| u8::from(id > 0)));
        self.offsets.push(self.input_ids.len());
        // No text has so many windows that its numbers would run into the next row's.
        self.ids.push((example.row << 16) | (number & 0xffff));
        self.lines.push(example.line);
        self.truncated.push(narrow(lost));
        self.examples.push(of);
    }

    /// What each row holds of its text; nothing where texts are not read in windows.
    pub fn windows(&self) -> &Arc<TextWindows> {
        &self.windows
    }

    /// How many examples they are of: as many as rows, unless texts are read in windows.
    pub fn examples(&self) -> usize {
        self.full_lengths.len()
    }

    /// The example that row `row` is of.
    pub fn example(&self, row: usize) -> usize {
        self.examples[row] as usize
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How many tokens row `row` has.
    pub fn length(&self, row: usize) -> usize {
        self.offsets[row + 1] - self.offsets[row]
    }

    /// How many tokens all rows have.
    pub fn total(&self) -> usize {
        self.input_ids.len()
    }

    /// How many tokens each example has, before anything is cut.
    pub fn full_lengths(&self) -> Vec<usize> {
        self.full_lengths.iter().map(|length| *length as usize).collect()
    }

    /// How many tokens row `row` has lost.
    pub fn cut(&self, row: usize) -> usize {
        self.truncated[row] as usize
    }

    /// How many rows were cut.
    pub fn truncated(&self) -> usize {
        self.truncated.iter().filter(|cut| **cut > 0).count()
    }

    /// The line of its file on which row `row` begins.
    pub fn line(&self, row: usize) -> u64 {
        self.lines[row]
    }

    /// Rows, laid end to end.
    pub fn batch(&self, rows: &[usize]) -> Batch {
        // Type ids are widened here: two bytes of three would otherwise be zeros held for the whole run.
        let types: Vec<Vec<u32>> = rows
            .iter()
            .map(|row| self.token_type_ids[self.range(*row)].iter().map(|id| u32::from(*id)).collect())
            .collect();
        Batch::new(rows.iter().zip(&types).map(|(row, token_type_ids)| BatchRow {
            id: self.ids[*row],
            input_ids: &self.input_ids[self.range(*row)],
            token_type_ids,
        }))
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.offsets[row]..self.offsets[row + 1]
    }
}

/// No text that is held in memory has more tokens than that.
pub(crate) fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
