//! A file of sentences that was read, and how it is written with its predictions: in its own form, unless the output's name
//! says another.

use std::io::{Error, Result, Write};
use std::sync::Arc;

use retune_data::{CONLL_ENDINGS, DataError, Examples, Format, LabelMap, SentenceColumns, Table, TagScheme};

use super::reading::RowFile;
use super::{Answer, Answered, table_file};

/// A table of sentences, and how its tags are written.
#[derive(Debug)]
pub(super) struct SentenceFile {
    pub table: Arc<Table>,
    pub columns: SentenceColumns,
    pub scheme: TagScheme,
    /// What stands between a prefix and a type.
    pub separator: char,
    /// The scheme of the predictions.
    pub learnt: TagScheme,
}

/// Whether an output is in CoNLL's form where the input is: by its name, as plain text, or without an ending.
fn says_conll(ending: Option<&str>) -> bool {
    ending.is_none_or(|ending| ending == "txt" || CONLL_ENDINGS.contains(&ending))
}

impl SentenceFile {
    /// A prediction with its tags as the file has them; of texts that nobody has parted, without.
    fn as_here(&self, answered: &Answered) -> Answered {
        let mut answered = answered.clone();
        if let Answer::Entities { tags, .. } = &mut answered.answer {
            let learnt: Vec<&str> = tags.iter().flatten().map(String::as_str).collect();
            let written = self.scheme.from_learnt(&learnt, self.learnt).into_iter();
            let parted = written.map(|tag| tag.replacen('-', self.separator.encode_utf8(&mut [0; 4]), 1));
            *tags = self.columns.has_tokens().then(|| parted.collect());
        }
        answered
    }

    /// A word a line with its columns, and behind them the predicted tag.
    fn write_conll(&self, predictions: &[Answered], writer: &mut dyn Write) -> Result<()> {
        let (columns, between) = (0..self.table.columns().len(), self.table.conll_separator());
        for (row, answered) in self.table.rows().zip(predictions) {
            let row = row.map_err(Error::other)?;
            let list = |field: Option<&str>| {
                serde_json::from_str::<Vec<String>>(field.unwrap_or("[]")).unwrap_or_default()
            };
            let fields: Vec<Vec<String>> = columns.clone().map(|column| list(row.get(column))).collect();
            let answered = self.as_here(answered);
            let Answer::Entities { tags: Some(tags), .. } = &answered.answer else { continue };
            for (word, tag) in tags.iter().enumerate() {
                for field in &fields {
                    write!(writer, "{}{between}", field.get(word).map_or("", String::as_str))?;
                }
                writeln!(writer, "{tag}")?;
            }
            writeln!(writer)?;
        }
        Ok(())
    }
}

impl RowFile for SentenceFile {
    fn labels(&self, examples: &Examples) -> std::result::Result<LabelMap, DataError> {
        LabelMap::of_tags(examples, self.table.path())
    }

    fn said_of(&self, first: &Answered) -> Option<String> {
        match self.table.format() {
            Format::Conll => Some("the predicted tag is the last column".into()),
            _ => table_file::renamed(&self.table, &self.as_here(first)),
        }
    }

    fn endings(&self) -> Vec<&'static str> {
        let mut endings = table_file::ENDINGS.to_vec();
        if self.table.format() == Format::Conll {
            endings.splice(..0, CONLL_ENDINGS.into_iter().chain(["txt"]));
        }
        endings
    }

    fn write(&self, predictions: &[Answered], ending: Option<&str>, writer: &mut dyn Write) -> Result<()> {
        if self.table.format() == Format::Conll && says_conll(ending) {
            return self.write_conll(predictions, writer);
        }
        let predictions: Vec<Answered> = predictions.iter().map(|answered| self.as_here(answered)).collect();
        table_file::write(&self.table, &predictions, ending, writer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reading::{ColumnNames, Reading};
    use super::super::{EntityAnswer, find};
    use super::*;

    /// What is written of a file with one sentence, where a model of the scheme `trained` gives its words the tags `predicted`.
    fn written(text: &str, trained: &str, predicted: &str, ending: Option<&str>) -> String {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), text).unwrap();
        let trained =
            ColumnNames { tag_scheme: Some(trained.into()), text: "1".into(), ..ColumnNames::default() };
        let reading = Reading { trained: Some(&trained), ..Reading::default() };
        let task = find("token-classification").unwrap();
        let read = task.read(&[path.path().to_path_buf()], &reading).unwrap();
        let tags = Some(predicted.split(' ').map(str::to_string).collect());
        let answer = Answer::Entities { entities: Vec::<EntityAnswer>::new(), tags };
        let mut written = Vec::new();
        read.file.write(&[Answered { answer, logits: None }], ending, &mut written).unwrap();
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn tags_come_back_as_the_file_writes_its_own() {
        let tags = |text: &str, trained: &str, predicted: &str| {
            let written = written(text, trained, predicted, None);
            let last = |line: &str| line.rsplit(['\t', ' ']).next().unwrap_or_default().to_string();
            written.lines().filter(|line| !line.is_empty()).map(last).collect::<Vec<_>>().join(" ")
        };
        // Nothing was tagged yet, so the model's own scheme is taken.
        let open = "EU\tO\nUN\tO\nlaw\tO\n";
        assert_eq!(tags(open, "bmes", "B-x I-x E-x"), "B-x M-x E-x");
        assert_eq!(tags(open, "iob1", "B-x I-x B-x"), "I-x I-x B-x");
        // What was seen decides over the model, also of what stands in a tag.
        assert_eq!(tags("EU\tB-x\nUN\tI-x\nlaw\tO\n", "bioes", "B-x E-x S-x"), "B-x I-x B-x");
        assert_eq!(tags("EU\tS_x\nUN\tO\nlaw\tO\n", "iob2", "B-x-y I-x-y B-x"), "B_x-y E_x-y S_x");
        // The prefixes are those of two schemes.
        assert_eq!(tags("EU\tS-x\nUN\tO\nlaw\tO\n", "bmes", "B-x I-x E-x"), "B-x M-x E-x");
    }

    #[test]
    fn columns_are_parted_as_in_the_file() {
        assert_eq!(written("EU _ O\nUN _  O\n", "iob2", "B-x O", Some("bio")), "EU _ O B-x\nUN _ O O\n\n");
        assert_eq!(written("EU\tO\n", "iob2", "B-x", None), "EU\tO\tB-x\n\n");
        let json: serde_json::Value =
            serde_json::from_str(&written("EU O\n", "iob2", "B-x", Some("json"))).unwrap();
        assert_eq!(json[0]["tags"], serde_json::json!(["B-x"]));
    }
}
