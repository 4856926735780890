//! Text to learn: conversations, instructions, prompts with their completions, or plain text, and where they stand in a table.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::columns::{Choice, Wanted, by_name, choice, named};
use crate::error::DataError;
use crate::examples::{Example, Examples, ReadRow};
use crate::label::Label;
use crate::table::{Row, Table};
use crate::wording::{excerpt, list};

const MESSAGES_NAMES: [&str; 5] = ["messages", "conversations", "conversation", "dialogue", "dialog"];
const PROMPT_NAMES: [(&str, &str); 6] = [
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("instruction", "response"),
    ("query", "response"),
    ("input", "output"),
];
const TEXT_NAMES: [&str; 3] = ["text", "content", "文本"];

/// What is to be learnt of a row, beside its text.
#[derive(Debug, Clone, PartialEq)]
pub enum Lesson {
    /// The text itself, all of it.
    Text,
    /// What comes behind the text, which is a prompt.
    Completion {
        /// What a user of a chat would have said for the prompt.
        user: String,
        /// What comes.
        completion: String,
    },
    /// The turns of a conversation; the text is what its user said first.
    Turns(Box<Turns>),
}

impl Lesson {
    /// What is learnt behind the text.
    pub(crate) fn learnt(&self) -> String {
        match self {
            Lesson::Text => String::new(),
            Lesson::Completion { completion, .. } => completion.clone(),
            Lesson::Turns(turns) => turns.messages.iter().map(Value::to_string).collect(),
        }
    }
}

/// A conversation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turns {
    /// Objects with at least a `role`, and mostly a `content`, as chat templates take them.
    pub messages: Vec<Value>,
    /// The tools that are offered in it.
    pub tools: Option<Value>,
}

/// The columns of a table of text to learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LessonColumns {
    /// Conversations, and the tools offered in each.
    Turns(Choice, Option<usize>),
    /// Instructions, what they are about, and their answers (Taori et al. 2023, Alpaca).
    Instructions(Choice, Option<usize>, Choice),
    /// Prompts and completions.
    Completions(Choice, Choice),
    /// Plain text.
    Text(Choice),
}

impl LessonColumns {
    /// Chooses the columns of `table`: as named (`wanted.text` alone is plain text or conversations, with `wanted.label` a prompt
    /// and its completion), else by usual names.
    ///
    /// # Errors
    /// A named column is not there, or none is found.
    pub fn choose(table: &Table, wanted: &Wanted<'_>) -> Result<Self, DataError> {
        let exact = |name: &str| table.columns().iter().position(|column| column.eq_ignore_ascii_case(name));
        let tools = exact("tools");
        if let Some(text) = wanted.text {
            let text = named(table, "text", text)?;
            if let Some(label) = wanted.label {
                return Ok(LessonColumns::Completions(text, named(table, "completion", label)?));
            }
            let first = table.row(0)?;
            let first = first.as_ref().and_then(|row| row.get(text.index)).unwrap_or_default();
            return Ok(match turns_in(first) {
                Some(_) => LessonColumns::Turns(text, tools),
                None => LessonColumns::Text(text),
            });
        }
        if let Some(messages) = by_name(table, "conversation", &MESSAGES_NAMES, &[]) {
            return Ok(LessonColumns::Turns(messages, tools));
        }
        let of = |role: &str, name: &str| by_name(table, role, &[name], &[]);
        if let (Some(instruction), Some(output)) = (of("instruction", "instruction"), of("answer", "output"))
        {
            return Ok(LessonColumns::Instructions(instruction, exact("input"), output));
        }
        for (prompt, completion) in PROMPT_NAMES {
            if let (Some(prompt), Some(completion)) = (of("prompt", prompt), of("completion", completion)) {
                return Ok(LessonColumns::Completions(prompt, completion));
            }
        }
        if let Some(text) = by_name(table, "text", &TEXT_NAMES, &[]) {
            return Ok(LessonColumns::Text(text));
        }
        if let ([_], Some(text)) = (table.columns(), choice(table, "text", 0, "the only one")) {
            return Ok(LessonColumns::Text(text));
        }
        let message = format!(
            "expected a column `messages`, or `prompt` and `completion`, or `instruction` and `output`, or `text`, got {}: \
             name the prompt's with --text-column and the completion's with --label-column",
            list(table.columns(), 20)
        );
        Err(DataError::new(message).in_file(table.path()))
    }

    /// Sentences for the user: which columns, and why.
    pub fn why(&self) -> Vec<String> {
        let choices = match self {
            LessonColumns::Turns(messages, _) => vec![messages],
            LessonColumns::Instructions(instruction, _, output) => vec![instruction, output],
            LessonColumns::Completions(prompt, completion) => vec![prompt, completion],
            LessonColumns::Text(text) => vec![text],
        };
        choices.into_iter().map(|choice| choice.why.clone()).collect()
    }

    /// The names of the columns of the text and of what is learnt behind it.
    pub fn names(&self) -> (&str, Option<&str>) {
        match self {
            LessonColumns::Turns(text, _) | LessonColumns::Text(text) => (&text.name, None),
            LessonColumns::Instructions(text, _, label) | LessonColumns::Completions(text, label) => {
                (&text.name, Some(&label.name))
            }
        }
    }

