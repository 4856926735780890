//! From a lesson to a row: its tokens, and which of them are to be learnt.

use std::ops::Range;

use retune_data::{Example, Label, Lesson, Turns, is_answer, role};
use retune_model::ChatTemplate;
use retune_model::tokenizer::{TextFrame, Tokenizer};
use serde_json::{Value, json};

use super::causal_lm::{LanguageSettings, LossOn};
use super::next_token::error;
use crate::AdaptError;

const LEFT_ASIDE: &str = "it is a conversation, which only a chat template can write, and --chat-template none leaves the model's aside; \
                          leave the flag out, or give prompts and completions";
const NO_TEMPLATE: &str = "it is a conversation, and the model has no chat template (`chat_template.jinja`, or `chat_template` in \
                           `tokenizer_config.json`); take an instruct model, or give prompts and completions";

/// A row as a language model learns it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Taught {
    pub ids: Vec<u32>,
    /// 1 for each token that is to be learnt, else 0.
    pub learnt: Vec<u32>,
    /// Tokens that were cut off.
    pub cut: usize,
}

/// What a model is asked, and what is known of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The tokens before the answer.
    pub ids: Vec<u32>,
    /// The text of these, as it was given.
    pub prompt: String,
    /// The right answer, where there is one.
    pub answer: Option<String>,
    /// Whether what comes is a turn of its own, and no text that goes on.
    pub turn: bool,
}

/// What makes rows of lessons, and asks for their answers.
pub struct Teacher<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
    /// Why a conversation cannot be written without one.
    no_template: &'static str,
    frame: TextFrame,
    /// The end of a text.
    eos: Option<u32>,
    loss_on: LossOn,
    max_length: usize,
}

impl<'a> Teacher<'a> {
    /// Of rows of at most `max_length` tokens. Errors if the model's template cannot be read.
    pub fn new(
        tokenizer: &'a Tokenizer,
        settings: LanguageSettings,
        max_length: usize,
    ) -> Result<Self, AdaptError> {
        let template = if settings.chat_template { ChatTemplate::open(tokenizer.path())? } else { None };
        Ok(Teacher {
            template,
            no_template: if settings.chat_template { NO_TEMPLATE } else { LEFT_ASIDE },
            frame: tokenizer.text_frame()?,
            eos: tokenizer.eos_token()?.and_then(|token| tokenizer.token_to_id(&token)),
            loss_on: settings.loss_on,
            tokenizer,
            max_length,
        })
    }

    /// Whether the model has a chat template, and it is to be used.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// A conversation as far as its last answer, and that, as a training shows it. Errors as the template does, or
    /// without one.
    pub fn ask_turns(&self, turns: &Turns) -> Result<Asked, AdaptError> {
        let Turns { messages, tools } = turns;
        let Some(template) = &self.template else {
            return Err(AdaptError::Option { option: "chat".into(), message: self.no_template.into() });
        };
        let (asked, answer) = match messages.split_last() {
            Some((last, before)) if is_assistant(Some(last)) => (before, Some(last)),
            _ => (messages.as_slice(), None),
        };
        let text = template.render(asked, tools.as_ref(), true)?;
        let said = |message: &Value| message.get("content").and_then(Value::as_str).map(str::to_string);
        let prompt = asked.last().and_then(said).unwrap_or_default();
        Ok(Asked {
            ids: self.tokenizer.pieces(&text)?.ids,
            prompt,
            answer: answer.and_then(said),
            turn: true,
        })
    }

    /// A text that goes on, behind the special tokens that begin one.
    pub fn ask_text(&self, text: &str) -> Result<Asked, AdaptError> {
        let pieces = self.tokenizer.pieces(text)?;
        let (mut ids, _) = self.frame.row(&pieces.ids);
        ids.truncate(self.frame.first() + pieces.ids.len());
        Ok(Asked { ids, prompt: text.to_string(), answer: None, turn: false })
    }

    /// An example as far as its answer. Errors with its line.
    pub fn ask(&self, example: &Example) -> Result<Asked, AdaptError> {
        let asked = match (&example.label, &self.template) {
            (Some(Label::Lesson(Lesson::Turns(turns))), _) => self.ask_turns(turns),
            (Some(Label::Lesson(Lesson::Completion { user, completion })), Some(_)) => {
                let answer = Some(completion.clone()).filter(|answer| !answer.is_empty());
                let messages = vec![json!({ "role": "user", "content": user })];
                self.ask_turns(&Turns { messages, tools: None }).map(|asked| Asked { answer, ..asked })
            }
            (Some(Label::Lesson(Lesson::Completion { completion, .. })), None) => {
                let asked = self.ask_text(&before_completion(&example.text, completion));
                let answer = Some(completion.clone()).filter(|answer| !answer.is_empty());
                asked.map(|asked| Asked { answer, ..asked })
            }
            _ => self.ask_text(&example.text),
        };
        asked.map_err(|failed| match failed {
            AdaptError::Model(why) => error(example, why.to_string()),
            AdaptError::Option { option, message } if option == "chat" => error(example, message),
            other => other,
        })
    }

