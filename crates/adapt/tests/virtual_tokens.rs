//! Prefixes and prompts against `peft`: adapters that it made, its losses over three steps, its counts (see
//! `oracle/virtual_tokens.py`). And files that are not what they should be.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod golden;

use std::path::PathBuf;

use golden::{Case, folder, relative};
use retune_adapt::Options;
use retune_adapt::peft::{self, Adapter, Applied, Method};
use retune_model::formats::{Weights, write_safetensors};
use serde_json::{Map, Value, json};

const METHODS: [&str; 4] = ["prefix-tuning", "p-tuning-v2", "prompt-tuning", "p-tuning"];
const BASES: [&str; 3] = ["bert-classifier", "roberta-classifier", "electra-classifier"];

/// A base, a method, and the folder with what was expected of it.
fn all() -> Vec<(&'static str, &'static dyn Method, PathBuf)> {
    let mut all: Vec<_> = BASES.into_iter().flat_map(|base| METHODS.map(|method| (base, method))).collect();
    all.push(("distilbert-classifier", "p-tuning-v2"));
    let made = |(base, method)| (base, peft::find(method).unwrap(), folder(base).join(method));
    all.into_iter().map(made).collect()
}

fn told(folder: &std::path::Path) -> Map<String, Value> {
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The method with the options that `peft` was given.
fn applied(base: &str, method: &dyn Method, folder: &std::path::Path) -> Case {
    let options = Options(told(folder)["options"].as_object().unwrap().clone());
    Case::open(base, true, |model| method.apply(model, &options)).unwrap()
}

fn adapter(case: &Case) -> &Adapter {
    match &case.applied {
        Applied::Adapter(adapter) => adapter,
        Applied::Model => panic!("virtual tokens are an adapter"),
    }
}

#[test]
fn adapters_of_peft_give_its_logits_and_names_stay() {
    for (base, method, folder) in all() {
        let what = format!("{} on {base}", method.name());
        let (reader, files) = peft::open_adapter(&folder).unwrap();
        assert_eq!(reader.name(), method.name(), "{what}");
        let case = Case::open(base, false, |model| reader.load(model, &files)).unwrap();
        let expected =
            Weights::open(folder.join("expected.safetensors")).unwrap().read_f32("logits").unwrap();
        let error = relative(&case.logits(), &expected);
        assert!(error < 1e-4, "{what}: {error}");
        // Virtual tokens that do nothing would pass much of this.
        let without = relative(&Case::base(base, true).logits(), &expected);
        assert!(without > 0.01, "{what}: the base alone is {without} away");
        let mut saved = case.saved();
        saved.sort_unstable();
        let weights = Weights::open(folder.join("adapter_model.safetensors")).unwrap();
        assert_eq!(saved, weights.names().collect::<Vec<_>>(), "{what}");
        for (name, id) in &adapter(&case).tensors {
            assert_eq!(
                case.parameters.get(*id).value.f32(),
                weights.read_f32(name).unwrap(),
                "{what}: {name}"
            );
        }
        for row in 0..case.rows.labels.len() {
            let classes = case.rows.num_labels;
            let together = case.logits()[row * classes..][..classes].to_vec();
            assert!(relative(&case.logits_of(&[row]), &together) < 1e-6, "{what}: row {row} alone");
        }
    }
}

#[test]
fn three_steps_are_those_of_peft() {
    for (base, method, folder) in all() {
        let what = format!("{} on {base}", method.name());
        let mut case = applied(base, method, &folder);
        let expected = Weights::open(folder.join("expected.safetensors")).unwrap();
        let read = |name: &str| expected.read_f32(name).unwrap();
        let trained: Vec<String> = case.trained().iter().map(ToString::to_string).collect();
        let starts = expected.names().filter_map(|name| name.strip_prefix("start."));
        let mut sorted = trained.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, starts.collect::<Vec<_>>(), "{what}");
        assert_eq!(case.parameters.count().1 as u64, told(&folder)["count"].as_u64().unwrap(), "{what}");
        for name in &trained {
            let start = read(&format!("start.{name}"));
            case.set(name, |index| start[index]);
        }
        let expect = |name: &str, got: &[f32], tolerance: f32| {
            let error = relative(got, &read(name));
            assert!(error < tolerance, "{what}: {name}: {error}");
        };
        expect("logits", &case.logits(), 1e-4);
        // What the file of `peft` has instead of the network is what comes out of it here.
        let saved = Weights::open(folder.join("adapter_model.safetensors")).unwrap();
        if let Some((name, rows)) = adapter(&case).computed(&case.hooks, &case.parameters).unwrap() {
            assert!(relative(rows.f32(), &saved.read_f32(name).unwrap()) < 1e-5, "{what}: {name}");
        }
        let mut losses = vec![case.loss()];
        for step in 0..3 {
            let gradients = case.gradients();
            for name in &trained {
                let id = case.parameters.find(name).unwrap();
                let gradient = gradients.get(id).unwrap().f32().to_vec();
                if step == 0 {
                    expect(&format!("grad.{name}"), &gradient, 1e-4);
                }
                let values = case.parameters.get(id).value.f32().to_vec();
                case.set(name, |index| values[index] - 0.05 * gradient[index]);
            }
            losses.push(case.loss());
        }
        expect("losses", &losses, 1e-4);
        expect("trained", &case.logits(), 1e-4);
    }
}

