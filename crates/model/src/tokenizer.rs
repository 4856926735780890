//! From text to token ids, exactly as transformers does it, with the `tokenizers` crate.

mod bert;
mod pieces;
mod roberta;
mod words;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{Encoding, PostProcessor};

use crate::ModelError;
use crate::chat_template::special_tokens;
use crate::formats::{file_of, is_gguf, write_atomic};

pub use pieces::{PairFrame, Pieces, TextFrame};
pub use words::Words;

const TOKENIZER: &str = "tokenizer.json";
const SETTINGS: &str = "tokenizer_config.json";
const VOCAB: &str = "vocab.txt";

/// Everything that loaders of the Hugging Face libraries look for beside the weights: what [`copy_files`] copies.
pub const FILES: [&str; 10] = [
    TOKENIZER,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    VOCAB,
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    // Not the tokenizer's, but where a language model says how a text ends.
    "generation_config.json",
];

/// A model's tokenizer. It never pads, and cuts only at the length that is asked for.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    /// Which end is lost when a text is too long.
    direction: TruncationDirection,
    vocab_size: usize,
    /// Whether the second text of a pair has type 1.
    types: bool,
}

/// A row as the model gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special tokens included.
    pub input_ids: Vec<u32>,
    /// For each token the part of a pair that it belongs to: 0 or 1.
    pub token_type_ids: Vec<u32>,
    /// How many tokens were cut off because the row was too long.
    pub truncated: usize,
}

impl Tokenizer {
    /// Reads the tokenizer of a model: `tokenizer.json` of its folder, or a BERT's `vocab.txt`; or that of a GGUF file.
    ///
    /// Padding and truncation stored there are switched off. As in transformers, `tokenizer_config.json` has the
    /// last word on which end is cut, for a BERT on lower case, accents and Chinese characters, and for a RoBERTa on a
    /// space before the first word.
    /// Errors if neither file is there, or if they cannot be followed exactly.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, ModelError> {
        let folder = folder.as_ref();
        let settings = read_object(folder, SETTINGS)?.unwrap_or_default();
        let path = if is_gguf(folder) { folder.to_path_buf() } else { folder.join(TOKENIZER) };
        let mut inner = match file_of(folder, TOKENIZER)? {
            Some(text) => {
                let mut inner = parse(&text)
                    .map_err(|words| failed(&path, format!("cannot be read as a tokenizer: {words}")))?;
                bert::apply_settings(&mut inner, &settings).map_err(|e| failed(&path, e.to_string()))?;
                roberta::apply_settings(&mut inner, &settings);
                inner
            }
            None => bert::from_vocab(folder, &settings)?,
        };
        let direction = direction(&inner, &settings, folder)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| failed(&path, e.to_string()))?;
        let known = inner.get_vocab(true).into_values();
        // A template gives special tokens the ids that it likes; what fails here fails again at a text, with words.
        let special = guarded(|| [inner.encode_fast("", true), inner.encode_fast(("", ""), true)]);
        let special = special.into_iter().flatten().flatten().flat_map(|given| given.get_ids().to_vec());
        let vocab_size = known.chain(special).max().map_or(0, |id| id as usize + 1);
        let types = roberta::gives_types(&settings);
        Ok(Self { path: folder.to_path_buf(), inner, direction, vocab_size, types })
    }

    /// Encodes a text, or a pair of texts, with special tokens, into at most `max_length` tokens.
    ///
    /// A row that is too long loses tokens of its text, of the longer one in a pair, and keeps its special tokens.
    /// Errors if `max_length` has no room for these, or if the vocabulary has no token for the unknown.
    pub fn encode(&self, text: &str, pair: Option<&str>, max_length: usize) -> Result<Encoded, ModelError> {
        let special = self.special_tokens(pair.is_some());
        let Some(room) = max_length.checked_sub(special) else {
            let message =
                format!("a max_length of {max_length} has no room for the {special} special tokens");
            return Err(failed(&self.path, message));
        };
        let failed = |e: tokenizers::Error| failed(&self.path, format!("cannot encode: {e}"));
        let whole = guarded(|| match pair {
            None => self.inner.encode_fast(text, true),
            Some(pair) => self.inner.encode_fast((text, pair), true),
        });
        let whole = whole.map_err(Into::into).flatten().map_err(failed)?;
        if whole.len() <= max_length {
            return Ok(self.encoded(&whole, 0));
        }
        let params = TruncationParams {
            direction: self.direction,
            max_length: room,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
        };
        let part = |text: &str| {
            guarded(|| self.inner.encode_fast(text, false)).map_err(Into::into).flatten().map_err(failed)
        };
        let (mut first, mut second) =
            truncate_encodings(part(text)?, pair.map(part).transpose()?, &params).map_err(failed)?;
        // The pieces that were cut off would otherwise be combined, each of one text with each of the other.
        first.take_overflowing();
        second.as_mut().map(Encoding::take_overflowing);
        let cut = guarded(|| self.inner.post_process(first, second, true));
        let cut = cut.map_err(Into::into).flatten().map_err(failed)?;
        Ok(self.encoded(&cut, whole.len() - cut.len()))
    }

    fn encoded(&self, encoding: &Encoding, truncated: usize) -> Encoded {
        let types = encoding.get_type_ids();
        Encoded {
            input_ids: encoding.get_ids().to_vec(),
            token_type_ids: if self.types { types.to_vec() } else { vec![0; types.len()] },
            truncated,
        }
    }

    /// Encodes many rows, each like [`Tokenizer::encode`], on all threads of the pool; the order is kept.
    pub fn encode_batch(
        &self,
        rows: &[(&str, Option<&str>)],
        max_length: usize,
    ) -> Result<Vec<Encoded>, ModelError> {
        let encoded: Vec<_> =
            rows.par_iter().map(|(text, pair)| self.encode(text, *pair, max_length)).collect();
        // Only now into one result, so that the first bad row is told whichever thread was faster.
        encoded.into_iter().collect()
    }

    /// The folder it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Special tokens that are added to a text, or to a pair.
    pub fn special_tokens(&self, pair: bool) -> usize {
        self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(pair))
    }

    /// One more than the largest token id: the rows that a model's word embeddings must have at least.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that ends a text, as `tokenizer_config.json` or `special_tokens_map.json` names it; none where they do not.
    pub fn eos_token(&self) -> Result<Option<String>, ModelError> {
        for name in [SETTINGS, "special_tokens_map.json"] {
            let named = read_object(&self.path, name)?.unwrap_or_default();
            if let Some(Value::String(token)) = special_tokens(&named).remove("eos_token") {
                return Ok(Some(token));
            }
        }
        Ok(None)
    }

    /// The token with this id, if there is one.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether a token with this id is a special one, which no text is cut into.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// The id of this token, if there is one.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

