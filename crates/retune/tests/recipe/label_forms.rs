//! Several labels a row, a number, two texts: from the file to a result that opens again.

use std::fmt::Write as _;

use retune::evaluate::evaluate;
use retune::predict::{self, Prediction, Writing};
use retune::{Answer, Card, FileSettings, ModelSettings, ProblemType, TrainSettings};
use serde_json::Value;

use crate::run::{Ear, model, refused, score, settings, train};
use crate::tiny::Tiny;

const LOGITS: Writing = Writing { logits: true, overwrite: true };

const WORDS: [&str; 3] = ["pay", "lost", "money"];
const NAMES: [&str; 3] = ["zahlen", "丢", "Geld"];

/// Rows whose labels are the words in them; some have none.
fn several(rows: std::ops::Range<usize>, write: impl Fn(&[&str]) -> String) -> String {
    let mut text = String::from("text,tags\n");
    for row in rows {
        let has = |word: usize| row.wrapping_mul(7) >> word & 1 == 1;
        let there: Vec<usize> = (0..3).filter(|word| has(*word)).collect();
        let words: Vec<&str> = there.iter().map(|word| WORDS[*word]).collect();
        let names: Vec<&str> = there.iter().map(|word| NAMES[*word]).collect();
        let field = write(&names).replace('"', "\"\"");
        writeln!(text, "my card {} {},\"{field}\"", ["é", "1", "the"][row % 3], words.join(" ")).unwrap();
    }
    text
}

fn as_json(names: &[&str]) -> String {
    serde_json::to_string(names).unwrap()
}

/// Rows whose number grows with the word in them.
fn numbers(rows: std::ops::Range<usize>) -> String {
    let mut text = String::from("text,score\n");
    for row in rows {
        let word = row * 5 % 3;
        let number = [0.25, 1.5, 4.0][word] + (row % 4) as f64 / 16.0;
        writeln!(text, "my {} {},{number}", WORDS[word], ["card", "é 1"][row % 2]).unwrap();
    }
    text
}

fn training(tiny: &Tiny, method: &str, output: &str) -> TrainSettings {
    // Without dropout, which is half of what so narrow a model knows: what it learns would be a matter of draws.
    TrainSettings { epochs: Some(12.0), model_dropout: Some(0.0), ..settings(tiny, method, output) }
}

fn multi_label(tiny: &Tiny, method: &str, output: &str) -> TrainSettings {
    tiny.write("train.csv", several(0..72, as_json));
    tiny.write("test.csv", several(100..140, as_json));
    training(tiny, method, output)
}

fn regression(tiny: &Tiny, method: &str, output: &str) -> TrainSettings {
    tiny.write("train.csv", numbers(0..72));
    tiny.write("test.csv", numbers(100..131));
    TrainSettings { epochs: Some(20.0), ..training(tiny, method, output) }
}

fn config(tiny: &Tiny, output: &str) -> Value {
    serde_json::from_slice(&std::fs::read(tiny.path(output).join("config.json")).unwrap()).unwrap()
}

/// The first step's loss where a step is all rows and the weights stay where they are, and the logits of these.
fn one_step(tiny: &Tiny, output: &str, settings: TrainSettings) -> (f64, Vec<Prediction>) {
    let settings = TrainSettings {
        eval: None,
        eval_split: Some(0.0),
        batch_size: Some(24),
        accumulation: Some(3),
        epochs: Some(1.0),
        learning_rate: Some(1e-12),
        head_learning_rate: Some(1e-12),
        model_dropout: Some(0.0),
        shuffle: Some(false),
        output: Some(tiny.path(output)),
        ..settings
    };
    let (_, ear) = train(&settings).unwrap();
    let out = tiny.path("all.jsonl");
    let file = FileSettings::default();
    predict::file(&model(tiny.path(output)), &[tiny.path("train.csv")], &out, &file, None, LOGITS).unwrap();
    let rows = std::fs::read_to_string(out).unwrap();
    let texts: Vec<String> = rows
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_string())
        .collect();
    (ear.losses()[0], predict::texts(&model(tiny.path(output)), &texts, None, true).unwrap().0)
}

