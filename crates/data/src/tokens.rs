use std::sync::Arc;

use rayon::prelude::*;
use retune_model::tokenizer::Tokenizer;
use retune_model::{Batch, BatchRow, ModelError};

use crate::error::DataError;
use crate::examples::{Example, Examples};
use crate::store::{self, Store, put_varint, take_varint};
use crate::windows::TextWindows;

/// The rows of a file as token ids. Of a row only its length and its line are in memory, unless there are few: see
/// [`Tokens::batch`].
#[derive(Debug, Default)]
pub struct Tokens {
    /// Of each row its stable number in its file, which keys its random draws; its token ids; and of the two types, which
    /// take turns from type 0 on, how many tokens each turn has.
    rows: Store,
    lengths: Vec<u32>,
    /// The line on which each row begins.
    lines: Vec<u32>,
    /// The rows that were cut, in their order, and how many tokens they lost.
    cuts: Vec<[u32; 2]>,
    total: usize,
    /// One more than the largest id.
    ids_end: u32,
    /// Whether there is a token of type 1.
    typed: bool,
    /// Which example each row is of, where texts are read in windows and an example may have several rows.
    examples: Vec<u32>,
    /// The tokens that each example has, uncut, where texts are read in windows.
    full_lengths: Vec<u32>,
    /// What each row holds of its text, where texts are read in windows.
    windows: Arc<TextWindows>,
}

impl Tokens {
    /// Encodes `examples`, special tokens included, cut at `max_length`.
    ///
    /// # Errors
    /// The tokenizer cannot encode a text, or the system has no room for the tokens.
    pub fn new(tokenizer: &Tokenizer, examples: &Examples, max_length: usize) -> Result<Self, TokensError> {
        // Encodings are larger than ids by far: only those of a chunk exist at a time, and the thread that made one drops it.
        const CHUNK: usize = 2048;
        let mut tokens = Tokens::default();
        let mut rest = examples.iter();
        let mut read = || rest.by_ref().take(CHUNK).collect::<Result<Vec<Example>, DataError>>();
        let row = |example: &Example| {
            let encoded = tokenizer.encode(&example.text, example.pair.as_deref(), max_length)?;
            if encoded.input_ids.is_empty() {
                let line = example.line;
                let message =
                    format!("line {line} of the data gives no token, and no special token is added");
                return Err(ModelError::Tokenizer { path: tokenizer.path().to_path_buf(), message });
            }
            let types = encoded.token_type_ids.into_iter();
            Ok(Packed::of(example.row, example.line, &encoded.input_ids, types, encoded.truncated))
        };
        let mut chunk = read()?;
        while !chunk.is_empty() {
            // The next rows are read beside, so that no thread waits for them.
            let (rows, next) = rayon::join(|| chunk.par_iter().map(row).collect::<Vec<_>>(), &mut read);
            // In their order, so that the first bad row is told whichever thread was faster.
            for row in rows {
                tokens.push(&row?)?;
            }
            chunk = next?;
        }
        Ok(tokens)
    }

    /// Adds a row: its number, its line, its tokens, and how many of them were cut off.
    pub fn add(
        &mut self,
        number: u64,
        line: u64,
        input_ids: &[u32],
        token_type_ids: impl Iterator<Item = u32>,
        cut: usize,
    ) -> Result<(), DataError> {
        self.push(&Packed::of(number, line, input_ids, token_type_ids, cut))
    }

    fn push(&mut self, row: &Packed) -> Result<(), DataError> {
        self.rows.push(&row.bytes)?;
        if row.cut > 0 {
            self.cuts.push([narrow(self.lengths.len()), row.cut]);
        }
        self.ids_end = self.ids_end.max(row.ids_end);
        self.typed |= row.typed;
        self.lengths.push(row.length);
        self.lines.push(row.line);
        self.total += row.length as usize;
        Ok(())
    }

    /// Adds an example that is read in windows, of so many tokens before anything is cut.
    pub fn add_example(&mut self, full_length: usize) {
        self.full_lengths.push(narrow(full_length));
    }

    /// Adds a row, the part `number` of the example that was added last: its tokens, their types, and how many tokens were cut
    /// off. Returns that example's number among all.
    pub fn add_part(
        &mut self,
        (input_ids, token_type_ids): (&[u32], Vec<u32>),
        lost: usize,
        example: &Example,
        number: u64,
    ) -> Result<u32, DataError> {
        // Numbers of a text of more parts than that come twice, and so do their random draws.
        let number = (example.row << 16) | (number & 0xffff);
        self.add(number, example.line, input_ids, token_type_ids.into_iter(), lost)?;
        let of = narrow(self.full_lengths.len().saturating_sub(1));
        self.examples.push(of);
        Ok(of)
    }

    /// Says what each row holds of its text.
    pub(crate) fn with_windows(self, windows: TextWindows) -> Self {
        Tokens { windows: Arc::new(windows), ..self }
    }

    /// What each row holds of its text; nothing where texts are not read in windows.
    pub fn windows(&self) -> &Arc<TextWindows> {
        &self.windows
    }

