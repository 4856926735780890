//! Every method that `peft` has against it: the adapters under `bert-classifier` were made by it, away from their start
//! and with alpha that is not the rank (see `oracle/tiny_methods.py`). And files in both directions.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod golden;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use golden::{Case, folder, given, options, relative};
use retune_adapt::Options;
use retune_adapt::peft::{self, Adapter, Applied, BaseCard, METHODS, Method};
use retune_model::formats::{Weights, write_safetensors};
use serde_json::Value;

const BASE: &str = "bert-classifier";
const CASES: [(&str, &str); 10] = [
    ("dora", "dora"),
    ("adalora", "adalora"),
    ("vera", "vera"),
    ("ia3", "ia3"),
    ("loha", "loha"),
    ("lokr", "lokr"),
    ("lokr-both", "lokr"),
    ("oft", "oft"),
    ("oft-exact", "oft"),
    ("oft-block-share", "oft"),
];

fn load(folder: &Path) -> (&'static dyn Method, Case) {
    let (method, files) = peft::open_adapter(folder).unwrap();
    (method, Case::open(BASE, true, |model| method.load(model, &files)).unwrap())
}

fn adapter(case: &Case) -> &Adapter {
    match &case.applied {
        Applied::Adapter(adapter) => adapter,
        Applied::Model => panic!("not an adapter"),
    }
}

/// Writes the adapter as a run does.
fn write(method: &dyn Method, case: &Case, at: &Path) {
    let file = method.file(adapter(case), &case.hooks, &case.parameters).unwrap();
    for (name, tensors) in file.weights() {
        let views: Vec<_> = tensors
            .into_iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape().to_vec(), tensor.f32()))
            .collect();
        write_safetensors(at.join(name), &views, &BTreeMap::new()).unwrap();
    }
    let base = BaseCard {
        path: Path::new(BASE),
        revision: None,
        model_type: "bert",
        class: "BertForSequenceClassification",
        task_type: "SEQ_CLS",
        hidden_size: case.classifier.encoder().hidden_size(),
        labels: &[],
    };
    for (name, document) in file.documents(&base) {
        std::fs::write(at.join(name), Value::Object(document).to_string()).unwrap();
    }
}

#[test]
fn logits_loss_gradients_and_counts_are_those_of_peft() {
    for (name, method_name) in CASES {
        let folder = folder(BASE).join(name);
        let (method, case) = load(&folder);
        assert_eq!(method.name(), method_name, "{name}");
        let expected = Weights::open(folder.join("expected.safetensors")).unwrap();
        let expect = |what: &str, got: &[f32]| {
            let error = relative(got, &expected.read_f32(what).unwrap());
            assert!(error < 1e-4, "{name}: {what}: relative error {error}");
        };
        expect("logits", &case.logits());
        expect("loss", &[case.loss()]);
        expect("trainable", &[case.parameters.count().1 as f32]);
        let gradients = case.gradients();
        let trained: Vec<_> = case.parameters.trainable().map(|(id, _)| id).collect();
        let mut compared = 0;
        for (saved, id) in adapter(&case).tensors.iter().filter(|(_, id)| trained.contains(id)) {
            let gradient = gradients.get(*id).unwrap_or_else(|| panic!("{name}: no gradient of {saved}"));
            // The keys' factors and magnitudes meet rounding alone where their bias does.
            expect(&format!("grad.{saved}"), &gradient.f32());
            compared += 1;
        }
        assert_eq!(compared, trained.len(), "{name}");
    }
}

#[test]
fn three_steps_are_those_of_peft() {
    for (name, _) in CASES {
        let folder = folder(BASE).join(name);
        let (method, mut case) = load(&folder);
        let shares = match name {
            // As tinit 0 and tfinal 1 of four steps.
            "adalora" => options(&[("initial-share", "0"), ("final-share", "0.25")]),
            _ => Options::default(),
        };
        let during = method.during_training(adapter(&case), &case.parameters, &shares, 4).unwrap();
        let losses = case.train(3, 0.01, during);
        let expected = Weights::open(folder.join("expected.safetensors")).unwrap();
        for (what, got) in [("losses", losses), ("trained.logits", case.logits())] {
            let error = relative(&got, &expected.read_f32(what).unwrap());
            assert!(error < 1e-4, "{name}: {what}: relative error {error}");
        }
        if name == "adalora" {
            ranks_are_shared_out_as_in_peft(method, &case);
        }
    }
}

