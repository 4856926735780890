//! The embedded tokenizer as the files that the `tokenizers` library and transformers read.

use serde_json::{Map, Value, json};

use super::header::{Gguf, Meta};
use super::pieces::merges;
use crate::ModelError;
use crate::error::quoted;

/// What a token is: `tokenizer.ggml.token_type`.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNKNOWN: i64 = 2;

/// How GPT-2 parts a text into words before pairs of bytes are joined; as its class of `tokenizers` has it.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The blank of SentencePiece.
const BLANK: &str = "\u{2581}";

/// `tokenizer.json`. Errors, with the key named, if the vocabulary is not whole or of a kind that is not read.
pub(super) fn tokenizer(gguf: &Gguf) -> Result<Value, ModelError> {
    let vocabulary = Vocabulary::of(gguf)?;
    let kind = gguf.require_text("tokenizer.ggml.model")?;
    let parts = match kind {
        "gpt2" => byte_level(gguf, &vocabulary)?,
        "llama" => sentence_pieces(gguf, &vocabulary)?,
        other => {
            let expected = "`gpt2` (pairs of bytes) or `llama` (SentencePiece)";
            return Err(gguf.wrong("tokenizer.ggml.model", expected, quoted(other)));
        }
    };
    let added: Vec<Value> = (0..)
        .zip(&vocabulary.types)
        .filter(|(_, kind)| matches!(**kind, CONTROL | USER_DEFINED | UNKNOWN))
        .map(|(id, kind): (usize, _)| {
            json!({
                "id": id, "content": vocabulary.tokens.get(id), "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": *kind != USER_DEFINED,
            })
        })
        .collect();
    let mut tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added});
    if let (Value::Object(whole), Value::Object(parts)) = (&mut tokenizer, parts) {
        whole.extend(parts);
    }
    Ok(tokenizer)
}

/// `tokenizer_config.json`.
pub(super) fn settings(gguf: &Gguf) -> Result<Value, ModelError> {
    let vocabulary = Vocabulary::of(gguf)?;
    let mut settings = Map::new();
    let mut put = |name: &str, value: Value| drop(settings.insert(name.into(), value));
    put("tokenizer_class", "PreTrainedTokenizerFast".into());
    put("clean_up_tokenization_spaces", false.into());
    put("model_input_names", json!(["input_ids", "attention_mask"]));
    for (name, key) in
        [("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding")]
    {
        if let Some((_, token)) = vocabulary.special(gguf, key)? {
            put(name, token.into());
        }
    }
    let architecture = gguf.require_text("general.architecture")?;
    if let Some(length) = gguf.size(&format!("{architecture}.context_length"))? {
        put("model_max_length", length.into());
    }
    Ok(Value::Object(settings))
}

/// `generation_config.json`: where a text ends.
pub(super) fn generation(gguf: &Gguf) -> Result<Value, ModelError> {
    let vocabulary = Vocabulary::of(gguf)?;
    let mut settings = Map::new();
    let id = |key| vocabulary.special(gguf, key).map(|found| found.map(|(id, _)| id));
    if let Some(bos) = id("bos")? {
        settings.insert("bos_token_id".into(), bos.into());
    }
    if let Some(ends) = ends(gguf)? {
        settings.insert("eos_token_id".into(), ends);
    }
    if let Some(padding) = id("padding")? {
        settings.insert("pad_token_id".into(), padding.into());
    }
    Ok(Value::Object(settings))
}

/// What ends a text, and a turn where that is another token: a number, or a list of both.
pub(super) fn ends(gguf: &Gguf) -> Result<Option<Value>, ModelError> {
    let [text, turn] = ["eos", "eot"].map(|name| gguf.size(&format!("tokenizer.ggml.{name}_token_id")));
    Ok(match (text?, turn?) {
        (Some(text), Some(turn)) if text != turn => Some(json!([text, turn])),
        (text, turn) => text.or(turn).map(Value::from),
    })
}

struct Vocabulary<'a> {
    tokens: &'a [String],
    /// One a token.
    types: Vec<i64>,
}

impl<'a> Vocabulary<'a> {
    fn of(gguf: &'a Gguf) -> Result<Self, ModelError> {
        const TYPES: &str = "tokenizer.ggml.token_type";
        let Some(tokens) = gguf.texts("tokenizer.ggml.tokens")? else {
            return Err(gguf.wrong(
                "tokenizer.ggml.tokens",
                "a list of texts",
                "no such key: the file has no tokenizer",
            ));
        };
        let types = match gguf.get(TYPES) {
            None => vec![1; tokens.len()],
            Some(Meta::Ints(types)) if types.len() == tokens.len() => types.clone(),
            Some(other) => {
                let expected = format!("a number for each of the {} tokens", tokens.len());
                return Err(gguf.wrong(TYPES, expected, other.described()));
            }
        };
        Ok(Vocabulary { tokens, types })
    }

    /// The id and the text of a special token, if the file names one. Errors if there is no such token.
    fn special(&self, gguf: &Gguf, name: &str) -> Result<Option<(usize, &'a str)>, ModelError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = gguf.size(&key)? else { return Ok(None) };
        match self.tokens.get(id) {
            Some(token) => Ok(Some((id, token))),
            None => Err(gguf.wrong(&key, format!("a token below {}", self.tokens.len()), id.to_string())),
        }
    }

