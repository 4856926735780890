//! A random BERT that trains in a moment, and rows that it can learn. The tests of the command line share it.

#![allow(dead_code, reason = "each of the two uses its own part of it")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Three labels, not in the order of their bytes, and not all ASCII.
pub(crate) const LABELS: [&str; 3] = ["转账", "pay", "verloren é"];

/// A folder with `base/` (the BERT), `train.csv` (72 rows) and `test.csv` (31 rows).
pub(crate) struct Tiny(tempfile::TempDir);

impl Tiny {
    pub(crate) fn new() -> Self {
        let tiny = Tiny(tempfile::tempdir().unwrap());
        tiny.model("base", 1, |_| ());
        tiny.write("train.csv", csv(0..72));
        tiny.write("test.csv", csv(100..131));
        tiny
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A hub that is never asked, and has nothing here.
    pub(crate) fn offline(&self) -> retune::HubSettings {
        let variables = [("HF_HOME", self.path("hub")), ("HF_HUB_OFFLINE", "1".into())];
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        retune::HubSettings::from_variables(find).unwrap()
    }

    /// Another BERT, whose configuration `change` alters before weights of its sizes are drawn.
    pub(crate) fn model(
        &self,
        name: &str,
        seed: u64,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> PathBuf {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut config = config();
        change(&mut config);
        std::fs::write(folder.join("model.safetensors"), weights(&config, seed)).unwrap();
        std::fs::write(folder.join("config.json"), Value::Object(config).to_string()).unwrap();
        let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/tokenizer/uncased");
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(tokenizer.join(file), folder.join(file)).unwrap();
        }
        folder
    }

    /// A random language model, `llama` or `gpt2`, whose tokens are words, with a chat template.
    pub(crate) fn language_model(&self, name: &str) {
        let golden = format!("../model/tests/golden/{name}-causal");
        let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join(golden), self.path(name));
        std::fs::create_dir_all(&to).unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
        let special = ["<unk>", "</s>", "<|user|>", "<|bot|>"];
        let names = special.iter().chain(&WORDS).enumerate();
        let vocab: Map<String, Value> = names.map(|(id, name)| ((*name).to_string(), id.into())).collect();
        let added = special.iter().enumerate().map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        });
        let tokenizer = json!({
            "version": "1.0",
            "added_tokens": added.collect::<Vec<_>>(),
            "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        });
        std::fs::write(to.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        std::fs::write(to.join("tokenizer_config.json"), r#"{"eos_token": "</s>"}"#).unwrap();
        std::fs::write(to.join("chat_template.jinja"), TEMPLATE).unwrap();
    }

    /// Makes every text with the token `id` one that no layer norm of `base` can take: its embedding is finite, and the
    /// sum over it is not.
    pub(crate) fn poison(&self, id: usize) {
        let path = self.path("base/model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let width = config()["hidden_size"].as_u64().unwrap() as usize;
        // The word embeddings are the first tensor behind the header.
        let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let row = &mut bytes[data + 4 * id * width..][..4 * width];
        row.chunks_exact_mut(4).for_each(|value| value.copy_from_slice(&3e38f32.to_le_bytes()));
        std::fs::write(path, bytes).unwrap();
    }

    /// Every file under `name`, by its path there. Of events, the times that they took are left out.
    pub(crate) fn files(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let root = self.path(name);
        let mut files = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                // TensorBoard's file has the time of each event, and that of the first in its name.
                if path.file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents.") {
                    continue;
                }
                let mut bytes = std::fs::read(&path).unwrap();
                if path.ends_with("events.jsonl") {
                    bytes = without_seconds(&String::from_utf8(bytes).unwrap()).into_bytes();
                }
                files.insert(path.strip_prefix(&root).unwrap().display().to_string(), bytes);
            }
        }
        files
    }

    /// The names of [`Tiny::files`].
    pub(crate) fn names(&self, name: &str) -> Vec<String> {
        self.files(name).into_keys().collect()
    }
}

const WORDS: [&str; 30] = [
    "hi", "no", "yes", "pay", "card", "lost", "where", "is", "my", "the", "a", "order", "here", "it", "help",
    "thanks", "bye", "today", "money", "back", "ok", "you", "we", "are", "closed", "open", "when", "now",
    "please", "sorry",
];