fn ranks_are_shared_out_as_in_peft(method: &dyn Method, case: &Case) {
    let folder = folder(BASE).join("adalora-shared-out");
    let read = |path: &Path| -> Value {
        serde_json::from_str(&std::fs::read_to_string(path.join("adapter_config.json")).unwrap()).unwrap()
    };
    let at = tempfile::tempdir().unwrap();
    write(method, case, at.path());
    let (ours, theirs) = (&read(at.path())["rank_pattern"], &read(&folder)["rank_pattern"]);
    assert_eq!(ours.as_object().unwrap().len(), 18);
    assert_eq!(ours, theirs);
    let [ours, theirs] = [at.path(), &folder].map(|at| {
        let weights = Weights::open(at.join("adapter_model.safetensors")).unwrap();
        weights
            .names()
            .map(|name| (name.to_string(), weights.info(name).unwrap().shape.clone()))
            .collect::<BTreeMap<_, _>>()
    });
    assert_eq!(ours, theirs);
    let expected = Weights::open(folder.join("expected.safetensors")).unwrap().read_f32("logits").unwrap();
    for at in [at.path(), &folder] {
        let (method, case) = load(at);
        assert!(relative(&case.logits(), &expected) < 1e-4);
        // What it lost stays lost, however often it is saved.
        let again = tempfile::tempdir().unwrap();
        write(method, &case, again.path());
        assert_eq!(load(again.path()).1.logits(), case.logits());
        assert_eq!(read(again.path())["rank_pattern"], read(at)["rank_pattern"]);
    }
}

#[test]
fn pissa_trains_as_in_peft_and_is_saved_as_a_plain_lora_of_twice_the_rank() {
    let lora = peft::find("lora").unwrap();
    let given = options(&[("rank", "3"), ("alpha", "7"), ("init", "pissa"), ("dropout", "0")]);
    let mut case = Case::open(BASE, true, |model| lora.apply(model, &given)).unwrap();
    let start = Case::base(BASE, true).logits();
    assert!(relative(&case.logits(), &start) < 1e-5, "{}", relative(&case.logits(), &start));
    let losses = case.train(3, 0.01, None);
    let expected = Weights::open(folder(BASE).join("pissa/expected.safetensors")).unwrap();
    for (what, got) in [("losses", losses), ("trained.logits", case.logits())] {
        let error = relative(&got, &expected.read_f32(what).unwrap());
        assert!(error < 1e-4, "{what}: relative error {error}");
    }
    let at = tempfile::tempdir().unwrap();
    write(lora, &case, at.path());
    let (_, loaded) = load(at.path());
    let difference = relative(&loaded.logits(), &case.logits());
    assert!(difference < 1e-5, "{difference}");
    let config = &adapter(&loaded).config;
    assert_eq!((&config["r"], &config["lora_alpha"]), (&6.into(), &14.into()));
    // Merged into the base that its start was taken out of.
    let unmerged = case.logits();
    case.adjust(|model| lora.merge(model)).unwrap();
    assert!(relative(&case.logits(), &unmerged) < 1e-5);
}

#[test]
fn the_second_side_of_a_branch_learns_faster_in_lora_plus() {
    let lora = peft::find("lora").unwrap();
    let case = Case::open(BASE, true, |model| lora.apply(model, &options(&[]))).unwrap();
    let during = |given: &[(&str, &str)]| {
        lora.during_training(adapter(&case), &case.parameters, &options(given), 10).unwrap()
    };
    assert!(during(&[("loraplus-lr-ratio", "1")]).is_none());
    let plus = during(&[("loraplus-lr-ratio", "16")]).unwrap();
    let rates = ["x.lora_A.weight", "x.lora_B.weight", "classifier.weight"].map(|name| plus.rate(name));
    assert_eq!(rates.map(f64::to_bits), [1.0, 16.0, 1.0].map(f64::to_bits));
}

#[test]
fn what_is_saved_and_loaded_has_the_same_bits() {
    for method in METHODS {
        let given = options(&given(*method));
        let mut case = Case::open(BASE, true, |model| method.apply(model, &given)).unwrap();
        // What makes virtual tokens is left behind: they come back as tokens alone.
        if case.applied == Applied::Model
            || case.trained().iter().any(|name| name.starts_with("prompt_encoder."))
        {
            continue;
        }
        let trained: Vec<String> = case.trained().iter().map(ToString::to_string).collect();
        for (salt, name) in trained.iter().enumerate() {
            let values = case.values(name);
            case.set(name, |index| values[index] + (((index + salt) * 29 % 17) as f32 - 8.5) * 0.02);
        }
        let at = tempfile::tempdir().unwrap();
        write(*method, &case, at.path());
        let (reader, loaded) = load(at.path());
        assert_eq!(reader.name(), method.name());
        assert_eq!(loaded.logits(), case.logits(), "{}", method.name());
        // The base's own keys were added to it.
        for (key, value) in &adapter(&case).config {
            assert_eq!(adapter(&loaded).config[key], *value, "{}: {key}", method.name());
        }
        assert_eq!(loaded.trained(), case.trained(), "{}", method.name());
    }
}

