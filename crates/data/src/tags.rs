//! How tags say where entities are: IOB1, IOB2, BIOES and its kin, and one form for all of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::wording::did_you_mean;

/// How the words of an entity are tagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TagScheme {
    /// `I` for each; `B` only for the first of an entity right behind another of its type.
    Iob1,
    /// `B` for the first, `I` for the others (CoNLL-2002 and nearly all since).
    Iob2,
    /// The last has `E`, and `S` an entity of one word.
    Bioes,
    /// The same with `M` for those inside: many Chinese sets.
    Bmes,
    /// The same with `L` for the last and `U` for one word.
    Bilou,
}

const NAMES: [(&str, TagScheme); 8] = [
    ("iob1", TagScheme::Iob1),
    ("iob2", TagScheme::Iob2),
    ("bio", TagScheme::Iob2),
    ("bioes", TagScheme::Bioes),
    ("iobes", TagScheme::Bioes),
    ("bmes", TagScheme::Bmes),
    ("bmoes", TagScheme::Bmes),
    ("bilou", TagScheme::Bilou),
];

impl FromStr for TagScheme {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        let lower = name.to_lowercase();
        NAMES.into_iter().find(|(known, _)| *known == lower).map(|(_, scheme)| scheme).ok_or_else(|| {
            let near = did_you_mean(&lower, NAMES.map(|(known, _)| known));
            DataError::new(format!(
                "unknown scheme of tags `{name}`{near}: expected iob1, iob2, bioes, bmes or bilou"
            ))
        })
    }
}

impl fmt::Display for TagScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TagScheme::Iob1 => "iob1",
            TagScheme::Iob2 => "iob2",
            TagScheme::Bioes => "bioes",
            TagScheme::Bmes => "bmes",
            TagScheme::Bilou => "bilou",
        })
    }
}

/// A tag in its two parts: `B-person` is `('B', "person")`, and `O` and `B` alone have no type. None if it is no tag of any
/// scheme.
pub fn tag_parts(tag: &str) -> Option<(char, &str)> {
    if tag == "O" {
        return Some(('O', ""));
    }
    let prefix = tag.chars().next().filter(|prefix| "BIESMLU".contains(*prefix))?;
    match tag[1..].strip_prefix(['-', '_']) {
        Some(kind) if !kind.is_empty() => Some((prefix, kind)),
        None if tag.len() == 1 => Some((prefix, "")),
        _ => None,
    }
}

fn join(prefix: char, kind: &str) -> String {
    if kind.is_empty() { prefix.to_string() } else { format!("{prefix}-{kind}") }
}

/// Two prefixes that no scheme has both of, and the word of a sentence where the second is first met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MixedTags {
    /// One that stands before, and the second.
    pub prefixes: [char; 2],
    /// The word, counted from 0.
    pub word: usize,
}

/// The search for the scheme of sentences of tags, one after the other.
#[derive(Debug, Default)]
pub(crate) struct SchemeSearch {
    /// Prefixes that were met.
    seen: Vec<char>,
    /// How many words have `B`, and `I`, where an entity begins in any scheme.
    first_b: usize,
    first_i: usize,
}

impl SchemeSearch {
    /// Looks at the tags of one more sentence. Errors if they have prefixes of different schemes.
    pub fn add(&mut self, tags: &[&str]) -> Result<(), MixedTags> {
        const ALL: [TagScheme; 4] = [TagScheme::Iob2, TagScheme::Bioes, TagScheme::Bmes, TagScheme::Bilou];
        let together = |a: char, b: char| ALL.iter().any(|scheme| scheme.has(a) && scheme.has(b));
        let mut before = ('O', "");
        for (word, (prefix, kind)) in tags.iter().copied().filter_map(tag_parts).enumerate() {
            if prefix != 'O' && !self.seen.contains(&prefix) {
                if let Some(other) = self.seen.iter().find(|other| !together(**other, prefix)) {
                    return Err(MixedTags { prefixes: [*other, prefix], word });
                }
                self.seen.push(prefix);
            }
            let begins = before.0 == 'O' || before.1 != kind;
            self.first_b += usize::from(prefix == 'B' && begins);
            self.first_i += usize::from(prefix == 'I' && begins);
            before = (prefix, kind);
        }
        Ok(())
    }

