//! CoNLL's form: a word a line, its columns parted by white space, an empty line between sentences.

use serde_json::Value;

use super::{FileUnderWay, each_line};
use crate::error::DataError;
use crate::format::Format;
use crate::tags::tag_parts;
use crate::wording::{count, excerpt};

/// What begins a document in the files of the shared tasks; it is no word.
const DOCUMENT: &str = "-DOCSTART-";

/// How many words a file is judged by.
const JUDGED_WORDS: usize = 500;

/// How the columns of a line are parted.
#[derive(Clone, Copy)]
enum Parted {
    /// By single tabs, so that a word may have blanks in it.
    ByTabs,
    /// By any white space.
    ByBlanks,
}

/// The columns of a file: how they are parted, how many there are, and on which line that is first seen.
#[derive(Clone, Copy)]
struct Form {
    parted: Parted,
    width: usize,
    line: u64,
    /// Whether the last of them has a tag there.
    tagged: bool,
}

impl Form {
    /// That of the first word; none where there are no words.
    fn of(text: &str) -> Option<Self> {
        let mut words = text.lines().zip(1_u64..).filter(|(line, _)| is_word(line));
        // A comment is no word, and looks like one where columns are parted by blanks.
        let (first, line) =
            words.clone().find(|(line, _)| !line.starts_with("# ")).or_else(|| words.next())?;
        let tabs = first.contains('\t') && !first.starts_with('\t');
        let parted = if tabs { Parted::ByTabs } else { Parted::ByBlanks };
        let fields = fields(first, parted);
        Some(Form { parted, width: fields.len(), line, tagged: ends_in_a_tag(&fields) })
    }

    /// The columns of a line; none of a comment, as CoNLL-U, MultiCoNER and others have them before a sentence: it begins
    /// with `# `, and has as many columns as a word by chance at most, and then no tag in the last.
    fn fields<'l>(&self, line: &'l str) -> Option<Vec<&'l str>> {
        let fields = fields(line, self.parted);
        let is_word = fields.len() == self.width && (!self.tagged || ends_in_a_tag(&fields));
        (is_word || !line.starts_with("# ")).then_some(fields)
    }
}

fn ends_in_a_tag(fields: &[&str]) -> bool {
    fields.last().is_some_and(|tag| tag_parts(tag).is_some())
}

fn fields(line: &str, parted: Parted) -> Vec<&str> {
    match parted {
        Parted::ByTabs => line.split('\t').map(|field| field.trim_matches([' ', '\r'])).collect(),
        Parted::ByBlanks => line.split_ascii_whitespace().collect(),
    }
}

/// Whether a line has a word: it is not empty, though it may hold white space, and begins no document.
fn is_word(line: &str) -> bool {
    let line = line.trim_matches([' ', '\t', '\r']);
    !line.is_empty() && line.split([' ', '\t']).next() != Some(DOCUMENT)
}

/// Whether a text that begins so is of this form: lines of as many columns, two or more, of which the last has tags. A line in
/// ten may be broken, and which one is then said in this form's words; but the first is none, lest it be a header.
pub(super) fn is_conll(text: &str) -> bool {
    let Some(form) = Form::of(text).filter(|form| form.width >= 2) else { return false };
    let judged = text.lines().filter(|line| is_word(line)).take(JUDGED_WORDS);
    let words: Vec<_> = judged.filter_map(|line| form.fields(line)).collect();
    let fits = |fields: &&Vec<&str>| fields.len() == form.width && ends_in_a_tag(fields);
    words.first().as_ref().is_some_and(fits) && 10 * words.iter().filter(fits).count() >= 9 * words.len()
}

