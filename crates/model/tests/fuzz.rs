//! Model folders that lie: weights, indices, configurations and tokenizers are read or refused with words.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

#[path = "../../../tests/fuzz/mod.rs"]
mod fuzz;

use std::path::Path;

use fuzz::{Target, golden, read};
use retune_model::ModelError;
use retune_model::families::{self, HeadKind};
use retune_model::formats::{HfConfig, Weights};
use retune_model::tokenizer::Tokenizer;
use retune_tensor::Device;
use retune_tensor::random::Key;

const MODELS: [&str; 16] = [
    "bert-bare",
    "bert-bare-pooler-bf16",
    "bert-classifier",
    "bert-pretraining",
    "camembert-classifier",
    "distilbert-bare",
    "distilbert-classifier",
    "distilbert-masked",
    "electra-classifier",
    "electra-discriminator",
    "modernbert-bare",
    "modernbert-classifier",
    "modernbert-masked",
    "roberta-classifier",
    "roberta-masked",
    "xlm-roberta-bare",
];

fn read_all(path: &Path) -> Result<(), ModelError> {
    let weights = Weights::open(path)?;
    for name in weights.names() {
        let info = weights.info(name).unwrap();
        assert!(weights.path_of(name).is_some() && weights.check(name, &[]).is_err() | info.shape.is_empty());
        match weights.read_f32(name) {
            Ok(values) => assert_eq!(values.len(), info.shape.iter().product::<usize>()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    Ok(())
}

fn is_said(result: Result<(), ModelError>) {
    if let Err(error) = result {
        let words = error.to_string();
        assert!(!words.is_empty() && words.len() < 100_000, "{} bytes of words", words.len());
    }
}

#[test]
fn safetensors() {
    let header = |text: &str, data: usize| {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &vec![0x3c; data]].concat()
    };
    let mut seeds = vec![
        header(
            r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#,
            24,
        ),
        header(
            r#"{"a":{"dtype":"F16","shape":[5],"data_offsets":[0,10]},"b":{"dtype":"BF16","shape":[],"data_offsets":[10,12]}}  "#,
            12,
        ),
        header(
            r#"{"a":{"dtype":"F64","shape":[1,1],"data_offsets":[0,8]},"é":{"dtype":"I64","shape":[0],"data_offsets":[8,8]}}"#,
            8,
        ),
        header("{}", 0),
    ];
    seeds.push(read(golden("distilbert-bare/model.safetensors")));
    let dictionary = [
        "__metadata__",
        "\"dtype\":\"F8_E4M3\"",
        "\"F4\"",
        "\"BOOL\"",
        "\"I64\"",
        "\"F64\"",
        "shape",
        "data_offsets",
        "[0,0]",
        "[]",
        "}}",
        "{\"",
        "GGUF",
        "PK\u{3}\u{4}",
        "18446744073709551615",
    ];
    let folder = fuzz::folder();
    let path = folder.path().join("w.safetensors");
    Target { name: "safetensors", cost: 2, seeds, dictionary: &dictionary }.run(|input| {
        let mended = (input.random.below(2) == 0).then(|| fuzz::with_length(input.bytes)).flatten();
        fuzz::write(&path, mended.as_deref().unwrap_or(input.bytes));
        is_said(read_all(&path));
    });
}

#[test]
fn sharded_index() {
    let folder = fuzz::folder();
    for entry in std::fs::read_dir(golden("bert-sharded")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join("model.safetensors.index.json");
    let small =
        br#"{"metadata":{"total_size":8},"weight_map":{"a":"model-00003-of-00004.safetensors","b":"x"}}"#;
    let seeds = vec![read(&path), small.to_vec()];
    let dictionary = [
        "weight_map",
        "metadata",
        "../",
        "/",
        "/dev/zero",
        "..",
        ".",
        "\\u0000",
        "model-00001-of-00004.safetensors",
        "config.json",
        "model.safetensors.index.json",
        "{",
        "}",
    ];
    Target { name: "sharded-index", cost: 8, seeds, dictionary: &dictionary }.run(|input| {
        fuzz::write(&path, input.bytes);
        is_said(read_all(folder.path()));
        is_said(families::open(folder.path(), HeadKind::Sequence, Device::Meta, Key::new(1)).map(|_| ()));
    });
}

#[test]
fn config() {
    let seeds = MODELS.map(|name| read(golden(name).join("config.json"))).to_vec();
    let folder = fuzz::folder();
    for name in MODELS {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        let weights = golden(name).join("model.safetensors");
        std::fs::copy(weights, folder.path().join(name).join("model.safetensors")).unwrap();
    }
    let dictionary = [
        "\"bert\"",
        "\"roberta\"",
        "\"xlm-roberta\"",
        "\"camembert\"",
        "\"distilbert\"",
        "\"electra\"",
        "\"modernbert\"",
        "hidden_size",
        "num_attention_heads",
        "num_hidden_layers",
        "vocab_size",
        "intermediate_size",
        "pad_token_id",
        "type_vocab_size",
        "max_position_embeddings",
        "hidden_act",
        "\"gelu\"",
        "\"relu\"",
        "layer_types",
        "\"full_attention\"",
        "\"sliding_attention\"",
        "local_attention",
        "rope_theta",
        "rope_parameters",
        "id2label",
        "label2id",
        "num_labels",
        "embedding_size",
        "dim",
        "n_heads",
        "global_attn_every_n_layers",
        "true",
        "null",
        "classifier_pooling",
        "is_decoder",
        "problem_type",
    ];
    Target { name: "config", cost: 20, seeds, dictionary: &dictionary }.run(|input| {
        let folder = folder.path().join(MODELS[input.seed]);
        fuzz::write(&folder.join("config.json"), input.bytes);
        let Ok(config) = HfConfig::open(&folder) else { return };
        let _ = (config.model_type().is_ok(), config.label_names().is_ok());
        match families::open(&folder, HeadKind::Sequence, Device::Meta, Key::new(1)) {
            Ok(mut opened) => {
                assert!(opened.encoder.hidden_size() > 0 && !opened.encoder.linears().is_empty());
                opened.encoder.set_dropout(0.1);
                let _ = (opened.encoder.max_length(), opened.encoder.head_parameters());
                is_said(opened.checkpoint.finish().map(|_| ()));
            }
            Err(error) => is_said(Err(error)),
        }
    });
}

/// Texts on which a bad tokenizer would stumble.
fn encode(folder: &Path) -> Result<(), ModelError> {
    let tokenizer = Tokenizer::open(folder)?;
    let long = "the cat sat on the mat, ".repeat(9);
    for (text, pair) in [
        ("The Café, naïve! 转账 12", None),
        ("", Some(" x ")),
        ("[MASK] <mask> \u{1f600}\u{200d}İ\u{0}", Some(long.as_str())),
        (long.as_str(), None),
    ] {
        for max_length in [7, 512] {
            let Ok(row) = tokenizer.encode(text, pair, max_length) else { continue };
            assert!(row.input_ids.len() <= max_length && row.input_ids.len() == row.token_type_ids.len());
            for id in &row.input_ids {
                assert!((*id as usize) < tokenizer.vocab_size(), "{id} of {}", tokenizer.vocab_size());
            }
        }
    }
    Ok(())
}

const TOKENIZERS: [&str; 7] =
    ["cased-left", "distilbert", "modernbert", "old", "roberta", "uncased", "xlm-roberta"];

#[test]
fn tokenizer_json() {
    let names: Vec<&str> = TOKENIZERS.into_iter().filter(|name| *name != "old").collect();
    let seeds =
        names.iter().map(|name| read(golden("tokenizer").join(name).join("tokenizer.json"))).collect();
    let folder = fuzz::folder();
    let dictionary = [
        "\"WordPiece\"",
        "\"BPE\"",
        "\"Unigram\"",
        "\"WordLevel\"",
        "\"ByteLevel\"",
        "\"BertNormalizer\"",
        "\"Sequence\"",
        "\"TemplateProcessing\"",
        "\"BertProcessing\"",
        "\"RobertaProcessing\"",
        "\"Precompiled\"",
        "\"Metaspace\"",
        "\"Replace\"",
        "\"Regex\"",
        "\"Split\"",
        "\"Isolated\"",
        "\"unk_token\"",
        "\"unk_id\"",
        "\"merges\"",
        "\"vocab\"",
        "\"added_tokens\"",
        "\"special\":true",
        "\"single_word\":true",
        "\"lstrip\":true",
        "\"content\":\"\"",
        "\"id\":4294967295",
        "\"byte_fallback\":true",
        "\"dropout\":0.5",
        "\"max_input_chars_per_word\":0",
        "\"##\"",
        "\"Strip\"",
        "\"Prepend\"",
        "\"NFC\"",
        "\"pattern\":{\"String\":\"\"}",
        "\"pattern\":{\"Regex\":\"(a*)*b\"}",
        "\"precompiled_charsmap\":\"AAAA\"",
    ];
    Target { name: "tokenizer-json", cost: 20, seeds, dictionary: &dictionary }.run(|input| {
        fuzz::write(&folder.path().join("tokenizer.json"), input.bytes);
        is_said(encode(folder.path()));
    });
}

#[test]
fn tokenizer_config() {
    let seeds =
        TOKENIZERS.map(|name| read(golden("tokenizer").join(name).join("tokenizer_config.json"))).to_vec();
    let folder = fuzz::folder();
    for name in TOKENIZERS {
        let to = folder.path().join(name);
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(golden("tokenizer").join(name)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
    let dictionary = [
        "do_lower_case",
        "strip_accents",
        "tokenize_chinese_chars",
        "truncation_side",
        "\"left\"",
        "add_prefix_space",
        "tokenizer_class",
        "\"RobertaTokenizer\"",
        "\"BertTokenizer\"",
        "unk_token",
        "cls_token",
        "added_tokens_decoder",
        "model_max_length",
        "never_split",
        "true",
        "null",
        "content",
        "model_input_names",
        "token_type_ids",
    ];
    Target { name: "tokenizer-config", cost: 20, seeds, dictionary: &dictionary }.run(|input| {
        let folder = folder.path().join(TOKENIZERS[input.seed]);
        fuzz::write(&folder.join("tokenizer_config.json"), input.bytes);
        is_said(encode(&folder));
    });
}

#[test]
fn vocab_txt() {
    let seeds = vec![
        read(golden("tokenizer/old/vocab.txt")),
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\r\n##s\n转\nthe\n\n".into(),
    ];
    let folder = fuzz::folder();
    let dictionary = ["\n", "\r\n", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "##", "\u{a0}", "\u{2028}", "é", " "];
    Target { name: "vocab-txt", cost: 20, seeds, dictionary: &dictionary }.run(|input| {
        fuzz::write(&folder.path().join("vocab.txt"), input.bytes);
        is_said(encode(folder.path()));
    });
}

#[test]
fn gguf() {
    let seeds = ["gguf/smollm.gguf", "gguf/llama-pieces.gguf", "gguf/gpt2.gguf"]
        .map(|name| read(golden(name)))
        .to_vec();
    let dictionary = [
        "general.alignment",
        "general.architecture",
        "llama.rope.scaling.type",
        "rope_freqs.weight",
        "blk.0.attn_q.weight",
        "output.weight",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.bos_token_id",
    ];
    let folder = fuzz::folder();
    let path = folder.path().join("model.gguf");
    Target { name: "gguf", cost: 20, seeds, dictionary: &dictionary }.run(|input| {
        std::fs::write(&path, input.bytes).unwrap();
        is_said(read_all(&path));
        is_said(HfConfig::open(&path).map(drop));
        is_said(Tokenizer::open(&path).map(drop));
        is_said(families::open(&path, HeadKind::Language, Device::Meta, Key::new(1)).map(drop));
    });
}
