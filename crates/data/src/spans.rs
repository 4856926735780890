//! Entities as places in a text, and the tags of the words that they cover.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::notice::Notice;
use crate::wording::{count, excerpt, lines};
use crate::words::{Word, split_words};

/// How many lines a sentence lists.
const LISTED: usize = 5;

/// An entity as a file has it: the characters where it begins and ends, and its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrittenSpan {
    pub characters: Range<usize>,
    pub kind: String,
}

/// The spans that `field` says: a JSON list of objects with `start`, `end` (behind the last character) and `label` (or
/// `type`, `tag`, `entity`), or of lists of the three.
pub(crate) fn written_spans(field: &str) -> Result<Vec<WrittenSpan>, String> {
    let wrong = |got: String| {
        format!(
            "expected a JSON list of entities such as [{{\"start\": 0, \"end\": 5, \"label\": \"person\"}}], got {got}"
        )
    };
    let field = field.trim();
    let values: Vec<Value> =
        serde_json::from_str(field).map_err(|_| wrong(format!("`{}`", excerpt(field, 40))))?;
    let span = |value: &Value| {
        let parts = match value {
            Value::Object(object) => [
                first(object, &["start", "start_offset", "begin"]),
                first(object, &["end", "end_offset", "stop"]),
                first(object, &["label", "type", "tag", "entity", "entity_group", "entity_type"]),
            ],
            Value::Array(parts) if parts.len() == 3 => [parts.first(), parts.get(1), parts.get(2)],
            _ => [None; 3],
        };
        let number = |value: Option<&Value>| value?.as_u64().and_then(|number| usize::try_from(number).ok());
        let name = parts[2].and_then(Value::as_str).map(str::trim).filter(|name| !name.is_empty());
        match (number(parts[0]), number(parts[1]), name) {
            (Some(start), Some(end), Some(kind)) => {
                Ok(WrittenSpan { characters: start..end, kind: kind.to_owned() })
            }
            _ => Err(wrong(format!("`{}` in it", excerpt(&value.to_string(), 60)))),
        }
    };
    values.iter().map(span).collect()
}

fn first<'v>(object: &'v Map<String, Value>, names: &[&str]) -> Option<&'v Value> {
    names.iter().find_map(|name| object.get(*name))
}

/// What tags cannot say of spans.
#[derive(Debug, Default)]
pub(crate) struct SpanLosses {
    total: usize,
    widened: Lost,
    inside: Lost,
    nowhere: Lost,
}

#[derive(Debug, Default)]
struct Lost {
    count: usize,
    lines: Vec<u64>,
}

impl Lost {
    fn add(&mut self, line: u64) {
        self.count += 1;
        if self.lines.len() < LISTED && self.lines.last() != Some(&line) {
            self.lines.push(line);
        }
    }
}

impl SpanLosses {
    /// Sentences about them; `file` is where they are, if that must be said.
    pub fn notices(&self, file: Option<&Path>) -> Vec<Notice> {
        let file = file.map(|file| format!("{}: ", file.display())).unwrap_or_default();
        [
            (&self.widened, "begin or end inside a word, and are taken for whole words"),
            (&self.inside, "overlap another, which tags cannot say, and are left out: the longer one stays"),
            (&self.nowhere, "cover no word, and are left out"),
        ]
        .into_iter()
        .filter(|(lost, _)| lost.count > 0)
        .map(|(lost, what)| {
            let place = lines(&lost.lines, lost.lines.len());
            Notice::new(format!("{file}{} of {} entities {what} ({place})", lost.count, self.total))
        })
        .collect()
    }
}

