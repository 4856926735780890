//! A run's own files that lie: whatever stands in them, a run goes on soundly, starts again or is refused with words.

mod checkpoints;
mod linear;
mod run_files;

#[path = "../../../../tests/fuzz/mod.rs"]
mod fuzzer;

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::Card;

/// What a run says of itself.
fn card() -> Card {
    let sha256 = "b4008887b71bbf6d5ca4d51561f7621957e9b075ee16e9aef27cf218ce4d2b1f";
    let card = json!({
        "format_version": 1,
        "retune_version": "0.1.0",
        "task": "text-classification",
        "method": "lora",
        "problem_type": "multi_label_classification",
        "labels": ["转账", "pay", "é"],
        "thresholds": [0.5, 0.25, 0.75],
        "max_length": 24,
        "columns": {"text": "text", "pair": "text2", "label": "label", "label_separator": "|"},
        "base": {"path": "owner/name", "revision": "0123456789abcdef0123456789abcdef01234567", "sha256": sha256},
        "train": {"path": "/rows.csv", "sha256": sha256, "rows": 72},
        "eval": {"path": "/test.csv", "sha256": sha256, "rows": 31},
        "settings": {"epochs": 2.0, "seed": 1, "batching": {"rows": 7}, "save_every": 3, "on_spike": "rewind",
            "method_options": {"rank": 4, "target_modules": "query,value"}},
        "receipt": {"step": 18, "on": "test.csv", "rows": 31, "loss": 0.25, "metrics": {"f1_micro": 0.875}},
    });
    serde_json::from_value(card).unwrap()
}

fn is_said(error: impl std::fmt::Display) {
    let words = error.to_string();
    assert!(!words.is_empty() && words.len() < 100_000, "{} bytes of words", words.len());
}

/// Makes a folder with the same files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}