fn column(tiny: &Tiny, name: &str, index: usize) -> Vec<String> {
    let text = std::fs::read_to_string(tiny.path(name)).unwrap();
    csv::Reader::from_reader(text.as_bytes()).records().map(|row| row.unwrap()[index].to_string()).collect()
}

fn heard(ear: &Ear, words: &str) {
    assert!(ear.heard(words), "{words}: {:?}", ear.said);
}

#[test]
fn several_labels_are_learnt_and_given() {
    let tiny = Tiny::new();
    for method in ["full", "lora"] {
        let (report, ear) = train(&multi_label(&tiny, method, method)).unwrap();
        assert_eq!(report.problem_type, Some(ProblemType::MultiLabel));
        assert_eq!(report.labels, ["Geld", "zahlen", "丢"]);
        heard(&ear, "column `tags` holds lists of labels: problem type multi-label; --problem-type");
        heard(&ear, "72 rows in 3 labels: from");
        heard(&ear, "thresholds: tuned on the evaluation rows for each label; their scores flatter");
        let metrics = report.metrics.unwrap();
        assert!(metrics["f1_micro"] > if method == "full" { 0.95 } else { 0.8 }, "{method}: {metrics:?}");
        assert!(metrics["f1_micro"] >= metrics["f1_micro_at_half"]);

        let card = Card::open(&tiny.path(method)).unwrap().unwrap();
        assert_eq!(card.problem_type, Some(ProblemType::MultiLabel));
        assert_eq!(card.thresholds.as_ref().unwrap().len(), 3);
        let result = model(tiny.path(method));
        let evaluation = score(&result, &tiny, "test.csv").unwrap();
        for name in ["f1_micro", "f1_samples", "hamming_loss"] {
            let found = evaluation.metrics.get(name).unwrap();
            assert_eq!(found.to_bits(), metrics[name].to_bits(), "{method}: {name}");
        }
        assert_eq!(evaluation.loss.to_bits(), card.receipt.unwrap().loss.to_bits());
        assert!(evaluation.matrix.is_none() && evaluation.labels.len() == 3);
        assert!(evaluation.metrics.intervals.unwrap().scores["f1_micro"].low <= metrics["f1_micro"]);
        let half = ModelSettings { thresholds: Some("0.5".into()), ..result.clone() };
        let at_half = score(&half, &tiny, "test.csv").unwrap().metrics.get("f1_micro").unwrap();
        assert_eq!(at_half.to_bits(), metrics["f1_micro_at_half"].to_bits());

        // The file with predictions reads as one with labels.
        let out = tiny.path("out.csv");
        let file = FileSettings::default();
        predict::file(&result, &[tiny.path("test.csv")], &out, &file, None, LOGITS).unwrap();
        let (ours, gold) = (column(&tiny, "out.csv", 2), column(&tiny, "out.csv", 1));
        let sets = |fields: &[String]| -> Vec<Vec<String>> {
            let mut sets: Vec<Vec<String>> =
                fields.iter().map(|field| serde_json::from_str(field).unwrap()).collect();
            sets.iter_mut().for_each(|set| set.sort());
            sets
        };
        let right = sets(&ours).iter().zip(sets(&gold)).filter(|(ours, gold)| **ours == *gold).count();
        assert!((right as f64 / 40.0 - metrics["subset_accuracy"]).abs() < 1e-12);
    }
    let config = config(&tiny, "full");
    assert_eq!(config["problem_type"], "multi_label_classification");
    assert_eq!(config["id2label"]["2"], "丢");
}

