//! `doctor` on the tiny model: each fault is planted, and is not found where it is not.

use std::fmt::Write as _;
use std::path::Path;

use retune::{Diagnosis, Finding, Machine, TrainSettings, doctor, doctor_on};
use serde_json::{Map, Value, json};

use crate::run::{Ear, model, settings, train};
use crate::tiny::{LABELS, Tiny, csv};

fn examined(settings: &TrainSettings) -> Diagnosis {
    doctor(settings, &mut Ear::default()).unwrap()
}

fn of<'d>(check: &str, diagnosis: &'d Diagnosis) -> Vec<&'d Finding> {
    diagnosis.findings.iter().filter(|finding| finding.check == check).collect()
}

/// The one finding of `check`.
fn one(check: &str, diagnosis: &Diagnosis) -> Finding {
    let found = of(check, diagnosis);
    assert_eq!(found.len(), 1, "{check}: {:#?}", diagnosis.findings);
    assert!(diagnosis.checks.contains(&check));
    found[0].clone()
}

/// What the tiny model can be trained with so that nothing is odd: seventy rows take a few epochs.
fn healthy(tiny: &Tiny) -> TrainSettings {
    TrainSettings { epochs: None, learning_rate: None, ..settings(tiny, "full", "result") }
}

/// A file of up to 343 rows `text,label`, no two alike, each with a word that tells its label.
fn file(tiny: &Tiny, labels: &[&str], rows: usize) {
    let mut text = String::from("text,label\n");
    for row in 0..rows {
        let telling = ["transfer", "pay", "lost", "money", "了"][row % labels.len()];
        let other =
            |place: usize| ["my card", "the", "is not a", "money !", "é ?", "1 2", "un able -"][place % 7];
        let (first, second, third) = (other(row), other(row / 7), other(row / 49));
        writeln!(text, "\"{first} {second}, {telling} {third}\",\"{}\"", labels[row % labels.len()]).unwrap();
    }
    tiny.write("train.csv", text);
}

/// The same settings without evaluation rows, which would have other labels.
fn alone(tiny: &Tiny, base: &str) -> TrainSettings {
    TrainSettings { model: model(tiny.path(base)), eval: None, eval_split: Some(0.0), ..healthy(tiny) }
}

fn edit(path: &Path, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut document: Map<String, Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut document);
    std::fs::write(path, Value::Object(document).to_string()).unwrap();
}