    /// The row of an example; a plain text that is longer than a row goes on in the next, whose first token is the last of the
    /// row before, so that each token is told once. Errors with what is wrong with its conversation.
    pub(super) fn teach(&self, example: &Example) -> Result<Vec<Taught>, AdaptError> {
        let named = |failed: AdaptError| match failed {
            AdaptError::Model(why) => error(example, why.to_string()),
            AdaptError::Option { option, message } if option == "loss-on" => error(example, message),
            other => other,
        };
        let row = match (&example.label, &self.template) {
            (Some(Label::Lesson(Lesson::Turns(turns))), Some(template)) => self.turns(template, turns),
            (Some(Label::Lesson(Lesson::Turns(_))), None) => Err(error(example, self.no_template)),
            (Some(Label::Lesson(Lesson::Completion { user, completion })), Some(template)) => {
                let message = |role: &str, content: &str| json!({ "role": role, "content": content });
                let messages = vec![message("user", user), message("assistant", completion)];
                self.turns(template, &Turns { messages, tools: None })
            }
            (Some(Label::Lesson(Lesson::Completion { completion, .. })), None) => {
                let prompt = before_completion(&example.text, completion);
                self.plain(&format!("{prompt}{completion}"), prompt.len()).map(|row| self.cut(row, 0))
            }
            _ => return self.plain(&example.text, 0).map(|text| self.parts(text)).map_err(named),
        };
        Ok(vec![row.map_err(named)?])
    }

    /// A text with the special tokens that the tokenizer puts around it and the end of a text, of which the bytes from `from`
    /// on are to be learnt.
    fn plain(&self, text: &str, from: usize) -> Result<Taught, AdaptError> {
        let pieces = self.tokenizer.pieces(text)?;
        let (mut ids, _) = self.frame.row(&pieces.ids);
        let (first, count) = (self.frame.first(), pieces.ids.len());
        let from = if self.loss_on == LossOn::All { 0 } else { from };
        let taught = |place: usize| match place.checked_sub(first) {
            None => from == 0,
            // A token at the border that holds some of the completion is learnt.
            Some(piece) => pieces.spans.get(piece).is_none_or(|[_, end]| *end as usize > from),
        };
        let mut learnt: Vec<u32> = (0..ids.len()).map(|place| u32::from(taught(place))).collect();
        if let Some(eos) = self.eos.filter(|eos| ids.last() != Some(eos) || count == 0) {
            ids.push(eos);
            learnt.push(1);
        }
        Ok(Taught { ids, learnt, cut: 0 })
    }

    /// At most as many tokens as a row may have, the first; `lost` are gone already.
    fn cut(&self, Taught { mut ids, mut learnt, .. }: Taught, lost: usize) -> Taught {
        let cut = ids.len().saturating_sub(self.max_length);
        ids.truncate(self.max_length);
        learnt.truncate(self.max_length);
        Taught { ids, learnt, cut: cut + lost }
    }

    /// All of a text, in as many rows as it takes.
    fn parts(&self, Taught { ids, learnt, cut }: Taught) -> Vec<Taught> {
        if ids.len() <= self.max_length {
            return vec![Taught { ids, learnt, cut }];
        }
        // A row of one token would tell nothing.
        let step = self.max_length.saturating_sub(1).max(1);
        (0..ids.len() - 1)
            .step_by(step)
            .map(|first| {
                let part = first..(first + self.max_length).min(ids.len());
                Taught { ids: ids[part.clone()].to_vec(), learnt: learnt[part].to_vec(), cut: 0 }
            })
            .collect()
    }

    /// A conversation as the template writes it: as many of its turns as there is room for, to the end of an assistant's.
    fn turns(&self, template: &ChatTemplate, turns: &Turns) -> Result<Taught, AdaptError> {
        let Turns { messages, tools } = turns;
        let whole = self.rendered(template, messages, tools.as_ref())?;
        if whole.ids.len() <= self.max_length {
            return Ok(whole);
        }
        let length = whole.ids.len();
        let ends: Vec<usize> =
            (1..messages.len()).filter(|end| is_assistant(messages.get(end - 1))).collect();
        for end in ends.iter().rev() {
            let part = self.rendered(template, messages.get(..*end).unwrap_or_default(), tools.as_ref())?;
            if part.ids.len() <= self.max_length {
                let cut = length - part.ids.len();
                return Ok(Taught { cut, ..part });
            }
        }
        // Not even the first answer has room: its beginning is learnt.
        let first = ends.first().copied().unwrap_or(messages.len());
        let part = self.rendered(template, messages.get(..first).unwrap_or_default(), tools.as_ref())?;
        let lost = length - part.ids.len();
        Ok(self.cut(part, lost))
    }

