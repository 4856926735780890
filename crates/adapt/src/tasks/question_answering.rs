//! A question over a text: where in the text its answer begins and ends, if it has one (Rajpurkar et al. 2016, 2018).

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use retune_data::{
    DataError, Examples, Format, LabelMap, ProblemType, QuestionColumns, ReadOptions, Table, Wanted,
    beginning, looks_like_questions, read_tables,
};
use retune_model::families::HeadKind;
use serde::ser::{SerializeMap, Serializer};

use super::answer_spans::AnswerSearch;
use super::extractive::{self, Extractive};
use super::reading::{ColumnNames, Corpus, Reading, RowFile};
use super::{Answer, Answered, Form, FormSettings, FormSpec, Task, ThresholdUse, table_file};
use crate::AdaptError;

#[derive(Debug)]
pub(super) struct QuestionAnswering;

/// How texts are read in windows and answers looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuestionSettings {
    /// How many tokens of a text two windows share.
    pub doc_stride: usize,
    /// How many answers are kept, and how long they may be.
    pub search: AnswerSearch,
}

impl Default for QuestionSettings {
    /// As transformers' script.
    fn default() -> Self {
        QuestionSettings { doc_stride: 128, search: AnswerSearch { n_best: 20, max_answer_length: 30 } }
    }
}

impl Task for QuestionAnswering {
    fn name(&self) -> &'static str {
        "question-answering"
    }

    fn summary(&self) -> &'static str {
        "the part of a text that answers a question, or that it has no answer"
    }

    fn head(&self) -> HeadKind {
        HeadKind::Question
    }

    fn forms(&self) -> &'static [&'static FormSpec] {
        static FORMS: [&FormSpec; 2] = [&extractive::WITH_UNANSWERABLE, &extractive::SPEC];
        &FORMS
    }

    fn recognises(&self, path: &Path, options: &ReadOptions) -> Option<String> {
        looks_like_questions(&beginning(path, options).ok()?).map(str::to_owned)
    }

    fn read(&self, named: &[PathBuf], reading: &Reading<'_>) -> Result<Corpus, AdaptError> {
        let table = read_tables(named, &reading.options)?;
        let has = |name: &str| table.columns().iter().any(|column| column == name);
        let wanted = Wanted {
            text: reading.column(reading.text, |trained| Some(&trained.text), has),
            label: reading.column(reading.label, |trained| trained.label.as_ref(), has),
            pair: reading.column(reading.pair, |trained| trained.pair.as_ref(), has),
            separator: None,
        };
        let columns = QuestionColumns::choose(&table, &wanted)?;
        let mut said: Vec<String> = table.notices().iter().map(ToString::to_string).collect();
        said.extend([&columns.context, &columns.question].map(|choice| choice.why.clone()));
        let examples = if reading.labelled {
            said.extend(columns.answers.as_ref().map(|choice| choice.why.clone()));
            let questions = columns.answered(&table)?;
            said.extend(questions.notices.iter().map(ToString::to_string));
            questions.examples
        } else {
            columns.asked(&table)?
        };
        if table.format() == Format::Squad {
            check_ids(&table, &columns)?;
        }
        let names = ColumnNames {
            text: columns.context.name.clone(),
            pair: Some(columns.question.name.clone()),
            label: columns.answers.as_ref().map(|choice| choice.name.clone()),
            ..ColumnNames::default()
        };
        let file = Box::new(QuestionFile { table, columns });
        Ok(Corpus { examples: examples.into(), columns: names, problem_type: None, said, file })
    }

    fn form(&self, settings: FormSettings) -> Result<Box<dyn Form>, AdaptError> {
        let FormSettings { labels, thresholds, questions, .. } = settings;
        Ok(Box::new(Extractive::new(labels, thresholds, questions)))
    }

    fn fits(&self, _: ProblemType, outputs: usize) -> Result<(), String> {
        match outputs {
            2 => Ok(()),
            _ => Err(format!("its head has {outputs} outputs, and that of questions has two: start and end")),
        }
    }

    fn fixed_outputs(&self) -> bool {
        true
    }

    fn thresholds(&self, _: ProblemType) -> ThresholdUse {
        ThresholdUse::NoAnswer
    }

    fn usual_max_length(&self) -> usize {
        384
    }
}

/// Errors if two questions have one id, by which predictions go.
fn check_ids(table: &Table, columns: &QuestionColumns) -> Result<(), AdaptError> {
    let mut seen = HashSet::new();
    for row in table.rows() {
        let row = row?;
        let id = columns.id(&row);
        if seen.contains(&id) {
            let message =
                format!("expected an id of its own for each question, got `{id}` twice; rename one of them");
            return Err(DataError::about(row.place().path, row.line(), message).into());
        }
        seen.insert(id);
    }
    Ok(())
}

/// A table of questions.
#[derive(Debug)]
struct QuestionFile {
    table: Table,
    columns: QuestionColumns,
}

impl RowFile for QuestionFile {
    fn labels(&self, _: &Examples) -> Result<LabelMap, DataError> {
        Ok(LabelMap::of_answers())
    }

    fn said_of(&self, first: &Answered) -> Option<String> {
        table_file::renamed(&self.table, first)
    }

    /// SQuAD's predictions, an object of answers by id, if its name ends in `.json`, or if it says nothing and the input is
    /// SQuAD's; else the rows with their predictions.
    fn write(&self, predictions: &[Answered], output: &Path, writer: &mut dyn Write) -> io::Result<()> {
        let is_json = match output.extension().and_then(|extension| extension.to_str()) {
            Some(extension) => extension.eq_ignore_ascii_case("json"),
            None => self.table.format() == Format::Squad,
        };
        if !is_json {
            return table_file::write(&self.table, predictions, output, writer);
        }
        let mut seen = HashSet::new();
        let mut json = serde_json::Serializer::pretty(&mut *writer);
        let mut map = json.serialize_map(Some(predictions.len()))?;
        for (row, answered) in self.table.rows().zip(predictions) {
            let row = row.map_err(io::Error::other)?;
            let id = self.columns.id(&row);
            let text = match &answered.answer {
                Answer::Span { answer, .. } => answer.as_str(),
                _ => "",
            };
            map.serialize_entry(&id, text)?;
            if !seen.insert(id) {
                let message = format!(
                    "two questions have the id of the one on line {}; write JSONL instead",
                    row.line()
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
        SerializeMap::end(map)?;
        writer.write_all(b"\n")
    }
}
