use retune_adapt::nearest;
use retune_model::families::HeadKind;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// A model to be measured, by the sizes of a real one.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is like.
    pub summary: &'static str,
    /// Which layers get branches under `lora`.
    pub targets: &'static str,
    /// What its head is for.
    pub head: HeadKind,
    config: fn() -> Value,
}

/// Every shape.
pub static SHAPES: &[Shape] = &[
    Shape {
        name: "bert",
        summary: "BERT base: 12 layers of 768, 110M parameters",
        targets: "query,value",
        head: HeadKind::Sequence,
        config: || bert(768, 12, 12, 3072),
    },
    Shape {
        name: "minilm",
        summary: "MiniLM: 6 layers of 384, 23M parameters",
        targets: "query,value",
        head: HeadKind::Sequence,
        config: || bert(384, 6, 12, 1536),
    },
    Shape {
        name: "gpt2",
        summary: "GPT-2: 12 layers of 768, 124M parameters, the next token of each",
        targets: "c_attn",
        head: HeadKind::Language,
        // All of its sizes are the defaults.
        config: || json!({ "model_type": "gpt2", "vocab_size": 50257 }),
    },
    Shape {
        name: "smollm2",
        summary: "SmolLM2: 30 layers of 576 with gates, 135M parameters, the next token of each",
        targets: "q_proj,v_proj",
        head: HeadKind::Language,
        config: || {
            json!({
                "model_type": "llama",
                "vocab_size": 49152,
                "hidden_size": 576,
                "intermediate_size": 1536,
                "num_hidden_layers": 30,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "tie_word_embeddings": true,
            })
        },
    },
];

fn bert(hidden: usize, layers: usize, heads: usize, intermediate: usize) -> Value {
    json!({
        "model_type": "bert",
        "vocab_size": 30522,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "initializer_range": 0.02,
    })
}

impl Shape {
    /// The shape `name`. Errors if there is none, with the near miss.
    pub fn find(name: &str) -> Result<&'static Shape> {
        let names = || SHAPES.iter().map(|shape| shape.name);
        SHAPES.iter().find(|shape| shape.name == name).ok_or_else(|| {
            let hint = nearest(name, names()).map(|near| format!(", did you mean `{near}`?"));
            let known: Vec<_> = names().collect();
            let message = format!(
                "there is no `{name}`{}; the shapes are {}",
                hint.unwrap_or_default(),
                known.join(", ")
            );
            Error::Setting { flag: "shape", message }
        })
    }

    /// The `config.json` that a model of this shape would have.
    pub(super) fn config(&self) -> Map<String, Value> {
        (self.config)().as_object().cloned().unwrap_or_default()
    }
}
