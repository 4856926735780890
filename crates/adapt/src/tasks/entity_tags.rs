//! A tag for each word: softmax and cross-entropy at its first token; entities are read from the tags.

mod decode;
mod score;
mod targets;

use std::path::Path;

use retune_data::{DataError, Example, Examples, LabelMap, TagScheme, Tokens, tag_parts};
use retune_metrics::{EntityCounts, Prefix, Strictness, Tag};
use retune_model::tokenizer::Tokenizer;

use self::decode::TagDecode;
use self::targets::TagTargets;
use super::alignment::given;
use super::form::{Decode, Form, FormSpec, LossOptions, Targets};
use crate::AdaptError;

pub(super) static SPEC: FormSpec = FormSpec {
    problem_type: None,
    summary: "a tag for each word, and the entities that they make",
    decides: "f1",
    decided: EntityCounts::f1_of,
    shown: &[
        ("f1", "entity F1"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("f1_strict", "strict F1"),
        ("f1_macro", "macro F1"),
        ("token_accuracy", "token accuracy"),
    ],
};

/// The share of a window's tokens that the next one repeats.
const OVERLAP: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct EntityTags {
    labels: LabelMap,
    /// Of each label.
    tags: Vec<Tag>,
    /// The names of the types, by their numbers.
    kinds: Vec<String>,
    strictness: Strictness,
}

impl EntityTags {
    /// Of the tags that a model gives. Errors if one is none.
    pub fn new(labels: LabelMap) -> Result<Self, AdaptError> {
        let parsed = labels.names().iter().map(|name| tag_parts(name).ok_or(name));
        let parts: Vec<(char, &str)> = parsed.collect::<Result<_, _>>().map_err(|name| {
            DataError::new(format!(
                "the model's label `{name}` is no tag: expected O and tags such as B-person; is it a model for entities?"
            ))
        })?;
        let mut kinds: Vec<String> =
            parts.iter().filter(|(p, _)| *p != 'O').map(|(_, kind)| (*kind).to_string()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let tags: Vec<Tag> = parts.iter().map(|parts| tag(*parts, &kinds).unwrap_or(Tag::OUTSIDE)).collect();
        let ends = tags.iter().any(|tag| tells_an_end(tag.prefix));
        let strictness = if ends { Strictness::Iobes } else { Strictness::Iob2 };
        Ok(EntityTags { labels, tags, kinds, strictness })
    }

    /// The type `kind` as people are shown it.
    fn kind_name(&self, kind: u32) -> &str {
        self.kinds.get(kind as usize).map_or("", String::as_str)
    }

    /// The class of a tag; that of `O`, or else the first, where the model lacks it.
    fn class(&self, tag: Tag) -> usize {
        let is =
            |known: &Tag| known.prefix == tag.prefix && (tag.prefix == Prefix::O || known.kind == tag.kind);
        self.tags.iter().position(is).unwrap_or_else(|| self.outside())
    }

    fn outside(&self) -> usize {
        self.tags.iter().position(|tag| tag.prefix == Prefix::O).unwrap_or(0)
    }
}

/// A tag of its parts; none if its type is not among `kinds`.
fn tag((prefix, kind): (char, &str), kinds: &[String]) -> Option<Tag> {
    let prefix = match prefix {
        'B' => Prefix::B,
        'I' | 'M' => Prefix::I,
        'E' | 'L' => Prefix::E,
        'S' | 'U' => Prefix::S,
        _ => return Some(Tag::OUTSIDE),
    };
    let kind = kinds.iter().position(|known| known == kind)?;
    Some(Tag { prefix, kind: u32::try_from(kind).unwrap_or(u32::MAX) })
}

impl Form for EntityTags {
    fn spec(&self) -> &'static FormSpec {
        &SPEC
    }

    fn labels(&self) -> &LabelMap {
        &self.labels
    }

    fn tokens(
        &self,
        examples: &Examples,
        tokenizer: &Tokenizer,
        max_length: usize,
    ) -> Result<Tokens, AdaptError> {
        Ok(Tokens::of_texts(tokenizer, examples, max_length, max_length / OVERLAP)?)
    }

    fn targets(
        &self,
        examples: &Examples,
        tokens: &Tokens,
        path: &Path,
        options: LossOptions,
    ) -> Result<Box<dyn Targets>, AdaptError> {
        Ok(Box::new(TagTargets::new(self, examples, tokens, path, options)?))
    }

    fn decode<'a>(
        &'a self,
        examples: &'a Examples,
        tokens: &'a Tokens,
    ) -> Result<Box<dyn Decode + 'a>, AdaptError> {
        Ok(Box::new(TagDecode::new(self, examples, tokens)))
    }
}

impl EntityTags {
    /// The tags of the words of `example`, as they are, or in a scheme that tells no ends. Errors with a type that is none of
    /// the model's.
    fn gold(&self, example: &Example, without_ends: bool) -> Result<Vec<Tag>, String> {
        let words = given(example).unwrap_or_default().iter();
        let written: Vec<&str> = words.map(|word| word.tag.as_deref().unwrap_or("O")).collect();
        let parsed = |written: &str| {
            let parts = tag_parts(written).unwrap_or(('O', ""));
            tag(parts, &self.kinds).ok_or_else(|| {
                format!(
                    "expected entities of training's {} types ({}), got `{}`: correct it, or train with rows that have it",
                    self.kinds.len(),
                    self.kinds.join(", "),
                    parts.1
                )
            })
        };
        if without_ends {
            let told = TagScheme::Iob2.from_learnt(&written, TagScheme::Bioes);
            return told.iter().map(|tag| parsed(tag)).collect();
        }
        written.into_iter().map(parsed).collect()
    }
}

fn tells_an_end(prefix: Prefix) -> bool {
    matches!(prefix, Prefix::E | Prefix::S)
}