/// Multiplies every number of a tensor of a file.
fn multiply(path: &Path, name: &str, factor: f32) {
    let mut bytes = std::fs::read(path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let offset = |end: usize| data + header[name]["data_offsets"][end].as_u64().unwrap() as usize;
    for value in bytes[offset(0)..offset(1)].chunks_exact_mut(4) {
        let product = factor * f32::from_le_bytes((&*value).try_into().unwrap());
        value.copy_from_slice(&product.to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn nothing_is_found_where_nothing_was_planted() {
    let tiny = Tiny::new();
    file(&tiny, &LABELS, 72);
    // Random weights need a little more than the usual rate to learn eight rows.
    let diagnosis = examined(&TrainSettings { learning_rate: Some(2e-3), ..alone(&tiny, "base") });
    assert_eq!(diagnosis.findings, Vec::<Finding>::new());
    assert!((diagnosis.expected_loss.unwrap() - 3f64.ln()).abs() < 1e-6);
    assert_eq!((diagnosis.counts.supervised_rows, diagnosis.counts.truncated_rows), (72, 0));
}

#[test]
fn labels_that_the_eye_takes_for_one_are_found() {
    let tiny = Tiny::new();
    for (labels, rarer) in [
        (["Yes", "no", "Yes", "no", "yes"], "yes"),
        (["ja", "no", "ja", "no", "ｊａ"], "ｊａ"),
        (["caf\u{e9}", "no", "caf\u{e9}", "no", "cafe\u{301}"], "cafe\u{301}"),
        (["a b", "no", "a b", "no", "a\u{200b} \u{a0}b"], "a\u{200b} \u{a0}b"),
    ] {
        file(&tiny, &labels, 60);
        let finding = one("label-names", &examined(&alone(&tiny, "base")));
        assert!(finding.what.contains(&format!("{rarer:?}")), "{}", finding.what);
        assert_eq!(finding.lines, [6, 11, 16, 21, 26]);
        assert!(finding.fix.starts_with(&format!("write {:?}", labels[0])), "{}", finding.fix);
    }
    file(&tiny, &["Yes", "no", "yesterday"], 60);
    assert!(of("label-names", &examined(&alone(&tiny, "base"))).is_empty());
}

#[test]
fn labels_that_are_none_or_several_are_found() {
    let tiny = Tiny::new();
    file(&tiny, &["pay", "lost", "NaN"], 60);
    let finding = one("label-names", &examined(&alone(&tiny, "base")));
    assert!(finding.what.starts_with("20 rows have the label \"NaN\""), "{}", finding.what);
    assert_eq!(finding.lines, [4, 7, 10, 13, 16]);

    file(&tiny, &["pay", "lost", "lost; pay"], 60);
    let finding = one("label-names", &examined(&alone(&tiny, "base")));
    assert_eq!(finding.fix, "--label-separator \";\"");
    assert_eq!(finding.lines, [4, 7, 10, 13, 16]);
    // A name with a comma in it is a name, and so is `none`.
    file(&tiny, &["pay, late", "lost", "none"], 60);
    assert!(of("label-names", &examined(&alone(&tiny, "base"))).is_empty());
}

#[test]
fn a_name_that_is_another_numbers_is_found() {
    let tiny = Tiny::new();
    file(&tiny, &["LABEL_1", "LABEL_2"], 40);
    let finding = one("labels-decode", &examined(&alone(&tiny, "base")));
    assert!(finding.what.starts_with("`LABEL_1` gets the number 0"), "{}", finding.what);
    assert_eq!(finding.lines, [2, 4, 6, 8, 10]);
    file(&tiny, &["LABEL_0", "LABEL_1"], 40);
    assert!(of("labels-decode", &examined(&alone(&tiny, "base"))).is_empty());
}

#[test]
fn labels_that_the_model_has_under_other_names_are_found() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "full", "trained")).unwrap();
    let names = |labels: [&str; 3]| {
        let rows = csv(0..72);
        let (head, rows) = rows.split_once('\n').unwrap();
        let mut changed = format!("{head}\n");
        for row in rows.lines() {
            let (text, label) = row.rsplit_once(',').unwrap();
            let index = LABELS.iter().position(|name| *name == label).unwrap();
            writeln!(changed, "{text},{}", labels[index]).unwrap();
        }
        tiny.write("train.csv", changed);
        examined(&alone(&tiny, "trained"))
    };
    assert!(of("labels-decode", &names(LABELS)).is_empty());
    // One in full width, and one with a typing error.
    for labels in
        [["转账", "ｐａｙ", "verloren é"], ["转账", "pay", "verlorn é"], ["转账", "Pay", "Verloren e\u{301}"]]
    {
        let finding = one("labels-decode", &names(labels));
        assert!(finding.what.contains("none of the model's"), "{}", finding.what);
        assert!(!finding.lines.is_empty());
    }
    let finding = one("labels-decode", &names(["2", "0", "1"]));
    assert!(finding.what.contains("the numbers \"0\", \"1\", \"2\""), "{}", finding.what);
    // Another task on the same model is no mistake.
    assert!(of("labels-decode", &names(["up", "down", "left"])).is_empty());
}

#[test]
fn a_swapped_map_is_found() {
    let tiny = Tiny::new();
    let learnt = TrainSettings {
        epochs: Some(40.0),
        model_dropout: Some(0.0),
        eval: None,
        eval_split: Some(0.0),
        ..settings(&tiny, "full", "trained")
    };
    let (report, _) = train(&learnt).unwrap();
    assert!(report.last_loss < 0.2, "{}", report.last_loss);
    let diagnosis = examined(&alone(&tiny, "trained"));
    assert!(of("swapped-labels", &diagnosis).is_empty() && of("starting-loss", &diagnosis).is_empty());
    // It knows the labels already: that is no fault, and nothing is expected of its loss.
    assert!(
        diagnosis.starting_loss < 0.3 && diagnosis.expected_loss.is_none(),
        "{}",
        diagnosis.starting_loss
    );

    let mut names = report.labels;
    names.rotate_left(1);
    edit(&tiny.path("trained/retune.json"), |card| card["labels"] = json!(names));
    edit(&tiny.path("trained/config.json"), |config| {
        config["id2label"] =
            (0..3).map(|id| (id.to_string(), json!(names[id]))).collect::<Map<_, _>>().into();
        config["label2id"] = (0..3).map(|id| (names[id].clone(), json!(id))).collect::<Map<_, _>>().into();
    });
    let diagnosis = examined(&alone(&tiny, "trained"));
    one("swapped-labels", &diagnosis);
    assert!(one("starting-loss", &diagnosis).what.contains("the trained head"));
}

#[test]
fn a_new_head_that_starts_anywhere_else_than_at_nothing_is_found() {
    let tiny = Tiny::new();
    // New weights fifty times too large: by its seed the head is far off, or happens to know two texts.
    tiny.model("large", 1, |config| {
        config.insert("initializer_range".into(), json!(1.0));
    });
    multiply(&tiny.path("large/model.safetensors"), "bert.pooler.dense.weight", 30.0);
    let rows: String = (0..40).map(|row| ["pay,a\n", "my card is lost,b\n"][row % 2]).collect();
    tiny.write("train.csv", format!("text,label\n{rows}"));
    let mut found = [0, 0];
    for seed in 1..25 {
        let diagnosis = examined(&TrainSettings { seed: Some(seed), ..alone(&tiny, "large") });
        let (loss, expected) = (diagnosis.starting_loss, diagnosis.expected_loss.unwrap());
        assert!((expected - 2f64.ln()).abs() < 1e-6);
        if loss < 0.34 {
            assert!(one("starting-loss", &diagnosis).what.contains("far below"));
            found[0] += 1;
        } else if loss > 1.55 {
            assert!(one("starting-loss", &diagnosis).what.contains("a head that knows nothing has 0.69"));
            found[1] += 1;
        } else {
            assert!(of("starting-loss", &diagnosis).is_empty(), "{loss}");
        }
    }
    assert!(found[0] > 0 && found[1] > 0, "{found:?}");
}

#[test]
fn several_labels_and_numbers_have_their_own_reference() {
    let tiny = Tiny::new();
    let mut several = String::from("text,tags\n");
    let mut numbers = String::from("text,score\n");
    for row in 0..64 {
        let word = ["pay", "lost", "money"][row % 3];
        writeln!(several, "my {word} {row},{}", ["a;b", "b", ""][row % 3]).unwrap();
        writeln!(numbers, "my {word} {row},{}", [30.5, 31.25, 29.0][row % 3]).unwrap();
    }
    tiny.write("train.csv", several);
    let mut weighted = TrainSettings { class_weights: Some("balanced".into()), ..alone(&tiny, "base") };
    weighted.file.label_separator = Some(";".into());
    weighted.model.problem_type = Some("multi-label".into());
    let diagnosis = examined(&weighted);
    assert_eq!(of("starting-loss", &diagnosis), Vec::<&Finding>::new());
    // Of `a` 22 of 64 rows, of `b` 43: what is positive weighs 42 / 22 and 21 / 43. Of the 16 rows that are looked at, every
    // fourth, 6 are `a` and 11 are `b`.
    let expected = 2f64.ln() * (6.0 * 42.0 / 22.0 + 10.0 + 11.0 * 21.0 / 43.0 + 5.0) / 32.0;
    assert!((diagnosis.expected_loss.unwrap() - expected).abs() < 1e-5, "{:?}", diagnosis.expected_loss);

    tiny.write("train.csv", numbers);
    let diagnosis = examined(&alone(&tiny, "base"));
    assert_eq!(of("starting-loss", &diagnosis), Vec::<&Finding>::new());
    let expected = (6.0 * 30.5f64.powi(2) + 5.0 * 31.25f64.powi(2) + 5.0 * 29.0f64.powi(2)) / 16.0;
    assert!(
        (diagnosis.expected_loss.unwrap() / expected - 1.0).abs() < 1e-6,
        "{:?}",
        diagnosis.expected_loss
    );
}

#[test]
fn a_machine_that_is_too_small_is_found() {
    let tiny = Tiny::new();
    let on = |memory, disk, settings: &TrainSettings| {
        doctor_on(Machine { memory, disk }, settings, &mut Ear::default()).unwrap()
    };
    let settings = healthy(&tiny);
    let diagnosis = on(Some(1 << 16), Some(1 << 10), &settings);
    let finding = one("memory", &diagnosis);
    assert!(finding.fix.contains("--batch-size"), "{}", finding.fix);
    let finding = one("disk", &diagnosis);
    assert!(finding.place.ends_with("result"), "{}", finding.place);
    let diagnosis = on(Some(8 << 30), Some(8 << 30), &settings);
    assert!(of("memory", &diagnosis).is_empty() && of("disk", &diagnosis).is_empty());
    // What is kept on the way counts: a thousand checkpoints of some 60 KiB.
    let kept = TrainSettings { keep_checkpoints: Some(1000), ..settings };
    one("disk", &on(None, Some(16 << 20), &kept));
    let diagnosis = on(None, None, &kept);
    assert!(of("memory", &diagnosis).is_empty() && of("disk", &diagnosis).is_empty());
}

#[test]
fn eight_rows_are_learnt_with_the_rates_that_the_run_has() {
    let tiny = Tiny::new();
    let all = TrainSettings { learning_rate: Some(5e-4), ..healthy(&tiny) };
    assert!(of("overfit", &examined(&all)).is_empty());
    // The layers under the head stand still: where its own rate is small too, nothing is learnt.
    let rate = Some(1e-5);
    let still =
        TrainSettings { learning_rate: rate, head_learning_rate: rate, layer_decay: Some(1e-6), ..all };
    let finding = one("overfit", &examined(&still));
    assert!(finding.fix.contains("--layer-decay"), "{}", finding.fix);
}

#[test]
fn an_adapter_that_no_gradient_reaches_is_found() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "lora", "adapter")).unwrap();
    let onward = TrainSettings { method: None, model: model(tiny.path("adapter")), ..healthy(&tiny) };
    assert!(of("gradients", &examined(&onward)).is_empty());
    let path = tiny.path("adapter/adapter_model.safetensors");
    let header = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(header[..8].try_into().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&header[8..8 + length]).unwrap();
    // Both sides of the branches of one layer: each is the gradient of the other.
    let silent = header.keys().filter(|name| name.contains("layer.1.") && name.contains(".lora_"));
    silent.for_each(|name| multiply(&path, name, 0.0));
    let finding = one("gradients", &examined(&onward));
    assert!(finding.what.contains("layer.1.") && finding.what.contains(" more"), "{}", finding.what);
}

