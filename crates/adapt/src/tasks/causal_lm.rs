//! Text that goes on: the next token of each, learnt of conversations, instructions, prompts with completions, or plain text.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use retune_data::{
    DataError, Examples, Format, LabelMap, LessonColumns, ReadOptions, Wanted, is_text_file, read_head,
    read_tables,
};
use retune_model::families::HeadKind;

use super::next_token::{self, NextToken};
use super::reading::{ColumnNames, Corpus, Reading, RowFile};
use super::{Answered, Form, FormSettings, FormSpec, Task};
use crate::AdaptError;

#[derive(Debug)]
pub(super) struct CausalLm;

/// How lessons become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanguageSettings {
    /// Which tokens are learnt.
    pub loss_on: LossOn,
    /// Whether prompts and completions are turns of a chat where the model has a template for these.
    pub chat_template: bool,
}

impl Default for LanguageSettings {
    fn default() -> Self {
        LanguageSettings { loss_on: LossOn::Answers, chat_template: true }
    }
}

/// Which tokens of a row are learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossOn {
    /// What the assistant says, or a completion; all of a plain text.
    Answers,
    /// Each.
    All,
}

impl FromStr for LossOn {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "answers" => Ok(LossOn::Answers),
            "all" => Ok(LossOn::All),
            other => Err(format!("expected answers or all, got `{other}`")),
        }
    }
}

impl fmt::Display for LossOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LossOn::Answers => "answers",
            LossOn::All => "all",
        })
    }
}

impl Task for CausalLm {
    fn name(&self) -> &'static str {
        "causal-lm"
    }

    fn summary(&self) -> &'static str {
        "text that goes on: answers in conversations, completions of prompts, plain text"
    }

    fn head(&self) -> HeadKind {
        HeadKind::Language
    }

    fn own_flags(&self) -> &'static [&'static str] {
        &["loss-on", "chat-template"]
    }

    fn forms(&self) -> &'static [&'static FormSpec] {
        static FORMS: [&FormSpec; 1] = [&next_token::SPEC];
        &FORMS
    }

    fn recognises(&self, path: &Path, options: &ReadOptions) -> Option<String> {
        if matches!(options.format, Some(Format::Text | Format::Lines)) {
            return Some("the training file is plain text".into());
        }
        let table = read_head(path, options);
        if is_text_file(path) && table.as_ref().map_or(0, |table| table.columns().len()) < 2 {
            return Some("the training file is plain text: it ends in .txt, and it is no table".into());
        }
        let table = table.ok()?;
        match LessonColumns::choose(&table, &Wanted::default()).ok()? {
            LessonColumns::Turns(..) => Some("the training file has conversations".into()),
            LessonColumns::Instructions(..) => Some("the training file has instructions with answers".into()),
            LessonColumns::Completions(prompt, Some(completion)) if completion.name == "completion" => {
                Some(format!("the training file has columns `{}` and `completion`", prompt.name))
            }
            _ => None,
        }
    }

    fn read(&self, named: &[PathBuf], reading: &Reading<'_>) -> Result<Corpus, AdaptError> {
        let options = ReadOptions { plain_text: true, ..reading.options.clone() };
        let table = Arc::new(read_tables(named, &options)?);
        let has = |name: &str| table.columns().iter().any(|column| column == name);
        let wanted = Wanted {
            text: reading.column(reading.text, |trained| Some(&trained.text), has),
            label: reading.column(reading.label, |trained| trained.label.as_ref(), has),
            ..Wanted::default()
        };
        let columns = if reading.labelled {
            LessonColumns::choose(&table, &wanted)?
        } else {
            let trained = reading.trained.is_some_and(|trained| trained.label.is_some());
            LessonColumns::asked(&table, &wanted, trained && reading.text.is_none())?
        };
        let trained = reading.trained.and_then(|trained| trained.label.as_deref());
        if let (true, None, LessonColumns::Text(_), Some(label)) =
            (reading.labelled, reading.text, &columns, trained.filter(|label| !has(label)))
        {
            let message = format!(
                "expected the completions that the model was trained on, in a column `{label}`, got columns `{}`: name theirs with \
                 --label-column, or plain text with --text-column",
                table.columns().join("`, `")
            );
            return Err(DataError::new(message).in_file(table.path()).into());
        }
        let mut said: Vec<String> = table.notices().iter().map(ToString::to_string).collect();
        said.extend(columns.why());
        said.extend(columns.unread(&table));
        let examples = columns.lessons(table.clone())?;
        let (text, label) = columns.names();
        let names =
            ColumnNames { text: text.into(), label: label.map(str::to_string), ..ColumnNames::default() };
        let file = Box::new(LessonFile { columns: table.columns().to_vec() });
        Ok(Corpus { examples, columns: names, problem_type: None, said, file })
    }

    fn form(&self, settings: FormSettings) -> Result<Box<dyn Form>, AdaptError> {
        Ok(Box::new(NextToken::new(settings.labels, settings.language)))
    }

    fn fixed_outputs(&self) -> bool {
        true
    }

    fn usual_max_length(&self) -> usize {
        1024
    }
}

/// A table of lessons.
#[derive(Debug)]
struct LessonFile {
    columns: Vec<String>,
}

impl RowFile for LessonFile {
    fn labels(&self, _: &Examples) -> Result<LabelMap, DataError> {
        Ok(LabelMap::of_text())
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn said_of(&self, _: &Answered) -> Option<String> {
        None
    }

    fn write(&self, _: &[Answered], _: Option<&str>, _: &mut dyn Write) -> io::Result<()> {
        Err(io::Error::other("a language model answers with text: see `retune generate`"))
    }
}
