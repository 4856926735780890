//! Delimited text: CSV and TSV.
//!
//! The grammar is RFC 4180's, read strictly. The `csv` crate forgives a quote that is never closed (it takes
//! the rest of the file for one field) and text after a closing quote (it joins the two); in training data
//! each of these silently loses rows or alters them, so here both are errors at the line where the quote
//! opened.

use std::borrow::Cow;
use std::collections::HashMap;

use super::sniff::sniff_delimiter;
use super::{FileUnderWay, each_line};
use crate::error::DataError;
use crate::format::Format;
use crate::input::Text;
use crate::input::encoding::line_breaks;
use crate::table::Table;
use crate::wording::{count, excerpt, list};

/// Reads a header row and its records; what divides them is the best of `candidates`.
///
/// # Errors
/// No records; a quote that is not closed, or closed too early; a record whose number of fields is not the
/// header's; a column without a name or with another's.
pub(super) fn read(file: &mut FileUnderWay<'_>, candidates: &[u8]) -> Result<(), DataError> {
    let text = file.text()?;
    let delimiter = sniff_delimiter(text.text(), text.is_whole(), candidates);
    let mut dialect = Dialect { delimiter, quoting: true };
    file.table.set_format(if delimiter == b'\t' { Format::Tsv } else { Format::Csv });
    // Many tab-separated files know no quoting at all: a field may begin with a quote that means itself.
    if delimiter == b'\t'
        && let Some(line) = doubt(file, dialect)?
        && !is_quoted(file)?
    {
        let plain = Dialect { quoting: false, ..dialect };
        if read_records(&mut file.text()?, plain, &mut Nothing).is_ok() {
            dialect = plain;
            file.notice(format!(
                "quotes are taken as plain characters, since they do not pair up (line {line})"
            ));
        }
    }
    let mut text = file.text()?;
    let mut rows = Rows { file, columns: Vec::new(), repeated: Vec::new() };
    let read =
        read_records(&mut text, dialect, &mut rows).map_err(|problem| problem.into_error(delimiter))?;
    let (columns, repeated) = (rows.columns, rows.repeated);
    file.end_of(&text);
    if dialect.quoting
        && let Some(line) = swallowing(file.table, &columns, &read.suspects, delimiter)?
    {
        file.notice(format!(
            "the quoted field in the record on line {line} holds lines that look like records: is its closing \
             quote missing?"
        ));
    }
    if let Some(message) = header_notice(&read.names, &repeated) {
        file.notice(message);
    }
    Ok(())
}

/// The line where quotes do not pair up, or seem to have swallowed records. Errors if the file cannot be read.
fn doubt(file: &FileUnderWay<'_>, dialect: Dialect) -> Result<Option<u64>, DataError> {
    match read_records(&mut file.text()?, dialect, &mut Nothing) {
        Ok(read) => Ok(read.suspects.first().map(|suspect| suspect.line)),
        Err(Problem::Quote(error)) => Ok(Some(error.line)),
        Err(Problem::Other(_)) => Ok(None),
    }
}

/// Whether a tab-separated text has quoted fields on purpose: most that begin with a quote end with one.
fn is_quoted(file: &FileUnderWay<'_>) -> Result<bool, DataError> {
    let (mut begin, mut end) = (0_usize, 0_usize);
    each_line(&mut file.text()?, |line, _| {
        for field in line.trim_end_matches('\r').split('\t').filter(|field| field.starts_with('"')) {
            begin += 1;
            end += usize::from(field.len() > 1 && field.ends_with('"'));
        }
        Ok(())
    })?;
    Ok(2 * end > begin)
}

/// How records are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    pub delimiter: u8,
    /// Whether a quote at the beginning of a field is none of its characters.
    pub quoting: bool,
}

enum Problem {
    Quote(QuoteError),
    Other(DataError),
}