/// Reads all sentences: a row is a sentence and a column a list, called by its number from 1 on.
///
/// # Errors
/// A line with more or fewer columns than the first, an empty word, no words at all; the line is named.
pub(super) fn read(file: &mut FileUnderWay<'_>) -> Result<(), DataError> {
    file.table.set_format(Format::Conll);
    let mut text = file.text()?;
    let none = || DataError::new("the file has no words: expected a word a line, and its tag behind it");
    let form = Form::of(text.text()).ok_or_else(none)?;
    file.table.set_blanks(matches!(form.parted, Parted::ByBlanks));
    let names: Vec<String> = (1..=form.width).map(|number| number.to_string()).collect();
    let columns = file.columns(&names)?;
    let mut sentence = Sentence { words: vec![Vec::new(); form.width], begun: 0 };
    each_line(&mut text, |line, number| {
        if !is_word(line) {
            return sentence.end(file, &columns);
        }
        let Some(fields) = form.fields(line) else { return Ok(()) };
        if fields.len() != form.width {
            return Err(DataError::new(format!(
                "expected {}, as on line {}, got {}: `{}`",
                count(form.width, "column"),
                form.line,
                fields.len(),
                excerpt(line, 40)
            ))
            .at_line(number));
        }
        if fields.first().is_none_or(|word| word.is_empty()) {
            let message = "expected a word before its tag, got nothing: write the word, or delete the line";
            return Err(DataError::new(message).at_line(number));
        }
        if sentence.words[0].is_empty() {
            sentence.begun = number;
        }
        for (values, field) in sentence.words.iter_mut().zip(fields) {
            values.push(Value::from(field));
        }
        Ok(())
    })?;
    sentence.end(file, &columns)?;
    file.end_of(&text);
    Ok(())
}

/// The sentence under way: for each column its words.
struct Sentence {
    words: Vec<Vec<Value>>,
    begun: u64,
}

impl Sentence {
    fn end(&mut self, file: &mut FileUnderWay<'_>, columns: &[usize]) -> Result<(), DataError> {
        if self.words.first().is_none_or(Vec::is_empty) {
            return Ok(());
        }
        for (column, values) in columns.iter().zip(&mut self.words) {
            file.table.push_json(*column, &Value::Array(std::mem::take(values)).to_string());
        }
        file.table.end_row(self.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readers::parse_table;
    use crate::table::{Row, Table};

    fn table(text: &str) -> Result<Table, DataError> {
        parse_table("file".as_ref(), text, Some(Format::Conll))
    }

    fn rows(text: &str) -> Vec<(u64, Vec<String>)> {
        let table = table(text).unwrap();
        let values = |row: &Row<'_>| row.values().map(|v| v.unwrap().to_string()).collect();
        table.rows().map(|row| row.unwrap()).map(|row| (row.line(), values(&row))).collect()
    }

    #[test]
    fn sentences_are_rows_and_columns_lists() {
        let text = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects  VBZ\tO\n\n\t\n \nPeter NNP B-PER\r\n";
        assert!(is_conll(text));
        assert_eq!(
            rows(text),
            [
                (3, vec![r#"["EU","rejects"]"#.into(), r#"["NNP","VBZ"]"#.into(), r#"["B-ORG","O"]"#.into()]),
                (8, vec![r#"["Peter"]"#.into(), r#"["NNP"]"#.into(), r#"["B-PER"]"#.into()]),
            ]
        );
        // A word may have a blank where tabs part the columns; a comment is none.
        let text = "# id 1\nNew York\tB-a\n\"\tO\n\t\nx\tO";
        assert_eq!(rows(text)[0].1, [r#"["New York","\""]"#, r#"["B-a","O"]"#]);
    }

    #[test]
    fn comments_of_as_many_columns_as_words_are_none() {
        let word = "law _ _ B-x\n# _ _ O\n";
        for comment in ["# id 1c1f0a3c\tdomain=en\n", "# sent_id = 1\n", "# text = a b c B\n"] {
            let text = format!("{comment}{word}\n{comment}{word}");
            assert!(is_conll(&text), "{text}");
            let found: Vec<String> =
                rows(&text).into_iter().map(|(_, mut values)| values.remove(0)).collect();
            assert_eq!(found, [r##"["law","#"]"##; 2], "{comment}");
        }
        // Where the last column has no tags, they tell nothing.
        assert_eq!(rows("a B-x _\n# O _\n")[0].1[0], r##"["a","#"]"##);
    }

    #[test]
    fn other_files_are_not_taken_for_it() {
        for text in
            ["", "text,label\na,b\n", "text\tlabel\nhello\tO\n", "one\ntwo\n", "a O\nb c O\n", "a NN\nb O\n"]
        {
            assert!(!is_conll(text), "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        for (text, line, words) in [
            ("a\tO\nb\n", 2, "expected 2 columns, as on line 1, got 1: `b`"),
            ("a O\n\nb NN O\n", 3, "expected 2 columns, as on line 1, got 3"),
            ("a\tO\n\tO\n", 2, "expected a word before its tag"),
        ] {
            let error = table(text).unwrap_err();
            assert_eq!(error.line, Some(line), "{text:?}");
            assert!(error.message.contains(words), "{text:?}: {}", error.message);
        }
        assert!(table("\n\n").unwrap_err().message.contains("no words"));
    }
}
