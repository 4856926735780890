//! Weighted sums of LoRAs against those of `peft` (see `oracle/combine.py`), and what is no sum.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod golden;

use std::path::Path;

use golden::{Case, folder, relative};
use retune_adapt::AdaptError;
use retune_adapt::peft::combine::{Combination, Combined, combine};
use retune_adapt::peft::{self, AdapterFiles};
use retune_model::formats::{Weights, write_safetensors};
use serde_json::{Map, Value, json};

const BASE: &str = "bert-classifier";
const SITE: &str = "base_model.model.bert.encoder.layer.1.attention.output.dense";
const SEED: u64 = 5;

fn open(name: &str) -> AdapterFiles {
    peft::open_adapter(&folder(BASE).join(name)).unwrap().1
}

fn two() -> [(AdapterFiles, f64); 2] {
    [(open("lora"), 0.75), (open("lora-rslora"), -0.5)]
}

/// Writes it as a result is written.
fn write(combined: &Combined, at: &Path) {
    for (name, tensors) in combined.file.weights() {
        let tensors: Vec<_> =
            tensors.iter().map(|(name, value)| (name.clone(), value.shape().to_vec(), value.f32())).collect();
        write_safetensors(at.join(name), &tensors, &std::collections::BTreeMap::new()).unwrap();
    }
    std::fs::write(at.join("adapter_config.json"), Value::Object(combined.file.config.clone()).to_string())
        .unwrap();
}

fn load(at: &Path) -> Case {
    let (method, files) = peft::open_adapter(at).unwrap();
    assert_eq!(method.name(), "lora");
    Case::open(BASE, true, |model| method.load(model, &files)).unwrap()
}

/// What a branch adds to a weight, the scale left out as it is 1.
fn change(combined: &Combined) -> Vec<f32> {
    let tensor = |end: &str| {
        let name = format!("{SITE}.{end}.weight");
        &combined.file.tensors.iter().find(|(known, _)| *known == name).unwrap().1
    };
    let (a, b) = (tensor("lora_A"), tensor("lora_B"));
    let column = |k: usize, j: usize| a.f32()[k * a.columns() + j];
    let rows = b.f32().chunks(b.columns());
    rows.flat_map(|row| {
        (0..a.columns()).map(|j| row.iter().enumerate().map(|(k, x)| x * column(k, j)).sum::<f32>())
    })
    .collect()
}

#[test]
fn every_sum_is_that_of_peft() {
    let expected = Weights::open(folder(BASE).join("combined.safetensors")).unwrap();
    let mut seen = 0;
    for (name, density, sign, rank) in [
        ("linear", None, None, None),
        ("cat", None, None, None),
        ("svd", None, None, Some(5)),
        ("ties", Some(0.6), None, None),
        ("ties_svd", Some(0.3), Some("frequency"), Some(5)),
        ("dare_linear", Some(0.7), None, None),
        ("dare_linear_svd", Some(0.6), None, Some(5)),
        ("dare_ties", Some(0.6), Some("total"), None),
        ("dare_ties_svd", Some(0.6), None, Some(5)),
        ("magnitude_prune", Some(0.3), None, None),
        ("magnitude_prune_svd", Some(0.3), None, Some(5)),
    ] {
        let combination = Combination::new(name, density, sign, rank, SEED).unwrap();
        let combined = combine(&two(), &combination, 0).unwrap();
        let expect = |what: &str, got: &[f32]| {
            let error = relative(got, &expected.read_f32(&format!("{name}.{what}")).unwrap());
            assert!(error < 1e-4, "{name}: {what}: relative error {error}");
        };
        expect("change", &change(&combined)[..3 * 20]);
        let at = tempfile::tempdir().unwrap();
        write(&combined, at.path());
        expect("logits", &load(at.path()).logits());
        assert_eq!(combined.rank, rank.unwrap_or(if name == "cat" { 6 } else { 3 }), "{name}");
        seen += 1;
    }
    assert_eq!((seen, Combination::names().count()), (11, 11));
}