#[test]
fn the_loss_of_several_labels_is_the_mean_binary_cross_entropy() {
    let tiny = Tiny::new();
    let rows = multi_label(&tiny, "full", "result");
    let softplus = |x: f64| x.exp().ln_1p();
    for (output, class_weights) in [("plain", None), ("balanced", Some("balanced".to_string()))] {
        let (loss, answers) = one_step(&tiny, output, TrainSettings { class_weights, ..rows.clone() });
        let gold: Vec<Vec<String>> =
            column(&tiny, "train.csv", 1).iter().map(|field| serde_json::from_str(field).unwrap()).collect();
        let labels = ["Geld", "zahlen", "丢"];
        let has = |row: usize, label: usize| gold[row].iter().any(|name| name == labels[label]);
        let mut sum = 0.0;
        for (row, answer) in answers.iter().enumerate() {
            for (label, logit) in answer.logits.as_ref().unwrap().iter().enumerate() {
                let with = (0..72).filter(|row| has(*row, label)).count() as f64;
                let weight = if output == "balanced" { (72.0 - with) / with } else { 1.0 };
                let x = f64::from(*logit);
                sum += if has(row, label) { weight * softplus(-x) } else { softplus(x) };
            }
        }
        let expected = sum / (72.0 * 3.0);
        assert!((loss - expected).abs() < 1e-5, "{output}: {loss} {expected}");
    }
}

#[test]
fn labels_may_be_parted_by_a_separator() {
    let tiny = Tiny::new();
    let lists = multi_label(&tiny, "head", "lists");
    let (_, first) = train(&lists).unwrap();
    tiny.write("split.csv", several(0..72, |names| names.join("; ")));
    tiny.write("split-test.csv", several(100..140, |names| names.join(";")));
    let split = TrainSettings {
        train: Some(vec![tiny.path("split.csv")]),
        eval: Some(vec![tiny.path("split-test.csv")]),
        file: FileSettings { label_separator: Some(";".into()), ..FileSettings::default() },
        output: Some(tiny.path("split")),
        ..lists
    };
    let (_, second) = train(&split).unwrap();
    assert_eq!(first.losses(), second.losses());
    heard(&second, "split at `;`, as --label-separator says");
    // The separator is remembered; a list needs none.
    let result = model(tiny.path("split"));
    let [one, two] = ["split-test.csv", "test.csv"].map(|data| score(&result, &tiny, data).unwrap());
    assert_eq!(one.metrics.values, two.metrics.values);
}

#[test]
fn numbers_are_learnt_and_given() {
    let tiny = Tiny::new();
    for method in ["full", "lora"] {
        let (report, ear) = train(&regression(&tiny, method, method)).unwrap();
        assert_eq!((report.problem_type, report.labels.len()), (Some(ProblemType::Regression), 1));
        heard(&ear, "holds numbers with decimals, 12 of them different: problem type regression");
        heard(&ear, "72 rows with numbers from 0.25 to 4.1875");
        let metrics = report.metrics.unwrap();
        assert!(metrics["r2"] > if method == "full" { 0.9 } else { 0.3 }, "{method}: {metrics:?}");
        let result = model(tiny.path(method));
        let evaluation = score(&result, &tiny, "test.csv").unwrap();
        assert_eq!(evaluation.metrics.values, metrics);
        assert_eq!(evaluation.loss.to_bits(), metrics["mse"].to_bits());

        let file = FileSettings::default();
        predict::file(&result, &[tiny.path("test.csv")], &tiny.path("out.csv"), &file, None, LOGITS).unwrap();
        let header = std::fs::read_to_string(tiny.path("out.csv")).unwrap();
        assert!(header.starts_with("text,score,predicted_score,logits\n"), "{header}");
        let scores: Vec<f64> =
            column(&tiny, "out.csv", 2).iter().map(|score| score.parse().unwrap()).collect();
        let gold: Vec<f64> =
            column(&tiny, "test.csv", 1).iter().map(|score| score.parse().unwrap()).collect();
        let mae = scores.iter().zip(&gold).map(|(a, b)| (a - b).abs()).sum::<f64>() / 31.0;
        assert!((mae - metrics["mae"]).abs() < 1e-6);
    }
    let config = config(&tiny, "full");
    assert_eq!(
        (&config["problem_type"], &config["id2label"]["0"]),
        (&"regression".into(), &"LABEL_0".into())
    );

    // A folder of transformers says one output, and nothing else is needed to open or to go on.
    std::fs::remove_file(tiny.path("full/retune.json")).unwrap();
    let mut bare = config;
    bare.as_object_mut().unwrap().remove("problem_type");
    tiny.write("full/config.json", bare.to_string());
    let again =
        evaluate(&model(tiny.path("full")), None, &[tiny.path("test.csv")], &FileSettings::default(), None);
    assert!(again.unwrap().metrics.get("pearson").unwrap() > 0.9);
    let on = TrainSettings { model: model(tiny.path("full")), ..regression(&tiny, "full", "on") };
    let (_, ear) = train(&on).unwrap();
    assert!(ear.losses()[0] < 1.0 && !ear.heard("new weights"), "{:?} {:?}", ear.said, ear.losses());
}

