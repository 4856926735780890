//! The tokenizer against transformers, over the folders that `oracle/tokenizer.py` made.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use retune_model::tokenizer::{Encoded, Tokenizer, copy_files};
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    text: String,
    pair: Option<String>,
    max_length: usize,
    input_ids: Vec<u32>,
    token_type_ids: Vec<u32>,
    truncated: usize,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizer")
}

fn rows() -> BTreeMap<String, Vec<Row>> {
    serde_json::from_str(&fs::read_to_string(golden().join("expected.json")).unwrap()).unwrap()
}

/// A copy of a golden folder that a test may change.
fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_files(golden().join(name), folder.path()).unwrap();
    folder
}

#[test]
fn rows_are_encoded_as_transformers_does() {
    let expected = rows();
    assert_eq!(expected.len(), 7);
    for (folder, rows) in expected {
        let tokenizer = Tokenizer::open(golden().join(&folder)).unwrap();
        assert!(rows.len() >= 30);
        assert!(rows.iter().filter(|row| row.truncated > 0).count() >= 8);
        for row in rows {
            let got = tokenizer.encode(&row.text, row.pair.as_deref(), row.max_length).unwrap();
            let Row { input_ids, token_type_ids, truncated, .. } = row;
            let shown: String = row.text.chars().take(60).collect();
            let expected = Encoded { input_ids, token_type_ids, truncated };
            assert_eq!(got, expected, "{folder}: {shown:?}, pair {:?}, {}", row.pair, row.max_length);
        }
    }
}

#[test]
fn a_batch_is_its_rows_in_order_on_any_number_of_threads() {
    let tokenizer = Tokenizer::open(golden().join("uncased")).unwrap();
    let rows = rows().remove("uncased").unwrap();
    let pairs: Vec<(&str, Option<&str>)> =
        rows.iter().cycle().take(500).map(|row| (row.text.as_str(), row.pair.as_deref())).collect();
    let alone: Vec<Encoded> =
        pairs.iter().map(|(text, pair)| tokenizer.encode(text, *pair, 13).unwrap()).collect();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| tokenizer.encode_batch(&pairs, 13)).unwrap(), alone);
    }
    assert!(tokenizer.encode_batch(&[], 13).unwrap().is_empty());
}

#[test]
fn the_vocabulary_can_be_asked() {
    for folder in ["uncased", "cased-left", "old"] {
        let tokenizer = Tokenizer::open(golden().join(folder)).unwrap();
        let last = u32::try_from(tokenizer.vocab_size()).unwrap() - 1;
        assert_eq!(tokenizer.id_to_token(last).as_deref(), Some("豈"));
        assert_eq!(tokenizer.id_to_token(last + 1), None);
        assert_eq!(tokenizer.token_to_id("[SEP]"), Some(4));
        assert_eq!((tokenizer.special_tokens(false), tokenizer.special_tokens(true)), (2, 3));
    }
}

#[test]
fn a_length_without_room_is_an_error() {
    let tokenizer = Tokenizer::open(golden().join("uncased")).unwrap();
    let error = tokenizer.encode("card", None, 1).unwrap_err().to_string();
    assert!(error.ends_with("a max_length of 1 has no room for the 2 special tokens"), "{error}");
    assert!(tokenizer.encode("card", Some("lost"), 2).is_err());
    assert!(tokenizer.encode_batch(&[("card", None), ("card", Some("lost"))], 2).is_err());
}

#[test]
fn a_copied_folder_encodes_alike() {
    for folder in ["uncased", "old"] {
        let copy = copy_of(folder);
        copy_files(copy.path(), copy.path()).unwrap();
        let [a, b] =
            [golden().join(folder).as_path(), copy.path()].map(|path| Tokenizer::open(path).unwrap());
        let text = "Café 中国 [SEP] cards";
        assert_eq!(a.encode(text, Some(text), 20).unwrap(), b.encode(text, Some(text), 20).unwrap());
    }
}

#[test]
fn a_tokenizer_without_its_template_still_gets_cls_and_sep() {
    let copy = copy_of("uncased");
    let path = copy.path().join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    json["post_processor"] = serde_json::Value::Null;
    fs::write(&path, json.to_string()).unwrap();
    let (bare, whole) =
        (Tokenizer::open(copy.path()).unwrap(), Tokenizer::open(golden().join("uncased")).unwrap());
    assert_eq!(bare.encode("card", Some("lost"), 9).unwrap(), whole.encode("card", Some("lost"), 9).unwrap());
}

#[test]
fn what_cannot_be_followed_exactly_is_refused() {
    let refused = |file: &str, content: &str| {
        let copy = copy_of("old");
        fs::write(copy.path().join(file), content).unwrap();
        Tokenizer::open(copy.path()).unwrap_err().to_string()
    };
    for (file, content, expected) in [
        ("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[MASK]\ncard\n", "it lacks the `sep_token` `[SEP]`"),
        ("added_tokens.json", "{\"[NEW]\": 200}", "added_tokens.json adds tokens"),
        (
            "tokenizer_config.json",
            "{\"tokenizer_class\": \"T5Tokenizer\"}",
            "class is the text `T5Tokenizer`",
        ),
        (
            "tokenizer_config.json",
            "{\"extra_special_tokens\": [\"[A]\"]}",
            "`extra_special_tokens` adds tokens",
        ),
        (
            "tokenizer_config.json",
            "{\"added_tokens_decoder\": {\"7\": {\"content\": \"[A]\"}}}",
            "`added_tokens_decoder` in tokenizer_config.json adds tokens",
        ),
        (
            "special_tokens_map.json",
            "{\"mask_token\": {\"content\": \"[MASK]\", \"lstrip\": true}}",
            "`mask_token` is more than a text",
        ),
        ("tokenizer_config.json", "{\n \"a\": 1,\n}", "line 3, column 1"),
        ("tokenizer_config.json", "{\"truncation_side\": 3}", "expected `left` or `right`, got 3"),
        (
            "tokenizer.json",
            "{\"version\": \"1.0\", \"model\": {",
            "tokenizer.json: cannot be read as a tokenizer: ",
        ),
    ] {
        let error = refused(file, content);
        assert!(error.contains(expected), "{file} with {content}: {error}");
    }

    let copy = copy_of("old");
    fs::write(copy.path().join("vocab.txt"), b"[PAD]\n\xff\n").unwrap();
    let error = Tokenizer::open(copy.path()).unwrap_err().to_string();
    assert!(error.contains("vocab.txt: byte 6: expected UTF-8"), "{error}");

    let empty = tempfile::tempdir().unwrap();
    let error = Tokenizer::open(empty.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("no tokenizer here: expected tokenizer.json, or the vocab.txt of a BERT"),
        "{error}"
    );
}
