//! What transformers' `BertTokenizer` does beyond its `tokenizer.json`: settings that override it, and a vocabulary
//! that stands alone.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::processors::PostProcessorWrapper;

use super::{SETTINGS, TOKENIZER, VOCAB, failed, read_object};
use crate::ModelError;
use crate::error::quoted;
use crate::formats::described;

type Settings = Map<String, Value>;

/// Whether transformers would load this with its `BertTokenizer`. The class is left out in the oldest folders.
fn is_bert(settings: &Settings) -> bool {
    match settings.get("tokenizer_class") {
        None | Some(Value::Null) => true,
        Some(class) => class.as_str().is_some_and(|class| {
            let class = class.strip_suffix("Fast").unwrap_or(class);
            // The other two are the same under their families' names.
            matches!(class, "BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer")
        }),
    }
}

/// Lets the settings of a BERT override its `tokenizer.json`, where they are given. Other tokenizers stay as they are.
pub(super) fn apply_settings(
    inner: &mut tokenizers::Tokenizer,
    settings: &Settings,
) -> Result<(), tokenizers::Error> {
    if !is_bert(settings) || !matches!(inner.get_model(), ModelWrapper::WordPiece(_)) {
        return Ok(());
    }
    if let Some(NormalizerWrapper::BertNormalizer(stored)) = inner.get_normalizer() {
        let mut normalizer = *stored;
        let flag = |key| settings.get(key).and_then(Value::as_bool);
        normalizer.lowercase = flag("do_lower_case").unwrap_or(normalizer.lowercase);
        normalizer.handle_chinese_chars =
            flag("tokenize_chinese_chars").unwrap_or(normalizer.handle_chinese_chars);
        if let Some(strip) = settings.get("strip_accents") {
            normalizer.strip_accents = strip.as_bool();
        }
        inner.with_normalizer(Some(normalizer))?;
    }
    if inner.get_post_processor().is_none() {
        let [cls, sep] = [("cls_token", "[CLS]"), ("sep_token", "[SEP]")].map(|(key, default)| {
            let token = settings.get(key).and_then(Value::as_str).unwrap_or(default).to_string();
            inner.token_to_id(&token).map(|id| (token, id))
        });
        if let (Some(cls), Some(sep)) = (cls, sep) {
            let processor: PostProcessorWrapper = serde_json::from_value(template(&cls, &sep))?;
            inner.with_post_processor(Some(processor));
        }
    }
    Ok(())
}

/// Builds the tokenizer of a BERT from its `vocab.txt`, one token a line, and its settings.
/// Errors if there is no such file, or if the folder asks for more than these two can tell.
pub(super) fn from_vocab(folder: &Path, settings: &Settings) -> Result<tokenizers::Tokenizer, ModelError> {
    let path = folder.join(VOCAB);
    if !path.exists() {
        let message = format!("no tokenizer here: expected {TOKENIZER}, or the {VOCAB} of a BERT");
        return Err(failed(folder, message));
    }
    let unclear = |why: String| {
        let how = "save it with transformers' `AutoTokenizer.from_pretrained(...).save_pretrained(...)`";
        failed(folder, format!("{VOCAB} alone is not enough, as {why}: {TOKENIZER} is needed; {how}"))
    };
    if !is_bert(settings) {
        let class = settings.get("tokenizer_class").map(described).unwrap_or_default();
        return Err(unclear(format!("the tokenizer's class is {class}, not `BertTokenizer`")));
    }
    let text = fs::read(&path).map_err(|e| ModelError::io(&path, "read", e))?;
    let text = String::from_utf8(text).map_err(|e| ModelError::Format {
        path: path.clone(),
        place: format!("byte {}", e.utf8_error().valid_up_to()),
        expected: "UTF-8 text".into(),
        got: "other bytes".into(),
    })?;
    // The first of two equal lines is shadowed, and its id is never given: what Python's dictionary does.
    let vocab: Map<String, Value> = lines(&text).zip(0_u32..).map(|(token, id)| (token, id.into())).collect();
    let id_of = |token: &str| vocab.get(token).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());

    // Newer folders tell all in the settings; in older ones the map has the last word.
    let map = match settings.get("added_tokens_decoder") {
        None => read_object(folder, "special_tokens_map.json")?.unwrap_or_default(),
        Some(_) => Settings::new(),
    };
    let [unk, sep, pad, cls, mask] = [
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ]
    .map(|(key, default)| {
        let token = special_token(map.get(key).or_else(|| settings.get(key)), default)
            .ok_or_else(|| unclear(format!("`{key}` is more than a text")))?;
        let id = id_of(&token).ok_or_else(|| unclear(format!("it lacks the `{key}` {}", quoted(&token))))?;
        Ok::<_, ModelError>((token, id))
    });
    let special: [(String, u32); 5] = [unk?, sep?, pad?, cls?, mask?];
    if let Some(why) = more_tokens(folder, settings, &map, &special) {
        return Err(unclear(why));
    }

    let [unk, sep, _, cls, _] = &special;
    let flag = |key| settings.get(key).and_then(Value::as_bool);
    let added: Vec<Value> = special
        .iter()
        .map(|(content, id)| {
            json!({
                "id": id, "content": content, "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars").unwrap_or(true),
            "strip_accents": flag("strip_accents"),
            "lowercase": flag("do_lower_case").unwrap_or(true),
        },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": template(cls, sep),
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece",
            "unk_token": unk.0,
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    });
    serde_json::from_value(tokenizer)
        .map_err(|e| failed(&path, format!("cannot be used as a vocabulary: {e}")))
}