#[test]
fn the_head_is_that_of_the_adapter_that_was_asked_for() {
    let cat = Combination::new("cat", None, None, None, SEED).unwrap();
    let head = |name: &str| {
        Weights::open(folder(BASE).join(name).join("adapter_model.safetensors"))
            .unwrap()
            .read_f32("base_model.model.classifier.weight")
            .unwrap()
    };
    for (number, name) in [(0, "lora"), (1, "lora-rslora")] {
        let combined = combine(&two(), &cat, number).unwrap();
        let own = combined.file.tensors.iter().find(|(name, _)| name.ends_with("classifier.weight")).unwrap();
        assert_eq!(own.1.f32(), head(name), "{name}");
        let left: Vec<_> = combined.left_out.iter().map(String::as_str).collect();
        assert_eq!(left, ["base_model.model.classifier.bias", "base_model.model.classifier.weight"]);
        // The scale is in the numbers, whichever adapter's configuration it is.
        let config = &combined.file.config;
        assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(6), &json!(6)));
        assert_eq!(config["use_rslora"], json!(false));
        let at = tempfile::tempdir().unwrap();
        write(&combined, at.path());
        assert_eq!(load(at.path()).values("classifier.weight"), head(name));
    }
}

#[test]
fn half_of_one_and_half_of_itself_is_itself() {
    let expected = Weights::open(folder(BASE).join("lora/expected.safetensors")).unwrap();
    let expected = expected.read_f32("logits").unwrap();
    for name in ["cat", "svd", "linear", "ties"] {
        let density = (name == "ties").then_some(1.0);
        let combination = Combination::new(name, density, None, None, SEED).unwrap();
        // The mean of what agrees is the same again; the others are sums.
        let weight = if name == "ties" { 1.0 } else { 0.5 };
        // Sums of factors have cross terms: (a / sqrt 2 + a / sqrt 2) twice is twice the whole.
        let weight = if name == "linear" { 0.25 } else { weight };
        let combined = combine(&[(open("lora"), weight), (open("lora"), weight)], &combination, 0).unwrap();
        let at = tempfile::tempdir().unwrap();
        write(&combined, at.path());
        let error = relative(&load(at.path()).logits(), &expected);
        assert!(error < 1e-4, "{name}: {error}");
    }
    let alone = combine(&[(open("lora"), 1.0)], &Combination::new("svd", None, None, None, 1).unwrap(), 0);
    assert_eq!(alone.unwrap().rank, 3);
}

/// An altered copy of the golden LoRA.
fn altered(
    at: &Path,
    change: impl Fn(&str, Vec<f32>, Vec<usize>) -> Option<(Vec<f32>, Vec<usize>)>,
    more: &Value,
) {
    let golden = folder(BASE).join("lora");
    let weights = Weights::open(golden.join("adapter_model.safetensors")).unwrap();
    let kept: Vec<(String, Vec<usize>, Vec<f32>)> = weights
        .names()
        .filter_map(|name| {
            let shape = weights.info(name).unwrap().shape.clone();
            let (values, shape) = change(name, weights.read_f32(name).unwrap(), shape)?;
            Some((name.to_string(), shape, values))
        })
        .collect();
    let views: Vec<_> =
        kept.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), values.as_slice())).collect();
    write_safetensors(at.join("adapter_model.safetensors"), &views, &std::collections::BTreeMap::new())
        .unwrap();
    let text = std::fs::read_to_string(golden.join("adapter_config.json")).unwrap();
    let mut config: Map<String, Value> = serde_json::from_str(&text).unwrap();
    config.extend(more.as_object().unwrap().clone());
    std::fs::write(at.join("adapter_config.json"), Value::Object(config).to_string()).unwrap();
}

