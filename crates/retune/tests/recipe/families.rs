//! Families whose heads and keys are not BERT's, from a base to results that open again.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::run::{answers, difference, model, score, settings, train};
use crate::tiny::Tiny;

/// Makes `base` the same encoder under the names of another family. The pooler that it had is nobody's then.
fn rename(tiny: &Tiny, model_type: &str, keys: &[(&str, &str)], names: &[(&str, &str)]) {
    let base = tiny.path("base");
    let changed = |text: &str, pairs: &[(&str, &str)]| {
        pairs.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to))
    };
    let config: Map<String, Value> = read(&base.join("config.json"));
    let mut config: Map<String, Value> =
        config.into_iter().map(|(key, value)| (changed(&key, keys), value)).collect();
    config.insert("model_type".into(), json!(model_type));
    std::fs::write(base.join("config.json"), Value::Object(config).to_string()).unwrap();

    let bytes = std::fs::read(base.join("model.safetensors")).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = changed(std::str::from_utf8(&bytes[8..data]).unwrap(), names);
    let renamed = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[data..]].concat();
    std::fs::write(base.join("model.safetensors"), renamed).unwrap();
}

fn read(path: &Path) -> Map<String, Value> {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Trains it whole and with an adapter, and opens what is saved.
fn there_and_back(tiny: &Tiny, last: &str, class: &str, modules: &Value) {
    for method in ["full", "lora"] {
        let (report, ear) = train(&settings(tiny, method, method)).unwrap();
        assert!(ear.heard(&format!("{last}, ")) || ear.heard(&format!(", {last}")), "{:?}", ear.said);
        let evaluated = score(&model(tiny.path(method)), tiny, "test.csv").unwrap().metrics;
        assert_eq!(report.metrics.unwrap()["accuracy"].to_bits(), evaluated.values["accuracy"].to_bits(), "{method}");
        // Trained on, from its own head: at a rate that moves nothing, the answers stay.
        let mut next = settings(tiny, method, "next");
        (next.model, next.learning_rate, next.overwrite) =
            (model(tiny.path(method)), Some(1e-12), Some(true));
        let (_, ear) = train(&next).unwrap();
        assert!(!ear.heard("new weights"), "{:?}", ear.said);
        let apart = difference(&answers(&model(tiny.path(method))), &answers(&model(tiny.path("next"))));
        assert!(apart < 1e-6, "{method}: {apart}");
    }
    let config = read(&tiny.path("full/config.json"));
    assert_eq!(config["architectures"], json!([class]));
    let adapter = read(&tiny.path("lora/adapter_config.json"));
    assert_eq!(adapter["modules_to_save"], *modules);

    // Without the card, its head alone says how many classes there are.
    std::fs::remove_file(tiny.path("lora/retune.json")).unwrap();
    let opened = retune::TextModel::open(&model(tiny.path("lora"))).unwrap();
    assert_eq!(opened.labels().names(), ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

#[test]
fn a_roberta_is_trained_and_opens_again() {
    let tiny = Tiny::new();
    rename(&tiny, "roberta", &[], &[("bert.", "roberta.")]);
    let modules = json!(["classifier"]);
    there_and_back(&tiny, "classifier.out_proj", "RobertaForSequenceClassification", &modules);
}

#[test]
fn a_distilbert_is_trained_and_opens_again() {
    let tiny = Tiny::new();
    let keys = [
        ("hidden_size", "dim"),
        ("num_hidden_layers", "n_layers"),
        ("num_attention_heads", "n_heads"),
        ("intermediate_size", "hidden_dim"),
        ("hidden_act", "activation"),
    ];
    let names = [
        ("bert.encoder.layer", "distilbert.transformer.layer"),
        ("bert.embeddings", "distilbert.embeddings"),
        ("self.query", "q_lin"),
        ("self.key", "k_lin"),
        ("self.value", "v_lin"),
        ("attention.output.dense", "attention.out_lin"),
        ("attention.output.LayerNorm", "sa_layer_norm"),
        ("intermediate.dense", "ffn.lin1"),
        ("output.dense", "ffn.lin2"),
        ("output.LayerNorm", "output_layer_norm"),
    ];
    rename(&tiny, "distilbert", &keys, &names);
    let modules = json!(["classifier", "pre_classifier"]);
    there_and_back(&tiny, "classifier", "DistilBertForSequenceClassification", &modules);
}
