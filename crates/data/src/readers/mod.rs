//! From files to a table: one file a format, and one that finds out which it is.

mod conll;
mod csv;
mod json;
mod json_text;
mod jsonl;
#[cfg(feature = "parquet")]
mod parquet;
mod sniff;
mod squad;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::format::Format;
use crate::input::{Input, Text, find_files, is_conll_file, is_text_file};
use crate::notice::Notice;
use crate::table::Table;
use crate::wording::{did_you_mean, list};
use sniff::sniff_json;
pub(crate) use squad::is_squad;

/// What the user says about files; what is left out is found from their content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The format, over what the content looks like.
    pub format: Option<Format>,
    /// The encoding's name (`gbk`, `latin1`, `shift_jis` ...); UTF-8 without it. A byte order mark decides
    /// over it.
    pub encoding: Option<String>,
    /// What columns are called in the table, by their names in the files.
    pub rename: BTreeMap<String, String>,
    /// Whether a file whose name ends in `.txt` is plain text unless it is JSON: what is learnt of it is what it says.
    pub plain_text: bool,
}

/// Reads the table in the file at `path`.
///
/// # Errors
/// As [`read_tables`].
pub fn read_table(path: &Path, options: &ReadOptions) -> Result<Table, DataError> {
    let mut read = Reading::new(options);
    read.file(&Input::open(path)?)?;
    read.end()
}

/// Reads the tables in all files that are named, one after the other: files, folders of them, patterns such as
/// `data/part-*.csv`. Any of them may be packed with gzip or zstd. Columns go by their names; a row has nothing in those
/// that its own file lacks.
///
/// # Errors
/// A file cannot be read, unpacked or decoded, is empty, or breaks its format's rules; each with its place and what
/// to do. A column to be renamed is in none of them.
pub fn read_tables(named: &[PathBuf], options: &ReadOptions) -> Result<Table, DataError> {
    let (files, notices) = find_files(named)?;
    let mut read = Reading::new(options);
    read.table.notices.extend(notices);
    read.several = files.len() > 1;
    for path in files {
        read.file(&Input::open(&path)?)?;
    }
    read.end()
}

/// The files that [`read_tables`] reads for these names.
///
/// # Errors
/// A folder or a pattern without such files, a file that is named twice.
pub fn named_files(named: &[PathBuf]) -> Result<Vec<PathBuf>, DataError> {
    Ok(find_files(named)?.0)
}

/// Reads what a file begins with as a table, to see what it is: the records of its first mebibyte, or of as much as has one;
/// the first thousand rows of a Parquet file.
///
/// # Errors
/// As [`read_table`], less those behind these rows.
pub fn read_head(path: &Path, options: &ReadOptions) -> Result<Table, DataError> {
    /// A record is not looked for beyond.
    const MOST: usize = 64 << 20;
    let input = Input::open(path)?;
    let mut read = Reading { most: 1000, ..Reading::new(options) };
    if input.head()?.starts_with(b"PAR1") {
        read.file(&input)?;
        return Ok(read.table);
    }
    let mut text = Text::open(&input, options.encoding.as_deref())?;
    // It is decoded already.
    let options = ReadOptions { encoding: None, ..options.clone() };
    loop {
        let head = if text.is_whole() { text.text() } else { whole_lines(text.text()) };
        let mut read = Reading::new(&options);
        match read.file(&Input::memory(path, head.as_bytes())?) {
            Ok(()) => return Ok(read.table),
            // The last record of a part may be a part itself.
            Err(_) if !text.is_whole() && !read.table.is_empty() => return Ok(read.table),
            Err(_) if !text.is_whole() && head.len() < MOST => text.more()?,
            Err(error) => return Err(error),
        }
    }
}

/// A text up to the end of its last line.
fn whole_lines(text: &str) -> &str {
    text.rfind('\n').map_or(text, |end| &text[..=end])
}

/// Reads a table from text that is already decoded; `path` only names it, in errors and as [`Table::path`].
///
/// # Errors
/// As [`read_table`], less those of reading and decoding.
pub fn parse_table(path: &Path, text: &str, format: Option<Format>) -> Result<Table, DataError> {
    let options = ReadOptions { format, ..ReadOptions::default() };
    let mut read = Reading::new(&options);
    read.file(&Input::memory(path, text.as_bytes())?)?;
    read.end()
}

/// A table that files are read into.
struct Reading<'o> {
    options: &'o ReadOptions,
    table: Table,
    /// Whether it must be said which file a notice is about.
    several: bool,
    /// How many rows of a file are enough, where it has its rows one by one.
    most: usize,
    /// Which columns were renamed.
    renamed: BTreeSet<String>,
}

/// A file that is read into a table.
struct FileUnderWay<'f> {
    input: &'f Input,
    options: &'f ReadOptions,
    table: &'f mut Table,
    notices: Vec<String>,
    /// What looks odd about its encoding.
    of_encoding: Option<String>,
    most: usize,
    renamed: &'f mut BTreeSet<String>,
}

impl<'o> Reading<'o> {
    fn new(options: &'o ReadOptions) -> Self {
        Reading { options, table: Table::new(), several: false, most: usize::MAX, renamed: BTreeSet::new() }
    }