#[test]
fn the_loss_of_numbers_is_the_mean_squared_error() {
    let tiny = Tiny::new();
    let rows = regression(&tiny, "full", "result");
    let (loss, answers) = one_step(&tiny, "one", rows);
    let gold = column(&tiny, "train.csv", 1);
    let error = |answer: &Prediction, gold: &String| match answer.answer {
        Answer::Number { score } => f64::from(score) - gold.parse::<f64>().unwrap(),
        _ => f64::NAN,
    };
    let expected = answers.iter().zip(&gold).map(|(a, g)| error(a, g).powi(2)).sum::<f64>() / 72.0;
    assert!((loss - expected).abs() < 1e-5 * expected, "{loss} {expected}");
}

#[test]
fn whole_numbers_are_what_is_asked_or_what_the_model_gives() {
    let tiny = Tiny::new();
    let stars = |rows: std::ops::Range<usize>| {
        rows.fold(String::from("text,stars\n"), |all, row| {
            format!("{all}my {} card,{}\n", WORDS[row % 3], 1 + row % 3)
        })
    };
    let rows = training(&tiny, "head", "classes");
    tiny.write("train.csv", stars(0..60));
    tiny.write("test.csv", stars(0..21));
    let (report, ear) = train(&rows).unwrap();
    assert_eq!((report.problem_type, report.labels.len()), (Some(ProblemType::SingleLabel), 3));
    heard(&ear, "holds 3 different whole numbers, which are taken for classes; --problem-type regression");

    let mut asked = TrainSettings { output: Some(tiny.path("amounts")), ..rows.clone() };
    asked.model.problem_type = Some("regression".into());
    let (report, ear) = train(&asked).unwrap();
    assert_eq!(report.problem_type, Some(ProblemType::Regression));
    heard(&ear, "problem type regression: as asked");

    let on = TrainSettings { model: model(tiny.path("amounts")), output: Some(tiny.path("on")), ..rows };
    let (report, ear) = train(&on).unwrap();
    assert_eq!(report.problem_type, Some(ProblemType::Regression));
    heard(&ear, "the labels are numbers, and the model gives a number");
}

