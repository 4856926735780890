//! Bottleneck adapters against the `adapters` library: those under the golden models were made by it (see
//! `oracle/tiny_bottlenecks.py`), far from where they start. And adapters that are not what they should be.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod golden;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use golden::{Case, folder, options, relative};
use retune_adapt::peft::{self, Adapter, Applied, BaseCard, Form};
use retune_model::formats::{Weights, write_safetensors};
use serde_json::{Value, json};

const BASE: &str = "bert-classifier";
const BASES: [&str; 5] =
    [BASE, "roberta-classifier", "electra-classifier", "distilbert-classifier", "modernbert-classifier"];
const METHODS: [&str; 4] = ["houlsby", "pfeiffer", "parallel-adapter", "compacter"];
/// What the library can say and no method here says by itself, and the method that reads it.
const VARIANTS: [(&str, &str); 4] = [
    ("bottleneck-norm", "houlsby"),
    ("bottleneck-blocks", "houlsby"),
    ("bottleneck-behind", "pfeiffer"),
    ("compacter-plus-plus", "compacter"),
];
/// Of the plain gradient descent in the oracle's script.
const RATE: f32 = 0.05;

fn cases() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let own =
        BASES.into_iter().flat_map(|base| METHODS.into_iter().map(move |method| (base, method, method)));
    own.chain(VARIANTS.into_iter().map(|(name, method)| (BASE, name, method)))
}

fn load(base: &str, folder: &Path, keep_head: bool) -> Result<(&'static str, Case), String> {
    let (method, files) = peft::open_adapter(folder).map_err(|e| e.to_string())?;
    let case = Case::open(base, keep_head, |model| method.load(model, &files)).map_err(|e| e.to_string())?;
    Ok((method.name(), case))
}

fn adapter(case: &Case) -> &Adapter {
    match &case.applied {
        Applied::Adapter(adapter) => adapter,
        Applied::Model => panic!("these are adapters"),
    }
}

fn fresh(method: &str, given: &[(&str, &str)]) -> Result<Case, String> {
    let method = peft::find(method).unwrap();
    Case::open(BASE, true, |model| method.apply(model, &options(given))).map_err(|e| e.to_string())
}

