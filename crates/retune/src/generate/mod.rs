//! Text from a language model: prompts go on token by token, many at once, each as it would alone.

mod asking;
mod chat;
mod exact_match;
mod settings;
mod stops;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;
use retune_adapt::tasks::{self, Asked, Teacher};
use retune_model::families::HeadKind;
use retune_model::tokenizer::{Tokenizer, Words};
use retune_model::{BatchRow, Forward, KvCache, Sampling, share_base};
use retune_tensor::random::Key;
use retune_tensor::{Tape, Tensor};
use serde::Serialize;

pub use self::asking::{Asking, Prompt};
pub use self::chat::Chat;
pub use self::exact_match::exact_match;
pub use self::settings::GenerateSettings;
use self::stops::Stops;
use crate::predict::{Place, check_name};
use crate::{Error, ModelSettings, Result, TextModel};

/// Rows that go on at once, where nobody says otherwise: their steps read the weights once for all.
pub const ROWS: usize = 16;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// The model ended it, or a stop text did.
    Stop,
    /// It is as long as it may be.
    Length,
}

/// What a model made of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generation {
    /// The prompt's place among all, counted from 0.
    pub row: u64,
    /// The prompt; of a conversation what was said last.
    pub prompt: String,
    /// What comes behind it.
    pub text: String,
    /// How many tokens that are, with the one that ended it.
    pub tokens: usize,
    /// How many tokens the prompt has.
    pub prompt_tokens: usize,
    /// Why it ended.
    pub finish: Finish,
    /// The right answer, where the file has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
}

/// What generating took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Took {
    /// Tokens that were made.
    pub tokens: usize,
    /// Tokens of the prompts, those that were known already left out.
    pub prompt_tokens: usize,
    /// All of the time.
    pub seconds: f64,
    /// That of the prompts, which gives each answer's first token.
    pub prompt_seconds: f64,
    /// Tokens of the answers a second, the prompts' time left out.
    pub tokens_per_second: f64,
    /// How many tokens came of prompts.
    #[serde(skip)]
    first: usize,
}

impl Took {
    /// With what something else took.
    pub fn add(&mut self, other: Took) {
        self.tokens += other.tokens;
        self.prompt_tokens += other.prompt_tokens;
        self.seconds += other.seconds;
        self.prompt_seconds += other.prompt_seconds;
        self.first += other.first;
        let (later, seconds) = (self.tokens - self.first, self.seconds - self.prompt_seconds);
        self.tokens_per_second = match later {
            0 => self.tokens as f64 / self.seconds.max(1e-9),
            later => later as f64 / seconds.max(1e-9),
        };
    }
}

/// A language model that answers.
pub struct Generator {
    settings: ModelSettings,
    model: TextModel,
    /// The base alone, where it was asked for.
    base: Option<TextModel>,
    with_adapter: bool,
    /// Tokens that end an answer.
    ends: BTreeSet<u32>,
}

impl Generator {
    /// Opens a language model, or one with an adapter. Errors if it is a model for something else.
    pub fn open(settings: &ModelSettings) -> Result<Self> {
        let language = tasks::with_head(HeadKind::Language).unwrap_or(tasks::USUAL);
        let model = TextModel::open_as(settings, language)?;
        if model.task.head() != HeadKind::Language {
            let message = format!(
                "expected a language model, got one for {}: `retune predict` asks it",
                model.task.name()
            );
            return Err(Error::place(&model.source.folder, message));
        }
        let mut ends: BTreeSet<u32> = model.config.end_tokens()?.into_iter().collect();
        let named = model.tokenizer.eos_token()?;
        ends.extend(named.and_then(|token| model.tokenizer.token_to_id(&token)));
        Ok(Generator { settings: settings.clone(), model, base: None, with_adapter: true, ends })
    }

    /// Errors with what keeps the model from going on behind a prompt.
    fn fits(&self, asked: &Asked) -> std::result::Result<(), String> {
        let (ids, model) = (&asked.ids, self.model());
        let vocab = model.config.optional_usize("vocab_size").map_err(|error| error.to_string())?;
        let vocab = vocab.unwrap_or(usize::MAX);
        if ids.is_empty() {
            return Err("expected at least one token, got none".into());
        }
        if let Some(beyond) = ids.iter().find(|token| **token as usize >= vocab) {
            return Err(format!(
                "has a token with the number {beyond}, and the model knows only {vocab}: is the tokenizer another model's?"
            ));
        }
        let longest = model.longest();
        if ids.len() >= longest {
            return Err(format!(
                "expected fewer than the {longest} tokens that the model can take, got {}; shorten it",
                ids.len()
            ));
        }
        Ok(())
    }