#[test]
fn adapters_of_other_layers_and_ranks_are_added_where_they_are() {
    // Of the second, one layer alone, at rank 1.
    let at = tempfile::tempdir().unwrap();
    let one_layer = |name: &str, values: Vec<f32>, shape: Vec<usize>| {
        if !name.starts_with(SITE) {
            return name.contains("classifier").then_some((values, shape));
        }
        let (rows, columns) = (shape[0], shape[1]);
        Some(match name.contains("lora_A") {
            true => (values[..columns].to_vec(), vec![1, columns]),
            false => (values.chunks(columns).map(|row| row[0]).collect(), vec![rows, 1]),
        })
    };
    altered(
        at.path(),
        one_layer,
        &json!({"r": 1, "lora_alpha": 2, "target_modules": ["attention.output.dense"]}),
    );
    let adapters = || [(open("lora"), 1.0), (peft::open_adapter(at.path()).unwrap().1, 0.5)];
    let combined = combine(&adapters(), &Combination::new("cat", None, None, None, 1).unwrap(), 0).unwrap();
    assert_eq!(combined.rank, 4);
    let shape = |name: &str| {
        combined.file.tensors.iter().find(|(known, _)| known == name).unwrap().1.shape().to_vec()
    };
    // A branch of less has zeros, so that all are of one rank.
    assert_eq!(shape("base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"), [4, 20]);
    let [one, whole] = [0.0, 1.0].map(|weight| {
        let adapters = [(open("lora"), 1.0), (peft::open_adapter(at.path()).unwrap().1, 0.5 * weight + 1e-9)];
        change(&combine(&adapters, &Combination::new("svd", None, None, Some(4), 1).unwrap(), 0).unwrap())
    });
    let cat = change(&combined);
    assert!(relative(&cat, &whole) < 1e-4 && relative(&cat, &one) > 1e-3);
    let told = combined.file.config["target_modules"].as_array().unwrap();
    assert!(told.contains(&json!("attention.output.dense")) && told.contains(&json!("query")));

    let error = combine(&adapters(), &Combination::new("ties", None, None, None, 1).unwrap(), 0).unwrap_err();
    let expected = "attention.output.dense` is of rank 1, and another adapter's of 3: numbers of factors are added only \
                    where ranks are equal; cat and svd take any";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[test]
fn what_is_no_lora_of_the_same_model_is_refused() {
    let cat = || Combination::new("cat", None, None, None, 1).unwrap();
    let refused =
        |name: &str| combine(&[(open("lora"), 1.0), (open(name), 1.0)], &cat(), 0).unwrap_err().to_string();
    assert!(refused("dora").ends_with("expected a LoRA, got a DoRA: only plain LoRAs are added"));
    assert!(refused("ia3").ends_with("expected a LoRA, got one of type \"IA3\": only plain LoRAs are added"));
    assert!(refused("pfeiffer").contains("only plain LoRAs are added"), "{}", refused("pfeiffer"));
    let other = |name: &str, values: Vec<f32>, shape: Vec<usize>| {
        let wide = name.starts_with(SITE) && name.contains("lora_A");
        Some(if wide { (vec![0.5; 63], vec![3, 21]) } else { (values, shape) })
    };
    let at = tempfile::tempdir().unwrap();
    altered(at.path(), other, &json!({}));
    let adapters = [(open("lora"), 1.0), (peft::open_adapter(at.path()).unwrap().1, 1.0)];
    let error = combine(&adapters, &cat(), 0).unwrap_err().to_string();
    assert!(error.contains("has other sizes than in") && error.contains("different models?"), "{error}");
    assert!(combine(&[], &cat(), 0).is_err());
}

#[test]
fn settings_without_use_are_named() {
    let new = |name: &str, density, sign, rank| -> Result<Combination, AdaptError> {
        Combination::new(name, density, sign, rank, 1)
    };
    for (got, expected) in [
        (
            new("tise", None, None, None),
            "combination `tise` is not known, did you mean `ties`?; there are: linear, cat",
        ),
        (new("linear", Some(0.5), None, None), "--density: `linear` has no use for it"),
        (new("dare-linear", None, Some("total"), None), "--majority-sign: `dare-linear` has no use for it"),
        (new("ties", None, Some("most"), None), "--majority-sign: expected total or frequency, got `most`"),
        (new("ties", None, None, Some(4)), "--rank: `ties` has no use for it"),
        (new("svd", None, None, Some(0)), "--rank: expected 1 to 4096, got 0"),
        (new("ties", Some(0.0), None, None), "--density: expected a share above 0 and up to 1, got 0"),
        (new("ties", Some(f64::NAN), None, None), "--density: expected a share above 0"),
    ] {
        let error = got.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