    /// How many examples they are of: as many as rows, unless texts are read in windows.
    pub fn examples(&self) -> usize {
        if self.full_lengths.is_empty() { self.len() } else { self.full_lengths.len() }
    }

    /// The example that row `row` is of.
    pub fn example(&self, row: usize) -> usize {
        self.examples.get(row).map_or(row, |example| *example as usize)
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// How many tokens row `row` has.
    pub fn length(&self, row: usize) -> usize {
        self.lengths[row] as usize
    }

    /// How many tokens each row has.
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// How many tokens all rows have.
    pub fn total(&self) -> usize {
        self.total
    }

    /// How many tokens each example has, before anything is cut.
    pub fn full_lengths(&self) -> Vec<u32> {
        if !self.full_lengths.is_empty() {
            return self.full_lengths.clone();
        }
        let mut lengths = self.lengths.clone();
        self.cuts.iter().for_each(|[row, cut]| lengths[*row as usize] += cut);
        lengths
    }

    /// How many tokens row `row` has lost.
    pub fn cut(&self, row: usize) -> usize {
        let place = self.cuts.binary_search_by_key(&row, |[row, _]| *row as usize);
        place.map_or(0, |place| self.cuts[place][1] as usize)
    }

    /// How many rows were cut.
    pub fn truncated(&self) -> usize {
        self.cuts.len()
    }

    /// The line of its file on which row `row` begins.
    pub fn line(&self, row: usize) -> u64 {
        u64::from(self.lines[row])
    }

    /// One more than the largest token id of all rows.
    pub fn ids_end(&self) -> u32 {
        self.ids_end
    }

    /// Whether there are tokens of type 1, as the second text of a pair has.
    pub fn has_types(&self) -> bool {
        self.typed
    }

    /// Rows, laid end to end.
    ///
    /// # Errors
    /// The system cannot read them again.
    pub fn batch(&self, rows: &[usize]) -> Result<Batch, DataError> {
        let read = |row: &usize| match self.rows.get(*row)? {
            Some(bytes) => TokenRow::read(&bytes).ok_or_else(store::damaged),
            None => Err(store::damaged()),
        };
        Ok(batch(&rows.iter().map(read).collect::<Result<Vec<_>, _>>()?))
    }

    /// The token ids of each row, in order, for a look at all of them.
    pub fn ids(&self) -> impl Iterator<Item = Result<Vec<u32>, DataError>> {
        self.rows.iter().map(|bytes| Ok(TokenRow::read(&bytes?).ok_or_else(store::damaged)?.input_ids))
    }
}

/// A row as it is stored, and what is told of it.
struct Packed {
    bytes: Vec<u8>,
    line: u32,
    length: u32,
    cut: u32,
    ids_end: u32,
    typed: bool,
}

impl Packed {
    fn of(
        number: u64,
        line: u64,
        input_ids: &[u32],
        token_type_ids: impl Iterator<Item = u32>,
        cut: usize,
    ) -> Self {
        // Most ids take two bytes.
        let mut bytes = Vec::with_capacity(2 * input_ids.len() + 16);
        put_varint(&mut bytes, number);
        put_varint(&mut bytes, input_ids.len() as u64);
        input_ids.iter().for_each(|id| put_varint(&mut bytes, u64::from(*id)));
        let (mut typed, mut one, mut turn) = (false, false, 0);
        for id in token_type_ids {
            if (id > 0) != one {
                put_varint(&mut bytes, turn);
                (one, turn, typed) = (!one, 0, true);
            }
            turn += 1;
        }
        put_varint(&mut bytes, turn);
        Packed {
            bytes,
            line: u32::try_from(line).unwrap_or(u32::MAX),
            length: narrow(input_ids.len()),
            cut: narrow(cut),
            ids_end: input_ids.iter().max().map_or(0, |id| id.saturating_add(1)),
            typed,
        }
    }
}

struct TokenRow {
    number: u64,
    input_ids: Vec<u32>,
    token_type_ids: Vec<u32>,
}

impl TokenRow {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut at = 0;
        let number = take_varint(bytes, &mut at)?;
        let count = usize::try_from(take_varint(bytes, &mut at)?).ok()?;
        let id = |_| u32::try_from(take_varint(bytes, &mut at)?).ok();
        let input_ids = (0..count).map(id).collect::<Option<Vec<u32>>>()?;
        let mut token_type_ids = Vec::with_capacity(count);
        for turn in 0.. {
            let length = usize::try_from(take_varint(bytes, &mut at)?).ok()?;
            token_type_ids.extend(std::iter::repeat_n(turn % 2, length.min(count)));
            if token_type_ids.len() >= count {
                break;
            }
        }
        Some(TokenRow { number, input_ids, token_type_ids })
    }
}

fn batch(rows: &[TokenRow]) -> Batch {
    Batch::new(rows.iter().map(|row| BatchRow {
        id: row.number,
        input_ids: &row.input_ids,
        token_type_ids: &row.token_type_ids,
    }))
}

/// What keeps rows from becoming tokens: the tokenizer, or the system.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The tokenizer cannot encode a text.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The rows cannot be read again, or there is no room for their tokens.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// No text that is held in memory has more tokens than that.
pub(crate) fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