    fn ids(&self, gguf: &Gguf) -> Result<Value, ModelError> {
        let mut ids = Map::new();
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(other) = ids.insert(token.clone(), id.into()) {
                let got = format!("{} with the numbers {other} and {id}", quoted(token));
                return Err(gguf.wrong("tokenizer.ggml.tokens", "each token once", got));
            }
        }
        Ok(Value::Object(ids))
    }

    /// What puts the tokens of beginning and end around a text; null where none are put.
    fn around(&self, gguf: &Gguf, bos: bool, eos: bool) -> Result<Value, ModelError> {
        let flag = |name, usual| Ok::<_, ModelError>(gguf.flag(name)?.unwrap_or(usual));
        let wanted = |yes: bool, name| if yes { self.special(gguf, name) } else { Ok(None) };
        let bos = wanted(flag("tokenizer.ggml.add_bos_token", bos)?, "bos")?;
        let eos = wanted(flag("tokenizer.ggml.add_eos_token", eos)?, "eos")?;
        if bos.is_none() && eos.is_none() {
            return Ok(Value::Null);
        }
        let token = |token: Option<(usize, &str)>, kind: u32| {
            token.map(|(_, token)| json!({"SpecialToken": {"id": token, "type_id": kind}}))
        };
        let text = |name: &str, kind: u32| {
            let text = json!({"Sequence": {"id": name, "type_id": kind}});
            [token(bos, kind), Some(text), token(eos, kind)].into_iter().flatten().collect::<Vec<_>>()
        };
        let special: Map<String, Value> = [bos, eos]
            .into_iter()
            .flatten()
            .map(|(id, token)| (token.to_string(), json!({"id": token, "ids": [id], "tokens": [token]})))
            .collect();
        let pair: Vec<Value> = text("A", 0).into_iter().chain(text("B", 1)).collect();
        Ok(
            json!({"type": "TemplateProcessing", "single": text("A", 0), "pair": pair, "special_tokens": special}),
        )
    }
}

/// Pairs of bytes that are joined in the order of a list, as in GPT-2.
fn byte_level(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Value, ModelError> {
    const PRE: &str = "tokenizer.ggml.pre";
    const MERGES: &str = "tokenizer.ggml.merges";
    let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let all = |parts: Vec<Value>| json!({"type": "Sequence", "pretokenizers": parts});
    let mut normalizer = Value::Null;
    let pre = gguf.text(PRE)?.unwrap_or("default");
    let (pretokenizer, whole_words_first, bos) = match pre {
        "gpt-2" | "gpt2" => (bytes(true), false, false),
        "smollm" => {
            (all(vec![json!({"type": "Digits", "individual_digits": true}), bytes(true)]), false, false)
        }
        "llama-bpe" | "llama3" | "llama-v3" => (all(vec![split(LLAMA3), bytes(false)]), true, true),
        "qwen2" => {
            normalizer = json!({"type": "NFC"});
            (all(vec![split(QWEN2), bytes(false)]), false, false)
        }
        // What llama.cpp does where nothing is known.
        "default" => {
            let parts = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"];
            (all(parts.into_iter().map(split).chain([bytes(false)]).collect()), false, false)
        }
        other => {
            let expected = "one of gpt-2, smollm, llama-bpe, qwen2, default";
            return Err(gguf.wrong(PRE, expected, quoted(other)));
        }
    };
    let Some(listed) = gguf.texts(MERGES)? else {
        return Err(gguf.wrong(MERGES, "a list of pairs", "no such key"));
    };
    let mut merges = Vec::with_capacity(listed.len());
    for (place, merge) in listed.iter().enumerate() {
        let Some((left, right)) = merge.split_once(' ') else {
            let got = format!("{} at place {place}", quoted(merge));
            return Err(gguf.wrong(MERGES, "two tokens with a blank between", got));
        };
        merges.push(json!([left, right]));
    }
    let processor = match vocabulary.around(gguf, bos, false)? {
        Value::Null => {
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true})
        }
        around => around,
    };
    Ok(json!({
        "normalizer": normalizer,
        "pre_tokenizer": pretokenizer,
        "post_processor": processor,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole_words_first,
            "vocab": vocabulary.ids(gguf)?, "merges": merges,
        },
    }))
}

/// Pieces that are joined by their scores, with a token for each byte, as in Llama 2.
fn sentence_pieces(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Value, ModelError> {
    const SCORES: &str = "tokenizer.ggml.scores";
    let scores = match gguf.get(SCORES) {
        Some(Meta::Floats(scores)) if scores.len() == vocabulary.tokens.len() => scores,
        other => {
            let expected = format!("a number for each of the {} tokens", vocabulary.tokens.len());
            return Err(gguf.wrong(SCORES, expected, other.map_or("no such key".into(), Meta::described)));
        }
    };
    let prefix = gguf.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let blanks = json!({"type": "Replace", "pattern": {"String": " "}, "content": BLANK});
    let mut normalizers = vec![blanks];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": BLANK}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": BLANK}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = vocabulary.special(gguf, "unknown")?;
    let unknown = unknown.map(|(_, token)| token).or_else(|| {
        let id = vocabulary.types.iter().position(|kind| *kind == UNKNOWN)?;
        Some(vocabulary.tokens.get(id)?.as_str())
    });
    let merges: Vec<Value> =
        merges(vocabulary.tokens, scores).into_iter().map(|(left, right)| json!([left, right])).collect();
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": vocabulary.around(gguf, true, false)?,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary.ids(gguf)?, "merges": merges,
        },
    }))
}