/// The lines as Python's text files have them: all three kinds of line ends, and no last empty line.
fn lines(text: &str) -> impl Iterator<Item = String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<String> = text.split_terminator('\n').map(str::to_string).collect();
    lines.into_iter()
}

/// `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, the second part with token type 1.
fn template((cls, cls_id): &(String, u32), (sep, sep_id): &(String, u32)) -> Value {
    let special = |token: &str, part: u32| json!({ "SpecialToken": { "id": token, "type_id": part } });
    let text = |name: &str, part: u32| json!({ "Sequence": { "id": name, "type_id": part } });
    json!({
        "type": "TemplateProcessing",
        "single": [special(cls, 0), text("A", 0), special(sep, 0)],
        "pair": [special(cls, 0), text("A", 0), special(sep, 0), text("B", 1), special(sep, 1)],
        "special_tokens": {
            cls: { "id": cls, "ids": [cls_id], "tokens": [cls] },
            sep: { "id": sep, "ids": [sep_id], "tokens": [sep] },
        },
    })
}

/// A special token's text; none if it is told in a way that changes how text is split around it.
fn special_token(value: Option<&Value>, default: &str) -> Option<String> {
    match value {
        None | Some(Value::Null) => Some(default.to_string()),
        Some(Value::String(token)) => Some(token.clone()),
        Some(Value::Object(token)) => {
            let plain = ["single_word", "lstrip", "rstrip", "normalized"]
                .iter()
                .all(|flag| token.get(*flag).is_none_or(|value| value == &Value::Bool(false)));
            token.get("content").and_then(Value::as_str).filter(|_| plain).map(str::to_string)
        }
        Some(_) => None,
    }
}

/// Why there are tokens beside the vocabulary and its special ones, if so: their order and flags are not told here.
fn more_tokens(
    folder: &Path,
    settings: &Settings,
    map: &Settings,
    known: &[(String, u32)],
) -> Option<String> {
    if folder.join("added_tokens.json").exists() {
        return Some("added_tokens.json adds tokens".to_string());
    }
    for key in ["additional_special_tokens", "extra_special_tokens"] {
        let count =
            |value: &Value| value.as_array().map(Vec::len).or_else(|| value.as_object().map(Map::len));
        if [settings, map].iter().filter_map(|m| m.get(key)).filter_map(count).any(|n| n > 0) {
            return Some(format!("`{key}` adds tokens"));
        }
    }
    let decoder = settings.get("added_tokens_decoder")?.as_object()?;
    let is_known = |(id, token): (&String, &Value)| {
        special_token(Some(token), "")
            .is_some_and(|token| known.iter().any(|(t, i)| *t == token && i.to_string() == *id))
    };
    (!decoder.iter().all(is_known)).then(|| format!("`added_tokens_decoder` in {SETTINGS} adds tokens"))
}
