//! A conversation: each turn goes on from what the model knows of those before.

use retune_data::Turns;
use retune_model::KvCache;
use serde_json::{Value, json};

use super::{Asking, GenerateSettings, Generation, Generator, Run, Took};
use crate::{Error, Result};

/// A conversation with a model.
pub struct Chat {
    generator: Generator,
    settings: GenerateSettings,
    asking: Asking,
    /// The turns so far.
    messages: Vec<Value>,
    /// What the model knows of them, and of which tokens.
    cache: KvCache,
    known: Vec<u32>,
    turns: u64,
}

impl Chat {
    /// A conversation that begins with what `system` says, if anything. Errors if the model has no template for one, or a setting
    /// cannot be.
    pub fn new(generator: Generator, settings: GenerateSettings, system: Option<String>) -> Result<Self> {
        if !generator.teacher()?.has_template() {
            let message = "the model has no chat template (`chat_template.jinja`, or `chat_template` in `tokenizer_config.json`), or \
                           --chat-template none leaves it aside: `retune generate` goes on with a text";
            return Err(Error::place(&generator.model().source.folder, message));
        }
        Run::new(&generator, &settings)?;
        let asking = Asking { chat: true, system };
        let cache = KvCache::new(1);
        let mut chat =
            Chat { generator, settings, asking, messages: Vec::new(), cache, known: Vec::new(), turns: 0 };
        chat.reset();
        Ok(chat)
    }

    /// The model.
    pub fn generator(&self) -> &Generator {
        &self.generator
    }

    /// Forgets all turns.
    pub fn reset(&mut self) {
        let system = self.asking.system.iter().map(|system| json!({ "role": "system", "content": system }));
        self.messages = system.collect();
        self.forget();
    }

    /// Says something else before all turns from now on, and forgets these.
    pub fn set_system(&mut self, system: Option<String>) {
        self.asking.system = system;
        self.reset();
    }

    /// Goes on with the adapter, or without, with the turns as they are. Errors where there is none.
    pub fn use_adapter(&mut self, on: bool) -> Result<()> {
        self.generator.use_adapter(on)?;
        self.forget();
        Ok(())
    }

    /// The model is to see everything anew.
    fn forget(&mut self) {
        self.cache = KvCache::new(1);
        self.known.clear();
    }

    /// The answer to `text`, which is then one of the turns; `say` is told what is new of it as it comes, and says
    /// whether to go on. After an error the turns
    /// are as before.
    pub fn say(&mut self, text: &str, say: &mut dyn FnMut(&str) -> bool) -> Result<(Generation, Took)> {
        self.messages.push(json!({ "role": "user", "content": text }));
        let answered = self.answer(say);
        match &answered {
            Ok((generation, _)) => {
                self.messages.push(json!({ "role": "assistant", "content": generation.text }));
                self.turns += 1;
            }
            Err(_) => {
                self.messages.pop();
                self.forget();
            }
        }
        answered
    }

    fn answer(&mut self, say: &mut dyn FnMut(&str) -> bool) -> Result<(Generation, Took)> {
        let turns = Turns { messages: self.messages.clone(), tools: None };
        let asked = self.generator.teacher()?.ask_turns(&turns)?;
        // The last token is always given, as its logits are asked for.
        let same = self.known.iter().zip(&asked.ids).take_while(|(one, other)| one == other).count();
        let same = same.min(asked.ids.len().saturating_sub(1));
        if same == 0 {
            self.forget();
        } else {
            let virtual_tokens = self.generator.model().hooks.virtual_tokens();
            self.cache.forget(0, virtual_tokens + same);
        }
        let run = Run::new(&self.generator, &self.settings)?;
        let wrong = |message| Error::place(&self.generator.model().source.base, message);
        self.generator.fits(&asked).map_err(wrong)?;
        let mut rows = [run.row(self.turns, &asked)?];
        let took = run.go_on(&mut rows, &self.cache, &[same], &mut |_, text| say(text))?;
        let [row] = rows;
        // The last token was drawn and not seen.
        self.known = row.ids[..row.ids.len() - 1].to_vec();
        Ok((row.generation(&asked), took))
    }
}
