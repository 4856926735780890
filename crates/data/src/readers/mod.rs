//! From a file to a table: one file a format, and one that finds out which it is.

mod csv;
mod jsonl;
mod sniff;
mod squad;

use std::path::Path;

use crate::encoding::decode;
use crate::error::DataError;
use crate::format::Format;
use crate::table::Table;
use sniff::{is_jsonl, sniff_delimiter};

/// What the user says about a file; what is left out is found from its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The format, over what the content looks like.
    pub format: Option<Format>,
    /// The encoding's name (`gbk`, `latin1`, `shift_jis` ...); UTF-8 without it. A byte order mark decides
    /// over it.
    pub encoding: Option<String>,
}

/// Reads the table in the file at `path`.
///
/// # Errors
/// The file cannot be read or decoded, is empty, or breaks its format's rules; each with its place and what
/// to do.
pub fn read_table(path: &Path, options: &ReadOptions) -> Result<Table, DataError> {
    if is_device(path) {
        let message = "expected a file with rows, got a device: write the rows to a file and give that";
        return Err(DataError::new(message).in_file(path));
    }
    let bytes = std::fs::read(path).map_err(|error| {
        DataError::new(format!("the file cannot be read: {error}: check the path and its permissions"))
            .in_file(path)
    })?;
    let decoded = decode(bytes, options.encoding.as_deref()).map_err(|error| error.in_file(path))?;
    let mut table = parse_table(path, &decoded.text, options.format)?;
    table.notices.splice(..0, decoded.notices);
    Ok(table)
}

/// Whether there is no end to it, such as `/dev/zero`. A pipe is read to its end.
#[cfg(unix)]
fn is_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let kind = std::fs::metadata(path).map(|metadata| metadata.file_type());
    kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device())
}

#[cfg(not(unix))]
fn is_device(_: &Path) -> bool {
    false
}

/// Reads a table from text that is already decoded; `path` only names it, in errors and as [`Table::path`].
///
/// # Errors
/// As [`read_table`], less those of reading and decoding.
pub fn parse_table(path: &Path, text: &str, format: Option<Format>) -> Result<Table, DataError> {
    let mut table =
        parse(text.strip_prefix('\u{feff}').unwrap_or(text), format).map_err(|error| error.in_file(path))?;
    table.path = path.to_owned();
    Ok(table)
}

fn parse(text: &str, format: Option<Format>) -> Result<Table, DataError> {
    match format {
        Some(Format::Jsonl) => jsonl::read(text),
        Some(Format::Squad) => squad::read(text),
        Some(Format::Tsv) => csv::read(text, b'\t'),
        Some(Format::Csv) => csv::read(text, sniff_delimiter(text, b",;|")),
        None if squad::is_squad(text) => squad::read(text),
        None if is_jsonl(text)? => jsonl::read(text),
        None => csv::read(text, sniff_delimiter(text, b",\t;|")),
    }
}