    fn rendered(
        &self,
        template: &ChatTemplate,
        messages: &[Value],
        tools: Option<&Value>,
    ) -> Result<Taught, AdaptError> {
        let text = template.render(messages, tools, false)?;
        let spans = match self.loss_on {
            LossOn::All => None,
            LossOn::Answers => Some(answers_in(template, messages, tools, &text)?),
        };
        // The template writes the special tokens itself.
        let pieces = self.tokenizer.pieces(&text)?;
        let within = |[start, end]: &[u32; 2]| {
            let (start, end) = (*start as usize, *end as usize);
            let spans = spans.as_deref();
            spans.is_none_or(|spans| spans.iter().any(|span| start < span.end && end > span.start))
        };
        let learnt = pieces.spans.iter().map(|span| u32::from(within(span))).collect();
        let mut taught = Taught { ids: pieces.ids, learnt, cut: 0 };
        if is_assistant(messages.last()) {
            self.end(&mut taught, &pieces.spans, &text);
        }
        Ok(taught)
    }
}

impl Teacher<'_> {
    /// An answer that its template does not end with a special token gets the end of a text: a model that never saw one would
    /// not stop.
    fn end(&self, Taught { ids, learnt, .. }: &mut Taught, spans: &[[u32; 2]], text: &str) {
        let Some(eos) = self.eos else { return };
        let blank = |[start, end]: &[u32; 2]| {
            text.get(*start as usize..*end as usize).is_some_and(|piece| piece.trim().is_empty())
        };
        let last = spans.iter().rposition(|span| !blank(span));
        if last.and_then(|last| ids.get(last)).is_some_and(|token| self.tokenizer.is_special(*token)) {
            return;
        }
        // White space that the template writes before it leads there.
        for learnt in learnt.iter_mut().skip(last.map_or(0, |last| last + 1)) {
            *learnt = 1;
        }
        ids.push(eos);
        learnt.push(1);
    }
}

/// A prompt as its completion follows it: with a line's end between them, unless there is white space.
fn before_completion(prompt: &str, completion: &str) -> String {
    let touch = prompt.ends_with(char::is_whitespace) || completion.starts_with(char::is_whitespace);
    if touch { prompt.to_string() } else { format!("{prompt}\n") }
}

fn is_assistant(message: Option<&Value>) -> bool {
    message.and_then(role) == Some("assistant")
}

/// The bytes of what the assistant wrote in `text`, which is all of a conversation as its template writes it: from behind what an
/// answer begins with to the end of its turn. Errors if a turn is not found again, as the template writes it otherwise.
pub fn answers_in(
    template: &ChatTemplate,
    messages: &[Value],
    tools: Option<&Value>,
    text: &str,
) -> Result<Vec<Range<usize>>, AdaptError> {
    let mut spans = Vec::new();
    for turn in (0..messages.len()).filter(|turn| messages.get(*turn).is_some_and(is_answer)) {
        let before = messages.get(..turn).unwrap_or_default();
        let mut starts = [true, false].into_iter().filter_map(|prompts| {
            // Of no turns some templates make an error.
            let begins = template.render(before, tools, prompts).ok()?;
            (text.starts_with(&begins) && !begins.is_empty()).then_some(begins.len())
        });
        let start = starts.next();
        let upto = template.render(messages.get(..=turn).unwrap_or_default(), tools, false)?;
        let span = match start {
            Some(start) if text.starts_with(&upto) => Some(start..upto.len()),
            // Some templates write a turn otherwise when it is no longer the last, such as without its thoughts.
            _ => around(template, messages, tools, text, turn)?
                .map(|span| start.unwrap_or(span.start)..span.end),
        };
        let Some((start, written)) = span.and_then(|span| Some((span.start, text.get(span)?))) else {
            let message = format!(
                "the chat template writes turn {} so that it is not found again; --loss-on all learns whole conversations",
                turn + 1
            );
            return Err(AdaptError::Option { option: "loss-on".into(), message });
        };
        // White space behind the turn's end is the template's.
        spans.push(start..start + written.trim_end().len());
    }
    Ok(spans)
}

/// Where a turn stands in `text`, whatever it says: between what the template writes before and behind another answer in its
/// place, and as far as that answer's turn goes on. None if these are not the same.
fn around(
    template: &ChatTemplate,
    messages: &[Value],
    tools: Option<&Value>,
    text: &str,
    turn: usize,
) -> Result<Option<Range<usize>>, AdaptError> {
    // Characters for private use, which no text has.
    const ANSWER: &str = "\u{F8FE}answer\u{F8FE}";
    let mut others = messages.to_vec();
    if let Some(message) = others.get_mut(turn) {
        *message = json!({ "role": "assistant", "content": ANSWER });
    }
    let whole = template.render(&others, tools, false)?;
    let upto = template.render(others.get(..=turn).unwrap_or_default(), tools, false)?;
    let found =
        whole.split_once(ANSWER).zip(upto.split_once(ANSWER)).and_then(|((before, behind), (_, closing))| {
            let end = text.strip_suffix(behind)?.len();
            let closing = if behind.starts_with(closing) { closing.len() } else { 0 };
            (text.starts_with(before) && before.len() <= end).then_some(before.len()..end + closing)
        });
    Ok(found)
}