#[test]
fn what_is_saved_is_loaded_with_the_same_bits() {
    for (base, method, folder) in all() {
        let what = format!("{} on {base}", method.name());
        let case = applied(base, method, &folder);
        let adapter = adapter(&case);
        let computed = adapter.computed(&case.hooks, &case.parameters).unwrap();
        let mut tensors: Vec<(String, Vec<usize>, &[f32])> = Vec::new();
        for (name, id) in &adapter.tensors {
            let value = &case.parameters.get(*id).value;
            tensors.push((name.clone(), value.shape().to_vec(), value.f32()));
        }
        if let Some((name, value)) = &computed {
            tensors.push(((*name).to_string(), value.shape().to_vec(), value.f32()));
        }
        let saved = tempfile::tempdir().unwrap();
        write_safetensors(saved.path().join("adapter_model.safetensors"), &tensors, &Default::default())
            .unwrap();
        std::fs::write(
            saved.path().join("adapter_config.json"),
            serde_json::to_vec(&adapter.config).unwrap(),
        )
        .unwrap();
        let (reader, files) = peft::open_adapter(saved.path()).unwrap();
        assert_eq!(reader.name(), method.name(), "{what}");
        let loaded = Case::open(base, false, |model| reader.load(model, &files)).unwrap();
        assert_eq!(loaded.logits(), case.logits(), "{what}");
        // A network is not in the file, so what it made is all that could be trained.
        let network = computed.is_some();
        assert_eq!(method.goes_on(&files).is_err(), network, "{what}");
        if network {
            let error = method.goes_on(&files).unwrap_err().to_string();
            let other = if method.name() == "p-tuning" { "prompt-tuning" } else { "p-tuning-v2" };
            assert!(error.contains(&format!("--method {other} trains")), "{what}: {error}");
            let other = peft::find(other).unwrap();
            assert!(other.goes_on(&files).unwrap(), "{what}");
            let on = Case::open(base, false, |model| other.load(model, &files)).unwrap();
            assert_eq!(on.logits(), case.logits(), "{what}");
            assert!(on.trained().contains(&"prompt_embeddings"), "{what}");
            let config = &self::adapter(&on).config;
            assert_ne!(config.get("prefix_projection"), Some(&Value::Bool(true)), "{what}");
            assert_ne!(config["peft_type"], "P_TUNING", "{what}");
        }
    }
}

