//! Text to learn: conversations, instructions, prompts with their completions, or plain text, and where they stand in a table.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::columns::{Choice, Wanted, by_name, choice, named};
use crate::error::DataError;
use crate::examples::{Example, Examples, ReadRow};
use crate::label::Label;
use crate::table::{Row, Table};
use crate::wording::{excerpt, list, nearest};

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
        /// What comes; nothing where it is to be found out.
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
    /// Conversations, the tools offered in each, and what stands before all of its turns.
    Turns(Choice, Beside),
    /// Instructions, what they are about, and their answers, where there are any (Taori et al. 2023, Alpaca).
    Instructions(Choice, Option<usize>, Option<Choice>),
    /// Prompts, and their completions, where there are any.
    Completions(Choice, Option<Choice>),
    /// Plain text.
    Text(Choice),
}

/// Columns beside that of a conversation, where there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    tools: Option<usize>,
    system: Option<usize>,
}

impl LessonColumns {
    /// Chooses the columns of `table`: as named (`wanted.text` alone is plain text or conversations, with `wanted.label` a prompt
    /// and its completion, and `wanted.label` alone the completion of a prompt that is found), else by usual names.
    ///
    /// # Errors
    /// A named column is not there, or none is found.
    pub fn choose(table: &Table, wanted: &Wanted<'_>) -> Result<Self, DataError> {
        let exact = |name: &str| table.columns().iter().position(|column| column.eq_ignore_ascii_case(name));
        let beside = Beside { tools: exact("tools"), system: exact("system") };
        if let Some(text) = wanted.text {
            let text = named(table, "text", text)?;
            if let Some(label) = wanted.label {
                return Ok(LessonColumns::Completions(text, Some(named(table, "completion", label)?)));
            }
            let first = table.row(0)?;
            let first = first.as_ref().and_then(|row| row.get(text.index)).unwrap_or_default();
            return Ok(match turns_in(first) {
                Some(_) => LessonColumns::Turns(text, beside),
                None => LessonColumns::Text(text),
            });
        }
        if let Some(label) = wanted.label {
            let completion = named(table, "completion", label)?;
            let prompt = prompt_of(table).filter(|prompt| prompt.index != completion.index);
            let other = || choice(table, "prompt", 1 - completion.index.min(1), "the only other one");
            let prompt = prompt.or_else(|| other().filter(|_| table.columns().len() == 2));
            return match prompt {
                Some(prompt) => Ok(LessonColumns::Completions(prompt, Some(completion))),
                None => Err(nothing_found(table)),
            };
        }
        if let Some(messages) = by_name(table, "conversation", &MESSAGES_NAMES, &[]) {
            return Ok(LessonColumns::Turns(messages, beside));
        }
        let of = |role: &str, name: &str| by_name(table, role, &[name], &[]);
        if let (Some(instruction), Some(output)) = (of("instruction", "instruction"), of("answer", "output"))
        {
            return Ok(LessonColumns::Instructions(instruction, exact("input"), Some(output)));
        }
        for (prompt, completion) in PROMPT_NAMES {
            if let (Some(prompt), Some(completion)) = (of("prompt", prompt), of("completion", completion)) {
                return Ok(LessonColumns::Completions(prompt, Some(completion)));
            }
        }
        if let Some(text) = by_name(table, "text", &TEXT_NAMES, &[]) {
            return Ok(LessonColumns::Text(text));
        }
        if let ([_], Some(text)) = (table.columns(), choice(table, "text", 0, "the only one")) {
            return Ok(LessonColumns::Text(text));
        }
        Err(nothing_found(table))
    }

    /// The same of rows that are asked and need no answers: a prompt may stand alone. What is read as `wanted.text` is one
    /// where the model was trained `on_prompts`.
    ///
    /// # Errors
    /// As [`choose`](Self::choose).
    pub fn asked(table: &Table, wanted: &Wanted<'_>, on_prompts: bool) -> Result<Self, DataError> {
        let is_prompt = |name: &str| PROMPT_NAMES.iter().any(|(prompt, _)| name.eq_ignore_ascii_case(prompt));
        match Self::choose(table, wanted) {
            Ok(LessonColumns::Text(text)) if on_prompts || is_prompt(&text.name) => {
                Ok(LessonColumns::Completions(text, None))
            }
            Err(_) if wanted.text.is_none() && wanted.label.is_none() => match prompt_of(table) {
                Some(prompt) if prompt.name.eq_ignore_ascii_case("instruction") => {
                    let input =
                        table.columns().iter().position(|column| column.eq_ignore_ascii_case("input"));
                    Ok(LessonColumns::Instructions(prompt, input, None))
                }
                Some(prompt) => Ok(LessonColumns::Completions(prompt, None)),
                None => Err(nothing_found(table)),
            },
            chosen => chosen,
        }
    }

    /// Sentences for the user: which columns, and why.
    pub fn why(&self) -> Vec<String> {
        let choices = match self {
            LessonColumns::Turns(messages, _) => vec![messages],
            LessonColumns::Instructions(prompt, _, answer) | LessonColumns::Completions(prompt, answer) => {
                [Some(prompt), answer.as_ref()].into_iter().flatten().collect()
            }
            LessonColumns::Text(text) => vec![text],
        };
        choices.into_iter().map(|choice| choice.why.clone()).collect()
    }