#[test]
fn the_configuration_has_the_keys_of_peft_with_its_types() {
    for (name, method_name) in CASES {
        let text = std::fs::read_to_string(folder(BASE).join(name).join("adapter_config.json")).unwrap();
        let theirs: Value = serde_json::from_str(&text).unwrap();
        let method = peft::find(method_name).unwrap();
        let case = Case::open(BASE, true, |model| method.apply(model, &options(&[]))).unwrap();
        for (key, ours) in &adapter(&case).config {
            let theirs = theirs.get(key).unwrap_or_else(|| panic!("{name}: peft has no `{key}`"));
            let same = std::mem::discriminant(ours) == std::mem::discriminant(theirs);
            assert!(same || ours.is_null() || theirs.is_null(), "{name}: {key}: {ours} and {theirs}");
        }
    }
}

#[test]
fn keys_of_newer_versions_are_kept_and_named() {
    for (name, _) in CASES {
        let (golden, at) = (folder(BASE).join(name), tempfile::tempdir().unwrap());
        assert_eq!(peft::open_adapter(&golden).unwrap().1.unknown_keys(), [""; 0], "{name}");
        let text = std::fs::read_to_string(golden.join("adapter_config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["zeta_größe"] = Value::from(7);
        std::fs::write(at.path().join("adapter_config.json"), config.to_string()).unwrap();
        std::fs::copy(golden.join("adapter_model.safetensors"), at.path().join("adapter_model.safetensors"))
            .unwrap();
        assert_eq!(peft::open_adapter(at.path()).unwrap().1.unknown_keys(), ["zeta_größe"], "{name}");
        let (_, case) = load(at.path());
        assert_eq!(adapter(&case).config["zeta_größe"], 7, "{name}");
    }
}

#[test]
fn configurations_that_mean_something_else_are_refused() {
    for (name, key, value, expected) in [
        ("dora", "use_qalora", Value::from(true), "`use_qalora` is set, and that kind of LoRA is not read"),
        ("oft", "coft", Value::from(true), "`coft` is set, and that kind of OFT is not read"),
        ("oft", "num_cayley_neumann_terms", Value::from(1e9 as u64), "expected at most 64"),
        ("vera", "bias", Value::from("all"), "`bias`: expected \"none\", got \"all\""),
        ("ia3", "fan_in_fan_out", Value::from(true), "`fan_in_fan_out` is set"),
        ("loha", "alpha", Value::Null, "`alpha` is missing"),
        ("lokr", "r", Value::from("two"), "`r`: expected a number, got \"two\""),
        ("adalora", "lora_dropout", Value::from(1), "`lora_dropout`: expected at least 0 and below 1, got 1"),
    ] {
        let (golden, at) = (folder(BASE).join(name), tempfile::tempdir().unwrap());
        let text = std::fs::read_to_string(golden.join("adapter_config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config[key] = value;
        std::fs::write(at.path().join("adapter_config.json"), config.to_string()).unwrap();
        std::fs::copy(golden.join("adapter_model.safetensors"), at.path().join("adapter_model.safetensors"))
            .unwrap();
        let (method, files) = peft::open_adapter(at.path()).unwrap();
        let error = Case::open(BASE, true, |model| method.load(model, &files)).err().unwrap().to_string();
        assert!(error.contains(expected), "{name} {key}: {error}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    for (name, _) in CASES {
        let golden = folder(BASE).join(name);
        let weights = Weights::open(golden.join("adapter_model.safetensors")).unwrap();
        let names: BTreeSet<&str> =
            weights.names().filter(|name| name.contains("layer.1.attention.self.query")).collect();
        for missing in names {
            let at = tempfile::tempdir().unwrap();
            let read =
                |name: &str| (weights.info(name).unwrap().shape.clone(), weights.read_f32(name).unwrap());
            let kept: Vec<_> = weights
                .names()
                .filter(|name| *name != missing)
                .map(|name| (name.to_string(), read(name)))
                .collect();
            let tensors: Vec<_> = kept
                .iter()
                .map(|(name, (shape, values))| (name.clone(), shape.clone(), values.as_slice()))
                .collect();
            write_safetensors(at.path().join("adapter_model.safetensors"), &tensors, &BTreeMap::new())
                .unwrap();
            std::fs::copy(golden.join("adapter_config.json"), at.path().join("adapter_config.json")).unwrap();
            let (method, files) = peft::open_adapter(at.path()).unwrap();
            let error = Case::open(BASE, true, |model| method.load(model, &files)).err();
            // A method with one tensor a layer cannot know that a layer should have had it.
            let alone = ["ia3", "oft"].contains(&method.name());
            assert_eq!(error.is_none(), alone, "{name}: {missing}");
            if let Some(error) = error {
                assert!(error.to_string().contains("missing"), "{name}: {missing}: {error}");
            }
        }
    }
}
