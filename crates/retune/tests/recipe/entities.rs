//! Entities on a tiny random BERT: from a file in CoNLL's form or with spans to predictions in that form.

use std::fmt::Write as _;

use retune::evaluate::evaluate;
use retune::predict::{self, Writing};
use retune::{Answer, Card, FileSettings, METHODS, TrainSettings, doctor, plan};

use crate::run::{Ear, model, refused, score, settings, train};
use crate::tiny::Tiny;

/// Words and tags; an act may be one word or two, and a land is two characters.
fn sentence(row: usize) -> Vec<(&'static str, &'static str)> {
    let other = ["my", "the", "is", "not", "a", "un", "!", "?"];
    let entity: &[(&str, &str)] = match row % 5 {
        0 => &[("transfer", "B-act"), ("money", "I-act")],
        1 => &[("pay", "B-act")],
        2 => &[("中", "B-land"), ("国", "I-land")],
        3 => &[("pay", "B-act"), ("card", "I-act"), ("中", "B-land"), ("国", "I-land")],
        _ => &[],
    };
    let before = (0..row % 3).map(|place| (other[(row + place) % 8], "O"));
    let after = (0..1 + row % 2).map(|place| (other[(row * 3 + place) % 8], "O"));
    before.chain(entity.iter().copied()).chain(after).collect()
}

fn conll(rows: std::ops::Range<usize>) -> String {
    let mut text = String::from("-DOCSTART-\tO\n\n");
    for row in rows {
        for (word, tag) in sentence(row) {
            writeln!(text, "{word}\t{tag}").unwrap();
        }
        // A line that is empty to the eye.
        text.push_str(if row % 2 == 0 { "\t\n" } else { "\n" });
    }
    text
}

/// A folder with files in CoNLL's form.
fn tiny() -> Tiny {
    let tiny = Tiny::new();
    tiny.write("train.conll", conll(0..60));
    tiny.write("test.conll", conll(100..125));
    tiny
}

fn entities(tiny: &Tiny, method: &str, output: &str) -> TrainSettings {
    TrainSettings {
        train: Some(vec![tiny.path("train.conll")]),
        eval: Some(vec![tiny.path("test.conll")]),
        ..settings(tiny, method, output)
    }
}

#[test]
fn every_method_finds_entities_and_says_what_was_counted() {
    let tiny = tiny();
    for method in METHODS.iter().map(|method| method.name()) {
        let (report, ear) = train(&entities(&tiny, method, method)).unwrap();
        assert!(
            ear.heard("task token-classification: the training file is in CoNLL's form"),
            "{:?}",
            ear.said
        );
        assert_eq!((report.task, report.problem_type), ("token-classification", None));
        assert_eq!(report.labels, ["B-act", "B-land", "I-act", "I-land", "O"]);
        assert_eq!((report.train_rows, report.eval_rows, report.steps), (60, 25, 18), "{method}");
        let losses = ear.losses();
        assert!(losses.iter().all(|loss| loss.is_finite()) && losses.len() == 18, "{method}: {losses:?}");

        let result = model(tiny.path(method));
        let evaluation = score(&result, &tiny, "test.conll").unwrap();
        let metrics = report.metrics.as_ref().unwrap();
        for name in ["f1", "precision", "recall", "f1_strict", "f1_macro", "token_accuracy"] {
            let (trained, loaded) = (metrics[name], evaluation.metrics.values[name]);
            assert_eq!(trained.to_bits(), loaded.to_bits(), "{method}: {name}");
        }
        let intervals = evaluation.metrics.intervals.as_ref().unwrap();
        assert!(intervals.scores["f1"].low <= metrics["f1"] && metrics["f1"] <= intervals.scores["f1"].high);
        assert_eq!(
            evaluation.labels.iter().map(|label| label.label.as_str()).collect::<Vec<_>>(),
            ["act", "land"]
        );

        // The predictions are those that were counted, in the file's own form.
        let (file, writing) = (FileSettings::default(), Writing { logits: false, overwrite: true });
        let done =
            predict::file(&result, &[tiny.path("test.conll")], &tiny.path("out.conll"), &file, None, writing)
                .unwrap();
        assert_eq!(done.rows, 25);
        let out = std::fs::read_to_string(tiny.path("out.conll")).unwrap();
        let words: Vec<Vec<&str>> =
            out.lines().filter(|line| !line.is_empty()).map(|line| line.split('\t').collect()).collect();
        let gold: Vec<_> = (100..125).flat_map(sentence).collect();
        assert_eq!(words.len(), gold.len());
        let same = words.iter().zip(&gold).filter(|(word, (text, tag))| {
            assert_eq!(word[..2], [*text, *tag]);
            word[2] == *tag
        });
        let accuracy = same.count() as f64 / gold.len() as f64;
        assert!((accuracy - evaluation.metrics.values["token_accuracy"]).abs() < 1e-12, "{method}");
        let card = Card::open(&tiny.path(method)).unwrap().unwrap();
        assert_eq!(
            (card.task.as_str(), card.columns.tag_scheme.as_deref()),
            ("token-classification", Some("iob2"))
        );
    }
}