    /// Sentences for the user: columns of `table` that other tools read, and that are not read here.
    pub fn unread(&self, table: &Table) -> Vec<String> {
        let known: &[&str] = match self {
            LessonColumns::Turns(..) => &["history"],
            LessonColumns::Text(_) => &[],
            _ => &["system", "history", "tools"],
        };
        let found = table
            .columns()
            .iter()
            .filter(|column| known.iter().any(|name| column.eq_ignore_ascii_case(name)));
        found
            .map(|column| {
                format!(
                    "column `{column}` is not read: only a column of conversations holds that, as `messages`"
                )
            })
            .collect()
    }

    /// The names of the columns of the text and of what is learnt behind it.
    pub fn names(&self) -> (&str, Option<&str>) {
        match self {
            LessonColumns::Turns(text, _) | LessonColumns::Text(text) => (&text.name, None),
            LessonColumns::Instructions(text, _, label) | LessonColumns::Completions(text, label) => {
                (&text.name, label.as_ref().map(|label| label.name.as_str()))
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
            LessonColumns::Completions(prompt, answer) if turns_in(value(prompt.index)).is_some() => {
                let read = |column: &Choice| {
                    messages_of(value(column.index)).map_err(|message| error(column, message))
                };
                let mut messages = read(prompt)?;
                // The prompt's own answers are given.
                messages.iter_mut().filter_map(Value::as_object_mut).for_each(|turn| {
                    turn.insert("weight".into(), 0.into());
                });
                match answer {
                    Some(answer) if turns_in(value(answer.index)).is_some() => messages.extend(read(answer)?),
                    Some(answer) => messages.push(json!({ "role": "assistant", "content": filled(answer)? })),
                    None => {}
                }
                let turns = Turns { messages, tools: None };
                (turns.asked().to_string(), Lesson::Turns(Box::new(turns)))
            }
            LessonColumns::Completions(prompt, answer) => {
                let (user, completion) =
                    (filled(prompt)?, answer.as_ref().map_or(Ok(String::new()), filled)?);
                (user.clone(), Lesson::Completion { user, completion })
            }
            LessonColumns::Instructions(instruction, input, output) => {
                let instruction = filled(instruction)?;
                let completion = output.as_ref().map_or(Ok(String::new()), filled)?;
                let input = input.map(value).unwrap_or_default().trim();
                let user = match input {
                    "" => instruction.clone(),
                    input => format!("{instruction}\n\n{input}"),
                };
                (alpaca(&instruction, input), Lesson::Completion { user, completion })
            }
            LessonColumns::Turns(messages, Beside { tools, system }) => {
                let said = value(messages.index);
                let mut read = messages_of(said).map_err(|message| error(messages, message))?;
                let system = system.map(value).filter(|system| !system.trim().is_empty());
                if let Some(system) = system.filter(|_| read.first().and_then(role) != Some("system")) {
                    read.insert(0, json!({ "role": "system", "content": system }));
                }
                let tools = tools.map(value).filter(|tools| !tools.trim().is_empty());
                let tools = tools.map(|tools| {
                    parsed(tools).filter(|tools| tools.is_array() || tools.is_null()).ok_or_else(|| {
                        format!("column `tools`: expected a list of tools, got {}", excerpt(tools, 60))
                    })
                });
                let turns =
                    Turns { messages: read, tools: tools.transpose()?.filter(|tools| !tools.is_null()) };
                (turns.asked().to_string(), Lesson::Turns(Box::new(turns)))
            }
        };
        let label = Some(Label::Lesson(lesson));
        Ok(Example { row: row.index() as u64, line: row.line(), text, pair: None, label })
    }
}

/// A column of prompts, by its usual names.
fn prompt_of(table: &Table) -> Option<Choice> {
    PROMPT_NAMES.iter().find_map(|(prompt, _)| by_name(table, "prompt", &[prompt], &[]))
}

fn nothing_found(table: &Table) -> DataError {
    let message = format!(
        "expected a column `messages`, or `prompt` and `completion`, or `instruction` and `output`, or `text`, got {}: \
         name the prompt's with --text-column and the completion's with --label-column",
        list(table.columns(), 20)
    );
    DataError::new(message).in_file(table.path())
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

/// Whether a message is an answer that is to be learnt: one of an assistant, unless its `weight` is 0.
pub fn is_answer(message: &Value) -> bool {
    role(message) == Some("assistant") && message.get("weight").and_then(Value::as_f64) != Some(0.0)
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
        // Templates know roles in small letters, and would leave out others without a word.
        if let Some(Value::String(role)) = turn.get_mut("role") {
            let small = role.to_lowercase();
            if ["system", "user", "assistant", "tool"].contains(&small.as_str()) {
                *role = small;
            }
        }
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
            (Some(Value::String(role)), _) if misspelt(role).is_some() => {
                let near = misspelt(role).unwrap_or_default();
                Err(format!("turn {}: `{role}` is no role; did you mean `{near}`?", number + 1))
            }
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

/// The role that is meant by one that templates would not know, and its turns not be learnt.
fn misspelt(role: &str) -> Option<&'static str> {
    const ROLES: [&str; 4] = ["assistant", "system", "tool", "user"];
    nearest(role, ROLES).filter(|near| *near != role && near.len().abs_diff(role.len()) < 3)
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
