//! What transformers does beyond a `tokenizer.json` for RoBERTa and those that give no token types.

use serde_json::{Map, Value};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::PostProcessorWrapper;

/// Classes of transformers whose tokenizers give no token types, whatever their `tokenizer.json` says.
const WITHOUT_TYPES: [&str; 4] =
    ["RobertaTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer", "DistilBertTokenizer"];

fn class(settings: &Map<String, Value>) -> Option<&str> {
    let class = settings.get("tokenizer_class")?.as_str()?;
    Some(class.strip_suffix("Fast").unwrap_or(class))
}

/// Whether a model gets the token types of a pair's second text; else all are 0.
pub(super) fn gives_types(settings: &Map<String, Value>) -> bool {
    match settings.get("model_input_names").and_then(Value::as_array) {
        Some(names) => names.iter().any(|name| name == "token_type_ids"),
        None => !class(settings).is_some_and(|class| WITHOUT_TYPES.contains(&class)),
    }
}

/// Lets the settings of a RoBERTa override its `tokenizer.json`, where they are given.
pub(super) fn apply_settings(inner: &mut tokenizers::Tokenizer, settings: &Map<String, Value>) {
    let prefix = settings.get("add_prefix_space").and_then(Value::as_bool);
    if class(settings) != Some("RobertaTokenizer") {
        return;
    }
    if let (Some(prefix), Some(PreTokenizerWrapper::ByteLevel(stored))) = (prefix, inner.get_pre_tokenizer())
    {
        let mut changed = *stored;
        changed.add_prefix_space = prefix;
        inner.with_pre_tokenizer(Some(changed));
        if let Some(PostProcessorWrapper::Roberta(stored)) = inner.get_post_processor() {
            // It takes the space out of the offsets again.
            let changed = stored.clone().add_prefix_space(prefix);
            inner.with_post_processor(Some(changed));
        }
    }
}
