//! Delimited text: CSV and TSV.
//!
//! The grammar is RFC 4180's, read strictly. The `csv` crate forgives a quote that is never closed (it takes
//! the rest of the file for one field) and text after a closing quote (it joins the two); in training data
//! each of these silently loses rows or alters them, so here both are errors at the line where the quote
//! opened.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::encoding::line_breaks;
use crate::error::DataError;
use crate::format::Format;
use crate::notice::Notice;
use crate::table::Table;
use crate::wording::{count, excerpt, list};

/// Reads a header row and its records.
///
/// # Errors
/// No records; a quote that is not closed, or closed too early; a record whose number of fields is not the
/// header's; a column without a name or with another's.
pub(super) fn read(text: &str, delimiter: u8) -> Result<Table, DataError> {
    let strict = read_records(Records::new(text, delimiter));
    let doubt = match &strict {
        Ok(read) => read.swallowing,
        Err(Problem::Quote(error)) => Some(error.line),
        Err(Problem::Other(_)) => None,
    };
    // Many tab-separated files know no quoting at all: a field may begin with a quote that means itself.
    if let Some(line) = doubt
        && delimiter == b'\t'
        && !is_quoted(text)
        && let Ok(Read { mut table, .. }) =
            read_records(Records { quoting: false, ..Records::new(text, delimiter) })
    {
        table.notices.push(Notice::new(format!(
            "quotes are taken as plain characters, since they do not pair up (line {line})"
        )));
        return Ok(table);
    }
    match strict {
        Ok(Read { mut table, swallowing }) => {
            table.notices.extend(swallowing.map(|line| {
                Notice::new(format!(
                    "the quoted field in the record on line {line} holds lines that look like records: is \
                     its closing \
                     quote missing?"
                ))
            }));
            Ok(table)
        }
        Err(Problem::Quote(error)) => Err(error.into_error(delimiter)),
        Err(Problem::Other(error)) => Err(error),
    }
}

/// Whether a tab-separated text has quoted fields on purpose: most that begin with a quote end with one.
fn is_quoted(text: &str) -> bool {
    let fields = text.lines().flat_map(|line| line.split('\t')).filter(|field| field.starts_with('"'));
    let (mut begin, mut end) = (0_usize, 0_usize);
    for field in fields {
        begin += 1;
        end += usize::from(field.len() > 1 && field.ends_with('"'));
    }
    2 * end > begin
}

struct Read {
    table: Table,
    /// The first record with a quoted field that seems to have swallowed records.
    swallowing: Option<u64>,
}

enum Problem {
    Quote(QuoteError),
    Other(DataError),
}

impl From<QuoteError> for Problem {
    fn from(error: QuoteError) -> Self {
        Problem::Quote(error)
    }
}

impl From<DataError> for Problem {
    fn from(error: DataError) -> Self {
        Problem::Other(error)
    }
}

fn read_records(mut records: Records<'_>) -> Result<Read, Problem> {
    let delimiter = records.delimiter;
    let mut fields = Vec::new();
    let Some(header_line) = records.read(&mut fields)? else {
        return Err(DataError::new(
            "the file is empty: expected a header row and at least one record below it",
        )
        .into());
    };
    let columns = column_names(&fields, header_line, delimiter)?;
    let width = columns.len();
    let mut table = Table::new(if delimiter == b'\t' { Format::Tsv } else { Format::Csv }, columns);
    // Row and column of each field whose lines could be records.
    let mut suspects = Vec::new();
    while let Some(line) = records.read(&mut fields)? {
        if fields.len() != width {
            return Err(ragged(&table, fields.len(), delimiter).at_line(line).into());
        }
        for (column, field) in fields.iter().enumerate() {
            if holds_records(field, delimiter, width) {
                suspects.push((table.len(), column));
            }
            table.push_field(column, field);
        }
        table.end_row(line);
    }
    if table.is_empty() {
        return Err(DataError::new(format!(
            "expected records below the header ({}), got none: the first row must name the columns, and the \
             data follows",
            list(table.columns(), 6)
        ))
        .at_line(header_line)
        .into());
    }
    table.notices.extend(header_notice(&table));
    let swallowing = swallowing(&table, &suspects, delimiter);
    Ok(Read { table, swallowing })
}

/// Whether the lines within a field all have the fields of a record: it may have swallowed records, for want
/// of a quote.
fn holds_records(field: &str, delimiter: u8, width: usize) -> bool {
    let is_record = |line: &str| line.bytes().filter(|byte| *byte == delimiter).count() + 1 == width;
    let mut seen = 0;
    width > 1
        && record_lines(field, delimiter).inspect(|_| seen += 1).all(is_record)
        && seen >= least_records(delimiter)
}