impl Problem {
    fn into_error(self, delimiter: u8) -> DataError {
        match self {
            Problem::Quote(error) => error.into_error(delimiter),
            Problem::Other(error) => error,
        }
    }
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

/// What is done with a file's header and records.
trait Sink {
    fn header(&mut self, names: &[String], line: u64) -> Result<(), DataError>;
    fn record(&mut self, names: &[String], fields: &[Cow<'_, str>], line: u64) -> Result<(), DataError>;
}

/// They are looked at only.
struct Nothing;

impl Sink for Nothing {
    fn header(&mut self, _: &[String], _: u64) -> Result<(), DataError> {
        Ok(())
    }

    fn record(&mut self, _: &[String], _: &[Cow<'_, str>], _: u64) -> Result<(), DataError> {
        Ok(())
    }
}

/// They become rows of the table.
struct Rows<'r, 'f> {
    file: &'r mut FileUnderWay<'f>,
    columns: Vec<usize>,
    /// Which columns have their own name as a value.
    repeated: Vec<bool>,
}

impl Sink for Rows<'_, '_> {
    fn header(&mut self, names: &[String], line: u64) -> Result<(), DataError> {
        self.columns = self.file.columns(names).map_err(|error| error.at_line(line))?;
        self.repeated = vec![false; names.len()];
        Ok(())
    }

    fn record(&mut self, names: &[String], fields: &[Cow<'_, str>], line: u64) -> Result<(), DataError> {
        for (place, field) in fields.iter().enumerate() {
            let (Some(column), Some(name)) = (self.columns.get(place), names.get(place)) else { continue };
            self.file.table.push_field(*column, field);
            if field.len() >= name.len() && field.trim() == name {
                self.repeated[place] = true;
            }
        }
        self.file.table.end_row(line)
    }
}

struct Read {
    names: Vec<String>,
    suspects: Vec<Suspect>,
}

/// A field whose lines could be records.
struct Suspect {
    line: u64,
    field: String,
}

fn read_records(text: &mut Text<'_>, dialect: Dialect, sink: &mut dyn Sink) -> Result<Read, Problem> {
    let delimiter = dialect.delimiter;
    let mut read = Read { names: Vec::new(), suspects: Vec::new() };
    let (mut header_line, mut rows) = (1, 0_usize);
    each_record(text, dialect, |fields, line| {
        if read.names.is_empty() {
            read.names = column_names(fields, line, delimiter)?;
            header_line = line;
            return sink.header(&read.names, line);
        }
        if fields.len() != read.names.len() {
            return Err(ragged(&read.names, fields.len(), delimiter).at_line(line));
        }
        rows += 1;
        for field in fields.iter().filter(|field| holds_records(field, delimiter, read.names.len())) {
            // A tab is sign enough, so there the first one tells all.
            if delimiter != b'\t' || read.suspects.is_empty() {
                read.suspects.push(Suspect { line, field: field.to_string() });
            }
        }
        sink.record(&read.names, fields, line)
    })?;
    if read.names.is_empty() {
        return Err(DataError::new(
            "the file is empty: expected rows, as CSV or TSV a header row and at least one record below it",
        )
        .into());
    }
    if rows == 0 {
        return Err(DataError::new(format!(
            "expected records below the header ({}), got none: the first row must name the columns, and the \
             data follows",
            list(&read.names, 6)
        ))
        .at_line(header_line)
        .into());
    }
    Ok(read)
}

/// Gives each record with the line where it starts to `take`.
fn each_record(
    text: &mut Text<'_>,
    dialect: Dialect,
    mut take: impl FnMut(&[Cow<'_, str>], u64) -> Result<(), DataError>,
) -> Result<(), Problem> {
    loop {
        let (whole, mut passed) = (text.is_whole(), 0);
        {
            let mut records = Records::new(text.text(), text.line(), dialect);
            let mut fields = Vec::new();
            loop {
                let record = records.read(&mut fields);
                // What reaches the end of what is here may go on behind it.
                let open = matches!(record, Err(QuoteError { closed: None, .. })) || records.is_at_end();
                if open && !whole {
                    break;
                }
                let Some(line) = record? else { break };
                take(&fields, line)?;
                passed = records.at;
            }
        }
        if whole {
            return Ok(());
        }
        text.pass(passed);
        text.more()?;
    }
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

/// The table's columns and values of a line, if it is a record without quotes.
fn in_columns<'l>(columns: &[usize], line: &'l str, delimiter: u8) -> impl Iterator<Item = (usize, &'l str)> {
    columns.iter().copied().zip(line.split(char::from(delimiter)))
}

/// A tab is a sign, but prose has commas too.
fn least_records(delimiter: u8) -> usize {
    if delimiter == b'\t' { 1 } else { 2 }
}

/// The line of the first record of `suspects` that has swallowed others.
///
/// A tab is sign enough. Elsewhere enough of the lines must also hold a value that its column has in another
/// place, as labels are: a letter with a comma in each line is no more than a letter.
fn swallowing(
    table: &Table,
    columns: &[usize],
    suspects: &[Suspect],
    delimiter: u8,
) -> Result<Option<u64>, DataError> {
    if suspects.is_empty() || delimiter == b'\t' {
        return Ok(suspects.first().map(|suspect| suspect.line));
    }
    let all = suspects
        .iter()
        .flat_map(|suspect| record_lines(&suspect.field, delimiter))
        .flat_map(|line| in_columns(columns, line, delimiter));
    // Whether a value was met elsewhere.
    let mut known: HashMap<usize, HashMap<&str, bool>> = HashMap::new();
    for (column, value) in all.filter(|(_, value)| !value.is_empty()) {
        known.entry(column).or_default().insert(value, false);
    }
    for row in table.rows().skip(table.first_row()) {
        let row = row?;
        for (column, value) in row.values().enumerate() {
            let sought = known.get_mut(&column).zip(value).and_then(|(sought, value)| sought.get_mut(value));
            sought.into_iter().for_each(|met| *met = true);
        }
    }
    let is_known =
        |column: usize, value: &str| known.get(&column).and_then(|met| met.get(value)) == Some(&true);
    let is_record =
        |line: &&str| in_columns(columns, line, delimiter).any(|(column, value)| is_known(column, value));
    let swallowed = |suspect: &&Suspect| {
        record_lines(&suspect.field, delimiter).filter(is_record).count() >= least_records(delimiter)
    };
    Ok(suspects.iter().find(swallowed).map(|suspect| suspect.line))
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

fn ragged(columns: &[String], found: usize, delimiter: u8) -> DataError {
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
/// own column, as `repeated` says.
fn header_notice(columns: &[String], repeated: &[bool]) -> Option<String> {
    let odd = columns.iter().zip(repeated).find_map(|(name, repeated)| {
        let sentence = name.split_whitespace().count() > 6
            || (name.contains(' ') && name.ends_with(['.', '?', '!', '。', '？', '！']));
        let why = if name.parse::<f64>().is_ok() {
            "is a number"
        } else if sentence {
            "is a sentence"
        } else if *repeated {
            "is also a value in its column"
        } else {
            return None;
        };
        Some((name, why))
    })?;
    Some(format!(
        "the first row is taken as the names of the columns, but `{}` {}: if it is data, put a header above \
         it, such as `text,label`",
        excerpt(odd.0, 40),
        odd.1
    ))
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
    /// Those of `text`, which begins on `line`.
    pub(super) fn new(text: &'t str, line: u64, Dialect { delimiter, quoting }: Dialect) -> Self {
        Records { text, at: 0, line, delimiter, quoting }
    }

    /// Whether the last record ended, or broke off, with the text.
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.text.len()
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
