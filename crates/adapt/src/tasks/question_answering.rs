//! A question over a text: where in the text its answer begins and ends, if it has one (Rajpurkar et al. 2016, 2018).

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use retune_data::{
    DataError, Examples, Format, Label, LabelMap, ProblemType, QuestionColumns, ReadOptions, Table,
    TextWindows, Wanted, read_head, read_tables,
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

impl QuestionSettings {
    /// That windows share less of a text than they should, for the user.
    pub(super) fn crowded_said(&self, windows: &TextWindows) -> Option<String> {
        let questions = match windows.crowded() {
            0 => return None,
            1 => "1 question leaves".to_owned(),
            more => format!("{more} questions leave"),
        };
        Some(format!(
            "{questions} too little of a row for windows of a text to share {} tokens: they share half of what is left; a \
             smaller --doc-stride or a larger --max-length mends that",
            self.doc_stride
        ))
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

    fn own_flags(&self) -> &'static [&'static str] {
        &["pair-column", "doc-stride", "max-answer-length", "n-best"]
    }

    fn forms(&self) -> &'static [&'static FormSpec] {
        static FORMS: [&FormSpec; 2] = [&extractive::WITH_UNANSWERABLE, &extractive::SPEC];
        &FORMS
    }

    fn recognises(&self, path: &Path, options: &ReadOptions) -> Option<String> {
        QuestionColumns::recognises(&read_head(path, options).ok()?).map(str::to_owned)
    }

    fn read(&self, named: &[PathBuf], reading: &Reading<'_>) -> Result<Corpus, AdaptError> {
        let table = Arc::new(read_tables(named, &reading.options)?);
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
            let questions = columns.answered(table.clone())?;
            said.extend(questions.notices.iter().map(ToString::to_string));
            questions.examples
        } else {
            columns.asked(table.clone())?
        };
        if table.format() == Format::Squad {
            check_ids(&table, &columns, "rename one of them")?;
        }
        let names = ColumnNames {
            text: columns.context.name.clone(),
            pair: Some(columns.question.name.clone()),
            label: columns.answers.as_ref().map(|choice| choice.name.clone()),
            ..ColumnNames::default()
        };
        let file = Box::new(QuestionFile { table, columns });
        Ok(Corpus { examples, columns: names, problem_type: None, said, file })
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

/// Errors if two questions have one id, by which predictions go; `advice` says what to do.
fn check_ids(table: &Table, columns: &QuestionColumns, advice: &str) -> Result<(), DataError> {
    // Numbers in the place of ids, which may be long and many.
    let mut ids = Vec::with_capacity(table.len());
    for row in table.rows() {
        let mut number = DefaultHasher::new();
        columns.id(&row?).hash(&mut number);
        ids.push((number.finish(), ids.len()));
    }
    ids.sort_unstable();
    let alike = ids.windows(2).filter(|pair| pair[0].0 == pair[1].0);
    let mut alike: Vec<[usize; 2]> = alike.map(|pair| [pair[1].1, pair[0].1]).collect();
    alike.sort_unstable();
    for [second, first] in alike {
        let (Some(second), Some(first)) = (table.row(second)?, table.row(first)?) else { continue };
        let (id, place, other) = (columns.id(&second), second.place(), first.place());
        if columns.id(&first) == id {
            let of = if other.path == place.path {
                String::new()
            } else {
                format!(" of {}", other.path.display())
            };
            let message = format!(
                "expected an id of its own for each question, got `{id}` twice, first on line {}{of}: {advice}",
                other.line
            );
            return Err(DataError::about(place.path, place.line, message));
        }
    }
    Ok(())
}

/// A table of questions.
#[derive(Debug)]
struct QuestionFile {
    table: Arc<Table>,
    columns: QuestionColumns,
}

impl QuestionFile {
    /// Whether predictions are SQuAD's, an object of answers by id: if the output's name ends in `.json`, or if it says nothing
    /// and the input is SQuAD's.
    fn by_id(&self, ending: Option<&str>) -> bool {
        ending.map_or(self.table.format() == Format::Squad, |ending| ending == "json")
    }
}

impl RowFile for QuestionFile {
    /// Errors if there are answers, and none of them stands in its text: nothing could be learnt.
    fn labels(&self, examples: &Examples) -> Result<LabelMap, DataError> {
        let mut answers = 0;
        for example in examples.iter() {
            if let Some(Label::Answers(of_one)) = example?.label {
                if of_one.iter().any(|answer| answer.start.is_some()) {
                    return Ok(LabelMap::of_answers());
                }
                answers += of_one.len();
            }
        }
        if answers == 0 {
            return Ok(LabelMap::of_answers());
        }
        let all =
            if answers == 1 { "the one answer does not".into() } else { format!("none of {answers} does") };
        Err(DataError::new(format!(
            "expected answers that stand in their texts, but {all}: look at column `{}`, and at whether texts and answers belong \
             together",
            self.columns.answers.as_ref().map_or("answers", |choice| choice.name.as_str())
        ))
        .in_file(self.table.path()))
    }

    fn said_of(&self, first: &Answered) -> Option<String> {
        table_file::renamed(&self.table, first)
    }

    fn check(&self, ending: Option<&str>) -> Result<(), DataError> {
        match self.by_id(ending) {
            true => check_ids(&self.table, &self.columns, "rename one of them, or write JSONL"),
            false => Ok(()),
        }
    }

    /// SQuAD's predictions, or the rows with theirs.
    fn write(
        &self,
        predictions: &[Answered],
        ending: Option<&str>,
        writer: &mut dyn Write,
    ) -> io::Result<()> {
        if !self.by_id(ending) {
            return table_file::write(&self.table, predictions, ending, writer);
        }
        let mut json = serde_json::Serializer::pretty(&mut *writer);
        let mut map = json.serialize_map(Some(predictions.len()))?;
        for (row, answered) in self.table.rows().zip(predictions) {
            let row = row.map_err(io::Error::other)?;
            let text = match &answered.answer {
                Answer::Span { answer, .. } => answer.as_str(),
                _ => "",
            };
            map.serialize_entry(&self.columns.id(&row), text)?;
        }
        SerializeMap::end(map)?;
        writer.write_all(b"\n")
    }
}
