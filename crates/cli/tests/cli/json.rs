//! `--json`: one document on stdout and nothing else there, for every verb and every failure.

use std::io::Read;
use std::process::Stdio;

use crate::command::{command, retune, train};
use crate::tiny::Tiny;

/// What the document of a verb holds at least.
fn holds(document: &serde_json::Value, keys: &[&str]) {
    for key in keys {
        assert!(!document[key].is_null(), "{key}: {document}");
    }
}

#[test]
fn every_verb_gives_one_document() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    let trained = train(&tiny, "result", &["--json", "--eval", &path("test.csv")]).succeeded();
    let document = trained.json();
    holds(
        &document,
        &[
            "method",
            "trainable_parameters",
            "total_parameters",
            "train_seconds",
            "real_tokens",
            "tokens_per_second",
            "peak_memory_bytes",
            "metrics",
            "output",
            "labels",
        ],
    );
    let accuracy = document["metrics"]["accuracy"].as_f64().unwrap();
    assert!(document["metrics"]["f1_macro"].is_number());
    // People read on stderr what was found and chosen.
    assert!(trained.stderr.contains("text column `text`") && trained.stderr.contains("next:"));

    let evaluated =
        retune(&["evaluate", "--model", &path("result"), "--data", &path("test.csv"), "--json"]).succeeded();
    let document = evaluated.json();
    holds(&document, &["metrics", "rows", "seconds", "labels", "confusion_matrix"]);
    assert_eq!(document["metrics"]["accuracy"].as_f64().unwrap().to_bits(), accuracy.to_bits());
    assert_eq!(document["rows"], 31);

    let (input, output) = (path("test.csv"), path("out.jsonl"));
    let predicted =
        retune(&["predict", "--model", &path("result"), "--input", &input, "--output", &output, "--json"]);
    let document = predicted.succeeded().json();
    holds(&document, &["rows", "seconds"]);
    assert_eq!(document["rows"], 31);
    assert_eq!(std::fs::read_to_string(tiny.path("out.jsonl")).unwrap().lines().count(), 31);

    let said =
        retune(&["--json", "predict", "--model", &path("result"), "--text", "my card", "--text", "丢了"]);
    let document = said.succeeded().json();
    assert_eq!(document["predictions"][1]["text"], "丢了");
    assert!(document["predictions"][0]["label"].is_string());

    let document = retune(&["inspect", &path("result"), "--json"]).succeeded().json();
    holds(&document, &["what", "model_type", "parameters", "labels", "card", "tensors"]);
    let document = retune(&["methods", "--json"]).succeeded().json();
    let names: Vec<_> = document["methods"].as_array().unwrap().iter().map(|m| m["name"].clone()).collect();
    let expected: Vec<_> = retune::METHODS.iter().map(|method| method.name()).collect();
    assert_eq!(names, expected);
    holds(&document, &["tasks", "families"]);
}

#[test]
fn every_failure_gives_one_document_too() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    let (base, rows) = (path("base"), path("test.csv"));
    for arguments in [
        &["train", "--json"][..],
        &["train", "--model", &base, "--train", "no.csv", "--output", &path("x"), "--json"],
        &["evaluate", "--model", &base, "--data", &rows, "--json"],
        &["predict", "--model", "/no/such/model", "--text", "a", "--json"],
        &["inspect", "/no/such/model", "--json"],
        // What the parser of the command line refuses.
        &["evaluate", "--model", &base, "--json"],
        &["train", "--json", "--epocs", "3"],
        &["train", "--json", "--epochs", "many"],
        &["--json", "trian"],
        &["--json"],
    ] {
        let failed = retune(arguments);
        assert_eq!(failed.code, 2, "{arguments:?}: {}", failed.stderr);
        let document = failed.json();
        assert_eq!(document["exit_code"], 2);
        let message = document["error"].as_str().unwrap();
        assert!(!message.is_empty() && !message.starts_with("error"), "{arguments:?}: {message}");
        assert!(failed.stderr.contains(message.lines().next().unwrap()), "{arguments:?}: {}", failed.stderr);
    }
}

#[test]
fn without_it_results_are_text_and_errors_leave_stdout_empty() {
    let tiny = Tiny::new();
    let trained = train(&tiny, "result", &[]).succeeded();
    assert!(trained.stdout.contains("trained ") && trained.stdout.contains("accuracy"), "{}", trained.stdout);
    let result = tiny.path("result").display().to_string();
    let said = retune(&["predict", "--model", &result, "--text", "my card"]).succeeded();
    assert!(said.stdout.ends_with("my card\n"), "{}", said.stdout);
    assert_eq!(retune(&["inspect", "/no/such"]).refused("there is no such folder").stdout, "");
    assert_eq!(retune(&["evaluate"]).refused("--data").stdout, "");
}

#[test]
fn nobody_reading_is_no_reason_to_panic() {
    for arguments in
        [&["methods"][..], &["methods", "--json"], &["--help"], &["train", "--help"], &["trian", "--json"]]
    {
        let mut child =
            command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The pipe is closed before anything can be written to it, or soon after.
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let status = child.wait().unwrap();
        assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
        assert!(status.code().is_some(), "{arguments:?}: killed");
    }
    // A closed stderr neither.
    let mut child = command().args(["inspect", "/no/such"]).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn two_models_are_compared_row_by_row() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    train(&tiny, "one", &["--eval-split", "0", "--epochs", "9"]).succeeded();
    train(&tiny, "other", &["--eval-split", "0", "--method", "head"]).succeeded();
    let compare = |one: &str, other: &str| {
        let models = ["evaluate", "--model", &path(one), "--compare", &path(other)];
        retune(&[&models[..], &["--data", &path("test.csv"), "--json"]].concat()).succeeded().json()
    };
    let there = compare("one", "other");
    let comparison = &there["comparison"];
    assert_eq!(
        (&comparison["metric"], &comparison["first"]),
        (&"accuracy".into(), &there["metrics"]["accuracy"])
    );
    let number = |document: &serde_json::Value, key: &str| document["comparison"][key].as_f64().unwrap();
    let back = compare("other", "one");
    assert!((number(&there, "difference") + number(&back, "difference")).abs() < 1e-12);
    assert!(number(&there, "p_value") > 0.0 && number(&there, "p_value") <= 1.0);
    let same = compare("one", "one");
    assert_eq!((number(&same, "difference"), number(&same, "p_value")), (0.0, 1.0));
}
