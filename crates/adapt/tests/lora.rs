//! LoRA against `peft`: the adapters under `bert-classifier` were made by it (see `oracle/tiny_bert.py`), with B that is
//! not 0 and alpha that is not the rank. And adapters that are not what they should be.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod golden;

use std::collections::BTreeMap;
use std::path::Path;

use golden::{Case, folder, options, relative};
use retune_adapt::peft::{self, Adapter, Applied};
use retune_model::formats::{Weights, write_safetensors};
use serde_json::{Map, Value, json};

const BASE: &str = "bert-classifier";
const LAYER: &str = "base_model.model.bert.encoder.layer.1.attention.self.query";

fn load(folder: &Path, keep_head: bool) -> Result<Case, String> {
    let (method, files) = peft::open_adapter(folder).map_err(|e| e.to_string())?;
    assert_eq!(method.name(), "lora");
    Case::open(BASE, keep_head, |model| method.load(model, &files)).map_err(|e| e.to_string())
}

fn fresh(given: &[(&str, &str)]) -> Result<Case, String> {
    let lora = peft::find("lora").unwrap();
    Case::open(BASE, true, |model| lora.apply(model, &options(given))).map_err(|e| e.to_string())
}

fn adapter(case: &Case) -> &Adapter {
    match &case.applied {
        Applied::Adapter(adapter) => adapter,
        Applied::Model => panic!("LoRA is an adapter"),
    }
}

