use std::path::Path;

use super::fuzzer::{self, Target, golden, read};
use super::linear::{Deaf, checkpoints};
use super::{card, copy, is_said};
use crate::resume::{self, Record};
use crate::run_folder::{CHECKPOINTS, EVENTS, RunFolder};
use crate::{Card, ModelSettings, TextModel, TrainSettings, inspect, predict};

fn resumed(output: &Path) -> TrainSettings {
    TrainSettings { output: Some(output.into()), resume: Some(true), ..TrainSettings::default() }
}

#[test]
fn records() {
    let folder = fuzzer::folder();
    let output = folder.path();
    std::fs::create_dir(output.join(CHECKPOINTS)).unwrap();
    let mut settings = TrainSettings {
        train: Some(vec!["rows.csv".into()]),
        epochs: Some(2.0),
        save_every: Some("3".into()),
        learning_rate: Some(1e-3),
        ..resumed(output)
    };
    settings.model.model = Some("owner/name".into());
    settings.method_options.insert("rank".into(), 4.into());
    let record = Record::new(&settings, &card());
    record.save(output).unwrap();
    let path = output.join(CHECKPOINTS).join("run.json");
    let dictionary = [
        "format_version",
        "folder",
        "settings",
        "card",
        "model",
        "train",
        "epochs",
        "batch-size",
        "method",
        "rank",
        "target-modules",
        "save-every",
        "eval-split",
        "labels",
        "thresholds",
        "max_length",
        "method_options",
        "sha256",
        "\"\\u0000\"",
        "\"../../..\"",
        "true",
        "null",
        "18446744073709551615",
        "1e308",
    ];
    Target { name: "run-record", cost: 4, seeds: vec![read(&path)], dictionary: &dictionary }.run(|input| {
        fuzzer::write(&path, input.bytes);
        let given = resumed(output);
        if let Err(error) = given.resumed() {
            is_said(error);
        }
        match resume::record(&given, output) {
            Ok(Some(record)) => {
                assert_eq!(resume::fingerprint(&record.card).len(), 64);
                // The same again is the same.
                record.check(&record.card, output).unwrap();
                if let Err(error) = record.check(&card(), output) {
                    is_said(error);
                }
            }
            Ok(None) => panic!("it is there"),
            Err(error) => is_said(error),
        }
    });
}

#[test]
fn cards() {
    let folder = fuzzer::folder();
    let model = folder.path().join("model");
    copy(&golden("bert-classifier"), &model);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(golden("tokenizer/uncased").join(file), model.join(file)).unwrap();
    }
    let path = model.join(Card::FILE);
    let mut single = card();
    (single.problem_type, single.thresholds, single.columns.pair) = (Default::default(), None, None);
    single.save(&model).unwrap();
    let seeds = vec![read(&path), {
        card().save(&model).unwrap();
        read(&path)
    }];
    std::fs::write(model.join(EVENTS), "{\"event\":\"end\",\"steps\":3}\n").unwrap();
    let dictionary = [
        "format_version",
        "task",
        "method",
        "problem_type",
        "\"regression\"",
        "\"single_label_classification\"",
        "labels",
        "thresholds",
        "max_length",
        "columns",
        "pair",
        "base",
        "train",
        "rows",
        "settings",
        "receipt",
        "metrics",
        "[]",
        "\"full\"",
        "\"LABEL_0\"",
        "18446744073709551615",
        "1e308",
        "0.5",
        "null",
    ];
    let settings = ModelSettings { model: Some(model.clone()), ..ModelSettings::default() };
    Target { name: "card", cost: 8, seeds, dictionary: &dictionary }.run(|input| {
        fuzzer::write(&path, input.bytes);
        match Card::open(&model) {
            Ok(card) => assert_eq!(resume::fingerprint(&card.unwrap()).len(), 64),
            Err(error) => is_said(error),
        }
        if let Err(error) = resume::finished(&resumed(&model), &model) {
            is_said(error);
        }
        if let Err(error) = inspect::inspect(&model, None) {
            is_said(error);
        }
        if input.random.below(8) > 0 {
            return;
        }
        match TextModel::open(&settings) {
            Ok(_) => match predict::texts(&settings, &["my card".to_string()], None, false) {
                Ok((predictions, _)) => assert_eq!(predictions.len(), 1),
                Err(error) => is_said(error),
            },
            Err(error) => is_said(error),
        }
    });
}

#[test]
fn events() {
    let folder = fuzzer::folder();
    let output = folder.path();
    card().save(output).unwrap();
    let path = output.join(EVENTS);
    let lines = concat!(
        "{\"event\":\"start\",\"total_steps\":18,\"rows\":72,\"trainable_parameters\":630,\"total_parameters\":9000}\n",
        "{\"event\":\"step\",\"step\":18,\"epoch\":2,\"loss\":0.25,\"learning_rate\":0.0,\"rows\":7,\"tokens\":41}\n",
        "{\"event\":\"evaluation\",\"step\":18,\"loss\":\"NaN\",\"metrics\":{\"f1_micro\":0.875},\"best\":true}\n",
        "{\"event\":\"end\",\"steps\":18,\"kept_step\":18,\"seconds\":1.5,\"tokens\":1230}\n",
    );
    let seeds = vec![lines.into(), b"{\"event\":\"end\"}\r\n\n[]\nnull\n{\"event\":[]}".to_vec()];
    let dictionary = [
        "\"event\"",
        "\"start\"",
        "\"step\"",
        "\"end\"",
        "\"steps\"",
        "\"kept_step\"",
        "\"seconds\"",
        "\"tokens\"",
        "\"loss\"",
        "{",
        "}",
        "\n",
        "\r\n",
        "\u{0}",
        "1e308",
        "-1",
        "18446744073709551615",
    ];
    let checkpoints_folder = output.join(CHECKPOINTS);
    let record = Record::new(&resumed(output), &card());
    Target { name: "events", cost: 8, seeds, dictionary: &dictionary }.run(|input| {
        fuzzer::write(&path, input.bytes);
        if let Err(error) = resume::finished(&resumed(output), output) {
            is_said(error);
        }
        // No checkpoint: nothing of them is left.
        std::fs::create_dir_all(&checkpoints_folder).unwrap();
        let length = input.random.below(input.bytes.len() + 9) as u64;
        let mut none = checkpoints(&checkpoints_folder);
        let run = RunFolder::reopen(output, &record, &mut none, &mut Deaf::default()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        // One that knew their length: so many of them, or as many lines as are whole.
        std::fs::write(&path, input.bytes).unwrap();
        run.cut_events(length).unwrap();
        let left = read(&path);
        assert!(input.bytes.starts_with(&left));
        let whole = left.is_empty() || left.ends_with(b"\n");
        assert!(left.len() as u64 == length || (whole && input.bytes.len() < length as usize));
        run.finish().unwrap();
    });
}