    /// The rows of `table`.
    ///
    /// # Errors
    /// A conversation is none, with its line and what is wrong with it, or a text or a completion is empty.
    pub fn lessons(&self, table: Arc<Table>) -> Result<Examples, DataError> {
        for row in table.rows() {
            let row = row?;
            self.read(&row).map_err(|message| table.error_at(row.index(), row.line(), message))?;
        }
        Ok(Examples::of_rows(table, self.clone()))
    }
}

impl ReadRow for LessonColumns {
    fn read(&self, row: &Row<'_>) -> Result<Example, String> {
        let value = |index: usize| row.get(index).unwrap_or_default();
        let error = |column: &Choice, message: String| format!("column `{}`: {message}", column.name);
        let filled = |column: &Choice| match value(column.index) {
            text if text.trim().is_empty() => Err(error(column, "expected a text, got nothing".into())),
            text => Ok(text.to_string()),
        };
        let (text, lesson) = match self {
            LessonColumns::Text(text) => (filled(text)?, Lesson::Text),
            LessonColumns::Completions(prompt, answer) => {
                let (user, completion) = (filled(prompt)?, filled(answer)?);
                (user.clone(), Lesson::Completion { user, completion })
            }
            LessonColumns::Instructions(instruction, input, output) => {
                let (instruction, completion) = (filled(instruction)?, filled(output)?);
                let input = input.map(value).unwrap_or_default().trim();
                let user = match input {
                    "" => instruction.clone(),
                    input => format!("{instruction}\n\n{input}"),
                };
                (alpaca(&instruction, input), Lesson::Completion { user, completion })
            }
            LessonColumns::Turns(messages, tools) => {
                let said = value(messages.index);
                let read = messages_of(said).map_err(|message| error(messages, message))?;
                let tools = tools.map(value).filter(|tools| !tools.trim().is_empty());
                let tools = tools.map(|tools| parsed(tools).unwrap_or_else(|| tools.into()));
                let turns = Turns { messages: read, tools: tools.filter(|tools| !tools.is_null()) };
                (turns.asked().to_string(), Lesson::Turns(Box::new(turns)))
            }
        };
        let label = Some(Label::Lesson(lesson));
        Ok(Example { row: row.index() as u64, line: row.line(), text, pair: None, label })
    }
}

impl Turns {
    /// What the user said first.
    fn asked(&self) -> &str {
        let user = self.messages.iter().find(|message| role(message) == Some("user"));
        user.or(self.messages.first())
            .and_then(|message| message.get("content")?.as_str())
            .unwrap_or_default()
    }
}

/// Whose turn a message is.
pub fn role(message: &Value) -> Option<&str> {
    message.get("role")?.as_str()
}

/// A list of turns, if a field is one.
fn turns_in(field: &str) -> Option<Vec<Value>> {
    match parsed(field)? {
        Value::Array(turns) if turns.iter().all(Value::is_object) && !turns.is_empty() => Some(turns),
        _ => None,
    }
}

fn parsed(field: &str) -> Option<Value> {
    serde_json::from_str(field).ok()
}

/// The messages of a field: of `role` and `content`, or of `from` and `value`, as ShareGPT has them.
fn messages_of(field: &str) -> Result<Vec<Value>, String> {
    let expected = "expected a list of turns such as [{\"role\": \"user\", \"content\": \"...\"}, ...]";
    let turns = turns_in(field).ok_or_else(|| format!("{expected}, got {}", excerpt(field, 60)))?;
    let messages = turns.into_iter().enumerate().map(|(number, turn)| {
        let Value::Object(mut turn) = turn else { return Err(expected.to_string()) };
        let from = if turn.contains_key("role") { None } else { turn.shift_remove("from") };
        if let Some(from) = from {
            let role = match from.as_str().unwrap_or_default() {
                "human" | "user" => "user",
                "gpt" | "assistant" | "chatgpt" | "bot" => "assistant",
                "function" | "observation" | "tool" => "tool",
                other => other,
            };
            let mut renamed = Map::new();
            renamed.insert("role".into(), role.into());
            renamed.insert("content".into(), turn.shift_remove("value").unwrap_or_default());
            renamed.append(&mut turn);
            turn = renamed;
        }
        let wrong = |what: &str| Err(format!("turn {}: {what}", number + 1));
        match (turn.get("role"), turn.get("content")) {
            (Some(Value::String(_)), Some(Value::String(_) | Value::Array(_))) => Ok(Value::Object(turn)),
            // A turn that calls tools may say nothing.
            (Some(Value::String(_)), None | Some(Value::Null)) if turn.contains_key("tool_calls") => {
                Ok(Value::Object(turn))
            }
            (Some(Value::String(_)), _) => wrong("expected a text for `content`"),
            _ => wrong("expected a text for `role`, such as user or assistant"),
        }
    });
    messages.collect()
}

/// The prompt that Alpaca was trained with.
fn alpaca(instruction: &str, input: &str) -> String {
    match input {
        "" => format!(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Response:\n"
        ),
        input => format!(
            "Below is an instruction that describes a task, paired with an input that provides further context. Write a \
             response that appropriately completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n\
             ### Response:\n"
        ),
    }
}