/// All tensors of a saved adapter.
fn stored(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let files = Form::Adapters.weights().iter().map(|name| Weights::open(folder.join(name)).unwrap());
    files
        .flat_map(|file| {
            let read = |name: &str| (name.to_string(), file.read_f32(name).unwrap());
            file.names().map(read).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn logits_loss_gradients_and_steps_are_those_of_the_library() {
    for (base, name, method) in cases() {
        let folder = folder(base).join(name);
        let (reader, mut case) = load(base, &folder, true).unwrap();
        assert_eq!(reader, method, "{base} {name}");
        let expected = Weights::open(folder.join("expected.safetensors")).unwrap();
        let expect = |what: &str, got: &[f32]| {
            let error = relative(got, &expected.read_f32(what).unwrap());
            assert!(error < 1e-4, "{base} {name}: {what}: relative error {error}");
        };
        expect("logits", &case.logits());
        expect("loss", &[case.loss()]);
        let gradients = case.gradients();
        for (saved, id) in &adapter(&case).tensors {
            let gradient = gradients.get(*id).unwrap_or_else(|| panic!("{name}: no gradient of {saved}"));
            expect(&format!("grad.{saved}"), &gradient.f32());
        }
        let references = expected.names().filter(|name| name.starts_with("grad.")).count();
        assert_eq!((gradients.iter().count(), case.trained().len()), (references, references), "{name}");
        // An adapter that does nothing would pass much of this.
        let without = relative(&Case::base(base, true).logits(), &expected.read_f32("logits").unwrap());
        assert!(without > 0.01, "{base} {name}: the base alone is {without} away");

        let mut losses = Vec::new();
        for _ in 0..3 {
            losses.push(case.loss());
            let gradients = case.gradients();
            for (id, gradient) in gradients.iter() {
                let name = case.parameters.get(id).name.clone();
                let values = case.parameters.get(id).value.f32().to_vec();
                case.set(&name, |index| values[index] - RATE * gradient.f32()[index]);
            }
        }
        expect("steps.loss", &losses);
        expect("steps.logits", &case.logits());
    }
}

#[test]
fn a_loaded_adapter_is_saved_as_it_was() {
    for (base, name, _) in cases() {
        let folder = folder(base).join(name);
        // The head is the adapter's own, whatever the base has.
        let (method, case) = load(base, &folder, false).unwrap();
        let adapter = adapter(&case);
        let expected = stored(&folder);
        let saved = adapter
            .tensors
            .iter()
            .map(|(name, id)| (name.clone(), case.parameters.get(*id).value.f32().to_vec()));
        assert_eq!(saved.collect::<BTreeMap<_, _>>(), expected, "{base} {name}");
        let written = peft::find(method).unwrap().file(adapter, &case.hooks, &case.parameters).unwrap();
        for (file, tensors) in written.weights() {
            let names: BTreeSet<_> = tensors.iter().map(|(name, _)| name.as_str()).collect();
            let theirs = Weights::open(folder.join(file)).unwrap();
            assert_eq!(names, theirs.names().collect(), "{base} {name}: {file}");
        }
        let labels: Vec<String> = (0..case.rows.num_labels).map(|id| format!("LABEL_{id}")).collect();
        let read = |file: &str| -> Value {
            serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap()
        };
        let head = read("head_config.json");
        let documents = written.documents(&BaseCard {
            path: Path::new(base),
            revision: None,
            model_type: head["model_type"].as_str().unwrap(),
            class: head["model_class"].as_str().unwrap(),
            task_type: "SEQ_CLS",
            hidden_size: case.classifier.encoder().hidden_size(),
            labels: &labels,
        });
        assert_eq!(documents.len(), 2);
        for (file, document) in documents {
            assert_eq!(Value::Object(document), read(file), "{base} {name}: {file}");
        }
    }
}

#[test]
fn a_row_alone_has_the_logits_that_it_has_among_others() {
    for (base, name, _) in cases() {
        let (_, case) = load(base, &folder(base).join(name), true).unwrap();
        let together = case.logits();
        let alone: Vec<f32> = (0..case.rows.labels.len()).flat_map(|row| case.logits_of(&[row])).collect();
        let error = relative(&alone, &together);
        assert!(error < 1e-5, "{base} {name}: {error}");
    }
}

#[test]
fn a_fresh_adapter_hardly_changes_the_model_and_none_that_adds_0_does() {
    let base = Case::base(BASE, true).logits();
    for method in METHODS {
        let size = [("bottleneck-size", "4")];
        let mut case = fresh(method, &size).unwrap();
        let moved = relative(&case.logits(), &base);
        assert!(moved < 0.01, "{method}: {moved}");
        assert_eq!(moved == 0.0, method == "parallel-adapter", "{method}: {moved}");
        let names: Vec<String> = case.trained().iter().map(ToString::to_string).collect();
        for name in names.iter().filter(|name| name.contains(".adapter_up.")) {
            case.set(name, |_| 0.0);
        }
        assert_eq!(case.logits(), base, "{method}");
    }
}

#[test]
fn a_fresh_adapter_is_configured_as_by_the_library() {
    for method in METHODS {
        let golden: Value = serde_json::from_slice(
            &std::fs::read(folder(BASE).join(method).join("adapter_config.json")).unwrap(),
        )
        .unwrap();
        let given: &[(&str, &str)] = match method {
            "parallel-adapter" => &[("reduction-factor", "3"), ("scaling", "3")],
            "compacter" => &[("reduction-factor", "5"), ("phm-dim", "2"), ("phm-rank", "2")],
            _ => &[("reduction-factor", "3")],
        };
        let case = fresh(method, given).unwrap();
        assert_eq!(adapter(&case).config["config"], golden["config"], "{method}");
        let count = stored(&folder(BASE).join(method)).values().map(Vec::len).sum::<usize>();
        assert_eq!(case.parameters.count().1, count, "{method}");
    }
}

#[test]
fn the_width_is_the_one_asked_for_and_the_library_comes_to_the_same() {
    for (given, expected) in [
        (("reduction-factor", "16"), 1),
        (("reduction-factor", "100"), 1),
        (("reduction-factor", "0.5"), 40),
        (("reduction-factor", "2.9"), 6),
        (("bottleneck-size", "1"), 1),
        (("bottleneck-size", "3"), 3),
        (("bottleneck-size", "7"), 7),
        (("bottleneck-size", "20"), 20),
        (("bottleneck-size", "37"), 37),
    ] {
        let case = fresh("pfeiffer", &[given]).unwrap();
        let id =
            case.parameters.find("bert.encoder.layer.1.output.adapters.retune.adapter_down.0.bias").unwrap();
        assert_eq!(case.parameters.get(id).value.len(), expected, "{given:?}");
        let factor = adapter(&case).config["config"]["reduction_factor"].as_f64().unwrap();
        assert_eq!(((20.0 / factor).floor() as usize).max(1), expected, "{given:?}: {factor}");
    }
}

#[test]
fn options_that_cannot_be_are_named() {
    for (method, given, expected) in [
        ("houlsby", &[("reduction-factor", "0")][..], "--reduction-factor: expected a number above 0, got 0"),
        ("houlsby", &[("reduction-factor", "1e-300")], "--reduction-factor: expected a number above 0"),
        ("houlsby", &[("reduction-factor", "1e-9")], "--reduction-factor: an adapter wider than 65536"),
        ("houlsby", &[("bottleneck-size", "0")], "--bottleneck-size: expected 1 to 65536, got 0"),
        (
            "pfeiffer",
            &[("bottleneck-size", "4"), ("reduction-factor", "5")],
            "--bottleneck-size: --reduction-factor says the width as well; give one of them",
        ),
        ("pfeiffer", &[("non-linearity", "rellu")], "--non-linearity: expected one of relu, gelu"),
        ("pfeiffer", &[("non-linearity", "rellu")], "got `rellu`; did you mean relu?"),
        ("parallel-adapter", &[("scaling", "0")], "--scaling: expected a number other than 0, got 0"),
        ("parallel-adapter", &[("phm-dim", "4")], "--phm-dim: is an option of compacter"),
        ("compacter", &[], "--phm-dim: the adapter's width must be a multiple of 4, got 1"),
        ("compacter", &[("phm-dim", "3")], "--phm-dim: expected a divisor of the model's width 20, got 3"),
        ("compacter", &[("phm-dim", "0")], "--phm-dim: expected a divisor of the model's width 20, got 0"),
        ("compacter", &[("bottleneck-size", "4"), ("phm-rank", "0")], "--phm-rank: expected 1 to 20, got 0"),
    ] {
        let error = fresh(method, given).err().unwrap_or_else(|| panic!("{given:?} was taken"));
        assert!(error.contains(expected), "{given:?}: {error}");
    }
}

/// A golden adapter with another configuration and other tensors, in `at`.
fn altered(
    at: &Path,
    name: &str,
    change: impl FnOnce(&mut serde_json::Map<String, Value>, &mut BTreeMap<String, (Vec<usize>, Vec<f32>)>),
) {
    let golden = folder(BASE).join(name);
    let mut config =
        serde_json::from_slice(&std::fs::read(golden.join("adapter_config.json")).unwrap()).unwrap();
    let file = Weights::open(golden.join("adapter.safetensors")).unwrap();
    let mut tensors = file
        .names()
        .map(|name| {
            (name.to_string(), (file.info(name).unwrap().shape.clone(), file.read_f32(name).unwrap()))
        })
        .collect();
    change(&mut config, &mut tensors);
    let tensors: Vec<_> = tensors.iter().map(|(n, (s, v))| (n.clone(), s.clone(), v.as_slice())).collect();
    write_safetensors(at.join("adapter.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    std::fs::write(at.join("adapter_config.json"), Value::Object(config).to_string()).unwrap();
    for file in ["model_head.safetensors", "head_config.json"] {
        std::fs::copy(golden.join(file), at.join(file)).unwrap();
    }
}

#[test]
fn configurations_of_another_kind_are_refused() {
    for (name, key, value, expected) in [
        ("houlsby", "use_gating", json!(true), "`config.use_gating` is true, and that is not read"),
        ("houlsby", "ln_before", json!(true), "`config.ln_before` is true"),
        ("houlsby", "original_ln_after", json!(false), "`config.original_ln_after` is false"),
        ("houlsby", "inv_adapter", json!("nice"), "`config.inv_adapter` is set"),
        ("houlsby", "stochastic_depth", json!(0.1), "`config.stochastic_depth` is set"),
        ("houlsby", "scaling", json!("learned"), "`config.scaling`: expected a number"),
        ("houlsby", "scaling", json!(1e300), "`config.scaling`: expected a number"),
        ("houlsby", "dropout", json!(1.0), "`config.dropout`: expected at least 0 and below 1, got 1.0"),
        ("houlsby", "non_linearity", json!("leakyrelu"), "`config.non_linearity`: expected one of relu"),
        ("houlsby", "non_linearity", json!(3), "`config.non_linearity`: expected a name, got 3"),
        ("houlsby", "mh_adapter", json!("yes"), "`config.mh_adapter`: expected true or false"),
        ("houlsby", "reduction_factor", json!(-2), "`config.reduction_factor`: expected a number above 0"),
        ("pfeiffer", "residual_before_ln", json!("post"), "`config.residual_before_ln`: expected true"),
        // Without its norm the file has tensors too many.
        ("bottleneck-norm", "ln_after", json!(false), "12 tensors do not fit"),
        (
            "houlsby",
            "mh_adapter",
            json!(false),
            "attention.output.adapters.tuned.adapter_down.0.bias` has no place",
        ),
        (
            "pfeiffer",
            "mh_adapter",
            json!(true),
            "attention.output.adapters.tuned.adapter_down.0.weight` is missing",
        ),
        ("compacter", "shared_phm_rule", json!(false), "`config.shared_phm_rule` is false"),
        ("compacter", "learn_phm", json!(false), "`config.learn_phm` is false"),
        (
            "compacter",
            "phm_dim",
            json!(3),
            "`config.phm_dim`: expected a divisor of the model's width 20, got 3",
        ),
        ("compacter", "phm_dim", json!(0), "`config.phm_dim`: expected a whole number from 1 on, got 0"),
        ("compacter", "phm_rank", json!(3), "W_left` should have shape [2, 10, 3], has [2, 10, 2]"),
    ] {
        let at = tempfile::tempdir().unwrap();
        altered(at.path(), name, |config, _| {
            drop(config["config"].as_object_mut().unwrap().insert(key.into(), value.clone()))
        });
        let error = load(BASE, at.path(), true).err().unwrap_or_else(|| panic!("{key}={value} was taken"));
        assert!(error.contains(expected) && error.contains(at.path().to_str().unwrap()), "{key}: {error}");
    }
    // Another kind of the library's adapters.
    let at = tempfile::tempdir().unwrap();
    altered(at.path(), "houlsby", |config, _| {
        drop(config.insert("config".into(), json!({"architecture": "lora"})))
    });
    let error = load(BASE, at.path(), true).err().unwrap();
    assert!(error.contains("adapters of type \"lora\" are not read"), "{error}");
}

#[test]
fn files_that_are_not_whole_are_refused() {
    let at = tempfile::tempdir().unwrap();
    altered(at.path(), "houlsby", |_, tensors| {
        tensors.remove("bert.encoder.layer.2.output.adapters.tuned.adapter_up.bias").unwrap();
        let (shape, values) =
            tensors.get_mut("bert.encoder.layer.0.output.adapters.tuned.adapter_up.weight").unwrap();
        *shape = vec![6, 20];
        values.truncate(120);
    });
    let error = load(BASE, at.path(), true).err().unwrap();
    assert!(error.contains("2 tensors do not fit"), "{error}");
    assert!(error.contains("layer.2.output.adapters.tuned.adapter_up.bias` is missing"), "{error}");
    assert!(error.contains("should have shape [20, 6], has [6, 20]"), "{error}");

    // Without a head of its own the base's is kept, where there is one.
    altered(at.path(), "houlsby", |_, _| {});
    std::fs::remove_file(at.path().join("model_head.safetensors")).unwrap();
    let (_, kept) = load(BASE, at.path(), true).unwrap();
    assert!(kept.trained().contains(&"classifier.weight"));
    let error = load(BASE, at.path(), false).err().unwrap();
    assert!(
        error.contains("`classifier.weight` is missing, and the base does not have it either"),
        "{error}"
    );

    std::fs::rename(at.path().join("adapter.safetensors"), at.path().join("pytorch_adapter.bin")).unwrap();
    let error = load(BASE, at.path(), true).err().unwrap();
    assert!(
        error.contains("only `pytorch_adapter.bin` is there, a pickle, which is never loaded"),
        "{error}"
    );
    assert!(error.contains("use_safetensors=True"), "{error}");
}

#[test]
fn keys_of_newer_versions_are_kept_and_named() {
    for (base, name, _) in cases() {
        let golden = folder(base).join(name);
        assert_eq!(peft::open_adapter(&golden).unwrap().1.unknown_keys(), [""; 0], "{base} {name}");
    }
    let (golden, at) = (folder(BASE).join("houlsby"), tempfile::tempdir().unwrap());
    for file in ["adapter.safetensors", "head_config.json", "model_head.safetensors"] {
        std::fs::copy(golden.join(file), at.path().join(file)).unwrap();
    }
    let text = std::fs::read_to_string(golden.join("adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["größe"] = json!(7);
    config["config"]["zeta"] = json!([1]);
    std::fs::write(at.path().join("adapter_config.json"), config.to_string()).unwrap();
    let named = peft::open_adapter(at.path()).unwrap().1.unknown_keys();
    assert_eq!(named, ["größe", "config.zeta"]);
    let (_, case) = load(BASE, at.path(), true).unwrap();
    let kept = &adapter(&case).config;
    assert_eq!((&kept["größe"], &kept["config"]["zeta"]), (&json!(7), &json!([1])));
    // What is written here has none.
    let own = fresh("compacter", &[("bottleneck-size", "4"), ("phm-dim", "2")]).unwrap();
    let written = tempfile::tempdir().unwrap();
    std::fs::write(
        written.path().join("adapter_config.json"),
        Value::Object(adapter(&own).config.clone()).to_string(),
    )
    .unwrap();
    std::fs::copy(golden.join("adapter.safetensors"), written.path().join("adapter.safetensors")).unwrap();
    assert_eq!(peft::open_adapter(written.path()).unwrap().1.unknown_keys(), [""; 0]);
}