/// The words of `text`, on `line` of its file, tagged as `spans` say, in IOB2. Errors if a span is not in the text.
pub(crate) fn tag_spans(
    text: &str,
    spans: Vec<WrittenSpan>,
    line: u64,
    losses: &mut SpanLosses,
) -> Result<Vec<Word>, String> {
    let narrow = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
    let outside: Arc<str> = Arc::from("O");
    let word = |range: Range<usize>| Word {
        start: narrow(range.start),
        end: narrow(range.end),
        tag: Some(Arc::clone(&outside)),
    };
    let mut words: Vec<Word> = split_words(text).into_iter().map(word).collect();
    if spans.is_empty() {
        return Ok(words);
    }
    let bytes: Vec<usize> =
        text.char_indices().map(|(byte, _)| byte).chain(std::iter::once(text.len())).collect();
    let mut found: Vec<(Range<usize>, String)> = Vec::with_capacity(spans.len());
    for WrittenSpan { characters, kind } in spans {
        let Range { start, end } = characters;
        if start >= end || end >= bytes.len() {
            return Err(format!(
                "expected an entity within the {} of its text, got {start} to {end} for `{}`: its end is behind its last \
                 character",
                count(bytes.len() - 1, "character"),
                excerpt(&kind, 40)
            ));
        }
        found.push((bytes[start]..bytes[end], kind));
    }
    losses.total += found.len();
    // The longest first, so that what overlaps it is what is left out; equal ones in the order of the text.
    found.sort_by_key(|(range, _)| (std::cmp::Reverse(range.len()), range.start));
    for (range, kind) in found {
        let blank = |c: char| c.is_whitespace();
        let covered = &text[range.clone()];
        let start = range.start + (covered.len() - covered.trim_start_matches(blank).len());
        let end = range.end - (covered.len() - covered.trim_end_matches(blank).len());
        let (first, last) = (
            words.partition_point(|word| (word.end as usize) <= start),
            words.partition_point(|word| (word.start as usize) < end),
        );
        if first >= last {
            losses.nowhere.add(line);
            continue;
        }
        if words[first..last].iter().any(|word| word.tag.as_deref() != Some("O")) {
            losses.inside.add(line);
            continue;
        }
        if words[first].start as usize != start || words[last - 1].end as usize != end {
            losses.widened.add(line);
        }
        let [begin, inside] = ["B", "I"].map(|prefix| Arc::from(format!("{prefix}-{kind}")));
        for (place, word) in words[first..last].iter_mut().enumerate() {
            word.tag = Some(Arc::clone(if place == 0 { &begin } else { &inside }));
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str, field: &str) -> Result<(String, usize), String> {
        let mut losses = SpanLosses::default();
        let words = tag_spans(text, written_spans(field)?, 3, &mut losses)?;
        let tags: Vec<&str> = words.iter().map(|word| word.tag.as_deref().unwrap()).collect();
        Ok((tags.join(" "), losses.notices(None).len()))
    }

    #[test]
    fn spans_are_characters_and_become_tags() {
        let text = "Ana Núñez lives in 北京, ok";
        let spans = r#"[{"start": 19, "end": 21, "label": "loc"}, [0, 9, "per"]]"#;
        assert_eq!(tags(text, spans), Ok(("B-per I-per O O B-loc I-loc O O".into(), 0)));
        assert_eq!(tags("a b", "[]"), Ok(("O O".into(), 0)));
    }

    #[test]
    fn what_tags_cannot_say_is_counted() {
        // Into a word, and with a blank at its end, which is none of it.
        assert_eq!(tags("foobar baz", r#"[[3, 6, "x"]]"#), Ok(("B-x O".into(), 1)));
        assert_eq!(tags("foobar baz", r#"[[0, 7, "x"]]"#), Ok(("B-x O".into(), 0)));
        // One in another, and one of blanks alone.
        assert_eq!(tags("a b  c", r#"[[0, 1, "x"], [0, 3, "y"], [3, 4, "z"]]"#), Ok(("B-y I-y O".into(), 2)));
    }

    #[test]
    fn what_is_no_span_is_an_error() {
        for (field, words) in [
            (r#"[[2, 2, "x"]]"#, "expected an entity within the 3 characters of its text, got 2 to 2"),
            (r#"[[0, 4, "x"]]"#, "got 0 to 4"),
            (r#"[{"start": 0, "end": 1}]"#, "expected a JSON list of entities"),
            (r#"[[-1, 1, "x"]]"#, "in it"),
            ("nothing", "got `nothing`"),
        ] {
            let error = tags("a b", field).unwrap_err();
            assert!(error.contains(words), "{field}: {error}");
        }
    }
}