    fn file(&mut self, input: &Input) -> Result<(), DataError> {
        let path = input.path();
        self.table.begin_file(path);
        let mut file = FileUnderWay {
            input,
            options: self.options,
            table: &mut self.table,
            notices: Vec::new(),
            of_encoding: None,
            most: self.most,
            renamed: &mut self.renamed,
        };
        file.read().map_err(|error| if error.system { error } else { error.in_file(path) })?;
        let named = |message| match self.several {
            true => Notice::new(format!("{}: {message}", path.display())),
            false => Notice::new(message),
        };
        let notices = file.of_encoding.into_iter().chain(file.notices);
        self.table.notices.extend(notices.map(named));
        Ok(())
    }

    fn end(self) -> Result<Table, DataError> {
        let missing = self.options.rename.keys().find(|name| !self.renamed.contains(*name));
        match missing {
            None => Ok(self.table),
            Some(name) => Err(DataError::new(format!(
                "no column `{name}` to be renamed{}: the columns are {}",
                did_you_mean(name, self.table.columns().iter().map(String::as_str)),
                list(self.table.columns(), 20)
            ))
            .in_file(self.table.path())),
        }
    }
}

impl<'f> FileUnderWay<'f> {
    fn read(&mut self) -> Result<(), DataError> {
        const BETWEEN: &[u8] = b",\t;|";
        let is_parquet = self.input.head()?.starts_with(b"PAR1");
        match self.options.format {
            Some(Format::Parquet) if !is_parquet => {
                Err(DataError::new("expected a Parquet file, got another: leave --format out").at_byte(0))
            }
            None if is_parquet => self.parquet(),
            Some(Format::Parquet) => self.parquet(),
            Some(format) if is_parquet => {
                Err(DataError::new(format!("expected {format}, got a Parquet file: leave --format out"))
                    .at_byte(0))
            }
            Some(Format::Jsonl) => jsonl::read(self),
            Some(Format::Json) => json::read(self),
            Some(Format::Squad) => squad::read(self),
            Some(Format::Conll) => conll::read(self),
            Some(Format::Text) => text::read_whole(self),
            Some(Format::Lines) => text::read_lines(self),
            Some(Format::Tsv) => csv::read(self, b"\t"),
            Some(Format::Csv) => csv::read(self, b",;|"),
            None => {
                let text = self.text()?;
                match sniff_json(text.text()) {
                    _ if is_squad(text.text()) => squad::read(self),
                    Some(Format::Json) => json::read(self),
                    Some(_) => jsonl::read(self),
                    None if self.options.plain_text && is_text_file(self.input.path()) => {
                        text::read_whole(self)
                    }
                    // By its name too: a file of which no column looks like tags is told so, and is no table without a header.
                    None if is_conll_file(self.input.path()) || conll::is_conll(whole_lines(text.text())) => {
                        conll::read(self)
                    }
                    None => csv::read(self, BETWEEN),
                }
            }
        }
    }

    #[cfg(feature = "parquet")]
    fn parquet(&mut self) -> Result<(), DataError> {
        parquet::read(self)
    }

    #[cfg(not(feature = "parquet"))]
    fn parquet(&mut self) -> Result<(), DataError> {
        Err(DataError::new(
            "it is a Parquet file, and this retune was built without the feature `parquet`: build it with that, or \
             save the table as CSV or JSONL",
        ))
    }

    /// Its text, from the beginning.
    fn text(&self) -> Result<Text<'f>, DataError> {
        Text::open(self.input, self.options.encoding.as_deref())
    }

    /// All of `text` was read.
    fn end_of(&mut self, text: &Text<'_>) {
        self.of_encoding = text.notice();
    }

    fn notice(&mut self, message: String) {
        self.notices.push(message);
    }

    /// The table's column for that of a file.
    fn column(&mut self, name: &str) -> usize {
        match self.options.rename.get(name) {
            None => self.table.column(name),
            Some(other) => {
                self.renamed.insert(name.to_owned());
                self.table.column(other)
            }
        }
    }

    /// The table's columns for those of a file, whose names differ. Errors if two of them are renamed into one.
    fn columns(&mut self, names: &[String]) -> Result<Vec<usize>, DataError> {
        let columns: Vec<usize> = names.iter().map(|name| self.column(name)).collect();
        let mut used = BTreeMap::new();
        for (column, name) in columns.iter().zip(names) {
            if let Some(other) = used.insert(column, name) {
                let both = self.table.columns().get(*column).map_or("", String::as_str);
                return Err(DataError::new(format!(
                    "expected different columns, got `{other}` and `{name}`, which are both called `{both}` by \
                     --rename: rename one of them otherwise"
                )));
            }
        }
        Ok(columns)
    }
}

/// Shows each line with its number to `look`; lines end with LF.
fn each_line(
    text: &mut Text<'_>,
    mut look: impl FnMut(&str, u64) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut number = 0;
    loop {
        let mut passed = 0;
        let here = text.text();
        while let Some(length) = here[passed..].find('\n') {
            number += 1;
            look(&here[passed..passed + length], number)?;
            passed += length + 1;
        }
        if text.is_whole() {
            return look(&here[passed..], number + 1);
        }
        text.pass(passed);
        text.more()?;
    }
}
