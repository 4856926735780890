use std::io::Read;

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8};

use super::encoding::{self, line_breaks};
use super::{Input, read_error};
use crate::error::DataError;

/// At least so many bytes are read at a time.
const BLOCK: usize = 1 << 20;

/// A file's text, without its byte order mark, of which a part is here: what was passed is gone, what comes is read when
/// it is asked for.
///
/// Decoding is strict: what cannot be read is an error with its place.
pub(crate) struct Text<'i> {
    input: &'i Input,
    /// The encoding's name, as asked for.
    label: Option<&'i str>,
    reader: Box<dyn Read>,
    decoding: Decoding,
    /// Bytes whose character is not whole yet.
    rest: Vec<u8>,
    text: String,
    /// Where the text begins that was not passed.
    at: usize,
    /// Whether the text that is here ends with the file.
    whole: bool,
    /// How many lines end in what was passed.
    lines: u64,
    /// Whether what was read in another encoding is UTF-8 so far, and more than ASCII.
    seems_utf8: bool,
    beyond_ascii: bool,
}

enum Decoding {
    /// Nothing was read yet.
    Unknown,
    Utf8,
    Other(Box<Decoder>),
}

impl<'i> Text<'i> {
    /// Reads the first piece. Errors if `label` is no encoding's name, or that piece is not in it.
    pub fn open(input: &'i Input, label: Option<&'i str>) -> Result<Self, DataError> {
        let mut text = Text {
            input,
            label,
            reader: input.reader(),
            decoding: Decoding::Unknown,
            rest: Vec::new(),
            text: String::new(),
            at: 0,
            whole: false,
            lines: 0,
            seems_utf8: true,
            beyond_ascii: false,
        };
        text.more()?;
        Ok(text)
    }

    /// What is here.
    pub fn text(&self) -> &str {
        &self.text[self.at..]
    }

    /// Whether that ends with the file.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The line that what is here begins in, counted from 1, if all of the text was passed by [`Text::pass`].
    pub fn line(&self) -> u64 {
        self.lines + 1
    }

    /// Passes the first `bytes` of what is here.
    pub fn pass(&mut self, bytes: usize) {
        let end = (self.at + bytes).min(self.text.len());
        self.lines += line_breaks(&self.text.as_bytes()[self.at..end]);
        self.at = end;
    }

    /// Reads more: as much again as is here. Errors if it cannot be read or decoded; its line is named.
    pub fn more(&mut self) -> Result<(), DataError> {
        self.text.drain(..self.at);
        self.at = 0;
        let wanted = self.text.len().max(BLOCK);
        let mut bytes = std::mem::take(&mut self.rest);
        let old = bytes.len();
        let read = self.reader.by_ref().take(wanted as u64).read_to_end(&mut bytes);
        let read = read.map_err(|error| {
            // What came before the fault may tell where it is.
            let before = String::from_utf8_lossy(&bytes);
            let line = self.lines + 1 + line_breaks(self.text.as_bytes()) + line_breaks(before.as_bytes());
            read_error(&error).at_line(line)
        })?;
        debug_assert!(read + old == bytes.len());
        self.whole = read < wanted;
        let new = self.decode(bytes)?;
        if let Some(place) = new {
            return Err(self.fault(place));
        }
        Ok(())
    }

    /// Decodes what was read behind what is here. Something is wrong where a place is given.
    fn decode(&mut self, mut bytes: Vec<u8>) -> Result<Option<usize>, DataError> {
        if let Decoding::Unknown = self.decoding {
            encoding::refuse_binary(&bytes)?;
            let named = self.label.map(encoding::by_label).transpose()?.unwrap_or(UTF_8);
            let (encoding, mark) = Encoding::for_bom(&bytes).unwrap_or((named, 0));
            bytes.drain(..mark);
            self.seems_utf8 = mark == 0;
            self.decoding = if encoding == UTF_8 {
                Decoding::Utf8
            } else {
                Decoding::Other(Box::new(encoding.new_decoder_without_bom_handling()))
            };
        }
        let from = self.text.len();
        match &mut self.decoding {
            Decoding::Unknown | Decoding::Utf8 => {
                let valid = match std::str::from_utf8(&bytes) {
                    Ok(text) => text,
                    Err(error) if error.error_len().is_none() && !self.whole => {
                        std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
                    }
                    Err(error) => return Ok(Some(error.valid_up_to())),
                };
                self.text.push_str(valid);
                self.rest = bytes[valid.len()..].to_vec();
            }
            Decoding::Other(decoder) => {
                self.beyond_ascii |= !bytes.is_ascii();
                self.seems_utf8 = self.seems_utf8 && is_utf8(&bytes);
                let room = decoder.max_utf8_buffer_length_without_replacement(bytes.len());
                self.text.reserve(room.unwrap_or_default());
                let (result, read) =
                    decoder.decode_to_string_without_replacement(&bytes, &mut self.text, self.whole);
                if !matches!(result, DecoderResult::InputEmpty) {
                    return Ok(Some(read));
                }
            }
        }
        Ok(self.text[from..].find('\0'))
    }

    /// The error that the whole file gives: advice looks at all of it. Only a file that fails pays for it.
    fn fault(&self, place: usize) -> DataError {
        let mut bytes = Vec::new();
        if let Err(error) = self.input.reader().read_to_end(&mut bytes) {
            return read_error(&error);
        }
        match encoding::decode(bytes, self.label) {
            Err(error) => error,
            Ok(_) => DataError::new("the file has changed while it was read: try again").at_byte(place),
        }
    }

    /// What looks odd about the encoding, once all was read.
    pub fn notice(&self) -> Option<String> {
        let name = self.label.filter(|_| self.seems_utf8 && self.beyond_ascii)?;
        Some(encoding::utf8_after_all(name))
    }
}

/// Whether the bytes are UTF-8, but for characters that are cut at either end.
fn is_utf8(bytes: &[u8]) -> bool {
    let first = bytes.iter().take(3).take_while(|byte| (0x80..0xc0).contains(*byte)).count();
    match std::str::from_utf8(&bytes[first..]) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    }
}