#[test]
fn a_prompt_begins_as_words_or_at_random() {
    let method = peft::find("prompt-tuning").unwrap();
    let start = |given: &[(&str, &str)]| {
        Case::open("bert-classifier", true, |model| method.apply(model, &golden::options(given)))
    };
    let case = start(&[("num-virtual-tokens", "6")]).unwrap();
    let words = case.parameters.find("bert.embeddings.word_embeddings.weight").unwrap();
    let words: Vec<&[f32]> = case.parameters.get(words).value.f32().chunks(20).collect();
    let rows = case.parameters.find("prompt_embeddings").unwrap();
    let rows = case.parameters.get(rows).value.f32();
    assert!(rows.chunks(20).all(|row| words.contains(&row)));
    assert_ne!(rows[..20], rows[20..40]);
    assert_eq!(adapter(&case).config["prompt_tuning_init"], "SAMPLE_VOCAB");
    let random = start(&[("num-virtual-tokens", "6"), ("random-prompt", "true")]).unwrap();
    let rows = random.parameters.find("prompt_embeddings").unwrap();
    let rows = random.parameters.get(rows).value.f32();
    assert!(!rows.chunks(20).any(|row| words.contains(&row)));
    for (given, expected) in [
        (&[("init-text", "is it so?")][..], "--init-text: there is no tokenizer to read it with"),
        (
            &[("init-text", "a"), ("random-prompt", "true")],
            "--random-prompt: a prompt begins as a text or with random values; give one of them",
        ),
        (
            &[("num-virtual-tokens", "21")],
            "--num-virtual-tokens: expected 1 to 20, so that a text has room too, got 21",
        ),
        (
            &[("num-virtual-tokens", "0")],
            "--num-virtual-tokens: expected 1 to 20, so that a text has room too, got 0",
        ),
    ] {
        assert_eq!(start(given).err().unwrap().to_string(), expected);
    }
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let from = folder("bert-classifier").join("p-tuning-v2");
    let weights = Weights::open(from.join("adapter_model.safetensors")).unwrap();
    let config: Value =
        serde_json::from_slice(&std::fs::read(from.join("adapter_config.json")).unwrap()).unwrap();
    let refused = |rows: &[usize], rename: Option<&str>, change: Value| {
        let saved = tempfile::tempdir().unwrap();
        let zeros = vec![0.0; rows.iter().product()];
        let head: Vec<_> = weights.names().filter(|name| *name != "prompt_embeddings").collect();
        let values: Vec<_> = head.iter().map(|name| weights.read_f32(name).unwrap()).collect();
        let mut tensors: Vec<(String, Vec<usize>, &[f32])> =
            vec![(rename.unwrap_or("prompt_embeddings").into(), rows.to_vec(), &zeros)];
        for (name, values) in head.iter().zip(&values) {
            tensors.push(((*name).into(), weights.info(name).unwrap().shape.clone(), values));
        }
        write_safetensors(saved.path().join("adapter_model.safetensors"), &tensors, &Default::default())
            .unwrap();
        let mut config = config.as_object().unwrap().clone();
        config.extend(change.as_object().unwrap().clone());
        std::fs::write(saved.path().join("adapter_config.json"), serde_json::to_vec(&config).unwrap())
            .unwrap();
        let (reader, files) = peft::open_adapter(saved.path()).unwrap();
        let error = Case::open("bert-classifier", true, |model| reader.load(model, &files)).err().unwrap();
        error.to_string().replace(&saved.path().display().to_string(), "FOLDER")
    };
    for (rows, rename, change, expected) in [
        (
            &[4, 120][..],
            Some("prefix"),
            json!({}),
            "FOLDER: `prompt_embeddings` is missing, which are its virtual tokens",
        ),
        (&[4, 20], None, json!({}), "FOLDER: `prompt_embeddings` should have shape [4, 120], has [4, 20]"),
        (
            &[22, 120],
            None,
            json!({}),
            "FOLDER: virtual tokens: expected 1 to 20, so that a text has room too, got 22",
        ),
        (
            &[4, 120],
            None,
            json!({"num_transformer_submodules": 2}),
            "FOLDER: `num_transformer_submodules`: expected 1, got 2",
        ),
    ] {
        assert_eq!(refused(rows, rename, change), expected);
    }
}

#[test]
fn modernbert_takes_none_and_says_so() {
    for name in METHODS {
        let method = peft::find(name).unwrap();
        let error =
            Case::open("modernbert-classifier", true, |model| method.apply(model, &Options::default()));
        let error = error.err().unwrap().to_string();
        assert!(
            error.starts_with("--method: models of this family take no virtual tokens"),
            "{name}: {error}"
        );
    }
}
