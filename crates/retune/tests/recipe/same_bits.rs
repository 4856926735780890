//! The same seed gives the same bytes: again, and on other numbers of threads.

use std::collections::BTreeMap;

use retune::{METHODS, TrainSettings};

use crate::run::{answers, difference, model, settings, train};
use crate::tiny::Tiny;

fn on(threads: usize, settings: &TrainSettings) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| train(settings)).unwrap();
}

#[test]
fn results_are_the_same_bytes_on_any_number_of_threads() {
    let tiny = Tiny::new();
    for method in METHODS.iter().map(|method| method.name()) {
        let runs = [("one", 1), ("again", 1), ("two", 2), ("three", 3)];
        for (output, threads) in runs {
            let output = format!("{method}-{output}");
            // By tokens, and with a split of its own: every draw of a run is in it.
            let settings = TrainSettings {
                eval: None,
                eval_split: Some(0.2),
                batch_size: None,
                batch_tokens: Some(60),
                ..settings(&tiny, method, &output)
            };
            on(threads, &settings);
        }
        let first = tiny.files(&format!("{method}-one"));
        for (output, _) in &runs[1..] {
            let other = tiny.files(&format!("{method}-{output}"));
            assert_eq!(first.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
            for (name, bytes) in &first {
                assert!(*bytes == other[name], "{method}: {name} differs: {output}");
            }
        }
    }
}

#[test]
fn bf16_gives_the_same_bytes_and_a_model_like_that_of_f32() {
    let tiny = Tiny::new();
    for method in METHODS.iter().map(|method| method.name()) {
        let run = |output: &str, precision: &str, threads: usize| {
            let output = format!("{method}-{output}");
            let mut settings = settings(&tiny, method, &output);
            settings.model.precision = Some(precision.into());
            on(threads, &settings);
            let files = tiny.files(&output);
            let weights: BTreeMap<_, _> =
                files.into_iter().filter(|(name, _)| name.ends_with(".safetensors")).collect();
            (weights, answers(&model(tiny.path(&output))))
        };
        let (one, two) = (run("one", "bf16", 1), run("two", "bf16", 2));
        assert!(one.0 == two.0 && !one.0.is_empty(), "{method}: other bits on two threads");
        let apart = difference(&one.1, &run("f32", "f32", 1).1);
        assert!(apart < 0.35, "{method}: {apart}");
    }
}

#[test]
fn blocks_computed_once_more_give_the_same_bytes() {
    let tiny = Tiny::new();
    for method in METHODS.iter().map(|method| method.name()) {
        // With its dropouts, and with updates in the backward.
        let run = |recompute: bool| {
            let output = format!("{method}-{recompute}");
            train(&TrainSettings {
                recompute: Some(recompute),
                max_grad_norm: Some(0.0),
                ..settings(&tiny, method, &output)
            })
            .unwrap();
            tiny.files(&output).into_iter().filter(|(name, _)| name.ends_with(".safetensors"))
        };
        let (kept, again): (BTreeMap<_, _>, BTreeMap<_, _>) = (run(false).collect(), run(true).collect());
        assert!(kept == again && !kept.is_empty(), "{method}");
    }
}

#[test]
fn another_seed_gives_another_result() {
    let tiny = Tiny::new();
    for method in ["full", "lora", "adalora"] {
        for (seed, output) in [(1, "one"), (2, "two")] {
            let output = format!("{method}-{output}");
            train(&TrainSettings { seed: Some(seed), ..settings(&tiny, method, &output) }).unwrap();
        }
        let [one, two] = ["one", "two"].map(|name| answers(&model(tiny.path(&format!("{method}-{name}")))));
        assert!(difference(&one, &two) > 1e-3, "{method}");
    }
}

#[test]
fn a_step_in_parts_is_the_step_in_one() {
    let tiny = Tiny::new();
    for method in METHODS.iter().map(|method| method.name()) {
        let of = |size: usize, parts: usize| {
            let output = format!("{method}-{size}-{parts}");
            // Dropout stays on: its draws belong to the row, not to the batch.
            let settings = TrainSettings {
                batch_size: Some(size),
                accumulation: Some(parts),
                class_weights: Some("balanced".into()),
                keep: Some("last".into()),
                learning_rate: Some(1e-3),
                ..settings(&tiny, method, &output)
            };
            let (report, ear) = train(&settings).unwrap();
            assert_eq!(report.kept_step, 18);
            (answers(&model(tiny.path(&output))), ear.losses())
        };
        let (whole, losses) = of(8, 1);
        for (size, parts) in [(2, 4), (1, 8)] {
            let (parted, part_losses) = of(size, parts);
            let apart = difference(&whole, &parted);
            assert!(apart < 2e-3, "{method}: {parts} parts: {apart}");
            // The first steps, before rounding has had time to grow.
            for (a, b) in losses.iter().zip(&part_losses).take(3) {
                assert!((a - b).abs() < 1e-5 * a, "{method}: {parts} parts: {a} {b}");
            }
        }
    }
}
