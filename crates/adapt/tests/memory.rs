//! What rows cost in memory: a base, however many they are, and a few bytes each.

use std::fmt::Write;
use std::path::Path;

use retune_adapt::tasks::{self, FormSettings, LossOptions, Reading, Thresholds};
use retune_model::tokenizer::Tokenizer;
use retune_tensor::memory;

/// Rows, tokens, windows and tags are each in memory up to 4 MiB; the rest is for what is there for a moment.
const BASE: usize = 32 << 20;

/// Sentences of so many words; each took about 3 KiB when all was in memory.
const ROWS: usize = 24_000;
const WORDS: usize = 18;

#[test]
fn sentences_cost_a_base_and_at_most_64_bytes_each() {
    let Some(start) = memory::resident() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.conll");
    let mut text = String::new();
    for row in 0..ROWS {
        for word in 0..WORDS {
            let tag = ["O", "O", "B-card", "I-card", "B-pay", "O"][(row + word) % 6];
            writeln!(text, "{}\t{tag}", ["my", "lost", "card", "payment", "1"][(row * word) % 5]).unwrap();
        }
        writeln!(text, "{row}\tO\n").unwrap();
    }
    std::fs::write(&path, text).unwrap();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/tokenizer/uncased");
    let tokenizer = Tokenizer::open(tokenizer).unwrap();
    let task = tasks::find("token-classification").unwrap();
    let reading = Reading { labelled: true, ..Reading::default() };
    let read = task.read(std::slice::from_ref(&path), &reading).unwrap();
    let settings = FormSettings {
        problem_type: Default::default(),
        labels: read.file.labels(&read.examples).unwrap(),
        thresholds: Thresholds::Tune,
        questions: Default::default(),
        language: Default::default(),
    };
    let form = task.form(settings).unwrap();
    let tokens = form.tokens(&read.examples, &tokenizer, 128).unwrap();
    let targets = form.targets(&read.examples, &tokens, &path, LossOptions::default()).unwrap();
    let held = memory::resident().unwrap().current.saturating_sub(start.current);
    assert_eq!((tokens.examples(), targets.denominator(&[0]) as usize), (ROWS, WORDS + 1));
    assert!(held < BASE + 64 * ROWS, "{held} bytes for {ROWS} rows");
}