const TEMPLATE: &str = "{% for message in messages %}{% if message.role == 'assistant' %}<|bot|> {{ message.content }} </s>\n\
                        {% else %}<|user|> {{ message.content }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|bot|> {% endif %}";

/// Answers that follow from the questions.
pub(crate) fn chats(rows: std::ops::Range<usize>) -> String {
    let mut text = String::new();
    for row in rows {
        let (asked, answer) = match row % 3 {
            0 => ("where is my card", "it is lost"),
            1 => ("are you open", "no we are closed"),
            _ => ("my order is here", "thanks bye"),
        };
        let greeting = WORDS[row % 4];
        let messages = json!([
            {"role": "user", "content": format!("{greeting} {asked}")},
            {"role": "assistant", "content": answer},
        ]);
        writeln!(text, "{}", json!({ "messages": messages })).unwrap();
    }
    text
}

fn without_seconds(events: &str) -> String {
    let mut text = String::new();
    for line in events.lines() {
        let mut event: Map<String, Value> = serde_json::from_str(line).unwrap();
        event.remove("seconds");
        writeln!(text, "{}", Value::Object(event)).unwrap();
    }
    text
}

fn config() -> Map<String, Value> {
    let config = json!({
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": 107,
        "hidden_size": 18,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 29,
        "hidden_act": "gelu",
        "max_position_embeddings": 24,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": 0,
    });
    config.as_object().unwrap().clone()
}

/// A safetensors file with every tensor that `config` asks for, but for a classifier.
fn weights(config: &Map<String, Value>, seed: u64) -> Vec<u8> {
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let (hidden, wide) = (size("hidden_size"), size("intermediate_size"));
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    for (name, rows) in [
        ("word", size("vocab_size")),
        ("position", size("max_position_embeddings")),
        ("token_type", size("type_vocab_size")),
    ] {
        shapes.push((format!("bert.embeddings.{name}_embeddings.weight"), vec![rows, hidden]));
    }
    let mut norms = vec!["bert.embeddings.LayerNorm".to_string()];
    let mut layers = vec![("bert.pooler.dense".to_string(), hidden, hidden)];
    for layer in 0..size("num_hidden_layers") {
        let site = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            layers.push((site(&format!("attention.{part}")), hidden, hidden));
        }
        layers.push((site("intermediate.dense"), wide, hidden));
        layers.push((site("output.dense"), hidden, wide));
        norms.extend([site("attention.output.LayerNorm"), site("output.LayerNorm")]);
    }
    for (name, out, width) in layers {
        shapes.push((format!("{name}.weight"), vec![out, width]));
        shapes.push((format!("{name}.bias"), vec![out]));
    }
    for name in norms {
        shapes.extend(["weight", "bias"].map(|part| (format!("{name}.{part}"), vec![hidden])));
    }
    let (mut header, mut data, mut state) = (Map::new(), Vec::new(), seed);
    for (name, shape) in shapes {
        let start = data.len();
        let around = f32::from(u8::from(name.ends_with("LayerNorm.weight")));
        for _ in 0..shape.iter().product() {
            // Knuth's generator; its upper bits are good enough for weights.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = (state >> 40) as f32 / (1 << 24) as f32;
            data.extend((around + 0.5 * (uniform - 0.5)).to_le_bytes());
        }
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// Rows of 2 to 9 words, of which some tell the label. Rare labels are rare.
pub(crate) fn csv(rows: std::ops::Range<usize>) -> String {
    let mut text = String::from("text,label\n");
    for row in rows {
        let label = [0, 1, 2, 0, 1, 0][row % 6];
        let telling = [["transfer", "了"], ["pay", "payment"], ["lost", "丢"]][label][row / 6 % 2];
        let other = ["my card", "the", "is not a", "money !", "é ?", "1 2", "un able -"];
        let (before, after) = (other[row % 7], other[row * 3 % 5]);
        match row % 3 {
            0 => writeln!(text, "{telling} {after},{}", LABELS[label]),
            1 => writeln!(text, "\"{before}, {telling}\",{}", LABELS[label]),
            _ => writeln!(text, "{before} {telling} {after} {before},{}", LABELS[label]),
        }
        .unwrap();
    }
    text
}