    /// The scheme. `S`, `E`, `M`, `L` and `U` tell theirs; `B` and `I` alone are IOB1 where entities begin with `I` and every
    /// `B` stands behind a word of its type, and else IOB2, whatever is broken in it. It is `usual` where the prefixes leave
    /// that open: there are none, or they are those of BIOES and of BMES.
    pub fn found(&self, usual: Option<TagScheme>) -> TagScheme {
        let has = |letters: &str| letters.chars().any(|letter| self.seen.contains(&letter));
        match usual {
            Some(usual) if self.seen.is_empty() => usual,
            _ if has("LU") => TagScheme::Bilou,
            _ if has("M") => TagScheme::Bmes,
            Some(TagScheme::Bmes) if has("ES") && !has("I") => TagScheme::Bmes,
            _ if has("ES") => TagScheme::Bioes,
            _ if self.first_i > 0 && self.first_b == 0 => TagScheme::Iob1,
            _ => TagScheme::Iob2,
        }
    }
}

impl TagScheme {
    /// The prefixes of its files, but for `O`.
    pub(crate) fn letters(self) -> &'static str {
        match self {
            TagScheme::Iob1 | TagScheme::Iob2 => "BI",
            TagScheme::Bioes => "BIES",
            TagScheme::Bmes => "BMES",
            TagScheme::Bilou => "BILU",
        }
    }

    /// Whether a tag of its files may begin with `prefix`.
    pub(crate) fn has(self, prefix: char) -> bool {
        prefix == 'O' || self.letters().contains(prefix)
    }

    /// The scheme that a model learns for files of this one: IOB2 for IOB1, BIOES for those that tell ends. Each of the two
    /// is what `seqeval` reads.
    pub fn learnt(self) -> TagScheme {
        match self {
            TagScheme::Iob1 | TagScheme::Iob2 => TagScheme::Iob2,
            TagScheme::Bioes | TagScheme::Bmes | TagScheme::Bilou => TagScheme::Bioes,
        }
    }

    /// A sentence's tags in the scheme that is learnt. What is broken stays so, but for IOB1, where nothing is.
    pub fn to_learnt(self, tags: &[&str]) -> Vec<String> {
        let mut before = ('O', "");
        let each = tags.iter().map(|tag| {
            let (prefix, kind) = tag_parts(tag).unwrap_or(('O', ""));
            let learnt = match (self, prefix) {
                (TagScheme::Iob1, 'I') if before.0 == 'O' || before.1 != kind => 'B',
                (_, 'M') => 'I',
                (_, 'L') => 'E',
                (_, 'U') => 'S',
                (_, other) => other,
            };
            before = (prefix, kind);
            join(learnt, kind)
        });
        each.collect()
    }

    /// A sentence's tags as a file of this scheme has them, of tags in the scheme `learnt`, which is one that is learnt. What
    /// is broken stays so, and the entities that `seqeval` reads by its default are the same.
    pub fn from_learnt(self, tags: &[&str], learnt: TagScheme) -> Vec<String> {
        let parts: Vec<(char, &str)> = tags.iter().map(|tag| tag_parts(tag).unwrap_or(('O', ""))).collect();
        let mut before = ('O', "");
        let each = parts.iter().enumerate().map(|(word, (prefix, kind))| {
            let same = |other: Option<&(char, &str)>, prefixes: &str| {
                other.is_some_and(|(prefix, other)| prefixes.contains(*prefix) && other == kind)
            };
            let told = match (self.learnt(), prefix) {
                (TagScheme::Bioes, 'B' | 'I') if learnt == TagScheme::Iob2 => {
                    let ends = !same(parts.get(word + 1), "I");
                    match prefix {
                        'B' if ends => 'S',
                        'I' if ends => 'E',
                        prefix => *prefix,
                    }
                }
                (TagScheme::Iob2, 'S') => 'B',
                (TagScheme::Iob2, 'I' | 'E') => {
                    let follows_an_end = word > 0 && same(parts.get(word - 1), "ES");
                    if follows_an_end { 'B' } else { 'I' }
                }
                (_, prefix) => *prefix,
            };
            let written = match (self, told) {
                (TagScheme::Iob1, 'B') if before.0 == 'O' || before.1 != *kind => 'I',
                (TagScheme::Bmes, 'I') => 'M',
                (TagScheme::Bilou, 'E') => 'L',
                (TagScheme::Bilou, 'S') => 'U',
                (_, other) => other,
            };
            before = (told, kind);
            join(written, kind)
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scheme, or in which sentence it is told that there is none.
    fn of(sentences: &[&str], usual: Option<TagScheme>) -> Result<TagScheme, (usize, MixedTags)> {
        let mut search = SchemeSearch::default();
        for (number, sentence) in sentences.iter().enumerate() {
            let tags: Vec<&str> = sentence.split(' ').collect();
            search.add(&tags).map_err(|mixed| (number, mixed))?;
        }
        Ok(search.found(usual))
    }

    #[test]
    fn the_scheme_is_found() {
        for (sentences, expected) in [
            (&["B-a I-a O", "B-b"][..], TagScheme::Iob2),
            (&["I-a I-a O I-b", "I-a B-a"], TagScheme::Iob1),
            // Broken, and not IOB1: some entities begin with B.
            (&["B-a I-a O I-b"], TagScheme::Iob2),
            (&["O O"], TagScheme::Iob2),
            (&["B-a E-a S-b O"], TagScheme::Bioes),
            (&["B-a M-a E-a S-b O"], TagScheme::Bmes),
            (&["B-a I-a L-a U-b"], TagScheme::Bilou),
        ] {
            assert_eq!(of(sentences, None), Ok(expected), "{sentences:?}");
        }
        let mixed = |prefixes, sentence, word| Err((sentence, MixedTags { prefixes, word }));
        assert_eq!(of(&["B-a M-a I-a"], None), mixed(['M', 'I'], 0, 2));
        assert_eq!(of(&["O U-a", "O", "B-b S-b"], None), mixed(['U', 'S'], 2, 1));
    }

    #[test]
    fn what_the_prefixes_leave_open_is_as_usual() {
        for usual in [TagScheme::Iob1, TagScheme::Bmes, TagScheme::Bilou] {
            assert_eq!(of(&["O O", "O"], Some(usual)), Ok(usual));
            assert_eq!(of(&["B-a I-a"], Some(usual)), Ok(TagScheme::Iob2));
        }
        assert_eq!(of(&["B-a E-a S-b"], Some(TagScheme::Bmes)), Ok(TagScheme::Bmes));
        assert_eq!(of(&["B-a I-a E-a"], Some(TagScheme::Bmes)), Ok(TagScheme::Bioes));
    }

    #[test]
    fn a_model_is_known_by_its_labels() {
        let scheme = |names: &str| {
            crate::LabelMap::new(names.split(' ').map(str::to_owned).collect()).unwrap().tag_scheme()
        };
        assert_eq!(scheme("O B-a I-a E-a S-a"), Some(TagScheme::Bioes));
        assert_eq!(scheme("B-a M-a E-a S-a O"), Some(TagScheme::Bmes));
        assert_eq!(scheme("B-a B-b I-a I-b O"), Some(TagScheme::Iob2));
        assert_eq!(scheme("LABEL_0 LABEL_1"), None);
    }

    #[test]
    fn every_scheme_comes_back_from_the_one_that_is_learnt() {
        for (scheme, tags, learnt) in [
            (TagScheme::Iob1, "I-a B-a I-b O I-a I-a", "B-a B-a B-b O B-a I-a"),
            (TagScheme::Iob2, "B-a B-a I-a O I-b", "B-a B-a I-a O I-b"),
            (TagScheme::Bmes, "B-a M-a E-a S-b", "B-a I-a E-a S-b"),
            (TagScheme::Bilou, "B-a I-a L-a U", "B-a I-a E-a S"),
        ] {
            let tags: Vec<&str> = tags.split(' ').collect();
            let found = scheme.to_learnt(&tags);
            assert_eq!(found, learnt.split(' ').collect::<Vec<_>>());
            let back: Vec<&str> = found.iter().map(String::as_str).collect();
            assert_eq!(scheme.from_learnt(&back, scheme.learnt()), tags);
        }
    }

    #[test]
    fn a_file_of_one_kind_of_scheme_gets_what_was_learnt_of_the_other() {
        for (scheme, learnt, tags, written) in [
            (
                TagScheme::Bioes,
                TagScheme::Iob2,
                "B-a I-a B-a O I-b I-b B-a I-c",
                "B-a E-a S-a O I-b E-b S-a E-c",
            ),
            (TagScheme::Bmes, TagScheme::Iob2, "B-a I-a I-a", "B-a M-a E-a"),
            (TagScheme::Iob2, TagScheme::Bioes, "B-a E-a S-a O I-b E-b", "B-a I-a B-a O I-b I-b"),
            // Ends are where the broken ones among them have them.
            (TagScheme::Iob2, TagScheme::Bioes, "E-a E-a I-a I-b", "I-a B-a B-a I-b"),
            (TagScheme::Iob1, TagScheme::Bioes, "B-a E-a S-a O S-b", "I-a I-a B-a O I-b"),
        ] {
            let tags: Vec<&str> = tags.split(' ').collect();
            assert_eq!(scheme.from_learnt(&tags, learnt).join(" "), written, "{scheme}: {tags:?}");
        }
    }

    #[test]
    fn what_is_no_tag_is_told() {
        for tag in ["NN", "", "B-", "X-a", "o", "Ba", "-"] {
            assert_eq!(tag_parts(tag), None, "{tag}");
        }
        assert_eq!(tag_parts("B-a-b"), Some(('B', "a-b")));
        assert_eq!(tag_parts("I_中"), Some(('I', "中")));
        assert!("bmess".parse::<TagScheme>().unwrap_err().to_string().contains("did you mean `bmes`?"));
    }
}
