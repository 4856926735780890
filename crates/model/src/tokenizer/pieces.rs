//! Tokens that know their places in a text, and what stands around them in a row: for texts that are read in windows.

use rayon::prelude::*;
use tokenizers::Encoding;

use super::{Tokenizer, failed, guarded};
use crate::ModelError;

/// The tokens of a text, no special ones among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Their ids.
    pub ids: Vec<u32>,
    /// The bytes of the text that each stands for; a token may stand for none.
    pub spans: Vec<[u32; 2]>,
}

/// What is put around the tokens of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFrame {
    /// Ids and type ids before and behind the text.
    special: [Vec<(u32, u32)>; 2],
    /// The type id of the text.
    kind: u32,
}

impl TextFrame {
    /// How many special tokens there are.
    pub fn len(&self) -> usize {
        self.special.iter().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the text begins.
    pub fn first(&self) -> usize {
        self.special[0].len()
    }

    /// The ids and type ids of a row.
    pub fn row(&self, text: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let [before, behind] = &self.special;
        let text = text.iter().map(|id| (*id, self.kind)).collect();
        [before.clone(), text, behind.clone()].into_iter().flatten().unzip()
    }
}

/// What is put around the tokens of two texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFrame {
    /// Ids and type ids before, between and behind the texts.
    special: [Vec<(u32, u32)>; 3],
    /// The type ids of the texts.
    types: [u32; 2],
}

impl PairFrame {
    /// How many special tokens there are.
    pub fn len(&self) -> usize {
        self.special.iter().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the second text begins behind a first of `first` tokens.
    pub fn second(&self, first: usize) -> usize {
        self.special[0].len() + first + self.special[1].len()
    }

    /// The ids and type ids of a row.
    pub fn row(&self, first: &[u32], second: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let [before, between, behind] = &self.special;
        let text = |ids: &[u32], of: usize| ids.iter().map(|id| (*id, self.types[of])).collect::<Vec<_>>();
        let parts = [before.clone(), text(first, 0), between.clone(), text(second, 1), behind.clone()];
        parts.into_iter().flatten().unzip()
    }
}

impl Tokenizer {
    /// Encodes a text without special tokens. Errors if the vocabulary has no token for the unknown.
    pub fn pieces(&self, text: &str) -> Result<Pieces, ModelError> {
        // By characters, as a token may be a part of one; that is then the whole of it.
        let encoding = guarded(|| self.inner.encode_char_offsets(text, false)).map_err(Into::into).flatten();
        let encoding = encoding.map_err(|e| failed(&self.path, format!("cannot encode: {e}")))?;
        let end = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let bytes: Vec<u32> =
            text.char_indices().map(|(byte, _)| u32::try_from(byte).unwrap_or(u32::MAX)).collect();
        let byte = |character: usize| bytes.get(character).copied().unwrap_or(end);
        let spans = encoding.get_offsets().iter().map(|(start, end)| [byte(*start), byte(*end)]);
        Ok(Pieces { ids: encoding.get_ids().to_vec(), spans: spans.collect() })
    }

    /// Encodes many texts, each like [`Tokenizer::pieces`], on all threads of the pool; the order is kept.
    pub fn pieces_batch(&self, texts: &[&str]) -> Result<Vec<Pieces>, ModelError> {
        let pieces: Vec<_> = texts.par_iter().map(|text| self.pieces(text)).collect();
        pieces.into_iter().collect()
    }

    /// What stands around a text. Errors if the tokenizer puts it into a row more than once, or not at all.
    pub fn text_frame(&self) -> Result<TextFrame, ModelError> {
        // No vocabulary is so large that this is a token.
        const MARK: u32 = u32::MAX;
        let framed =
            guarded(|| self.inner.post_process(mark(MARK), None, true)).map_err(Into::into).flatten();
        let framed = framed.map_err(|e| failed(&self.path, format!("cannot frame a text: {e}")))?;
        let kinds = |id: u32| if self.types { id } else { 0 };
        let tokens: Vec<(u32, u32)> = framed
            .get_ids()
            .iter()
            .zip(framed.get_type_ids())
            .map(|(id, kind)| (*id, kinds(*kind)))
            .collect();
        let parts: Vec<&[(u32, u32)]> = tokens.split(|(id, _)| *id == MARK).collect();
        let kind = tokens.iter().find(|(id, _)| *id == MARK).map_or(0, |(_, kind)| *kind);
        match parts.as_slice() {
            [before, behind] => Ok(TextFrame { special: [before.to_vec(), behind.to_vec()], kind }),
            _ => Err(failed(&self.path, "it does not put a text once into a row")),
        }
    }

    /// What stands around two texts. Errors if the tokenizer puts them in another order, or one of them twice.
    pub fn pair_frame(&self) -> Result<PairFrame, ModelError> {
        // No vocabulary is so large that these are tokens.
        const MARKS: [u32; 2] = [u32::MAX, u32::MAX - 1];
        let [first, second] = MARKS.map(mark);
        let joined =
            guarded(|| self.inner.post_process(first, Some(second), true)).map_err(Into::into).flatten();
        let joined = joined.map_err(|e| failed(&self.path, format!("cannot join two texts: {e}")))?;
        let kinds = |id: u32| if self.types { id } else { 0 };
        let tokens: Vec<(u32, u32)> = joined
            .get_ids()
            .iter()
            .zip(joined.get_type_ids())
            .map(|(id, kind)| (*id, kinds(*kind)))
            .collect();
        let place = |mark: u32| {
            let mut places =
                tokens.iter().enumerate().filter(|(_, (id, _))| *id == mark).map(|(place, _)| place);
            places.next().filter(|_| places.next().is_none())
        };
        match (place(MARKS[0]), place(MARKS[1])) {
            (Some(first), Some(second)) if first < second => Ok(PairFrame {
                special: [
                    tokens[..first].to_vec(),
                    tokens[first + 1..second].to_vec(),
                    tokens[second + 1..].to_vec(),
                ],
                types: [tokens[first].1, tokens[second].1],
            }),
            _ => {
                Err(failed(&self.path, "it does not put two texts once each into a row, the first one first"))
            }
        }
    }
}

fn mark(id: u32) -> Encoding {
    Encoding::new(
        vec![id],
        vec![0],
        vec![String::new()],
        vec![None],
        vec![(0, 0)],
        vec![0],
        vec![1],
        Vec::new(),
        Default::default(),
    )
}
