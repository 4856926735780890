//! Questions over texts: which columns they stand in, and what is right for them.

use crate::answers::{GoldAnswer, Place, WrittenAnswer, written_answers};
use crate::columns::{Choice, Named, Wanted, by_name, named};
use crate::error::DataError;
use crate::examples::Example;
use crate::label::Label;
use crate::notice::Notice;
use crate::readers::is_squad;
use crate::table::{Row, Table};
use crate::wording::{count, lines, list};

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

/// Whether a file that begins so has questions over texts: by which of its words.
pub fn looks_like_questions(beginning: &str) -> Option<&'static str> {
    if is_squad(beginning) {
        return Some("the file is SQuAD's JSON");
    }
    let line = beginning.trim_start().lines().next()?;
    let names: Vec<String> = match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line) {
        Ok(object) => object.keys().map(|name| name.to_lowercase()).collect(),
        Err(_) => line
            .split([',', '\t', ';', '|'])
            .map(|name| name.trim().trim_matches('"').to_lowercase())
            .collect(),
    };
    let has = |some: &[&str]| names.iter().any(|name| some.contains(&name.as_str()));
    let all = has(&CONTEXT_NAMES[..4]) && has(&QUESTION_NAMES) && has(&ANSWER_NAMES[..3]);
    all.then_some("the file has columns for contexts, questions and answers")
}

/// How many places a sentence lists.
const LISTED: usize = 5;

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
#[derive(Debug, Clone, PartialEq)]
pub struct Questions {
    /// The text is the context, the second text the question, the label [`Label::Answers`].
    pub examples: Vec<Example>,
    /// What was repaired, and what could not be.
    pub notices: Vec<Notice>,
}

impl QuestionColumns {
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
    pub fn asked(&self, table: &Table) -> Result<Vec<Example>, DataError> {
        let value = |row: &Row<'_>, choice: &Choice| row.get(choice.index).unwrap_or_default().to_owned();
        let example = |row: Row<'_>| Example {
            row: row.index() as u64,
            line: row.line(),
            text: value(&row, &self.context),
            pair: Some(value(&row, &self.question)),
            label: None,
        };
        let examples: Vec<Example> =
            table.rows().map(|row| row.map(example)).collect::<Result<_, DataError>>()?;
        let blank = |text: Option<&str>| text.unwrap_or_default().trim().is_empty();
        let no_context = examples.iter().filter(|example| blank(Some(&example.text)));
        let no_question = examples.iter().filter(|example| blank(example.pair.as_deref()));
        let gaps = [gap(no_context, &self.context), gap(no_question, &self.question)];
        none_of(gaps, table).map(|()| examples)
    }

    /// The questions of all rows with what is right. An answer that does not stand where the file says is looked for: it is
    /// repaired where there is one place for it, and else has none.
    ///
    /// # Errors
    /// There is no column for answers, a row lacks something (its line is named), an answer is written in no known way, or
    /// one is given where the file says that there is none.
    pub fn answered(&self, table: &Table) -> Result<Questions, DataError> {
        let mut examples = self.asked(table)?;
        let Some(answers) = &self.answers else {
            return Err(DataError::new(format!(
                "no column stands out as the answers: give --label-column with one of {}",
                list(table.columns(), 20)
            ))
            .in_file(table.path()));
        };
        let mut odd = Odd::default();
        for (example, row) in examples.iter_mut().zip(table.rows()) {
            let row = row?;
            let wrong = |message: String| {
                table.error_at(row.index(), row.line(), format!("column `{}`: {message}", answers.name))
            };
            let impossible = self.impossible.as_ref().and_then(|column| row.get(column.index));
            let impossible = impossible.map(|value| matches!(value.trim(), "true" | "True" | "1"));
            let (field, start) =
                (row.get(answers.index), self.start.as_ref().and_then(|start| row.get(start.index)));
            if field.is_none() && impossible != Some(true) {
                // Unlike an empty list, it says nothing.
                continue;
            }
            let written = written_answers(field, start).map_err(wrong)?;
            if let (Some(true), Some(first)) = (impossible, written.first()) {
                return Err(wrong(format!(
                    "expected no answer where `is_impossible` is true, got `{}`: correct one of the two",
                    first.text
                )));
            }
            let id = self.id(&row);
            let found: Vec<GoldAnswer> =
                written.into_iter().map(|answer| odd.find(answer, example, &id)).collect();
            odd.unanswered += usize::from(found.is_empty());
            example.label = Some(Label::Answers(found));
        }
        let unlabelled = examples.iter().filter(|example| example.label.is_none());
        none_of([gap(unlabelled, answers), None], table)?;
        let notices = odd.notices(examples.len());
        Ok(Questions { examples, notices })
    }
}

fn gap<'e>(rows: impl Iterator<Item = &'e Example>, choice: &Choice) -> Option<String> {
    let all: Vec<u64> = rows.map(|example| example.line).collect();
    let verb = if all.len() == 1 { "has" } else { "have" };
    let first = all.get(..LISTED).unwrap_or(&all);
    let words = || {
        format!(
            "{} {verb} nothing in column `{}` ({})",
            count(all.len(), "row"),
            choice.name,
            lines(first, all.len())
        )
    };
    (!all.is_empty()).then(words)
}

fn none_of(gaps: [Option<String>; 2], table: &Table) -> Result<(), DataError> {
    let gaps: Vec<String> = gaps.into_iter().flatten().collect();
    if gaps.is_empty() {
        return Ok(());
    }
    let message = format!("{}: fill in what is missing, or take these rows out", gaps.join(", and "));
    Err(DataError::new(message).in_file(table.path()))
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
    fn note(&mut self, id: &str, line: u64) {
        self.total += 1;
        if self.first.len() < LISTED {
            self.first.push(format!("question `{id}` on line {line}"));
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
    fn find(&mut self, answer: WrittenAnswer, example: &Example, id: &str) -> GoldAnswer {
        let (answer, place) = answer.find(&example.text);
        let noted = match place {
            Place::Right => None,
            Place::Repaired => Some(&mut self.repaired),
            Place::Nowhere => Some(&mut self.nowhere),
            Place::Ambiguous => Some(&mut self.ambiguous),
        };
        if let Some(noted) = noted {
            noted.note(id, example.line);
        }
        answer
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
