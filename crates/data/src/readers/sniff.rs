//! Which kind of file a text is, found from its content and not its name.

use std::borrow::Cow;

use super::csv::Records;
use crate::error::DataError;

/// How many records the delimiter is judged by.
const JUDGED_RECORDS: usize = 50;

/// Whether the first line that is not blank is, or begins as, a JSON object.
///
/// # Errors
/// The text is one JSON array of objects: close to JSONL, but not read as a table.
pub(super) fn is_jsonl(text: &str) -> Result<bool, DataError> {
    let start = text.trim_start();
    let second = start.get(1..).and_then(|rest| rest.trim_start().chars().next());
    match (start.chars().next(), second) {
        (Some('{'), Some('"' | '}')) => Ok(true),
        (Some('['), Some('{')) => Err(DataError::new(
            "expected one JSON object a line (JSONL), got one JSON array: write each object on a line of \
             its own, without the brackets and commas around them (`jq -c '.[]'` does it)",
        )
        .at_line(crate::encoding::line_after(&text[..text.len() - start.len()]))),
        _ => Ok(false),
    }
}

/// The candidate that divides the header and gives most of the first records as many fields as it; earlier
/// candidates win ties. The first candidate where none divides the header: a table of one column.
pub(super) fn sniff_delimiter(text: &str, candidates: &[u8]) -> u8 {
    let first = candidates.first().copied().unwrap_or(b',');
    let mut best: Option<(f64, usize, u8)> = None;
    for &delimiter in candidates {
        let Some((width, agreeing)) = consistency(text, delimiter, delimiter == first) else { continue };
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
fn consistency(text: &str, delimiter: u8, usual: bool) -> Option<(usize, f64)> {
    let mut records = Records::new(text, delimiter);
    let mut fields: Vec<Cow<'_, str>> = Vec::new();
    records.read(&mut fields).ok()??;
    let width = fields.len();
    let (mut seen, mut agreeing, mut undivided) = (0_u32, 0_u32, 0_u32);
    for _ in 0..JUDGED_RECORDS {
        let record = records.read(&mut fields);
        if record == Ok(None) {
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
            assert_eq!(sniff_delimiter(text, ALL) as char, expected as char, "{text:?}");
        }
    }

    #[test]
    fn jsonl_begins_with_an_object() {
        assert_eq!(is_jsonl("\n  {\"a\": 1}\n"), Ok(true));
        assert_eq!(is_jsonl("{\n  \"a\": 1\n}"), Ok(true));
        assert_eq!(is_jsonl("{}"), Ok(true));
        assert_eq!(is_jsonl("{name},label\n"), Ok(false));
        assert_eq!(is_jsonl("[id],text\n"), Ok(false));
        assert_eq!(is_jsonl(""), Ok(false));
        assert_eq!(is_jsonl("\n[\n{\"a\": 1}]").map_err(|error| error.line), Err(Some(2)));
    }
}
