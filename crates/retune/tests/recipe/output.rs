//! The output folder: what is there is not lost, what is replaced is replaced whole.

use retune::TrainSettings;

use crate::run::{answers, model, refused, settings, train};
use crate::tiny::Tiny;

#[test]
fn another_run_is_not_replaced_unasked() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "full", "result")).unwrap();
    let before = tiny.files("result");
    let error = refused(&settings(&tiny, "lora", "result"));
    assert!(
        error.contains("it holds a finished run; give another --output, or --overwrite to replace it"),
        "{error}"
    );
    assert!(tiny.files("result") == before);
    // What else is wrong comes first, or each of it would cost another look at the folder.
    let wrong = TrainSettings { accumulation: Some(0), ..settings(&tiny, "lora", "result") };
    assert!(refused(&wrong).starts_with("--accumulation: "));
    tiny.write("odd.csv", "text,label\nmy card,pay\n");
    let wrong =
        TrainSettings { train: Some(vec![tiny.path("odd.csv")]), ..settings(&tiny, "lora", "result") };
    assert!(refused(&wrong).contains("odd.csv: expected at least two classes"));
    assert!(tiny.files("result") == before);

    // Asked for, nothing of it stays: neither the other form of result nor another base's tokenizer.
    std::fs::write(tiny.path("result/vocab.txt"), "[PAD]\n[UNK]\n").unwrap();
    std::fs::write(tiny.path("result/notes.txt"), "mine").unwrap();
    train(&TrainSettings { overwrite: Some(true), ..settings(&tiny, "lora", "result") }).unwrap();
    let expected = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "events.jsonl",
        "notes.txt",
        "retune.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(tiny.names("result"), expected);
    train(&TrainSettings { overwrite: Some(true), ..settings(&tiny, "pfeiffer", "result") }).unwrap();
    assert!(
        !tiny.path("result/adapter_model.safetensors").exists()
            && tiny.path("result/head_config.json").exists()
    );
    train(&TrainSettings { overwrite: Some(true), ..settings(&tiny, "lora", "result") }).unwrap();
    assert_eq!(tiny.names("result"), expected);
    train(&settings(&tiny, "lora", "clean")).unwrap();
    assert_eq!(answers(&model(tiny.path("result"))), answers(&model(tiny.path("clean"))));
}

#[test]
fn files_that_are_no_run_are_never_touched() {
    let tiny = Tiny::new();
    std::fs::create_dir(tiny.path("mine")).unwrap();
    tiny.write("mine/config.json", "{}");
    for overwrite in [None, Some(true)] {
        let error = refused(&TrainSettings { overwrite, ..settings(&tiny, "full", "mine") });
        assert!(error.contains("it holds files that are no run; give an empty or new folder"), "{error}");
        let error = refused(&TrainSettings { overwrite, ..settings(&tiny, "full", "train.csv") });
        assert!(error.contains("expected a folder for the result, got a file"), "{error}");
    }
    assert_eq!(tiny.names("mine"), ["config.json"]);
    // An empty folder, and one deep down that is not there, are fine.
    std::fs::create_dir(tiny.path("empty")).unwrap();
    train(&settings(&tiny, "head", "empty")).unwrap();
    train(&settings(&tiny, "head", "a/b/c")).unwrap();
}

#[test]
fn the_model_that_it_starts_from_is_not_replaced() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "full", "full")).unwrap();
    train(&TrainSettings { model: model(tiny.path("full")), ..settings(&tiny, "lora", "lora") }).unwrap();
    for (from, output) in [("full", "full"), ("lora", "lora"), ("lora", "lora/../full")] {
        let before = tiny.files(output);
        let settings = TrainSettings {
            model: model(tiny.path(from)),
            method: None,
            overwrite: Some(true),
            ..settings(&tiny, "", output)
        };
        let error = refused(&settings);
        assert!(error.contains("is the model that training starts from"), "{error}");
        assert!(tiny.files(output) == before);
    }
}