#[test]
fn faults_of_the_rows_are_found() {
    let tiny = Tiny::new();
    let rows = csv(0..72);
    let own: String = rows
        .lines()
        .skip(1)
        .map(|row| {
            let (text, label) = row.rsplit_once(',').unwrap();
            format!("\"{label}: {}\",{label}\n", text.trim_matches('"'))
        })
        .collect();
    tiny.write("own.csv", format!("text,label\n{own}"));
    tiny.write("twice.csv", [&rows, rows.split_once('\n').unwrap().1].concat());
    tiny.write("shuffled.csv", {
        let texts: String =
            (0..140).map(|row| format!("my pay {row} é,{}\n", LABELS[row * row / 5 % 7 % 3])).collect();
        format!("text,label\n{texts}")
    });
    tiny.write("unlike.csv", format!("{rows}{}", rows.lines().nth(1).unwrap().replace("转账", "pay")));
    tiny.write(
        "foreign.csv",
        rows.replace(['a', 'e', 'y'], "ሀለ").replace("pሀለሀለ", "pay").replace("tሀለxt,lሀለbሀለl", "text,label"),
    );
    let many = |label: &str, count: usize| {
        rows.lines()
            .filter(|row| row.ends_with(label))
            .take(count)
            .map(|row| format!("{row}\n"))
            .collect::<String>()
    };
    tiny.write("sorted.csv", format!("text,label\n{}{}", many(LABELS[0], 36), many(LABELS[1], 24)));
    tiny.write("rare.csv", format!("text,label\n{}{}", many(LABELS[0], 36), many(LABELS[1], 1)));
    let sorted = TrainSettings { shuffle: Some(false), eval_split: Some(0.0), eval: None, ..healthy(&tiny) };
    for (fault, settings) in [
        ("order-of-rows", TrainSettings { train: Some(vec![tiny.path("sorted.csv")]), ..sorted.clone() }),
        ("imbalance", TrainSettings { train: Some(vec![tiny.path("rare.csv")]), ..sorted }),
        (
            "conflicting-labels",
            TrainSettings { train: Some(vec![tiny.path("unlike.csv")]), ..healthy(&tiny) },
        ),
        (
            "unknown-tokens",
            TrainSettings { train: Some(vec![tiny.path("foreign.csv")]), eval: None, ..healthy(&tiny) },
        ),
        ("label-in-text", TrainSettings { train: Some(vec![tiny.path("own.csv")]), ..healthy(&tiny) }),
        ("duplicates", TrainSettings { train: Some(vec![tiny.path("twice.csv")]), ..healthy(&tiny) }),
        ("leak", TrainSettings { eval: Some(vec![tiny.path("train.csv")]), ..healthy(&tiny) }),
        ("truncation", TrainSettings { max_length: Some(4), ..healthy(&tiny) }),
        ("shuffled-labels", TrainSettings { train: Some(vec![tiny.path("shuffled.csv")]), ..healthy(&tiny) }),
        ("learning-rate", TrainSettings { learning_rate: Some(0.02), ..healthy(&tiny) }),
        ("steps", TrainSettings { epochs: Some(0.5), ..healthy(&tiny) }),
    ] {
        let finding = one(fault, &examined(&settings));
        let said = finding.text();
        assert!(
            [finding.place, finding.fix, finding.why.into()].iter().all(|part| said.contains(part)),
            "{said}"
        );
        let of_settings = ["learning-rate", "order-of-rows", "steps", "shuffled-labels"].contains(&fault);
        assert_eq!(finding.lines.is_empty(), of_settings, "{fault}");
    }
}
