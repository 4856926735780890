//! An adapter and its base: found, moved, changed.

use retune::{ModelSettings, inspect};

use crate::run::{answers, difference, model, refused, score, settings, train};
use crate::tiny::Tiny;

#[test]
fn an_adapter_is_refused_on_another_base() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "lora", "lora")).unwrap();
    let before = answers(&model(tiny.path("lora")));
    tiny.model("base", 2, |_| ());
    let error = score(&model(tiny.path("lora")), &tiny, "test.csv").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let error = error.to_string();
    assert!(
        error.contains("its weights are not those that") && error.contains("--allow-other-base"),
        "{error}"
    );
    let hashes = error.split_whitespace().filter(|word| word.trim_matches([',', ';']).len() == 64).count();
    assert_eq!(hashes, 2, "{error}");

    let allowed = ModelSettings { allow_other_base: Some(true), ..model(tiny.path("lora")) };
    assert!(difference(&before, &answers(&allowed)) > 1e-3);
    let mut next = settings(&tiny, "lora", "next");
    next.model = model(tiny.path("lora"));
    let error = refused(&next);
    assert!(error.contains("--allow-other-base"), "{error}");
    assert!(!tiny.path("next").exists());
}

#[test]
fn a_base_that_moved_is_told_with_a_flag() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "lora", "lora")).unwrap();
    let before = answers(&model(tiny.path("lora")));
    std::fs::rename(tiny.path("base"), tiny.path("moved é")).unwrap();
    let error = score(&model(tiny.path("lora")), &tiny, "test.csv").unwrap_err().to_string();
    assert!(error.contains("base` is not there; give its folder with --base"), "{error}");
    let moved = ModelSettings { base: Some(tiny.path("moved é")), ..model(tiny.path("lora")) };
    assert_eq!(answers(&moved), before);
    let inspected = inspect::inspect(&tiny.path("lora"), Some(&tiny.path("moved é"))).unwrap();
    assert_eq!((inspected.what, inspected.base), ("adapter", Some(tiny.path("moved é"))));
    // A whole model has none.
    let whole = ModelSettings { base: Some(tiny.path("moved é")), ..model(tiny.path("moved é")) };
    let error = score(&whole, &tiny, "test.csv").unwrap_err().to_string();
    assert!(error.starts_with("--base: ") && error.contains("is a whole model"), "{error}");
}

#[test]
fn an_adapter_without_its_head_is_refused() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "lora", "lora")).unwrap();
    let path = tiny.path("lora/adapter_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    // The same length, so that the file stays sound.
    let text = String::from_utf8_lossy(&bytes[..6000.min(bytes.len())]).into_owned();
    let at = text.find("model.classifier.weight").unwrap();
    let mut renamed = bytes;
    renamed[at..at + 16].copy_from_slice(b"model.klassifier");
    std::fs::write(&path, renamed).unwrap();
    let error = retune::TextModel::open(&model(tiny.path("lora"))).err().unwrap();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("`base_model.model.classifier.weight` is missing"), "{error}");
}

#[test]
fn a_base_without_a_head_gives_no_answers() {
    let tiny = Tiny::new();
    let error = score(&model(tiny.path("base")), &tiny, "test.csv").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let error = error.to_string();
    assert!(error.contains("`classifier.weight` is missing") && error.contains("retune train"), "{error}");
}

#[test]
fn what_lies_in_a_folder_is_told() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "lora", "lora")).unwrap();
    train(&settings(&tiny, "full", "full")).unwrap();
    let base = inspect::inspect(&tiny.path("base"), None).unwrap();
    assert_eq!((base.what, base.model_type.as_str(), base.labels), ("model", "bert", None));
    assert_eq!(base.sizes["hidden_size"], 18);
    let full = inspect::inspect(&tiny.path("full"), None).unwrap();
    assert_eq!(full.labels.as_ref().map(Vec::len), Some(3));
    assert_eq!(full.parameters, base.parameters + 18 * 3 + 3);
    assert_eq!(full.tensors["classifier.weight"], [3, 18]);
    let lora = inspect::inspect(&tiny.path("lora"), None).unwrap();
    assert_eq!((lora.what, lora.labels), ("adapter", full.labels));
    assert_eq!(lora.base.unwrap().canonicalize().unwrap(), tiny.path("base").canonicalize().unwrap());
    assert_eq!(lora.card.unwrap().method, "lora");
    assert_eq!(lora.dtypes, ["F32"]);
}
