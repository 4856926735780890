//! Questions over texts: which columns they stand in, and what is right for them.

use std::sync::Arc;

use crate::answers::{GoldAnswer, Place, written_answers};
use crate::columns::{Choice, Named, Wanted, by_name, named};
use crate::error::DataError;
use crate::examples::{Example, Examples, ReadRow};
use crate::format::Format;
use crate::label::Label;
use crate::notice::Notice;
use crate::places::{Gaps, LISTED};
use crate::table::{Row, Table};
use crate::wording::{count, excerpt, list};

const CONTEXT_NAMES: [&str; 11] = [
    "context",
    "passage",
    "paragraph",
    "document",
    "article",
    "text",
    "content",
    "文章",
    "段落",
    "原文",
    "文本",
];
const QUESTION_NAMES: [&str; 4] = ["question", "query", "问题", "提问"];
const ANSWER_NAMES: [&str; 7] = ["answers", "answer", "answer_text", "label", "labels", "答案", "回答"];
const START_NAMES: [&str; 4] = ["answer_start", "start", "answer_begin", "答案位置"];
const ID_NAMES: [&str; 5] = ["id", "qid", "question_id", "qas_id", "编号"];
const IMPOSSIBLE_NAMES: [&str; 2] = ["is_impossible", "unanswerable"];

/// The columns of a table of questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionColumns {
    /// The text that has the answer.
    pub context: Choice,
    /// The question.
    pub question: Choice,
    /// What is right; none in a file to predict.
    pub answers: Option<Choice>,
    /// Where an answer begins, if that has a column of its own.
    start: Option<Choice>,
    id: Option<Choice>,
    impossible: Option<Choice>,
}

/// Rows with questions, and what is to be said of them.
#[derive(Debug, Clone)]
pub struct Questions {
    /// The text is the context, the second text the question, the label [`Label::Answers`].
    pub examples: Examples,
    /// What was repaired, and what could not be.
    pub notices: Vec<Notice>,
}

impl QuestionColumns {
    /// Whether the table has questions over texts: by what of it.
    pub fn recognises(table: &Table) -> Option<&'static str> {
        if table.format() == Format::Squad {
            return Some("the file is SQuAD's JSON");
        }
        let has = |names: &[&str]| by_name(table, "", names, &[]).is_some();
        let all = has(&CONTEXT_NAMES[..4]) && has(&QUESTION_NAMES) && has(&ANSWER_NAMES[..3]);
        all.then_some("the file has columns for contexts, questions and answers")
    }

    /// Chooses the columns of `table`: as named (`wanted.text` is the context, `pair` the question, `label` the answers),
    /// else by usual names.
    ///
    /// # Errors
    /// A named column is not there, or none is found for contexts or questions.
    pub fn choose(table: &Table, wanted: &Wanted<'_>) -> Result<Self, DataError> {
        let mut taken = Vec::new();
        let mut choose = |given: Option<Named<'_>>, role: &str, names: &[&str]| {
            let choice = match given {
                Some(name) => Some(named(table, role, name)?),
                None => by_name(table, role, names, &taken),
            };
            taken.extend(choice.as_ref().map(|choice| choice.index));
            Ok::<_, DataError>(choice)
        };
        let question = choose(wanted.pair, "question", &QUESTION_NAMES)?;
        let context = choose(wanted.text, "context", &CONTEXT_NAMES)?;
        let answers = choose(wanted.label, "answers", &ANSWER_NAMES)?;
        let missing = |role: &str, flag: &str| {
            DataError::new(format!(
                "no column stands out as the {role}: give --{flag} with one of {}",
                list(table.columns(), 20)
            ))
            .in_file(table.path())
        };
        Ok(QuestionColumns {
            context: context.ok_or_else(|| missing("context", "text-column"))?,
            question: question.ok_or_else(|| missing("question", "pair-column"))?,
            answers,
            start: choose(None, "start", &START_NAMES)?,
            id: choose(None, "id", &ID_NAMES)?,
            impossible: choose(None, "impossible", &IMPOSSIBLE_NAMES)?,
        })
    }

    /// What a question is called in predictions: as in the file, else its number there, counted from 0.
    pub fn id(&self, row: &Row<'_>) -> String {
        let id = self.id.as_ref().and_then(|id| row.get(id.index)).filter(|id| !id.trim().is_empty());
        id.map_or_else(|| row.index().to_string(), str::to_owned)
    }

    /// The questions of all rows, without what is right.
    ///
    /// # Errors
    /// Rows without a context or a question; their lines are named.
    pub fn asked(&self, table: Arc<Table>) -> Result<Examples, DataError> {
        let mut gaps = self.gaps();
        for row in table.rows() {
            let row = row?;
            gaps.note(&row, self.asked_gaps(&row));
        }
        gaps.check(&table, "a text and a question")?;
        Ok(Examples::of_rows(table, QuestionRows { columns: self.clone(), answered: false }))
    }

    /// The questions of all rows with what is right. An answer that does not stand where the file says is looked for: it is
    /// repaired where there is one place for it, and else has none.
    ///
    /// # Errors
    /// There is no column for answers, a row lacks something (its line is named), an answer is written in no known way, or
    /// one is given where the file says that there is none.
    pub fn answered(&self, table: Arc<Table>) -> Result<Questions, DataError> {
        if self.answers.is_none() {
            return Err(DataError::new(format!(
                "no column stands out as the answers: give --label-column with one of {}",
                list(table.columns(), 20)
            ))
            .in_file(table.path()));
        }
        let mut gaps = self.gaps();
        let mut odd = Odd::default();
        for row in table.rows() {
            let row = row?;
            let answers =
                self.answers(&row).map_err(|message| table.error_at(row.index(), row.line(), message))?;
            let [no_context, no_question] = self.asked_gaps(&row);
            gaps.note(&row, [no_context, no_question, answers.is_none()]);
            let answers = answers.unwrap_or_default();
            odd.unanswered += usize::from(answers.is_empty());
            for (_, place) in answers {
                odd.note(place, || {
                    format!("question `{}` on {}", self.id(&row), table.place_words(row.index(), row.line()))
                });
            }
        }
        gaps.check(&table, "a text, a question and its answers")?;
        let notices = odd.notices(table.len());
        let examples = Examples::of_rows(table, QuestionRows { columns: self.clone(), answered: true });
        Ok(Questions { examples, notices })
    }

    fn gaps(&self) -> Gaps<'_> {
        let columns = [Some(&self.context), Some(&self.question), self.answers.as_ref()];
        Gaps::of(columns.into_iter().flatten().map(|choice| choice.name.as_str()))
    }

    /// Whether the context and the question are missing.
    fn asked_gaps(&self, row: &Row<'_>) -> [bool; 2] {
        [&self.context, &self.question].map(|choice| value(row, choice).trim().is_empty())
    }

    /// The answers of a row, found in its context; nothing where it says nothing of them. Errors with what is wrong.
    fn answers(&self, row: &Row<'_>) -> Result<Option<Vec<(GoldAnswer, Place)>>, String> {
        let Some(column) = &self.answers else { return Ok(None) };
        let impossible = self.is_impossible(row)?;
        let field = row.get(column.index);
        if field.is_none() && impossible != Some(true) {
            // Unlike an empty list, it says nothing.
            return Ok(None);
        }
        let wrong = |message: String| format!("column `{}`: {message}", column.name);
        let start = self.start.as_ref().and_then(|start| row.get(start.index));
        let written = written_answers(field, row.is_json(column.index), start).map_err(wrong)?;
        if let (Some(true), Some(first)) = (impossible, written.first()) {
            return Err(wrong(format!(
                "expected no answer where `is_impossible` is true, got `{}`: correct one of the two",
                first.text
            )));
        }
        let context = value(row, &self.context);
        Ok(Some(written.into_iter().map(|answer| answer.find(context)).collect()))
    }

    /// Whether the file says that there is no answer; nothing where it does not say.
    fn is_impossible(&self, row: &Row<'_>) -> Result<Option<bool>, String> {
        let Some(column) = &self.impossible else { return Ok(None) };
        let value = value(row, column).trim();
        match value.to_ascii_lowercase().as_str() {
            "" => Ok(None),
            "true" | "1" => Ok(Some(true)),
            "false" | "0" => Ok(Some(false)),
            _ => Err(format!(
                "column `{}`: expected true or false, got `{}`: write one of them",
                column.name,
                excerpt(value, 40)
            )),
        }
    }
}