/// Copies what a model's folder has of a tokenizer's files to another folder, byte for byte, each whole or not at all; what a
/// GGUF file has in their place is written as these files.
/// Errors if a file that is there cannot be read or written. Copying a folder onto itself does nothing.
pub fn copy_files(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<(), ModelError> {
    let (from, to) = (from.as_ref(), to.as_ref());
    for name in FILES {
        let target = to.join(name);
        match file_of(from, name)? {
            Some(content) if fs::read(&target).is_ok_and(|there| there == content) => {}
            Some(content) => write_atomic(target, |writer| writer.write_all(&content))?,
            None => {}
        }
    }
    Ok(())
}

fn direction(
    inner: &tokenizers::Tokenizer,
    settings: &Map<String, Value>,
    folder: &Path,
) -> Result<TruncationDirection, ModelError> {
    match settings.get("truncation_side").map(|side| (side, side.as_str())) {
        None => Ok(inner.get_truncation().map_or(TruncationDirection::Right, |stored| stored.direction)),
        Some((_, Some("right"))) => Ok(TruncationDirection::Right),
        Some((_, Some("left"))) => Ok(TruncationDirection::Left),
        Some((side, _)) => Err(ModelError::Config {
            path: folder.join(SETTINGS),
            key: "truncation_side".into(),
            expected: "`left` or `right`".into(),
            got: crate::formats::described(side),
        }),
    }
}

/// A file of a model that may be absent, but must be a JSON object if it is there.
pub(crate) fn read_object(model: &Path, name: &str) -> Result<Option<Map<String, Value>>, ModelError> {
    let Some(text) = file_of(model, name)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|e| ModelError::Format {
        path: model.join(name),
        place: format!("line {}, column {}", e.line(), e.column()),
        expected: "a JSON object".into(),
        got: e.to_string(),
    })
}

fn parse(text: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    serde_json::from_slice::<IgnoredAny>(text).map_err(|e| e.to_string())?;
    let inner = guarded(|| tokenizers::Tokenizer::from_bytes(text))?.map_err(|e| e.to_string())?;
    // What a template refers to and does not have is only missed here.
    guarded(|| {
        if let Some(processor) = inner.get_post_processor() {
            let _ = (processor.added_tokens(false), processor.added_tokens(true));
        }
    })?;
    Ok(inner)
}

/// What the `tokenizers` crate does. It panics where parts of a file do not fit each other: that is an error of the file.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        format!("parts of the tokenizer do not fit each other: {words}")
    })
}

fn failed(path: &Path, message: impl Into<String>) -> ModelError {
    ModelError::Tokenizer { path: path.to_path_buf(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_parser_would_panic_at_is_an_error_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        for (text, words) in [
            (r#"{"version": "1.0", "decoder": {"type" "WordPiece"}}"#, "expected `:`"),
            (
                r#"{"version": "1.0", "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}"#,
                "",
            ),
        ] {
            fs::write(folder.path().join(TOKENIZER), text).unwrap();
            let error = Tokenizer::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains("cannot be read as a tokenizer: ") && error.contains(words), "{error}");
        }
        // A template whose tokens the vocabulary does not have.
        let template = r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "?": 1}, "unk_token": "?"},
            "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 4294967295], "cls": ["<s>", 7],
            "trim_offsets": true, "add_prefix_space": false}}"#;
        fs::write(folder.path().join(TOKENIZER), template).unwrap();
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        assert_eq!(tokenizer.vocab_size(), 1 << 32);
        assert_eq!(tokenizer.encode("a b", None, 9).unwrap().input_ids[0], 7);
        assert_eq!(guarded(|| Vec::<u8>::new()[0]).unwrap_err().split(':').count(), 3);
    }
}
