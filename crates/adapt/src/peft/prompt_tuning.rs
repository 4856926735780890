//! Prompt tuning (Lester et al. 2021): before the word embeddings of a text stand rows of their own, `[P; embed(x)]`, and
//! these and the classifier are all that is trained. The row then begins with the prompt, so a classifier reads the first
//! of its tokens, as in `peft`.

use retune_model::Init;
use retune_tensor::Tensor;
use serde::Deserialize;
use serde_json::{Value, json};

use super::virtual_tokens::{self, COUNT, COUNT_DEFAULT, Place, ROWS, Virtual};
use super::{AdapterFiles, Applied, Method, Model, p_tuning};
use crate::{AdaptError, Kind, OptionSpec, Options};

/// The method.
pub(super) struct PromptTuning;

const TYPE: &str = "PROMPT_TUNING";

/// What can be set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Config {
    num_virtual_tokens: usize,
    random_prompt: bool,
    init_text: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { num_virtual_tokens: COUNT_DEFAULT, random_prompt: false, init_text: None }
    }
}

impl Method for PromptTuning {
    fn name(&self) -> &'static str {
        "prompt-tuning"
    }
    fn summary(&self) -> &'static str {
        "rows before the word embeddings, and the task's own head"
    }
    fn when(&self) -> &'static str {
        "the smallest file of all, for large models; small ones learn little by it"
    }
    fn paper(&self) -> &'static str {
        "Lester et al. 2021, The Power of Scale for Parameter-Efficient Prompt Tuning"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[
            COUNT,
            OptionSpec {
                name: "init-text",
                kind: Kind::Text,
                default: "none",
                help: "a text whose words the prompt begins as, again and again; else it begins as words of the vocabulary",
            },
            OptionSpec {
                name: "random-prompt",
                kind: Kind::Flag,
                default: "false",
                help: "begin with normal values instead, as peft does where nothing is said",
            },
        ]
    }
    fn learning_rate(&self) -> f64 {
        1e-2
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> Result<Applied, AdaptError> {
        let config: Config = options.parse(self.name(), self.options())?;
        let tokens = Virtual::new(model, Place::Words, config.num_virtual_tokens)?;
        let (rows, own) = match (&config.init_text, config.random_prompt) {
            (Some(_), true) => {
                let message = "a prompt begins as a text or with random values; give one of them";
                return Err(AdaptError::Option { option: "random-prompt".into(), message: message.into() });
            }
            // The file does not say which text: `peft` would then ask for the tokenizer that read it.
            (Some(text), false) => (as_text(model, &tokens, text)?, json!({})),
            (None, true) => {
                let shape = [tokens.count, tokens.columns];
                let rows = Init::Normal(1.0).draw(model.device(), &shape, model.seed, ROWS)?;
                (rows, json!({"prompt_tuning_init": "RANDOM"}))
            }
            (None, false) => {
                // Normal values are far from what the model has ever seen, which the paper found worse too.
                let words = u32::try_from(virtual_tokens::vocabulary(model, &tokens)).unwrap_or(u32::MAX);
                let mut stream = model.seed.with_name(ROWS).stream();
                let ids = std::iter::repeat_with(|| stream.below(words) as usize);
                (virtual_tokens::words(model, &tokens, ids)?, json!({"prompt_tuning_init": "SAMPLE_VOCAB"}))
            }
        };
        tokens.table(model, rows, TYPE, &own)
    }

    fn merges(&self) -> Result<(), &'static str> {
        Err(virtual_tokens::NO_WEIGHT)
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.is(TYPE)
    }

    fn goes_on(&self, files: &AdapterFiles) -> Result<bool, AdaptError> {
        // What a network made is from here on trained as it is.
        Ok(self.reads(files) || files.is(p_tuning::TYPE))
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> Result<Applied, AdaptError> {
        let mut applied = virtual_tokens::load(model, files, Place::Words)?;
        if let Applied::Adapter(adapter) = &mut applied {
            adapter.config.insert("peft_type".into(), Value::from(TYPE));
            adapter.config.retain(|key, _| !key.starts_with("encoder_"));
        }
        Ok(applied)
    }
}

/// The words of `text`, special tokens too, as often as there is room for them.
fn as_text(model: &Model<'_>, tokens: &Virtual, text: &str) -> Result<Tensor, AdaptError> {
    let error = |message: &str| AdaptError::Option { option: "init-text".into(), message: message.into() };
    let tokenizer = model.tokenizer.ok_or_else(|| error("there is no tokenizer to read it with"))?;
    let ids = tokenizer.encode(text, None, usize::MAX)?.input_ids;
    if text.trim().is_empty() || ids.is_empty() {
        return Err(error("expected some words, got none"));
    }
    let known = virtual_tokens::vocabulary(model, tokens);
    if let Some(id) = ids.iter().find(|id| **id as usize >= known) {
        return Err(error(&format!("its token {id} is none of the {known} that the model knows")));
    }
    virtual_tokens::words(model, tokens, ids.iter().cycle().map(|id| *id as usize))
}