#[test]
fn logits_loss_and_gradients_are_those_of_peft() {
    for name in ["lora", "lora-rslora"] {
        let folder = folder(BASE).join(name);
        let case = load(&folder, true).unwrap();
        let expected = Weights::open(folder.join("expected.safetensors")).unwrap();
        let expect = |what: &str, got: &[f32]| {
            let error = relative(got, &expected.read_f32(what).unwrap());
            assert!(error < 1e-4, "{name}: {what}: relative error {error}");
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
        let without = relative(&Case::base(BASE, true).logits(), &expected.read_f32("logits").unwrap());
        assert!(without > 0.01, "{name}: the base alone is {without} away");
    }
}

#[test]
fn a_loaded_adapter_is_saved_under_the_names_it_had() {
    let folder = folder(BASE).join("lora-rslora");
    let case = load(&folder, false).unwrap();
    let mut saved = case.saved();
    saved.sort_unstable();
    let weights = Weights::open(folder.join("adapter_model.safetensors")).unwrap();
    assert_eq!(saved, weights.names().collect::<Vec<_>>());
    for (name, id) in &adapter(&case).tensors {
        assert_eq!(case.parameters.get(*id).value.f32(), weights.read_f32(name).unwrap(), "{name}");
    }
    let config = &adapter(&case).config;
    assert_eq!(
        (&config["r"], &config["lora_alpha"], &config["use_rslora"]),
        (&3.into(), &7.into(), &true.into())
    );
}

#[test]
fn a_fresh_branch_changes_nothing_and_everything_trained_has_a_gradient() {
    let base = Case::base(BASE, true).logits();
    let case = fresh(&[("rank", "3"), ("alpha", "7")]).unwrap();
    assert_eq!(case.logits(), base, "B is 0 at the start");

    let gradients = case.gradients();
    let trained: Vec<_> = case.parameters.trainable().map(|(id, _)| id).collect();
    assert_eq!(gradients.iter().map(|(id, _)| id).collect::<Vec<_>>(), trained);
    for (id, parameter) in case.parameters.trainable() {
        let largest = gradients.get(id).unwrap().f32().iter().fold(0.0f32, |max, g| max.max(g.abs()));
        // What comes back to A goes through B, which is still 0.
        assert_eq!(largest > 0.0, !parameter.name.contains("lora_A"), "{}: {largest}", parameter.name);
    }
    for (_, parameter) in case.parameters.trainable().filter(|(_, p)| p.name.contains("lora_A")) {
        let bound = 1.0 / (parameter.value.columns() as f32).sqrt();
        let largest = parameter.value.f32().iter().fold(0.0f32, |max, x| max.max(x.abs()));
        assert!(largest <= bound && largest > 0.8 * bound, "{}: {largest} of {bound}", parameter.name);
    }
}

#[test]
fn parameters_are_counted_as_the_paper_counts_them() {
    // Three blocks of width 20 and 37: four of r (20 + 20), two of r (20 + 37); and a head of 5.
    let head = 20 * 5 + 5;
    for (rank, targets, expected) in [
        ("3", "", 3 * (4 * 3 * 40 + 2 * 3 * 57) + head),
        ("1", "query,value", 3 * 2 * 40 + head),
        ("40", "intermediate.dense", 3 * 40 * 57 + head),
    ] {
        let case = fresh(&[("rank", rank), ("target-modules", targets)]).unwrap();
        assert_eq!(case.parameters.count().1, expected, "rank {rank} on `{targets}`");
    }
}

#[test]
fn a_layer_is_meant_by_the_end_of_its_name() {
    for (targets, sites) in [
        ("", 18),
        ("all-linear", 18),
        ("query", 3),
        ("query,value", 6),
        (" query , value ,", 6),
        ("attention.output.dense", 3),
        // Both `attention.output.dense` and `output.dense`, as in peft.
        ("output.dense", 6),
        ("dense", 9),
        ("bert.encoder.layer.2.output.dense", 1),
        ("bert.encoder.layer.2.output.dense,output.dense", 6),
    ] {
        let case = fresh(&[("target-modules", targets)]).unwrap();
        let branches = case.trained().iter().filter(|name| name.ends_with("lora_A.weight")).count();
        assert_eq!(branches, sites, "`{targets}`");
    }
    // `peft` is told the names within a block: its own `all-linear` would mean the pooler too.
    let modules = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"];
    for options in [&[][..], &[("target-modules", "all-linear")]] {
        let case = fresh(options).unwrap();
        let told = adapter(&case).config["target_modules"].as_array().unwrap();
        assert!(
            told.iter().zip(modules).all(|(told, module)| told.as_str().unwrap().ends_with(module)),
            "{told:?}"
        );
        assert_eq!(told.len(), modules.len());
    }
}

#[test]
fn peft_is_told_names_that_mean_the_chosen_layers_alone() {
    for (targets, told) in [
        ("query,value", json!(["query", "value"])),
        ("output.dense", json!(["output.dense"])),
        // `peft` would put a branch at `bert.pooler.dense` too.
        ("dense", json!(["attention.output.dense", "intermediate.dense", "output.dense"])),
        (
            "bert.encoder.layer.2.attention.self.query,output.dense,dense",
            json!([
                "bert.encoder.layer.2.attention.self.query",
                "output.dense",
                "attention.output.dense",
                "intermediate.dense"
            ]),
        ),
    ] {
        let case = fresh(&[("target-modules", targets)]).unwrap();
        assert_eq!(adapter(&case).config["target_modules"], told, "`{targets}`");
    }
}

#[test]
fn options_that_cannot_be_are_named() {
    for (name, value, expected) in [
        (
            "target-modules",
            "querry",
            "--target-modules: no linear layer's name ends with `querry`; did you mean `query`?",
        ),
        ("target-modules", "query,uery", "ends with `uery`"),
        ("target-modules", "pooler.dense", "ends with `pooler.dense`"),
        ("rank", "0", "--rank: expected 1 to 4096, got 0"),
        ("rank", "4097", "--rank: expected 1 to 4096, got 4097"),
        ("rank", "-1", "--rank: expected a whole number, got \"-1\""),
        ("rank", "8.5", "--rank: expected a whole number"),
        ("alpha", "0", "--alpha: expected a number above 0, got 0"),
        ("alpha", "NaN", "--alpha: expected a number, got \"NaN\""),
        ("dropout", "1", "--dropout: expected at least 0 and below 1, got 1"),
        // In f32 these are 1, 0 and infinite.
        ("dropout", "0.99999999", "--dropout: expected at least 0 and below 1, got 0.99999999"),
        ("alpha", "1e-60", "--alpha: expected a number above 0"),
        ("alpha", "1e60", "--alpha: expected a number above 0"),
        ("rslora", "yes", "--rslora: expected true or false, got \"yes\""),
        ("ranks", "8", "--ranks: the method `lora` has no such option; did you mean --rank?"),
        (
            "wings",
            "2",
            "--wings: the method `lora` has only --rank, --alpha, --dropout, --target-modules, --rslora",
        ),
    ] {
        let error = fresh(&[(name, value)]).err().unwrap_or_else(|| panic!("{name}={value} was taken"));
        assert!(error.contains(expected), "{name}={value}: {error}");
    }
    let mut mixed = Map::new();
    mixed.insert("target-modules".into(), json!(["query", 7]));
    let lora = peft::find("lora").unwrap();
    let error = Case::open(BASE, true, |model| lora.apply(model, &retune_adapt::Options(mixed)));
    let error = error.err().unwrap().to_string();
    assert!(error.starts_with("--target-modules: expected names"), "{error}");
}

/// The logits of fresh branches whose B is set to the same odd values.
fn with_b(given: &[(&str, &str)]) -> Vec<f32> {
    let mut case = fresh(given).unwrap();
    let names: Vec<String> = case.trained().iter().map(ToString::to_string).collect();
    for name in names.iter().filter(|name| name.contains("lora_B")) {
        case.set(name, |index| ((index * 37 % 11) as f32 - 5.0) * 0.03);
    }
    case.logits()
}

#[test]
fn the_scale_is_alpha_by_rank_or_by_its_root() {
    let plain = with_b(&[("rank", "3"), ("alpha", "7")]);
    let rslora = with_b(&[("rank", "3"), ("alpha", "7"), ("rslora", "true")]);
    // 7 / sqrt(3) = (7 sqrt(3)) / 3
    let same = with_b(&[("rank", "3"), ("alpha", "12.124355652982141")]);
    assert!(relative(&rslora, &same) < 1e-6, "{}", relative(&rslora, &same));
    assert!(relative(&rslora, &plain) > 1e-2, "{}", relative(&rslora, &plain));
    let config = &adapter(&fresh(&[("alpha", "7"), ("rslora", "true")]).unwrap()).config.clone();
    assert_eq!(
        (&config["use_rslora"], &config["lora_alpha"], &config["r"]),
        (&true.into(), &7.into(), &8.into())
    );
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The golden adapter with other tensors and another configuration, in `at`.
fn altered(at: &Path, change: impl FnOnce(&mut Tensors, &mut Map<String, Value>)) {
    let golden = folder(BASE).join("lora");
    let weights = Weights::open(golden.join("adapter_model.safetensors")).unwrap();
    let mut tensors: Tensors = weights
        .names()
        .map(|name| {
            (name.to_string(), (weights.info(name).unwrap().shape.clone(), weights.read_f32(name).unwrap()))
        })
        .collect();
    let config = std::fs::read_to_string(golden.join("adapter_config.json")).unwrap();
    let mut config = serde_json::from_str(&config).unwrap();
    change(&mut tensors, &mut config);
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, (shape, values))| (name.clone(), shape.clone(), values.as_slice()))
        .collect();
    write_safetensors(at.join("adapter_model.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    std::fs::write(at.join("adapter_config.json"), Value::Object(config).to_string()).unwrap();
}

#[test]
fn ranks_and_alphas_of_single_layers_are_followed() {
    let at = tempfile::tempdir().unwrap();
    // A branch of rank 4 whose last part is 0, scaled as 7/3 like the others.
    altered(at.path(), |tensors, config| {
        let (shape, a) = tensors.get_mut(&format!("{LAYER}.lora_A.weight")).unwrap();
        a.extend([9.0; 20]);
        *shape = vec![4, 20];
        let (shape, b) = tensors.get_mut(&format!("{LAYER}.lora_B.weight")).unwrap();
        *b = b.chunks(3).flat_map(|row| [row, &[0.0]].concat()).collect();
        *shape = vec![20, 4];
        config.insert("rank_pattern".into(), json!({"layer.1.attention.self.query": 4}));
        config.insert("alpha_pattern".into(), json!({"layer.1.attention.self.query": 28.0 / 3.0}));
    });
    let expected = load(&folder(BASE).join("lora"), true).unwrap().logits();
    let got = load(at.path(), true).unwrap().logits();
    assert!(relative(&got, &expected) < 1e-6, "{}", relative(&got, &expected));
}

#[test]
fn a_head_that_is_nowhere_is_an_error_and_one_of_the_base_is_kept() {
    let at = tempfile::tempdir().unwrap();
    altered(at.path(), |tensors, _| tensors.retain(|name, _| !name.contains("classifier")));
    let error = load(at.path(), false).err().unwrap();
    assert!(
        error.contains(
            "`base_model.model.classifier.weight` is missing, and the base does not have it either"
        ),
        "{error}"
    );
    let kept = load(at.path(), true).unwrap();
    let base = Case::base(BASE, true);
    let id = base.parameters.find("classifier.weight").unwrap();
    let kept_id = kept.parameters.find("classifier.weight").unwrap();
    assert_eq!(kept.parameters.get(kept_id).value.f32(), base.parameters.get(id).value.f32());
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    type Change = fn(&mut Tensors, &mut Map<String, Value>);
    let cases: [(Change, &str); 8] = [
        (|t, _| drop(t.remove(&format!("{LAYER}.lora_B.weight"))), "query.lora_B.weight` is missing"),
        (
            |t, _| drop(t.remove(&format!("{LAYER}.lora_A.weight"))),
            "query.lora_B.weight`: `base_model.model.bert.encoder.layer.1.attention.self.query.lora_A.weight`, which \
             belongs to it, is missing",
        ),
        (
            |t, _| drop(t.insert(format!("{LAYER}.lora_A.weight"), (vec![3, 21], vec![0.5; 63]))),
            "query.lora_A.weight` should have shape [3, 20], has [3, 21]",
        ),
        (
            |t, _| drop(t.insert(format!("{LAYER}.lora_B.weight"), (vec![20, 2], vec![0.5; 40]))),
            "query.lora_B.weight` should have shape [20, 3], has [20, 2]",
        ),
        (
            |t, _| drop(t.insert(format!("{LAYER}.lora_A.weight"), (vec![0, 20], vec![]))),
            "query.lora_A.weight` should have shape [1, 20], has [0, 20]",
        ),
        (
            |t, _| drop(t.insert("base_model.model.classifier.weight".into(), (vec![4, 20], vec![0.5; 80]))),
            "classifier.weight` should have shape [5, 20], has [4, 20]",
        ),
        (
            |t, _| {
                let values = (vec![3, 20], vec![0.5; 60]);
                t.insert(LAYER.replace("layer.1", "layer.7") + ".lora_A.weight", values);
            },
            "layer.7.attention.self.query.lora_A.weight` has no place in the base",
        ),
        (
            |t, _| {
                *t = std::mem::take(t).into_iter().map(|(n, v)| (n.replace("bert", "roberta"), v)).collect()
            },
            "no tensor of it fits a layer of the base: was it made for another model?",
        ),
    ];
    for (change, expected) in cases {
        let at = tempfile::tempdir().unwrap();
        altered(at.path(), change);
        let error = load(at.path(), true).err().unwrap_or_else(|| panic!("taken, but: {expected}"));
        assert!(error.contains(expected) && error.contains(at.path().to_str().unwrap()), "{error}");
    }
}

#[test]
fn all_tensors_that_do_not_fit_stand_in_one_message() {
    let at = tempfile::tempdir().unwrap();
    altered(at.path(), |tensors, _| {
        tensors.remove(&format!("{LAYER}.lora_B.weight"));
        tensors.remove(&format!("{}.lora_A.weight", LAYER.replace("query", "value")));
        tensors.insert("base_model.model.classifier.weight".into(), (vec![4, 20], vec![0.5; 80]));
        tensors.remove("base_model.model.classifier.bias");
        tensors.insert("ärmel".into(), (vec![1], vec![0.5]));
    });
    let error = load(at.path(), false).err().unwrap();
    let lines: Vec<&str> = error.lines().map(str::trim).collect();
    assert!(lines[0].ends_with("5 tensors do not fit:"), "{error}");
    for expected in [
        "query.lora_B.weight` is missing",
        "value.lora_A.weight`, which belongs to it, is missing",
        "classifier.weight` should have shape [5, 20], has [4, 20]",
        "classifier.bias` is missing, and the base does not have it either, so it would be random",
        "`ärmel` has no place in the base",
    ] {
        assert_eq!(
            lines[1..].iter().filter(|line| line.contains(expected)).count(),
            1,
            "{expected}: {error}"
        );
    }

    // A type that is no weight is one of them.
    altered(at.path(), |_, _| {});
    let file = at.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = std::str::from_utf8(&bytes[8..header]).unwrap().replace("F32", "I32");
    std::fs::write(&file, [&bytes[..8], text.as_bytes(), &bytes[header..]].concat()).unwrap();
    let error = load(at.path(), true).err().unwrap();
    assert!(
        error.contains("38 tensors do not fit:") && error.contains("` is of type I32, which counts"),
        "{error}"
    );
}

#[test]
fn configurations_of_another_kind_are_refused() {
    for (key, value, expected) in [
        ("peft_type", json!("BOFT"), "adapters of type \"BOFT\" are not read"),
        ("peft_type", Value::Null, "adapters of type null are not read"),
        ("use_qalora", json!(true), "`use_qalora` is set, and that kind of LoRA is not read"),
        ("lora_bias", json!(true), "`lora_bias` is set"),
        ("fan_in_fan_out", json!(true), "`fan_in_fan_out` is set"),
        ("bias", json!("all"), "`bias`: expected \"none\", got \"all\""),
        ("bias", json!("lora_only"), "`bias`: expected \"none\", got \"lora_only\""),
        ("lora_alpha", Value::Null, "`lora_alpha` is missing"),
        ("lora_alpha", json!("16"), "`lora_alpha`: expected a number, got \"16\""),
        ("lora_dropout", json!(1.0), "`lora_dropout`: expected at least 0 and below 1, got 1"),
        ("alpha_pattern", json!({"query": "big"}), "`alpha_pattern.query`: expected a number, got \"big\""),
        ("alpha_pattern", json!({"query": 1e300}), "`alpha_pattern.query`: expected a number, got 1e"),
        // `peft` takes it for a regular expression, with another meaning.
        (
            "alpha_pattern",
            json!({"value": 2, r"layer\.(0|1)\..*": 4}),
            r"`alpha_pattern.layer\.(0|1)\..*`: expected",
        ),
        ("alpha_pattern", json!({"query": 2, "qery": 4}), "`alpha_pattern.qery`: no layer with a branch"),
        (
            "lora_dropout",
            json!(0.999_999_99),
            "`lora_dropout`: expected at least 0 and below 1, got 0.99999999",
        ),
        ("lora_alpha", json!(1e300), "`lora_alpha`: expected a number, got 1e"),
        ("alpha_pattern", json!([1]), "`alpha_pattern`: expected an object, got [1]"),
        // These change the base's own weights, or what the branch computes.
        ("init_lora_weights", json!("pissa_niter_4"), "`init_lora_weights`"),
        ("init_lora_weights", json!("olora"), "`init_lora_weights`"),
        ("kasa_config", json!({"beta": 0.1}), "`kasa_config` is set"),
    ] {
        let at = tempfile::tempdir().unwrap();
        altered(at.path(), |_, config| drop(config.insert(key.into(), value.clone())));
        let error = load(at.path(), true).err().unwrap_or_else(|| panic!("{key}={value} was taken"));
        assert!(error.contains(expected) && error.contains(at.path().to_str().unwrap()), "{key}: {error}");
    }
    for harmless in [json!(true), json!(false), json!("gaussian"), json!("eva"), Value::Null] {
        let at = tempfile::tempdir().unwrap();
        altered(at.path(), |_, config| drop(config.insert("init_lora_weights".into(), harmless.clone())));
        assert!(load(at.path(), true).is_ok(), "init_lora_weights {harmless}");
    }
}

#[test]
fn files_that_are_no_adapter_are_refused() {
    let open = |at: &Path| peft::open_adapter(at).err().unwrap().to_string();
    let at = tempfile::tempdir().unwrap();
    let path = at.path();
    let error = open(path);
    assert!(error.contains("adapter_config.json: cannot read"), "{error}");

    std::fs::write(path.join("adapter_config.json"), "{\"r\": 8,\n oops}").unwrap();
    let error = open(path);
    assert!(error.contains("adapter_config.json: line 2, column 2: expected a JSON object"), "{error}");

    std::fs::write(path.join("adapter_config.json"), "{\"peft_type\": \"LORA\"}").unwrap();
    let error = open(path);
    assert!(error.contains("adapter_model.safetensors"), "{error}");

    std::fs::write(path.join("adapter_model.bin"), b"PK\x03\x04").unwrap();
    let error = open(path);
    assert!(error.contains("a pickle, which is never loaded"), "{error}");

    std::fs::write(path.join("adapter_model.safetensors"), [9; 40]).unwrap();
    let error = open(path);
    assert!(error.contains("adapter_model.safetensors"), "{error}");
}
