//! What a model is asked: texts, turns of a chat, or the rows of a file.

use std::path::PathBuf;

use retune_adapt::tasks::{Asked, Teacher, WantedProblemType};
use retune_data::{DataError, Example, Label, Lesson, Turns};
use serde_json::json;

use super::Generator;
use crate::{Error, FileSettings, Result};

/// Where prompts come from.
#[derive(Debug, Clone)]
pub enum Prompt<'a> {
    /// As they are.
    Texts(&'a [String]),
    /// The rows of files.
    Files(&'a [PathBuf], &'a FileSettings),
}

const AS_IT_IS: &str =
    "what is no turn goes on as it is; --chat asks it as a turn of a chat, as the model's template writes it";

/// How they are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asking {
    /// Texts are turns of a user in a chat.
    pub chat: bool,
    /// What stands before all turns; texts are turns where there is any.
    pub system: Option<String>,
}

impl Generator {
    /// The tokens of prompts, and sentences for the user. Errors if a file cannot be read, or a turn is asked for and the model
    /// has no template for chats.
    pub fn ask(&self, prompt: &Prompt<'_>, asking: &Asking) -> Result<(Vec<Asked>, Vec<String>)> {
        let (asked, mut said) = self.asked(prompt, asking)?;
        said.extend(self.model().adapter_said());
        Ok((asked, said))
    }

    fn asked(&self, prompt: &Prompt<'_>, asking: &Asking) -> Result<(Vec<Asked>, Vec<String>)> {
        let teacher = self.teacher()?;
        let turns = asking.chat || asking.system.is_some();
        if turns && !teacher.has_template() {
            let message = "the model has no chat template, or --chat-template none leaves it aside: give prompts as they are to go on";
            return Err(Error::Setting {
                flag: if asking.chat { "chat" } else { "system" },
                message: message.into(),
            });
        }
        match prompt {
            Prompt::Texts(texts) => {
                let asked = texts.iter().map(|text| match turns {
                    true => Ok(teacher.ask_turns(&asking.turns(text))?),
                    false => Ok(teacher.ask_text(text)?),
                });
                let raw = !turns && teacher.has_template();
                Ok((asked.collect::<Result<_>>()?, raw.then(|| AS_IT_IS.to_string()).into_iter().collect()))
            }
            Prompt::Files(paths, file) => self.ask_rows(&teacher, paths, file, asking, turns),
        }
    }

    fn ask_rows(
        &self,
        teacher: &Teacher<'_>,
        paths: &[PathBuf],
        file: &FileSettings,
        asking: &Asking,
        turns: bool,
    ) -> Result<(Vec<Asked>, Vec<String>)> {
        let model = self.model();
        let reading = model.reading(file, WantedProblemType::default(), false)?;
        let read = model.task.read(paths, &reading)?;
        let asked = read.examples.iter().map(|example| {
            let example = example?;
            let example = if turns { asking.as_turns(example) } else { example };
            let together = crate::inputs::together(paths);
            let asked = teacher.ask(&example).map_err(|error| match error {
                retune_adapt::AdaptError::Data(error) => Error::Data(error.in_file(&together)),
                other => other.into(),
            })?;
            match self.fits(&asked) {
                Ok(()) => Ok(asked),
                Err(message) => {
                    Err(Error::Data(DataError::new(message).at_line(example.line).in_file(&together)))
                }
            }
        });
        let asked: Vec<Asked> = asked.collect::<Result<_>>()?;
        let mut said = read.said;
        if teacher.has_template() && asked.iter().any(|asked| !asked.turn) {
            said.push(AS_IT_IS.into());
        }
        Ok((asked, said))
    }
}

impl Asking {
    /// A text as the user's turn.
    pub(super) fn turns(&self, text: &str) -> Turns {
        let system = self.system.iter().map(|system| json!({ "role": "system", "content": system }));
        let messages = system.chain([json!({ "role": "user", "content": text })]).collect();
        Turns { messages, tools: None }
    }

    /// A row as turns, with the system's before them where they have none.
    fn as_turns(&self, example: Example) -> Example {
        let lesson = match &example.label {
            Some(Label::Lesson(Lesson::Turns(turns))) => {
                let own =
                    turns.messages.first().is_some_and(|first| retune_data::role(first) == Some("system"));
                let mut turns = turns.clone();
                if let Some(system) = self.system.as_ref().filter(|_| !own) {
                    turns.messages.insert(0, json!({ "role": "system", "content": system }));
                }
                turns
            }
            Some(Label::Lesson(Lesson::Completion { user, completion })) => {
                let mut turns = self.turns(user);
                turns.messages.push(json!({ "role": "assistant", "content": completion }));
                Box::new(turns)
            }
            _ => Box::new(self.turns(&example.text)),
        };
        Example { label: Some(Label::Lesson(Lesson::Turns(lesson))), ..example }
    }
}
