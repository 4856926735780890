//! From bytes to text, strictly: what cannot be read is named, never replaced.

use encoding_rs::{DecoderResult, Encoding, GBK, REPLACEMENT, UTF_8, WINDOWS_1252};

use crate::error::DataError;
use crate::wording::{did_you_mean, excerpt};

/// Names that Python and editors use and the encoding standard does not know.
const ALIASES: [(&str, &str); 6] = [
    ("latin-1", "latin1"),
    ("latin_1", "latin1"),
    ("iso8859_1", "latin1"),
    ("utf_8", "utf-8"),
    ("utf-8-sig", "utf-8"),
    ("cp936", "gbk"),
];

/// The names worth suggesting for one that is unknown.
const COMMON: [&str; 16] = [
    "utf-8",
    "utf-16le",
    "utf-16be",
    "gbk",
    "gb18030",
    "big5",
    "latin1",
    "windows-1252",
    "windows-1250",
    "windows-1251",
    "iso-8859-2",
    "iso-8859-15",
    "koi8-r",
    "shift_jis",
    "euc-jp",
    "euc-kr",
];

/// How the files begin that people take for a table.
const KNOWN_BINARY: [(&[u8], &str); 4] = [
    (b"PK\x03\x04", "a zip archive or an Excel workbook"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3", "a SQLite database"),
];

/// Decodes `bytes` as `label` says, or as UTF-8. A byte order mark decides over both: it is in no text by
/// chance.
///
/// # Errors
/// An unknown label; bytes that the encoding does not have (line, byte offset and the bytes are named); a
/// NUL.
pub(super) fn decode(mut bytes: Vec<u8>, label: Option<&str>) -> Result<String, DataError> {
    let named = label.map(by_label).transpose()?.unwrap_or(UTF_8);
    let (encoding, mark) = Encoding::for_bom(&bytes).unwrap_or((named, 0));
    if encoding == UTF_8 {
        if let Some(nul) = bytes.iter().position(|byte| *byte == 0) {
            return Err(nul_error(&bytes, nul));
        }
        bytes.drain(..mark);
        String::from_utf8(bytes).map_err(|error| not_utf8(error.as_bytes(), error.utf8_error(), mark))
    } else {
        let body = bytes.get(mark..).unwrap_or_default();
        let name = label.filter(|_| mark == 0).unwrap_or(encoding.name());
        let text = decode_strictly(body, encoding, mark, name)?;
        if let Some(nul) = text.find('\0') {
            let line = line_after(&text[..nul]);
            return Err(DataError::new(format!(
                "expected text, got a NUL character when read as {name}: the file looks binary, or has \
                 another encoding"
            ))
            .at_line(line));
        }
        Ok(text)
    }
}

/// Errors if bytes that begin so are those of a known kind of file that is no text.
pub(super) fn refuse_binary(head: &[u8]) -> Result<(), DataError> {
    match KNOWN_BINARY.iter().find(|(magic, _)| head.starts_with(magic)) {
        None => Ok(()),
        Some((_, what)) => Err(DataError::new(format!(
            "expected text, got {what}: save the table as CSV, JSONL or Parquet and give that file"
        ))
        .at_byte(0)),
    }
}

/// What was read as `name`, and is UTF-8.
pub(super) fn utf8_after_all(name: &str) -> String {
    format!(
        "the file is read as {name}, as asked, but it is valid UTF-8: leave --encoding out if letters look wrong"
    )
}

/// The number of the line that `prefix` ends in, counted from 1 as an editor does (LF, CRLF or a lone CR).
pub(crate) fn line_after(prefix: &str) -> u64 {
    1 + line_breaks(prefix.as_bytes())
}

/// How many lines end in `bytes`; a CR before an LF is part of it.
pub(crate) fn line_breaks(bytes: &[u8]) -> u64 {
    let mut breaks = 0;
    let mut after_cr = false;
    for &byte in bytes {
        breaks += u64::from(byte == b'\r' || (byte == b'\n' && !after_cr));
        after_cr = byte == b'\r';
    }
    breaks
}

pub(super) fn by_label(label: &str) -> Result<&'static Encoding, DataError> {
    let lower = label.trim().to_lowercase();
    let standard = ALIASES.iter().find(|(alias, _)| *alias == lower).map_or(lower.as_str(), |(_, name)| name);
    match Encoding::for_label(standard.as_bytes()) {
        Some(encoding) if encoding != REPLACEMENT => Ok(encoding),
        _ => Err(DataError::new(format!(
            "unknown encoding `{label}`{}: expected a name such as utf-8, gbk, gb18030, latin1, \
             windows-1252, shift_jis",
            did_you_mean(&lower, COMMON)
        ))),
    }
}

