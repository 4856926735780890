//! A loss that is no number stops the run, says where, and keeps what was good.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use retune::{Event, TrainSettings, predict};

use crate::round_trip::files;
use crate::run::{Ear, model, refused, score, settings, train};
use crate::tiny::Tiny;

/// Every value in a safetensors file of f32, and its tensors' names.
fn read(path: &Path) -> (Vec<f32>, Vec<String>) {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let values = bytes[8 + length..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
    (
        values.collect(),
        header.into_iter().map(|(name, _)| name).filter(|name| name != "__metadata__").collect(),
    )
}

const LAST_GOOD: &str = "checkpoints/last-good";

/// The last good weights of the run in `output`.
fn weights(tiny: &Tiny, output: &str) -> PathBuf {
    let folder = tiny.path(output).join(LAST_GOOD);
    let names = ["adapter_model.safetensors", "adapter.safetensors", "model.safetensors"];
    names.map(|name| folder.join(name)).into_iter().find(|path| path.is_file()).unwrap()
}

/// The step and the lines that an error names.
fn place(error: &str) -> (usize, Vec<usize>) {
    let number = |text: &str| text.split([',', '.', ':', ';']).next().unwrap().parse().unwrap();
    let step = error.split("step ").nth(1).map(number).unwrap();
    (step, error.split("line ").skip(1).map(number).collect())
}

#[test]
fn the_rows_are_named_and_the_weights_before_them_are_kept() {
    let tiny = Tiny::new();
    // A token of six rows.
    tiny.poison(89);
    let rows = std::fs::read_to_string(tiny.path("train.csv")).unwrap();
    let bad: Vec<usize> =
        (1..).zip(rows.lines()).filter(|(_, row)| row.contains('丢')).map(|(at, _)| at).collect();
    assert_eq!(bad.len(), 6);
    for method in retune::METHODS.iter().map(|method| method.name()) {
        let error = refused(&settings(&tiny, method, method));
        assert!(error.starts_with(&format!("{}: step ", tiny.path("train.csv").display())), "{error}");
        assert!(error.contains("the loss is NaN; rows of this step: line "), "{method}: {error}");
        assert!(error.contains("checkpoints/last-good. try a lower --learning-rate"), "{error}");
        let (step, lines) = place(&error);
        assert!(lines.len() == 7 && lines.iter().any(|line| bad.contains(line)), "{lines:?} {bad:?}");

        let (mut values, mut names) = read(&weights(&tiny, method));
        let head = tiny.path(method).join(LAST_GOOD).join("model_head.safetensors");
        if head.exists() {
            let (more, others) = read(&head);
            values.extend(more);
            names.extend(others);
        }
        assert!(values.iter().all(|value| value.is_finite()), "{method}");
        let form = files(method);
        let adapts = form.contains(&"adapter_model.safetensors");
        let own = |name: &String| name.starts_with("base_model.") || name == "prompt_embeddings";
        assert_eq!(names.iter().all(own), adapts, "{method}");
        let small = form.contains(&"adapter.safetensors");
        assert_eq!(names.iter().any(|name| name.contains(".adapters.")), small, "{method}");
        assert!(names.iter().any(|name| name.ends_with("classifier.weight")));
        // They are a model that answers; nothing else is there.
        let kept = model(tiny.path(method).join(LAST_GOOD));
        let (sound, _) = predict::texts(&kept, &["my card".into()], None, false).unwrap();
        assert!(sound[0].logits.iter().flatten().all(|logit| logit.is_finite()), "{method}");
        let left = tiny.names(method);
        let of_a_run = |name: &String| ["events.jsonl", "checkpoints/run.json"].contains(&name.as_str());
        assert!(left.iter().all(|name| of_a_run(name) || name.starts_with(LAST_GOOD)), "{left:?}");
        // What happened until then can be read: a start, each step before, and the overflow.
        let events = std::fs::File::open(tiny.path(method).join("events.jsonl")).unwrap();
        let events: Vec<serde_json::Value> = std::io::BufReader::new(events)
            .lines()
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect();
        assert_eq!(events.len(), step + 1);
        assert_eq!((&events[step]["event"], &events[step]["value"]), (&"overflow".into(), &"NaN".into()));

        let error = retune::TextModel::open(&model(tiny.path(method))).err().unwrap();
        assert!(error.to_string().contains("a run that was not finished"), "{error}");
    }
}

#[test]
fn a_rate_that_is_far_too_high_is_found_out() {
    let tiny = Tiny::new();
    for method in ["full", "lora", "bitfit"] {
        let error = refused(&TrainSettings { learning_rate: Some(1e30), ..settings(&tiny, method, method) });
        assert!(error.contains("try a lower --learning-rate"), "{error}");
        let (values, _) = read(&weights(&tiny, method));
        assert!(values.iter().all(|value| value.is_finite()), "{method}");
    }
    // Behind the pooler's tanh a loss is a number for longer than the weights are.
    let error = refused(&TrainSettings { learning_rate: Some(1e30), ..settings(&tiny, "head", "head") });
    assert!(error.contains("no good weights were left: an earlier update broke them"), "{error}");
    assert_eq!(tiny.names("head"), ["checkpoints/run.json", "events.jsonl"]);
}

#[test]
fn the_best_weights_are_kept_where_there_was_an_evaluation() {
    let tiny = Tiny::new();
    tiny.poison(89);
    let rows = std::fs::read_to_string(tiny.path("test.csv")).unwrap();
    let sound: Vec<&str> = rows.lines().filter(|row| !row.contains('丢')).collect();
    tiny.write("test.csv", sound.join("\n"));
    // In the order of the file the bad token comes in the second step of seven rows.
    let evaluated = TrainSettings {
        shuffle: Some(false),
        warmup: Some(0.0),
        eval_every: Some("1".into()),
        ..settings(&tiny, "full", "result")
    };
    let mut ear = Ear::default();
    let error = retune::train(&evaluated, &mut ear).unwrap_err().to_string();
    assert!(error.contains("step 2: the loss is NaN; rows of this step: line 9, line 10,"), "{error}");
    let [.., Event::Evaluation { step: 1, loss, metrics, .. }, Event::Overflow { step: 2, .. }] =
        &ear.events[..]
    else {
        panic!("{:?}", ear.events)
    };
    let kept = score(&model(tiny.path("result").join(LAST_GOOD)), &tiny, "test.csv").unwrap();
    assert_eq!(kept.loss.to_bits(), loss.to_bits());
    assert_eq!(kept.metrics.values["accuracy"].to_bits(), metrics["accuracy"].to_bits());
}

#[test]
fn the_folder_is_free_for_another_try() {
    let tiny = Tiny::new();
    refused(&TrainSettings { learning_rate: Some(1e30), ..settings(&tiny, "full", "result") });
    let calm = settings(&tiny, "full", "result");
    let error = refused(&calm);
    assert!(
        error.contains("it holds a run that was not finished; give another --output, or --overwrite"),
        "{error}"
    );
    train(&TrainSettings { overwrite: Some(true), ..calm }).unwrap();
    train(&settings(&tiny, "full", "clean")).unwrap();
    let (again, clean) = (tiny.files("result"), tiny.files("clean"));
    assert!(again == clean, "{:?} {:?}", tiny.names("result"), tiny.names("clean"));
}