    /// The model, or its base alone where that is used.
    pub fn model(&self) -> &TextModel {
        match &self.base {
            Some(base) if !self.with_adapter => base,
            _ => &self.model,
        }
    }

    /// Whether there is an adapter, used or not.
    pub fn has_adapter(&self) -> bool {
        self.model.source.adapter.is_some()
    }

    /// Answers with the adapter from now on, or as the base alone, whose weights are in memory once. Errors where there is no
    /// adapter.
    pub fn use_adapter(&mut self, on: bool) -> Result<()> {
        if !self.has_adapter() {
            let message = "it is a whole model, without an adapter to switch";
            return Err(Error::place(&self.model.source.folder, message));
        }
        if !on && self.base.is_none() {
            let base = self.model.source.base.clone();
            let settings =
                ModelSettings { model: Some(base), base: None, revision: None, ..self.settings.clone() };
            let language = tasks::with_head(HeadKind::Language).unwrap_or(tasks::USUAL);
            let mut base = TextModel::open_as(&settings, language)?;
            share_base(&mut base.parameters, &self.model.parameters);
            self.base = Some(base);
        }
        self.with_adapter = on;
        Ok(())
    }

    /// What asks the model as it was trained. Errors if its template cannot be read.
    pub fn teacher(&self) -> Result<Teacher<'_>> {
        let trained = self.model.source.card.as_ref().map(crate::Card::language);
        let language = self.settings.language(trained)?;
        Ok(Teacher::new(&self.model.tokenizer, language, self.model.longest())?)
    }

    /// Answers all of `prompts`, so many at once as `rows` says; `say` is told what is new of an answer, by its place among them,
    /// as it comes, and says whether to go on.
    ///
    /// A text depends neither on the prompts beside it nor on the number of threads. Errors if a prompt leaves no room for an
    /// answer, or logits are no numbers.
    pub fn generate(
        &self,
        prompts: &[Asked],
        settings: &GenerateSettings,
        rows: usize,
        say: &mut dyn FnMut(usize, &str) -> bool,
    ) -> Result<(Vec<Generation>, Took)> {
        let run = Run::new(self, settings)?;
        // All of them before the first is answered: nothing is lost behind one that cannot be.
        for (place, asked) in prompts.iter().enumerate() {
            self.fits(asked).map_err(|message| {
                Error::place(&self.model().source.base, format!("prompt {}: {message}", place + 1))
            })?;
        }
        let (mut all, mut took) = (Vec::new(), Took::default());
        for (first, chunk) in (0..).step_by(rows.max(1)).zip(prompts.chunks(rows.max(1))) {
            let asked = chunk.iter().zip(first..);
            let mut rows: Vec<Row<'_>> =
                asked.map(|(asked, place)| run.row(place as u64, asked)).collect::<Result<_>>()?;
            let cache = KvCache::new(rows.len());
            took.add(
                run.go_on(&mut rows, &cache, &vec![0; chunk.len()], &mut |row, text| say(first + row, text))?,
            );
            all.extend(rows.into_iter().zip(chunk).map(|(row, asked)| row.generation(asked)));
        }
        Ok((all, took))
    }
}

/// Where answers go. Errors if that is among the files that are read, or there is one that may not be replaced, or its name says
/// another form than JSON lines.
pub fn place(input: &[PathBuf], output: &Path, overwrite: bool) -> Result<Place> {
    check_name(output, &["jsonl", "ndjson"])?;
    Place::free(input, output, overwrite)
}

