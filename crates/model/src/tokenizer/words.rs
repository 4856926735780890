//! From tokens back to text, one after the other as they come.

use super::{Tokenizer, failed, guarded};
use crate::ModelError;

/// Tokens before those of an answer that may change how its first ones are written.
const CONTEXT: usize = 6;

/// What tokens say, as they come: a character of several tokens is said when it is whole.
#[derive(Debug, Clone)]
pub struct Words<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// From here on tokens are decoded together: those around a border may change each other's white space.
    from: usize,
    /// What was said is up to here.
    said: usize,
}

impl Tokenizer {
    /// The text of `ids`, special tokens left out. Errors if the tokenizer cannot.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        let failed = |e: tokenizers::Error| failed(&self.path, format!("cannot decode: {e}"));
        guarded(|| self.inner.decode(ids, true)).map_err(Into::into).flatten().map_err(failed)
    }

    /// What will be said behind the tokens `before`.
    pub fn words(&self, before: &[u32]) -> Words<'_> {
        let ids = before[before.len().saturating_sub(CONTEXT)..].to_vec();
        Words { tokenizer: self, from: 0, said: ids.len(), ids }
    }
}

impl Words<'_> {
    /// What is new with the token `id`.
    pub fn push(&mut self, id: u32) -> Result<String, ModelError> {
        self.ids.push(id);
        self.rest(false)
    }

    /// What is still to be said, be it whole or not.
    pub fn end(&mut self) -> Result<String, ModelError> {
        self.rest(true)
    }

    fn rest(&mut self, all: bool) -> Result<String, ModelError> {
        let before = self.tokenizer.decode(&self.ids[self.from..self.said])?;
        let with = self.tokenizer.decode(&self.ids[self.from..])?;
        // Bytes that are no whole character yet are written so.
        if !all && with.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let new = with.get(before.len()..).unwrap_or_default().to_string();
        if !new.is_empty() {
            (self.from, self.said) = (self.said, self.ids.len());
        }
        Ok(new)
    }
}