#[test]
fn enough_steps_learn_them_and_texts_get_spans() {
    let tiny = tiny();
    for (method, least) in [("full", 0.95), ("lora", 0.8)] {
        let (epochs, model_dropout) = (Some(24.0), Some(0.0));
        let long = TrainSettings { epochs, model_dropout, ..entities(&tiny, method, method) };
        train(&long).unwrap();
        let evaluation = score(&model(tiny.path(method)), &tiny, "test.conll").unwrap();
        let learnt = evaluation.metrics.values["f1"];
        assert!(learnt > least, "{method}: {learnt}");
    }
    let full = model(tiny.path("full"));
    let texts = ["é 中国 not transfer money !".to_string(), String::new()];
    let (answers, _) = predict::texts(&full, &texts, None, false).unwrap();
    let Answer::Entities { entities, .. } = &answers[0].answer else { panic!("{answers:?}") };
    let found: Vec<_> = entities.iter().map(|e| (e.start, e.end, e.text.as_str(), e.kind.as_str())).collect();
    assert_eq!(found, [(2, 4, "中国", "land"), (9, 23, "transfer money", "act")]);
    assert!(entities.iter().all(|entity| entity.score > 0.2 && entity.score <= 1.0));
    assert!(matches!(&answers[1].answer, Answer::Entities { entities, .. } if entities.is_empty()));
    // Longer than a row: windows, no longer than the texts that were learnt, and what they find is joined.
    let long = vec!["my transfer money !"; 30].join(" ");
    let (answers, done) = predict::texts(&full, &[long], Some(9), false).unwrap();
    let Answer::Entities { entities, .. } = &answers[0].answer else { panic!("{answers:?}") };
    assert_eq!((entities.len(), done.truncated), (30, 0));
    assert!(entities.iter().all(|entity| entity.text == "transfer money" && entity.kind == "act"));
    let error = predict::texts(&full, &["pay".to_string()], None, true).unwrap_err().to_string();
    assert!(error.starts_with("--logits: "), "{error}");
}

