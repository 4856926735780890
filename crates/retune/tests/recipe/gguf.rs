//! A GGUF file as a base: trained on, evaluated, planned and inspected from the file itself.

use std::fs;
use std::path::Path;

use retune::inspect::inspect;
use retune::{Card, METHODS, ModelSettings, TrainSettings, doctor, plan};

use crate::run::{Ear, model, score, settings, train};
use crate::tiny::{Tiny, chats};

/// A folder with a language model in one file, and chats.
fn tiny() -> Tiny {
    let tiny = Tiny::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/gguf/smollm.gguf");
    fs::copy(file, tiny.path("base.gguf")).unwrap();
    tiny.write("chats.jsonl", chats(0..40));
    tiny.write("test.jsonl", chats(100..116));
    tiny
}

fn chat(tiny: &Tiny, method: &str) -> TrainSettings {
    TrainSettings {
        model: model(tiny.path("base.gguf")),
        train: Some(vec![tiny.path("chats.jsonl")]),
        eval: Some(vec![tiny.path("test.jsonl")]),
        max_length: Some(96),
        ..settings(tiny, method, method)
    }
}

#[test]
fn a_file_is_a_base_and_results_say_which() {
    let tiny = tiny();
    let untrained = score(&model(tiny.path("base.gguf")), &tiny, "test.jsonl").unwrap();
    for method in ["lora", "dora", "full"] {
        let given = chat(&tiny, method);
        let (report, _) = train(&given).unwrap();
        let trained = score(&model(tiny.path(method)), &tiny, "test.jsonl").unwrap();
        let [said, measured] = [report.metrics.unwrap()["loss"], trained.metrics.values["loss"]];
        assert_eq!(said.to_bits(), measured.to_bits(), "{method}");
        assert!(measured.is_finite() && measured.to_bits() != untrained.metrics.values["loss"].to_bits());
        let card = Card::open(&tiny.path(method)).unwrap().unwrap();
        assert!(card.base.path.ends_with("base.gguf"), "{:?}", card.base);
        let whole = tiny.path(method).join("model.safetensors").is_file();
        assert_eq!(whole, method == "full");
        for name in
            ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"]
        {
            assert!(tiny.path(method).join(name).is_file(), "{method}: {name}");
        }
    }
    let inspected = inspect(&tiny.path("base.gguf"), None).unwrap();
    assert_eq!((inspected.what, inspected.model_type.as_str()), ("model", "llama"));
    assert_eq!(inspected.dtypes, ["F32", "Q4_0", "Q8_0"]);
    doctor(&chat(&tiny, "lora"), &mut Ear::default()).unwrap();
    plan(&chat(&tiny, "lora"), None, &mut Ear::default()).unwrap();
    // Another file in its place is another base.
    let mut bytes = fs::read(tiny.path("base.gguf")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(tiny.path("base.gguf"), bytes).unwrap();
    let error = score(&model(tiny.path("lora")), &tiny, "test.jsonl").unwrap_err().to_string();
    assert!(error.contains("its weights are not those that"), "{error}");
    // A whole result needs no base.
    score(&model(tiny.path("full")), &tiny, "test.jsonl").unwrap();
}

#[test]
fn every_method_trains_on_blocks() {
    let tiny = tiny();
    for method in METHODS.iter().map(|method| method.name()) {
        let few = ["lora", "dora", "houlsby"].contains(&method);
        for kept in ["as-is", "nf4", "int8"] {
            let run = |output: &str, threads: usize| {
                let mut given = TrainSettings { epochs: Some(1.0), ..chat(&tiny, method) };
                given.model.base_precision = Some(kept.into());
                given.output = Some(tiny.path(output));
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let (report, ear) = pool.install(|| train(&given)).unwrap();
                assert!(ear.losses().iter().all(|loss| loss.is_finite()), "{output}");
                (report, ear)
            };
            let output = format!("{method}-{kept}");
            let (report, ear) = run(&output, 1);
            // A result that holds the whole base has it in f32.
            let whole = tiny.path(&output).join("model.safetensors").is_file();
            assert_eq!(ear.heard("are kept in blocks ("), !whole, "{output}: {:?}", ear.said);
            // What is saved is what was evaluated, on the base as it was kept.
            let kept_so = ModelSettings { base_precision: Some(kept.into()), ..model(tiny.path(&output)) };
            let kept_so = if whole { model(tiny.path(&output)) } else { kept_so };
            let again = score(&kept_so, &tiny, "test.jsonl").unwrap();
            let [said, measured] = [report.metrics.unwrap()["loss"], again.metrics.values["loss"]];
            assert_eq!(said.to_bits(), measured.to_bits(), "{output}");
            if few && kept == "nf4" {
                run(&format!("{output}-two"), 2);
                let weights = |output: &str| {
                    let files = tiny.files(output).into_iter();
                    files.filter(|(name, _)| name.ends_with(".safetensors")).collect::<Vec<_>>()
                };
                assert!(
                    weights(&output) == weights(&format!("{output}-two")),
                    "{output}: other bits on two threads"
                );
            }
        }
    }
    let mut given = chat(&tiny, "lora");
    given.model.base_precision = Some("nf8".into());
    let error = train(&given).map(drop).unwrap_err().to_string();
    assert!(error.contains("expected one of f32, bf16, int8, nf4, as-is, got nf8"), "{error}");
}

#[test]
fn blocks_compute_what_the_widened_base_does() {
    let tiny = tiny();
    let loss = |base_precision: &str| {
        let base_precision = Some(base_precision.to_string());
        let settings = ModelSettings { base_precision, ..model(tiny.path("base.gguf")) };
        score(&settings, &tiny, "test.jsonl").unwrap().metrics.values["loss"]
    };
    let (blocks, wide) = (loss("as-is"), loss("f32"));
    assert_eq!(blocks.to_bits(), wide.to_bits());
    for (name, most) in [("int8", 0.01), ("nf4", 0.1), ("bf16", 0.01)] {
        let apart = (loss(name) / wide - 1.0).abs();
        assert!(apart > 0.0 && apart < most, "{name}: {apart}");
    }
}