fn value<'r>(row: &'r Row<'_>, choice: &Choice) -> &'r str {
    row.get(choice.index).unwrap_or_default()
}

/// How a row becomes a question.
#[derive(Debug)]
struct QuestionRows {
    columns: QuestionColumns,
    /// Whether with what is right.
    answered: bool,
}

impl ReadRow for QuestionRows {
    fn read(&self, row: &Row<'_>) -> Result<Example, String> {
        let QuestionRows { columns, answered } = self;
        let answers = if *answered { columns.answers(row)? } else { None };
        Ok(Example {
            row: row.index() as u64,
            line: row.line(),
            text: value(row, &columns.context).to_owned(),
            pair: Some(value(row, &columns.question).to_owned()),
            label: answers
                .map(|answers| Label::Answers(answers.into_iter().map(|(answer, _)| answer).collect())),
        })
    }
}

/// What was found that is not as it should be.
#[derive(Default)]
struct Odd {
    unanswered: usize,
    repaired: Noted,
    nowhere: Noted,
    ambiguous: Noted,
}

/// How many there are, and the names of the first.
#[derive(Default)]
struct Noted {
    total: usize,
    first: Vec<String>,
}

impl Noted {
    fn note(&mut self, question: impl FnOnce() -> String) {
        self.total += 1;
        if self.first.len() < LISTED {
            self.first.push(question());
        }
    }

    fn said(&self, one: &str, more: &str) -> Option<Notice> {
        let rest = self.total - self.first.len();
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let words = if self.total == 1 { one } else { more };
        (self.total > 0).then(|| {
            Notice::new(format!("{} {words}: {}{rest}", count(self.total, "answer"), self.first.join(", ")))
        })
    }
}

impl Odd {
    fn note(&mut self, place: Place, question: impl FnOnce() -> String) {
        match place {
            Place::Right => {}
            Place::Repaired => self.repaired.note(question),
            Place::Nowhere => self.nowhere.note(question),
            Place::Ambiguous => self.ambiguous.note(question),
        }
    }

    fn notices(self, rows: usize) -> Vec<Notice> {
        let unanswered = (self.unanswered > 0).then(|| {
            let have = if self.unanswered == 1 { "has" } else { "have" };
            Notice::new(format!(
                "{} of {} {have} no answer in the text",
                self.unanswered,
                count(rows, "question")
            ))
        });
        let repaired = self.repaired.said(
            "did not stand where the file says, and was found in the one place where it does",
            "did not stand where the file says, and were found in the one place where each does",
        );
        let nowhere = self.nowhere.said(
            "stands nowhere in its context and is not learnt from",
            "stand nowhere in their contexts and are not learnt from",
        );
        let ambiguous = self.ambiguous.said(
            "does not stand where the file says and in several other places, and is not learnt from",
            "do not stand where the file says and in several other places, and are not learnt from",
        );
        [unanswered, repaired, nowhere, ambiguous].into_iter().flatten().collect()
    }
}