/// The lines within a field that would be whole records: where the delimiter is no tab, the first is cut by a
/// quote.
fn record_lines(field: &str, delimiter: u8) -> impl Iterator<Item = &str> {
    let whole_lines = field.rsplit_once('\n').map_or("", |(whole_lines, _)| whole_lines);
    let lines = whole_lines.split('\n').skip(usize::from(delimiter != b'\t'));
    lines.map(|line| line.trim_end_matches('\r')).filter(|line| !line.trim().is_empty())
}

/// The columns and values of a line, if it is a record without quotes.
fn line_values(line: &str, delimiter: u8) -> impl Iterator<Item = (usize, &str)> {
    line.split(char::from(delimiter)).enumerate()
}

/// A tab is a sign, but prose has commas too.
fn least_records(delimiter: u8) -> usize {
    if delimiter == b'\t' { 1 } else { 2 }
}

/// The line of the first record of `suspects` that has swallowed others.
///
/// A tab is sign enough. Elsewhere enough of the lines must also hold a value that its column has in another
/// place, as labels are: a letter with a comma in each line is no more than a letter.
fn swallowing(table: &Table, suspects: &[(usize, usize)], delimiter: u8) -> Option<u64> {
    let suspects: Vec<(u64, &str)> = suspects
        .iter()
        .filter_map(|&(row, column)| table.row(row).and_then(|row| Some((row.line(), row.get(column)?))))
        .collect();
    if suspects.is_empty() || delimiter == b'\t' {
        return suspects.first().map(|(line, _)| *line);
    }
    let sought: HashSet<(usize, &str)> = suspects
        .iter()
        .flat_map(|(_, field)| record_lines(field, delimiter).flat_map(|line| line_values(line, delimiter)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let known: HashSet<(usize, &str)> = table
        .rows()
        .flat_map(|row| row.values().enumerate())
        .filter_map(|(column, value)| Some((column, value?)))
        .filter(|value| sought.contains(value))
        .collect();
    let is_record = |line: &&str| line_values(line, delimiter).any(|value| known.contains(&value));
    suspects
        .iter()
        .find(|(_, field)| {
            record_lines(field, delimiter).filter(is_record).count() >= least_records(delimiter)
        })
        .map(|(line, _)| *line)
}

fn column_names(fields: &[Cow<'_, str>], line: u64, delimiter: u8) -> Result<Vec<String>, DataError> {
    let names: Vec<String> = fields.iter().map(|name| name.trim().to_owned()).collect();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (place, name) in names.iter().enumerate() {
        let place = place + 1;
        if name.is_empty() {
            let advice = match place {
                1 => "name it, or leave it out (with pandas: `to_csv(..., index=False)`)".to_owned(),
                _ => format!("name it, or remove the extra {}", shown(delimiter)),
            };
            return Err(DataError::new(format!(
                "expected a name for every column in the header, got none for column {place} of {}: {advice}",
                names.len()
            ))
            .at_line(line));
        }
        if let Some(first) = places.insert(name, place) {
            return Err(DataError::new(format!(
                "expected different names in the header, got `{name}` for columns {first} and {place}: \
                 rename one"
            ))
            .at_line(line));
        }
    }
    Ok(names)
}

fn ragged(table: &Table, found: usize, delimiter: u8) -> DataError {
    let columns = table.columns();
    let advice = if found > columns.len() {
        format!("put double quotes around a field that holds {}", shown(delimiter))
    } else {
        "add what is missing, or delete the line".to_owned()
    };
    DataError::new(format!(
        "expected {} as in the header ({}), got {found}: {advice}",
        count(columns.len(), "field"),
        list(columns, 6)
    ))
}

fn shown(delimiter: u8) -> String {
    if delimiter == b'\t' { "a tab".to_owned() } else { format!("`{}`", delimiter as char) }
}

/// A sentence where the header seems to be a record: a name that is a number, a sentence, or a value of its
/// own column.
fn header_notice(table: &Table) -> Option<Notice> {
    let columns = table.columns();
    let odd = columns.iter().enumerate().find_map(|(column, name)| {
        let sentence = name.split_whitespace().count() > 6
            || (name.contains(' ') && name.ends_with(['.', '?', '!', '。', '？', '！']));
        let why = if name.parse::<f64>().is_ok() {
            "is a number"
        } else if sentence {
            "is a sentence"
        } else if table.rows().any(|row| row.get(column).is_some_and(|value| value.trim() == name)) {
            "is also a value in its column"
        } else {
            return None;
        };
        Some((name, why))
    })?;
    Some(Notice::new(format!(
        "the first row is taken as the names of the columns, but `{}` {}: if it is data, put a header above \
         it, such as `text,label`",
        excerpt(odd.0, 40),
        odd.1
    )))
}

/// A quote that does not pair up, at the line where it opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QuoteError {
    line: u64,
    /// The line of a closing quote with text after it; nothing where no quote closes the field.
    closed: Option<u64>,
}

impl QuoteError {
    fn into_error(self, delimiter: u8) -> DataError {
        let message = match self.closed {
            None => "expected a closing quote for the one that opens a field here, got the end of the file: \
                     close it, or double it (`\"\"`) within a quoted field where it is part of the text"
                .to_owned(),
            Some(closed) => format!(
                "expected {} or the end of the line after the quote that closes a field on line {closed}, \
                 got more text: put quotes around the whole field and double (`\"\"`) those inside it",
                shown(delimiter)
            ),
        };
        DataError::new(message).at_line(self.line)
    }
}

/// The records of a text, one after the other. A record ends at LF, CRLF or a lone CR outside quotes.
pub(super) struct Records<'t> {
    text: &'t str,
    at: usize,
    line: u64,
    delimiter: u8,
    quoting: bool,
}

impl<'t> Records<'t> {
    pub(super) fn new(text: &'t str, delimiter: u8) -> Self {
        Records { text, at: 0, line: 1, delimiter, quoting: true }
    }

    /// Reads the next record into `fields` and returns the line where it starts; blank lines are skipped.
    pub(super) fn read(&mut self, fields: &mut Vec<Cow<'t, str>>) -> Result<Option<u64>, QuoteError> {
        fields.clear();
        self.skip_blank_lines();
        if self.at == self.text.len() {
            return Ok(None);
        }
        let line = self.line;
        loop {
            let quoted = self.quoting && self.next_byte() == Some(b'"');
            fields.push(if quoted { self.quoted_field()? } else { self.plain_field() });
            if self.next_byte() == Some(self.delimiter) {
                self.at += 1;
            } else {
                self.end_line();
                return Ok(Some(line));
            }
        }
    }

    fn next_byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blank_lines(&mut self) {
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let blank = |byte: &u8| *byte != self.delimiter && matches!(byte, b' ' | b'\t');
            let blanks = rest.iter().take_while(|byte| blank(byte)).count();
            match rest.get(blanks) {
                Some(b'\n' | b'\r') => {
                    self.at += blanks;
                    self.end_line();
                }
                None => {
                    self.at += blanks;
                    return;
                }
                Some(_) => return,
            }
        }
    }

    /// Passes the line break here, if there is one: the end of the file ends a line too.
    fn end_line(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let width = if rest.starts_with(b"\r\n") { 2 } else { usize::from(!rest.is_empty()) };
        self.at += width;
        self.line += u64::from(width > 0);
    }

    fn plain_field(&mut self) -> Cow<'t, str> {
        let rest = &self.text[self.at..];
        let ends = |byte: u8| byte == self.delimiter || byte == b'\n' || byte == b'\r';
        let length = rest.bytes().position(ends).unwrap_or(rest.len());
        self.at += length;
        Cow::Borrowed(&rest[..length])
    }

    fn quoted_field(&mut self) -> Result<Cow<'t, str>, QuoteError> {
        let opened = self.line;
        self.at += 1;
        let mut start = self.at;
        // Only a field with doubled quotes differs from what stands in the file.
        let mut unescaped = String::new();
        loop {
            let rest = &self.text[self.at..];
            let length = rest.find('"').ok_or(QuoteError { line: opened, closed: None })?;
            self.line += line_breaks(&rest.as_bytes()[..length]);
            self.at += length + 1;
            match self.next_byte() {
                Some(b'"') => {
                    unescaped.push_str(&self.text[start..self.at]);
                    self.at += 1;
                    start = self.at;
                }
                None | Some(b'\n' | b'\r') => break,
                Some(byte) if byte == self.delimiter => break,
                Some(_) => return Err(QuoteError { line: opened, closed: Some(self.line) }),
            }
        }
        let last = &self.text[start..self.at - 1];
        if unescaped.is_empty() {
            return Ok(Cow::Borrowed(last));
        }
        unescaped.push_str(last);
        Ok(Cow::Owned(unescaped))
    }
}
