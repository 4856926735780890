//! GGUF files against transformers (see `oracle/tiny_gguf.py`): tokens, hidden states, and files that lie.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};

use retune_model::families::{self, HeadKind};
use retune_model::formats::{HfConfig, Weights};
use retune_model::tokenizer::{Tokenizer, copy_files};
use retune_model::{Batch, BatchRow, ChatTemplate, Forward, Hooks};
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Tape};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    input_ids: Vec<Vec<u32>>,
}

const MODELS: [&str; 7] = ["gpt2", "llama-bytes", "llama-pieces", "llama3", "qwen2", "qwen3", "smollm"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf").join(name)
}

fn expected(name: &str) -> Expected {
    serde_json::from_str(&fs::read_to_string(golden(&format!("{name}.json"))).unwrap()).unwrap()
}

#[test]
fn texts_become_the_tokens_of_the_library() {
    for name in MODELS {
        let path = golden(&format!("{name}.gguf"));
        let Expected { texts, input_ids } = expected(name);
        let folder = tempfile::tempdir().unwrap();
        copy_files(&path, folder.path()).unwrap();
        // From the file, and from the files that are made of it beside a result.
        for place in [&path, folder.path()] {
            let tokenizer = Tokenizer::open(place).unwrap();
            for (text, ids) in texts.iter().zip(&input_ids) {
                assert_eq!(tokenizer.encode(text, None, 1000).unwrap().input_ids, *ids, "{name}: {text:?}");
            }
            let template = ChatTemplate::open(place).unwrap();
            assert_eq!(template.is_some(), name != "llama-pieces", "{name}");
            if let Some(template) = template {
                let text =
                    template.render(&[json!({"role": "user", "content": "clips"})], None, false).unwrap();
                assert_eq!(text, "<|user|>clips<|end|>");
                assert_eq!(tokenizer.eos_token().unwrap().unwrap(), "<|end|>");
            }
        }
    }
}

#[test]
fn hidden_states_are_those_of_the_dequantised_weights() {
    for name in MODELS {
        let path = golden(&format!("{name}.gguf"));
        let opened = families::open(&path, HeadKind::Language, Device::Cpu, Key::new(1)).unwrap();
        let rows: Vec<_> = expected(name).input_ids.into_iter().filter(|row| !row.is_empty()).collect();
        let loaded = opened.checkpoint.finish().unwrap();
        assert!(loaded.fresh.is_empty(), "{name}: {:?}", loaded.fresh);
        let batch = Batch::new(rows.iter().zip(0..).map(|(row, id)| BatchRow {
            id,
            input_ids: row,
            token_type_ids: &[],
        }));
        let (tape, hooks) = (Tape::inference(), Hooks::new());
        let forward = Forward {
            tape: &tape,
            parameters: &loaded.parameters,
            hooks: &hooks,
            batch: &batch,
            dropout: None,
            mixture: None,
            dtype: DType::F32,
            recompute: false,
            cache: None,
        };
        let got = opened.encoder.encode(&forward).unwrap();
        let want = Weights::open(golden(&format!("{name}.safetensors"))).unwrap().read_f32("hidden").unwrap();
        let got = got.value().f32();
        assert_eq!(got.len(), want.len(), "{name}");
        let scale = want.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let apart = got.iter().zip(&want).fold(0.0f32, |most, (a, b)| most.max((a - b).abs())) / scale;
        assert!(apart < 1e-5, "{name}: {apart}");
        assert!(
            HfConfig::open(&path).unwrap().model_type().unwrap().starts_with(&name[..4]) || name == "smollm"
        );
    }
}

/// The places of a key's value, or a tensor's description, in a file: behind its name.
fn behind(bytes: &[u8], name: &str) -> usize {
    let place = bytes.windows(name.len()).position(|part| part == name.as_bytes());
    place.unwrap() + name.len()
}

#[test]
fn files_that_lie_are_refused_with_the_place() {
    let good = fs::read(golden("smollm.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let refused = |change: &dyn Fn(&mut Vec<u8>), words: &str| {
        let mut bytes = good.clone();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let error = Weights::open(&path).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    };
    let put = |place: usize, value: Vec<u8>| {
        move |bytes: &mut Vec<u8>| drop(bytes.splice(place..place + value.len(), value.clone()))
    };
    refused(&put(4, vec![1]), "start, byte 8: expected version 2 or 3, got version 1");
    refused(&put(4, vec![0, 0, 0, 3]), "expected little-endian numbers, got big-endian ones");
    refused(&put(8, vec![255; 8]), "expected at most");
    refused(&put(16, vec![255; 8]), "the file was cut short, or lies");
    let head_count = behind(&good, "llama.attention.head_count");
    refused(&put(head_count, vec![13]), "expected a type of value from 0 to 12, got 13");
    let tokens = behind(&good, "tokenizer.ggml.tokens");
    refused(&put(tokens + 8, vec![255; 7]), "key `tokenizer.ggml.tokens`");
    // Dimensions, two sizes, a type, an offset.
    let norm = behind(&good, "blk.0.attn_norm.weight");
    let query = behind(&good, "blk.0.attn_q.weight");
    refused(&put(query, vec![5]), "expected at most 4 dimensions, got 5");
    refused(&put(query + 4, vec![0]), "tensor `blk.0.attn_q.weight`");
    refused(&put(query + 4, vec![31]), "expected rows of whole blocks of 32 values");
    refused(&put(query + 12, vec![255; 8]), "the file was cut short, or lies");
    refused(&put(query + 20, vec![10]), "got Q2_K, which is not read; get the model in another quantisation");
    refused(&put(query + 20, vec![77]), "got the number 77, which no type is known to have");
    refused(&put(query + 24, vec![1]), "expected an offset that is a multiple of the alignment, 32");
    let other = good[norm + 16..norm + 24].to_vec();
    refused(&put(query + 24, other), "expected bytes of its own, got some of those of");
    refused(&|bytes| bytes.truncate(good.len() - 40), "the file was cut short, or lies");
    for length in [3, 11, 300, norm, query + 20] {
        fs::write(&path, &good[..length]).unwrap();
        let error = Weights::open(&path).unwrap_err().to_string();
        assert!(!error.is_empty(), "{length}");
    }
    // A name twice.
    let key = behind(&good, "blk.1.attn_q.weight");
    refused(&put(key - 15, b"0".to_vec()), "expected each tensor once, got it a second time");
}

#[test]
fn what_is_not_built_is_refused_by_its_key() {
    let good = fs::read(golden("smollm.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let renamed = |from: &str, to: &str| {
        let mut bytes = good.clone();
        let place = behind(&bytes, from);
        bytes.splice(place - from.len()..place, to.bytes());
        fs::write(&path, bytes).unwrap();
    };
    renamed("llama", "gemma");
    let error = HfConfig::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("`general.architecture`: expected one of gpt2, llama, qwen2, qwen3, got `gemma`"),
        "{error}"
    );
    renamed("llama.embedding_length", "llama.embedding_lenght");
    let error = HfConfig::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("`llama.embedding_length`: expected a whole number, got no such key, but"),
        "{error}"
    );
    renamed("smollm", "smallm");
    let error = Tokenizer::open(&path).unwrap_err().to_string();
    assert!(error.contains("`tokenizer.ggml.pre`: expected one of gpt-2, smollm"), "{error}");
}
