//! Plain text: a file is one text, or each of its lines is.

use super::{FileUnderWay, each_line};
use crate::error::DataError;
use crate::format::Format;

/// The column of the texts.
const COLUMN: &str = "text";

const EMPTY: &str = "the file is empty: expected text";

/// Reads a file as one text, from its first character that is no white space to its last.
///
/// # Errors
/// There is none.
pub(super) fn read_whole(file: &mut FileUnderWay<'_>) -> Result<(), DataError> {
    file.table.set_format(Format::Text);
    let mut text = file.text()?;
    while !text.is_whole() {
        text.more()?;
    }
    let (whole, content) = (text.text(), text.text().trim());
    if content.is_empty() {
        return Err(DataError::new(EMPTY));
    }
    let blank = whole.len() - whole.trim_start().len();
    let line = 1 + whole[..blank].matches('\n').count() as u64;
    let column = file.column(COLUMN);
    file.table.push_field(column, content);
    file.table.end_row(line)?;
    file.end_of(&text);
    Ok(())
}

/// Reads a text a line; lines of white space are none.
///
/// # Errors
/// There is none.
pub(super) fn read_lines(file: &mut FileUnderWay<'_>) -> Result<(), DataError> {
    file.table.set_format(Format::Lines);
    let mut text = file.text()?;
    let column = file.column(COLUMN);
    each_line(&mut text, |line, number| {
        if line.trim().is_empty() {
            return Ok(());
        }
        file.table.push_field(column, line.trim_end_matches('\r'));
        file.table.end_row(number)
    })?;
    if file.table.file_rows() == 0 {
        return Err(DataError::new(EMPTY));
    }
    file.end_of(&text);
    Ok(())
}
