//! A JSON document of which a part is here.

use serde::de::IgnoredAny;

use crate::error::DataError;
use crate::input::Text;

/// A file's text, and how many characters of its line stand before what is here.
pub(super) struct JsonText<'i> {
    pub text: Text<'i>,
    pub column: u64,
}

impl<'i> JsonText<'i> {
    /// A document from its beginning.
    pub fn new(text: Text<'i>) -> Self {
        JsonText { text, column: 0 }
    }

    pub fn pass(&mut self, bytes: usize) {
        let passed = &self.text.text()[..bytes];
        self.column = match passed.rfind(['\n', '\r']) {
            Some(end) => passed[end + 1..].chars().count() as u64,
            None => self.column + passed.chars().count() as u64,
        };
        self.text.pass(bytes);
    }

    /// The next character that is no white space; none at the end of the file.
    pub fn peek(&mut self) -> Result<Option<char>, DataError> {
        loop {
            let here = self.text.text();
            let blanks = here.len() - here.trim_start_matches([' ', '\t', '\n', '\r']).len();
            let next = here[blanks..].chars().next();
            // A line may end in two characters, which are passed together.
            if next.is_some() || self.text.is_whole() {
                self.pass(blanks);
                return Ok(next);
            }
            self.text.more()?;
        }
    }

    /// Passes `wanted` if it is the next character that is no white space, and says whether it was.
    pub fn take(&mut self, wanted: char) -> Result<bool, DataError> {
        let is_next = self.peek()? == Some(wanted);
        if is_next {
            self.pass(wanted.len_utf8());
        }
        Ok(is_next)
    }

    /// How many bytes the value has that begins here, which is read on until it ends; none if it is broken.
    pub fn value(&mut self) -> Result<Option<usize>, DataError> {
        loop {
            let here = self.text.text();
            let mut values = serde_json::Deserializer::from_str(here).into_iter::<IgnoredAny>();
            let read = values.next();
            match read {
                // A number goes on in what comes, for all that is known.
                Some(Ok(_)) if values.byte_offset() < here.len() || self.text.is_whole() => {
                    return Ok(Some(values.byte_offset()));
                }
                Some(Err(error)) if !error.is_eof() || self.text.is_whole() => return Ok(None),
                None if self.text.is_whole() => return Ok(None),
                _ => self.text.more()?,
            }
        }
    }
}