fn decode_strictly(
    body: &[u8],
    encoding: &'static Encoding,
    mark: usize,
    name: &str,
) -> Result<String, DataError> {
    if let Some(text) = encoding.decode_without_bom_handling_and_without_replacement(body) {
        return Ok(text.into_owned());
    }
    // Only a file that fails pays for a second pass, which finds the place.
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let room = decoder.max_utf8_buffer_length_without_replacement(body.len()).unwrap_or(0);
    let mut before = String::with_capacity(room);
    let (result, read) = decoder.decode_to_string_without_replacement(body, &mut before, true);
    let (length, after) = match result {
        DecoderResult::Malformed(length, after) => (usize::from(length), usize::from(after)),
        DecoderResult::InputEmpty | DecoderResult::OutputFull => (0, 0),
    };
    let at = read.saturating_sub(after + length);
    let bytes = body.get(at..at + length).unwrap_or_default();
    let advice = if std::str::from_utf8(body).is_ok() {
        "the file is valid UTF-8, so leave --encoding out".to_owned()
    } else {
        format!("check that the file really is {name}, or repair that line")
    };
    Err(DataError::new(format!("expected {name} text, got {}: {advice}", hex(bytes)))
        .at_line(line_after(&before))
        .at_byte(mark + at))
}

fn not_utf8(body: &[u8], error: std::str::Utf8Error, mark: usize) -> DataError {
    let at = error.valid_up_to();
    let (before, rest) = body.split_at(at);
    let bytes = &rest[..error.error_len().unwrap_or(rest.len()).min(rest.len())];
    let line = 1 + line_breaks(before);
    DataError::new(format!("expected UTF-8 text, got {}: {}", hex(bytes), advice(body, at)))
        .at_line(line)
        .at_byte(mark + at)
}

/// What to do about a file that is not UTF-8: mend it, or name the encoding that it likely has.
fn advice(body: &[u8], at: usize) -> String {
    let (mut whole, mut broken) = (0_usize, 0_usize);
    for chunk in body.utf8_chunks() {
        whole += chunk.valid().chars().filter(|character| !character.is_ascii()).count();
        broken += usize::from(!chunk.invalid().is_empty());
    }
    // Other encodings look like UTF-8 here and there; most of a file does not by chance.
    if whole > 2 * broken {
        return "the rest of the file is UTF-8, so that place is damaged: repair the line".to_owned();
    }
    // A GBK character is two bytes, nearly always both above 127; a Western word has one such byte at a time.
    let runs = body.split(|byte| byte.is_ascii()).filter(|run| !run.is_empty());
    let (mut alone, mut together) = (0_usize, 0_usize);
    for run in runs {
        if run.len() == 1 { alone += 1 } else { together += run.len() }
    }
    let (encoding, name) = if together > alone { (GBK, "gbk") } else { (WINDOWS_1252, "latin1") };
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let start = body[..at].iter().rposition(is_break).map_or(0, |place| place + 1);
    let line = body[start..].split(is_break).next().unwrap_or_default();
    let (read, _) = encoding.decode_without_bom_handling(line);
    format!(
        "give `--encoding {name}` if this is how the line should read: {} (others are {})",
        excerpt(&read, 60),
        if name == "gbk" { "latin1, shift_jis, big5" } else { "gbk, windows-1250, windows-1251" }
    )
}

fn nul_error(bytes: &[u8], nul: usize) -> DataError {
    // Western text in UTF-16 has a NUL in every other byte.
    let sample = bytes.get(..bytes.len().min(1000)).unwrap_or_default();
    let even = sample.iter().step_by(2).filter(|byte| **byte == 0).count();
    let odd = sample.iter().skip(1).step_by(2).filter(|byte| **byte == 0).count();
    let advice = if odd * 4 > sample.len() && even == 0 {
        "the file looks like UTF-16: give `--encoding utf-16le`".to_owned()
    } else if even * 4 > sample.len() && odd == 0 {
        "the file looks like UTF-16: give `--encoding utf-16be`".to_owned()
    } else {
        "the file looks binary: give a CSV, TSV or JSONL file".to_owned()
    };
    DataError::new(format!("expected text, got a NUL byte: {advice}"))
        .at_line(1 + line_breaks(&bytes[..nul]))
        .at_byte(nul)
}

/// `the byte 0xe9`, `the bytes 0xc4 0xe3`.
fn hex(bytes: &[u8]) -> String {
    let shown: Vec<String> = bytes.iter().take(4).map(|byte| format!("0x{byte:02x}")).collect();
    format!("the {} {}", if bytes.len() == 1 { "byte" } else { "bytes" }, shown.join(" "))
}