#[test]
fn pairs_are_found_learnt_and_given() {
    let tiny = Tiny::new();
    // The label is whether both texts have the same word: neither alone tells.
    let rows = |rows: std::ops::Range<usize>| {
        rows.fold(String::from("premise,hypothesis,label\n"), |all, row| {
            let (first, second) = (WORDS[row % 3], WORDS[(row / 3) % 3]);
            format!(
                "{all}my {first},\"{second}, card\",{}\n",
                ["other", "same"][usize::from(first == second)]
            )
        })
    };
    tiny.write("train.csv", rows(0..72));
    tiny.write("test.csv", rows(0..27));
    let (report, ear) = train(&training(&tiny, "full", "result")).unwrap();
    heard(&ear, "text column `premise`: by its name");
    heard(&ear, "pair column `hypothesis`: by its name");
    let result = model(tiny.path("result"));
    let evaluation = score(&result, &tiny, "test.csv").unwrap();
    assert_eq!(evaluation.metrics.values, report.metrics.unwrap());

    let file = FileSettings::default();
    predict::file(&result, &[tiny.path("test.csv")], &tiny.path("out.jsonl"), &file, None, LOGITS).unwrap();
    let lines = std::fs::read_to_string(tiny.path("out.jsonl")).unwrap();
    let pairs: Vec<(String, String)> = [(0, 0), (0, 1)]
        .map(|(first, second)| (format!("my {}", WORDS[first]), format!("{}, card", WORDS[second])))
        .to_vec();
    let (answers, _) = predict::pairs(&result, &pairs, None, true).unwrap();
    // The rows 0 and 3 of the file.
    for (row, answer) in [0, 3].into_iter().zip(&answers) {
        let line: Value = serde_json::from_str(lines.lines().nth(row).unwrap()).unwrap();
        assert_eq!(
            (&line["premise"], &line["hypothesis"]),
            (&answer.text.clone().into(), &answer.pair.clone().into())
        );
        for (place, logit) in answer.logits.as_ref().unwrap().iter().enumerate() {
            assert!((line["logits"][place].as_f64().unwrap() - f64::from(*logit)).abs() < 1e-5);
        }
    }
    let logits = |answer: &Prediction| answer.logits.clone().unwrap();
    assert!((logits(&answers[0])[0] - logits(&answers[1])[0]).abs() > 1e-4, "the second text tells nothing");
    let error = predict::texts(&result, &["alone".into()], None, false).unwrap_err().to_string();
    assert!(error.contains("two texts a row, the second in the column `hypothesis`"), "{error}");
}

#[test]
fn what_has_no_meaning_is_refused() {
    let tiny = Tiny::new();
    let base = regression(&tiny, "head", "result");
    type Change = fn(&mut TrainSettings, &Tiny);
    let cases: &[(Change, &str)] = &[
        (|s, _| s.class_weights = Some("balanced".into()), "--class-weights: it weighs classes"),
        (|s, _| s.label_smoothing = Some(0.1), "--label-smoothing: it spreads a target over classes"),
        (|s, _| s.model.thresholds = Some("0.4".into()), "--thresholds: they say which of several labels"),
        (|s, _| s.model.problem_type = Some("regresion".into()), "did you mean `regression`?"),
        (
            |s, _| s.model.problem_type = Some("multi-label".into()),
            "line 2: column `score`: expected a JSON list",
        ),
        (
            |s, _| {
                s.model.problem_type = Some("regression".into());
                s.file.label_separator = Some(";".into());
            },
            "--label-separator: it parts several labels",
        ),
        (
            |s, t| {
                s.train = Some(vec![t.write(
                    "words.csv",
                    numbers(0..72).replacen("my lost card,1.625", "my lost card,much", 1),
                )])
            },
            "column `score`: expected a number such as 3.5, got `much`",
        ),
        (
            |s, t| {
                s.train = Some(vec![t.write("lists.csv", several(0..72, as_json))]);
                s.eval = None;
                s.label_smoothing = Some(0.1);
            },
            "--label-smoothing: it takes from the right class",
        ),
        (
            |s, t| {
                s.train = Some(vec![t.write("lists.csv", several(0..72, as_json))]);
                (s.eval, s.eval_split) = (None, Some(0.0));
                s.model.thresholds = Some("tuned".into());
            },
            "--thresholds: there are no evaluation rows to tune them on",
        ),
        (
            |s, t| {
                s.train = Some(vec![t.write("lists.csv", several(0..72, as_json))]);
                s.eval = None;
                s.model.thresholds = Some("1.5".into());
            },
            "expected tuned, or a number between 0 and 1, got `1.5`",
        ),
    ];
    for (change, words) in cases {
        let mut settings = base.clone();
        change(&mut settings, &tiny);
        let error = refused(&settings);
        assert!(error.contains(words), "{words}: {error}");
        assert!(!tiny.path("result").exists(), "{words}");
    }
    train(&base).unwrap();
    let other = ModelSettings { problem_type: Some("single-label".into()), ..model(tiny.path("result")) };
    let error = predict::texts(&other, &["a".into()], None, false).unwrap_err().to_string();
    assert!(error.contains("the model was made for regression, got single-label"), "{error}");
}