#[test]
fn texts_with_spans_are_read_and_written_alike() {
    let tiny = tiny();
    let lines = |rows: std::ops::Range<usize>| {
        let line = |row: usize| {
            let (mut text, mut spans): (String, Vec<(usize, usize, &str)>) = (String::new(), Vec::new());
            for (word, tag) in sentence(row) {
                if !text.is_empty() {
                    text.push(' ');
                }
                let start = text.chars().count();
                text.push_str(word);
                let end = text.chars().count();
                match (tag.split_once('-'), spans.last_mut()) {
                    (Some(("B", kind)), _) => spans.push((start, end, kind)),
                    (Some(_), Some(last)) => last.1 = end,
                    _ => {}
                }
            }
            let spans: Vec<_> = spans
                .into_iter()
                .map(|(start, end, kind)| serde_json::json!({"start": start, "end": end, "label": kind}))
                .collect();
            format!("{}\n", serde_json::json!({"id": row, "text": text, "entities": spans}))
        };
        rows.map(line).collect::<String>()
    };
    tiny.write("train.jsonl", lines(0..60));
    tiny.write("test.jsonl", lines(100..125));
    let spans = TrainSettings {
        train: Some(vec![tiny.path("train.jsonl")]),
        eval: Some(vec![tiny.path("test.jsonl")]),
        epochs: Some(24.0),
        model_dropout: Some(0.0),
        ..settings(&tiny, "full", "result")
    };
    let (report, ear) = train(&spans).unwrap();
    assert!(ear.heard("words with tags, or texts with entities"), "{:?}", ear.said);
    assert!(report.metrics.unwrap()["f1"] > 0.95);
    let (file, writing) = (FileSettings::default(), Writing::default());
    predict::file(
        &model(tiny.path("result")),
        &[tiny.path("test.jsonl")],
        &tiny.path("out.jsonl"),
        &file,
        None,
        writing,
    )
    .unwrap();
    let out = std::fs::read_to_string(tiny.path("out.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    // Row 100: "the transfer money not" or the like; what was predicted has the form of what is there.
    let (gold, found) = (&first["entities"][0], &first["predicted_entities"][0]);
    assert_eq!(
        (&gold["start"], &gold["end"], &gold["label"]),
        (&found["start"], &found["end"], &found["type"])
    );
    assert_eq!(found["text"], "transfer money");
    // What was predicted can be learnt from again.
    let again = TrainSettings {
        train: Some(vec![tiny.path("out.jsonl")]),
        eval: None,
        file: FileSettings { label_column: Some("predicted_entities".into()), ..FileSettings::default() },
        epochs: Some(1.0),
        ..settings(&tiny, "full", "again")
    };
    assert_eq!(train(&again).unwrap().0.labels.len(), 5);
}

#[test]
fn tags_count_as_they_are_in_the_file() {
    let tiny = tiny();
    let with_ends = |row: usize| {
        let words = sentence(row);
        let goes_on = |place: usize| words.get(place + 1).is_some_and(|(_, tag)| tag.starts_with('I'));
        let tag = |(place, (word, tag)): (usize, &(&str, &str))| match tag.split_once('-') {
            Some((prefix, kind)) if !goes_on(place) => {
                format!("{word}\t{}-{kind}\n", if prefix == "B" { 'S' } else { 'E' })
            }
            _ => format!("{word}\t{tag}\n"),
        };
        words.iter().enumerate().map(tag).collect::<String>() + "\n"
    };
    let settings = TrainSettings {
        train: Some(vec![tiny.write("bioes.conll", (0..60).map(with_ends).collect::<String>())]),
        eval: Some(vec![tiny.write("eval.conll", (100..125).map(with_ends).collect::<String>())]),
        epochs: Some(24.0),
        model_dropout: Some(0.0),
        ..entities(&tiny, "full", "result")
    };
    let metrics = train(&settings).unwrap().0.metrics.unwrap();
    assert!(metrics["f1"] > 0.95 && metrics["f1_strict"] > 0.95, "{metrics:?}");
    // The test file tells no ends: to BIOES none of its entities is whole, and its tags are others.
    let result = model(tiny.path("result"));
    let asked = |scheme: Option<&str>| {
        let file = FileSettings { tag_scheme: scheme.map(str::to_string), ..FileSettings::default() };
        evaluate(&result, None, &[tiny.path("test.conll")], &file, None)
    };
    let broken = asked(None).unwrap();
    let values = &broken.metrics.values;
    assert!((values["f1"] - metrics["f1"]).abs() < 1e-12 && values["f1_strict"] == 0.0, "{values:?}");
    assert!(values["token_accuracy"] < metrics["token_accuracy"] - 0.1, "{values:?}");
    assert!(
        broken.said.iter().any(|said| said.starts_with("no tag of these rows tells where an entity ends"))
    );
    // Unless somebody says what they are.
    let said = asked(Some("iob2")).unwrap();
    assert!((said.metrics.values["f1_strict"] - metrics["f1_strict"]).abs() < 1e-12);
    let error = asked(Some("bmes")).unwrap_err().to_string();
    assert!(error.contains("test.conll: line "), "{error}");
}

#[test]
fn what_comes_before_a_training_knows_the_task() {
    let tiny = tiny();
    let given = entities(&tiny, "lora", "result");
    let mut ear = Ear::default();
    let cost = plan(&given, None, &mut ear).unwrap();
    assert_eq!((cost.train_rows, cost.eval_rows, cost.steps), (60, 25, 18));
    let diagnosis = doctor(&given, &mut ear).unwrap();
    let found: Vec<_> = diagnosis.findings.iter().map(|finding| finding.check).collect();
    // The rows of so small a file repeat.
    assert!(
        found.iter().all(|check| ["duplicates", "leak", "steps"].contains(check)),
        "{:?}",
        diagnosis.findings
    );
    assert_eq!(diagnosis.counts.supervised_rows, 60);
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_bits() {
    let tiny = tiny();
    train(&entities(&tiny, "lora", "whole")).unwrap();
    let mut ear = Ear { interrupt_after: Some(11), ..Ear::default() };
    let parted = entities(&tiny, "lora", "parted");
    assert!(matches!(retune::train(&parted, &mut ear), Err(retune::Error::Interrupted { step: 11, .. })));
    train(&TrainSettings { resume: Some(true), ..parted }).unwrap();
    let weights = |name: &str| std::fs::read(tiny.path(name).join("adapter_model.safetensors")).unwrap();
    assert_eq!(weights("whole"), weights("parted"));
}

#[test]
fn what_cannot_be_learnt_is_refused_with_its_place() {
    let tiny = tiny();
    for (name, text, words) in [
        ("ragged.conll", "a\tO\nb\nc\tO\n", "line 2: expected 2 columns, as on line 1, got 1"),
        ("none.conll", "a\tO\n\nb\tO\n", "expected entities, got none in all 2 rows"),
        ("mixed.conll", "a\tB-x\nb\tM-x\nc\tI-x\n", "expected tags of one scheme, got the prefixes `M`, `I`"),
        (
            "wrong.conll",
            "a\tB-x\nb\tNN\n",
            "line 2: column `2`: expected O or a tag such as B-person, got `NN`",
        ),
        (
            "short.jsonl",
            "{\"tokens\": [\"a\", \"b\"], \"tags\": [\"O\"]}\n",
            "expected a tag for each of 2 words, got 1",
        ),
        (
            "beyond.jsonl",
            "{\"text\": \"ab\", \"entities\": [[0, 3, \"x\"]]}\n",
            "within the 2 characters of its text",
        ),
        (
            "odd.jsonl",
            "{\"text\": \"ab\", \"entities\": [{\"start\": 0}]}\n",
            "expected a JSON list of entities",
        ),
        ("nested.jsonl", "{\"tokens\": [[\"a\"]], \"tags\": [\"O\"]}\n", "expected a JSON list of words"),
    ] {
        tiny.write(name, text);
        let task = Some("token-classification".into());
        let format = name.ends_with("conll").then(|| "conll".to_string());
        let file = FileSettings { format, ..FileSettings::default() };
        let bad = TrainSettings {
            train: Some(vec![tiny.path(name)]),
            eval: None,
            task,
            file,
            ..entities(&tiny, "full", "no")
        };
        let error = refused(&bad);
        assert!(error.contains(words) && error.contains(name), "{name}: {error}");
        assert!(!tiny.path("no").exists());
    }
    let other = TrainSettings {
        eval: Some(vec![tiny.path("test.conll"), tiny.write("eval.conll", "a\tB-x\n")]),
        ..entities(&tiny, "full", "no")
    };
    let error = refused(&other);
    assert!(
        error.contains("eval.conll: line 1: expected entities of training's 2 types (act, land), got `x`"),
        "{error}"
    );
}
