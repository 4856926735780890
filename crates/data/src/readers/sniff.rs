//! Which kind of file a text is, found from its content and not its name.

use std::borrow::Cow;

use super::csv::{Dialect, Records};
use crate::format::Format;

/// How many records the delimiter is judged by.
const JUDGED_RECORDS: usize = 50;

/// What a text that begins so is, if it is JSON: objects, one a line, or an array of them.
pub(super) fn sniff_json(text: &str) -> Option<Format> {
    let start = text.trim_start();
    let second = start.get(1..).and_then(|rest| rest.trim_start().chars().next());
    match (start.chars().next(), second) {
        (Some('{'), Some('"' | '}')) => Some(Format::Jsonl),
        (Some('['), Some('{')) => Some(Format::Json),
        // An array without rows is told as that.
        (Some('['), Some(']')) if start.trim_start_matches('[').trim() == "]" => Some(Format::Json),
        _ => None,
    }
}

/// The candidate that divides the header and gives most of the first records as many fields as it; earlier
/// candidates win ties. The first candidate where none divides the header: a table of one column.
pub(super) fn sniff_delimiter(text: &str, whole: bool, candidates: &[u8]) -> u8 {
    let first = candidates.first().copied().unwrap_or(b',');
    let mut best: Option<(f64, usize, u8)> = None;
    for &delimiter in candidates {
        let Some((width, agreeing)) = consistency(text, whole, delimiter, delimiter == first) else {
            continue;
        };
        if best.is_none_or(|(share, fields, _)| (agreeing, width) > (share, fields)) {
            best = Some((agreeing, width, delimiter));
        }
    }
    best.map_or(first, |(_, _, delimiter)| delimiter)
}

/// The header's width and the share of the first records that have it; nothing for a header of one field.
///
/// Nothing, too, where the delimiter is in the header alone: there it is part of a name, unless it is
/// `usual`, when the records are rather ragged and the reader will name them.
fn consistency(text: &str, whole: bool, delimiter: u8, usual: bool) -> Option<(usize, f64)> {
    let mut records = Records::new(text, 1, Dialect { delimiter, quoting: true });
    let mut fields: Vec<Cow<'_, str>> = Vec::new();
    records.read(&mut fields).ok()??;
    let width = fields.len();
    let (mut seen, mut agreeing, mut undivided) = (0_u32, 0_u32, 0_u32);
    for _ in 0..JUDGED_RECORDS {
        let record = records.read(&mut fields);
        // The last record of a part may be a part itself.
        if record == Ok(None) || (records.is_at_end() && !whole) {
            break;
        }
        seen += 1;
        if record.is_err() {
            break;
        }
        agreeing += u32::from(fields.len() == width);
        undivided += u32::from(fields.len() == 1);
    }
    if width < 2 || (seen > 0 && undivided == seen && !usual) {
        return None;
    }
    Some((width, if seen == 0 { 1.0 } else { f64::from(agreeing) / f64::from(seen) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[u8] = b",\t;|";

    #[test]
    fn the_delimiter_is_the_one_that_divides_every_record_alike() {
        for (text, expected) in [
            ("text,label\na;b,x\nc;d,y\n", b','),
            ("text;label\n\"a, b\";x\nc, d, e;y\n", b';'),
            ("text\tlabel\na, b\tx\nc; d\ty\n", b'\t'),
            ("text|label\na|x\n", b'|'),
            ("text (a|b)\nhello\nworld\n", b','),
            ("text\nhello, world\n", b','),
            ("text,label\n\"a;\nb;c\",x\n", b','),
            ("id;amount;note\n1;2,5;a\n2;3,5;b\n", b';'),
            ("text,label\nragged\n", b','),
            ("text;label\n", b';'),
            ("text\tlabel\n\"a\" b\tx\n", b'\t'),
            ("", b','),
        ] {
            assert_eq!(sniff_delimiter(text, true, ALL) as char, expected as char, "{text:?}");
        }
    }

    #[test]
    fn json_begins_with_an_object_or_an_array_of_them() {
        for (text, format) in [
            ("\n  {\"a\": 1}\n", Some(Format::Jsonl)),
            ("{\n  \"a\": 1\n}", Some(Format::Jsonl)),
            ("{}", Some(Format::Jsonl)),
            ("{name},label\n", None),
            ("[id],text\n", None),
            ("[],text\n", None),
            ("", None),
            ("\n[\n{\"a\": 1}]", Some(Format::Json)),
            (" [ ] ", Some(Format::Json)),
        ] {
            assert_eq!(sniff_json(text), format, "{text:?}");
        }
    }
}