/// Writes answers to the place of `output` as JSON lines, all or none.
pub fn write(place: &Place, output: &Path, generations: &[Generation]) -> Result<()> {
    place.write_as(output, |_, writer| {
        for generation in generations {
            serde_json::to_writer(&mut *writer, generation)?;
            writer.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// What all rows of a generation have in common.
struct Run<'a> {
    model: &'a TextModel,
    ends: &'a BTreeSet<u32>,
    sampling: Sampling,
    most: usize,
    stop: &'a [String],
    key: Key,
}

/// A row that goes on.
struct Row<'a> {
    id: u64,
    /// The prompt's tokens, and those behind.
    ids: Vec<u32>,
    prompt: usize,
    words: Words<'a>,
    stops: Stops<'a>,
    text: String,
    finish: Option<Finish>,
}

impl<'a> Run<'a> {
    fn new(generator: &'a Generator, settings: &'a GenerateSettings) -> Result<Self> {
        Ok(Run {
            model: generator.model(),
            ends: &generator.ends,
            sampling: settings.sampling()?,
            most: settings.most()?,
            stop: &settings.stop,
            key: Key::new(settings.seed.unwrap_or(1)).with_name("generate"),
        })
    }

    /// A row behind the tokens of a prompt. Errors if these leave no room, or one is unknown.
    fn row(&self, id: u64, asked: &Asked) -> Result<Row<'a>> {
        let ids = &asked.ids;
        let tokenizer: &'a Tokenizer = &self.model.tokenizer;
        Ok(Row {
            id,
            prompt: ids.len(),
            // A turn begins with nothing before it.
            words: tokenizer.words(if asked.turn { &[] } else { ids }),
            ids: ids.clone(),
            stops: Stops::new(self.stop),
            text: String::new(),
            finish: None,
        })
    }

    /// Goes on with `rows`, of each of which `cache` knows the first `known` tokens, until all are finished.
    fn go_on(
        &self,
        rows: &mut [Row<'a>],
        cache: &KvCache,
        known: &[usize],
        say: &mut dyn FnMut(usize, &str) -> bool,
    ) -> Result<Took> {
        let start = Instant::now();
        let mut took = Took::default();
        let mut known = known.to_vec();
        let mut live: Vec<usize> = (0..rows.len()).collect();
        took.prompt_tokens = rows.iter().zip(&known).map(|(row, known)| row.ids.len() - known).sum();
        let mut heard = true;
        while heard && !live.is_empty() {
            let batch = cache.batch(live.iter().map(|row| BatchRow {
                id: rows[*row].id,
                input_ids: &rows[*row].ids[known[*row]..],
                token_type_ids: &[],
            }));
            let logits = self.model.next_logits(&batch, cache)?;
            let columns = logits.columns().max(1);
            // Each row draws by itself.
            let (sampling, key) = (self.sampling, self.key);
            let next: Vec<Option<u32>> = live
                .par_iter()
                .zip(logits.f32().par_chunks(columns))
                .map(|(row, logits)| {
                    let row = &rows[*row];
                    sampling.next(logits, &row.ids, key.with(row.id).with(row.ids.len() as u64))
                })
                .collect();
            for (place, token) in live.iter().zip(next) {
                let Some(token) = token else {
                    let message = "its answers are no numbers: the weights are broken";
                    return Err(Error::place(&self.model.source.folder, message));
                };
                known[*place] = rows[*place].ids.len();
                let new = self.take(&mut rows[*place], token)?;
                heard &= new.is_empty() || say(*place, &new);
            }
            if took.tokens == 0 {
                took.prompt_seconds = start.elapsed().as_secs_f64();
                took.first = live.len();
            }
            took.tokens += live.len();
            let stay: Vec<usize> =
                (0..live.len()).filter(|place| rows[live[*place]].finish.is_none()).collect();
            // What the last rows know may be of use behind their answers.
            if stay.len() < live.len() && !stay.is_empty() {
                cache.keep(&stay);
            }
            live = stay.into_iter().map(|place| live[place]).collect();
        }
        took.seconds = start.elapsed().as_secs_f64();
        let mut whole = Took::default();
        whole.add(took);
        Ok(whole)
    }

    /// What is new in a row's text with `token`.
    fn take(&self, row: &mut Row<'a>, token: u32) -> Result<String> {
        row.ids.push(token);
        let ended = self.ends.contains(&token);
        let (mut new, mut stopped) = match ended {
            true => (String::new(), false),
            false => row.stops.push(&row.words.push(token)?),
        };
        let full = row.ids.len() - row.prompt >= self.most || row.ids.len() >= self.model.longest();
        if !stopped && (ended || full) {
            let (rest, stops) = row.stops.push(&row.words.end()?);
            new.push_str(&rest);
            stopped = stops;
            if !stops {
                new.push_str(&row.stops.end());
            }
        }
        row.finish = match (ended || stopped, full) {
            (true, _) => Some(Finish::Stop),
            (false, true) => Some(Finish::Length),
            _ => None,
        };
        row.text.push_str(&new);
        Ok(new)
    }
}

impl Row<'_> {
    fn generation(self, asked: &Asked) -> Generation {
        Generation {
            row: self.id,
            prompt: asked.prompt.clone(),
            tokens: self.ids.len() - self.prompt,
            prompt_tokens: self.prompt,
            text: self.text,
            finish: self.finish.unwrap_or(Finish::Length),
            expected: asked.answer.clone(),
        }
    }
}

impl TextModel {
    /// The logits of what comes behind each row of `batch`: `[rows, vocabulary]`. Both go into `cache`.
    pub(crate) fn next_logits(
        &self,
        batch: &retune_model::Batch,
        cache: &KvCache,
    ) -> retune_tensor::Result<Tensor> {
        let tape = Tape::inference();
        let forward = Forward {
            tape: &tape,
            parameters: &self.parameters,
            hooks: &self.hooks,
            batch,
            dropout: None,
            mixture: None,
            dtype: self.dtype,
            recompute: false,
            cache: Some(cache),
        };
        self.network.output(&forward)?.logits_of_last()
    }
}
