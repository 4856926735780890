//! Questions over texts: from SQuAD's JSON to a result that answers, or says that there is no answer.

use std::path::PathBuf;

use retune::evaluate::evaluate;
use retune::predict::{self, Writing};
use retune::{Answer, Card, FileSettings, ModelSettings, TrainSettings};
use serde_json::{Value, json};

use crate::run::{model, refused, settings, train};
use crate::tiny::Tiny;

const TELLING: [&str; 3] = ["pay", "lost", "money"];

/// Texts with one word to be found, or none, which is told at its wrong place now and then; some are longer than a window.
fn squad(rows: std::ops::Range<usize>, unanswerable: bool) -> String {
    let paragraph = |row: usize| {
        let word = TELLING[row % 3];
        let none = unanswerable && row % 4 == 3;
        let before = "my card is ".repeat(row % 5);
        let middle = if none { "the" } else { word };
        let context = format!("{before}{middle} not the card 丢了, é.");
        let start = if row % 6 == 5 { 0 } else { before.chars().count() };
        let question = ["is it?", "丢了?"][row % 2];
        let answers = if none { json!([]) } else { json!([{"text": word, "answer_start": start}]) };
        json!({"context": context, "qas": [
            {"id": format!("q{row}"), "question": question, "answers": answers, "is_impossible": none}
        ]})
    };
    let paragraphs: Vec<Value> = rows.map(paragraph).collect();
    json!({"version": "v2.0", "data": [{"title": "all", "paragraphs": paragraphs}]}).to_string()
}

fn questions(tiny: &Tiny, method: &str, output: &str, unanswerable: bool) -> TrainSettings {
    let settings = settings(tiny, method, output);
    TrainSettings {
        train: Some(vec![tiny.write("train.json", squad(0..72, unanswerable))]),
        eval: Some(vec![tiny.write("test.json", squad(100..140, unanswerable))]),
        epochs: Some(12.0),
        model_dropout: Some(0.0),
        max_length: Some(20),
        model: ModelSettings { doc_stride: Some(4), ..settings.model.clone() },
        ..settings
    }
}

fn read(path: &PathBuf) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn what_is_learnt_is_what_is_evaluated_and_predicted() {
    let tiny = Tiny::new();
    let (report, ear) = train(&questions(&tiny, "full", "run", true)).unwrap();
    assert_eq!((report.task, report.labels.len()), ("question-answering", 2));
    assert!(ear.heard("task question-answering: the file is SQuAD's JSON"), "{:?}", ear.said);
    assert!(ear.heard("18 of 72 questions have no answer in the text"), "{:?}", ear.said);
    assert!(ear.heard("answers did not stand where the file says"), "{:?}", ear.said);
    assert!(ear.heard("no answer is given where it is likelier than the best by"), "{:?}", ear.said);
    assert!(ear.heard("windows share 4 tokens"), "{:?}", ear.said);
    let metrics = report.metrics.unwrap();
    assert!(metrics["f1"] > 0.8 && metrics["no_answer_f1"] > 0.5, "{metrics:?}");

    let run = tiny.path("run");
    let card = Card::open(&run).unwrap().unwrap();
    assert_eq!(card.thresholds.as_ref().map(Vec::len), Some(1));
    let config: Value = serde_json::from_str(&read(&run.join("config.json"))).unwrap();
    assert_eq!(config["architectures"][0], "BertForQuestionAnswering");
    // The receipt says what `evaluate` says on the same file.
    let file = FileSettings::default();
    let finished = model(&run);
    let evaluation = evaluate(&finished, None, &[tiny.path("test.json")], &file, None).unwrap();
    for (name, value) in &card.receipt.unwrap().metrics {
        if name != "f1_at_zero" {
            assert!((evaluation.metrics.get(name).unwrap() - value).abs() < 1e-9, "{name}");
        }
    }
    let intervals = evaluation.metrics.intervals.unwrap();
    assert!(intervals.scores["f1"].low <= metrics["f1"] && metrics["f1"] <= intervals.scores["f1"].high);
    assert_eq!(evaluation.rows, 40);

    // SQuAD's predictions by id, and the same as rows.
    let (by_id, rows) = (tiny.path("predictions.json"), tiny.path("predictions.jsonl"));
    for output in [&by_id, &rows] {
        predict::file(&finished, &[tiny.path("test.json")], output, &file, None, Writing::default()).unwrap();
    }
    let by_id: Value = serde_json::from_str(&read(&by_id)).unwrap();
    assert_eq!(by_id.as_object().unwrap().len(), 40);
    let mut right = 0.0;
    for line in read(&rows).lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!(by_id[row["id"].as_str().unwrap()], row["answer"]);
        let gold = row["answers"][0]["text"].as_str().unwrap_or_default();
        right += f64::from(u8::from(row["answer"] == gold));
        if let (Some(start), Some(end)) = (row["start"].as_u64(), row["end"].as_u64()) {
            let context: Vec<char> = row["context"].as_str().unwrap().chars().collect();
            let part: String = context[start as usize..end as usize].iter().collect();
            assert_eq!(row["answer"], part);
        }
        assert_eq!(row["n_best"].as_array().unwrap().iter().filter(|one| one["answer"] == "").count(), 1);
    }
    assert!((right / 40.0 - metrics["exact_match"]).abs() < 1e-9, "{right} {metrics:?}");
    // What was predicted is read again, and the questions in it asked again.
    let again = tiny.path("again.jsonl");
    predict::file(&finished, &[rows], &again, &file, None, Writing::default()).unwrap();
    assert_eq!(read(&again).lines().count(), 40);
}

#[test]
fn where_each_question_has_an_answer_there_is_always_one() {
    let tiny = Tiny::new();
    let (report, _) = train(&questions(&tiny, "full", "run", false)).unwrap();
    let metrics = report.metrics.unwrap();
    assert!(metrics["f1"] > 0.8 && !metrics.contains_key("no_answer_f1"), "{metrics:?}");
    let run = tiny.path("run");
    assert_eq!(Card::open(&run).unwrap().unwrap().thresholds, None);
    let texts =
        [("my card is lost".to_string(), "is it?".to_string()), ("the".to_string(), "is it?".to_string())];
    let finished = model(&run);
    let (predictions, _) = predict::pairs(&finished, &texts, None, false).unwrap();
    let said = |at: usize| match &predictions[at].answer {
        Answer::Span { answer, .. } => answer.clone(),
        other => format!("{other:?}"),
    };
    assert_eq!(said(0), "lost");
    assert_eq!(said(1), "the");
    // Asked to, it says that there is none.
    let silent = ModelSettings { thresholds: Some("-1000".into()), n_best: Some(2), ..finished };
    let (predictions, _) = predict::pairs(&silent, &texts, None, false).unwrap();
    for prediction in predictions {
        let Answer::Span { answer, start, n_best, .. } = prediction.answer else { continue };
        assert_eq!((answer.as_str(), start), ("", None));
        assert!(n_best.len() <= 3);
    }
}

/// Where only one of the two files has questions without an answer, nothing is tuned.
#[test]
fn when_to_give_no_answer_is_what_the_training_says() {
    let tiny = Tiny::new();
    let of = |output: &str, train: bool| {
        let eval = tiny.write(&format!("{output}.json"), squad(100..140, !train));
        let settings = questions(&tiny, "head", output, train);
        TrainSettings { eval: Some(vec![eval]), epochs: Some(0.5), ..settings }
    };
    let thresholds = |output: &str| Card::open(&tiny.path(output)).unwrap().unwrap().thresholds;
    let (_, ear) = train(&of("trained", true)).unwrap();
    assert!(!ear.heard("tuned on the evaluation rows"), "{:?}", ear.said);
    assert_eq!(thresholds("trained"), Some(vec![0.0]));
    let (_, ear) = train(&of("evaluated", false)).unwrap();
    assert!(
        ear.heard("every question of the training has an answer, so there is always one"),
        "{:?}",
        ear.said
    );
    assert_eq!(thresholds("evaluated"), None);
    let mut asked = of("asked", true);
    asked.model.thresholds = Some("tuned".into());
    assert!(refused(&asked).contains("--thresholds: every question of the evaluation rows has an answer"));
}

#[test]
fn an_adapter_says_what_it_is_for_and_brings_its_head() {
    let tiny = Tiny::new();
    let settings = TrainSettings { epochs: Some(1.0), ..questions(&tiny, "lora", "run", true) };
    let (report, _) = train(&settings).unwrap();
    let run = tiny.path("run");
    let adapter: Value = serde_json::from_str(&read(&run.join("adapter_config.json"))).unwrap();
    assert_eq!(adapter["task_type"], "QUESTION_ANS");
    assert!(adapter["modules_to_save"].to_string().contains("qa_outputs"), "{adapter}");
    let file = FileSettings::default();
    let evaluation = evaluate(&model(&run), None, &[tiny.path("test.json")], &file, None).unwrap();
    assert!((evaluation.metrics.get("f1").unwrap() - report.metrics.unwrap()["f1"]).abs() < 1e-9);
}

#[test]
fn two_models_are_compared_question_by_question() {
    let tiny = Tiny::new();
    train(&questions(&tiny, "full", "run", true)).unwrap();
    let weak = TrainSettings { epochs: Some(0.2), ..questions(&tiny, "full", "weak", true) };
    train(&weak).unwrap();
    let (first, second) = (model(tiny.path("run")), model(tiny.path("weak")));
    let file = FileSettings::default();
    let evaluation = evaluate(&first, Some(&second), &[tiny.path("test.json")], &file, None).unwrap();
    let comparison = evaluation.comparison.unwrap();
    assert_eq!(comparison.metric, "f1");
    assert!(comparison.paired.difference > 0.0 && comparison.paired.p_value < 0.05, "{comparison:?}");
    let weak = evaluate(&second, None, &[tiny.path("test.json")], &file, None).unwrap();
    assert!(!weak.mistakes.is_empty() && weak.mistakes.len() <= 20);
    assert!(weak.mistakes.iter().all(|mistake| mistake.score.is_finite() && mistake.line == 1));
}

/// What a user has in several files, some of it wrong.
#[test]
fn files_of_rows_are_known_and_placed() {
    let tiny = Tiny::new();
    let row = |id: &str, context: &str, answer: &str| {
        json!({"id": id, "context": context, "question": "is it?", "answers": [answer]}).to_string()
    };
    // What is evaluated cannot be found, so that each is a mistake.
    let rows = |ids: std::ops::Range<usize>| -> Vec<String> {
        let answer = if ids.start == 0 { "lost" } else { "nowhere" };
        ids.map(|id| row(&format!("q{id}"), &format!("my card {id} is lost"), answer)).collect()
    };
    let array = tiny.write("array.json", format!("[{}]", rows(0..30).join(",\n")));
    let (first, second) =
        (tiny.write("a.jsonl", rows(30..40).join("\n")), tiny.write("b.jsonl", rows(40..50).join("\n")));
    let settings = TrainSettings {
        train: Some(vec![array]),
        eval: Some(vec![first.clone()]),
        epochs: Some(0.1),
        ..questions(&tiny, "head", "run", false)
    };
    let (report, ear) = train(&settings).unwrap();
    assert_eq!(report.task, "question-answering");
    assert!(ear.heard("the file has columns for contexts, questions and answers"), "{:?}", ear.said);
    let (finished, file) = (model(tiny.path("run")), FileSettings::default());
    let mistakes = |data: &[PathBuf]| evaluate(&finished, None, data, &file, None).unwrap().mistakes;
    let of_both = mistakes(&[first.clone(), second.clone()]);
    let ours = |wrong: &retune::evaluate::WrongAnswer| {
        wrong.file.as_ref().is_some_and(|file| *file == first || *file == second)
    };
    assert!(of_both.len() == 20 && of_both.iter().all(ours), "{of_both:?}");
    assert!(mistakes(std::slice::from_ref(&first)).iter().all(|wrong| wrong.file.is_none()));
    // An id that is in both files is told before anything is predicted.
    let twice = tiny.write("c.jsonl", format!("\n{}", row("q33", "it is lost", "lost")));
    let input = [first.clone(), twice.clone()];
    let predict =
        |output: &str| predict::file(&finished, &input, &tiny.path(output), &file, None, Writing::default());
    let error = predict("out.json").unwrap_err().to_string();
    let expected = format!(
        "{}: line 2: expected an id of its own for each question, got `q33` twice, first on line 4 of {}",
        twice.display(),
        first.display()
    );
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(predict("out.jsonl").unwrap().rows, 11);
    // Windows that share less than was asked for are told of.
    let crowded = TrainSettings {
        max_length: Some(12),
        model: ModelSettings { doc_stride: Some(8), ..settings.model.clone() },
        output: Some(tiny.path("crowded")),
        ..settings
    };
    let (_, ear) = train(&crowded).unwrap();
    assert!(ear.heard("too little of a row for windows of a text to share 8 tokens"), "{:?}", ear.said);
}

#[test]
fn what_cannot_be_is_refused() {
    let tiny = Tiny::new();
    let good = questions(&tiny, "full", "run", true);
    let with = |change: &dyn Fn(&mut TrainSettings)| {
        let mut settings = good.clone();
        change(&mut settings);
        refused(&settings)
    };
    let twice = squad(0..72, true).replace("\"q7\"", "\"q8\"");
    let path = tiny.write("twice.json", twice);
    let nowhere = ["pay", "lost", "money"].iter().fold(squad(0..72, false), |squad, word| {
        squad.replace(&format!("\"text\":\"{word}\""), "\"text\":\"nothing of it\"")
    });
    let nowhere = tiny.write("nowhere.json", nowhere);
    let one = squad(0..1, false).replace("\"text\":\"pay\"", "\"text\":\"nothing of it\"");
    let one = tiny.write("one.json", one);
    for (error, words) in [
        (
            with(&|s| s.model.thresholds = Some("x".into())),
            "--thresholds: expected tuned, or a number such as 0",
        ),
        (
            with(&|s| s.model.problem_type = Some("multi-label".into())),
            "--problem-type: it is for text-classification, and the task is question-answering",
        ),
        (
            with(&|s| s.model.doc_stride = Some(20)),
            "--doc-stride: expected fewer tokens than a row has, which are 20",
        ),
        (with(&|s| s.model.n_best = Some(0)), "--n-best: expected at least 1, got 0"),
        (with(&|s| s.label_smoothing = Some(0.1)), "--label-smoothing: it spreads a target over classes"),
        (
            with(&|s| s.train = Some(vec![path.clone()])),
            "expected an id of its own for each question, got `q8` twice",
        ),
        (
            with(&|s| s.train = Some(vec![nowhere.clone()])),
            "nowhere.json: expected answers that stand in their texts, but none of 72 does",
        ),
        (
            with(&|s| s.train = Some(vec![one.clone()])),
            "one.json: expected answers that stand in their texts, but the one answer does not",
        ),
        (with(&|s| (s.max_length, s.model.doc_stride) = (Some(4), Some(1))), "has no room"),
    ] {
        assert!(error.contains(words), "{error}\nexpected {words}");
    }
}

#[test]
fn questions_over_one_text_are_no_conflict_and_the_same_ones_are() {
    let tiny = Tiny::new();
    let asked = |questions: &[&str]| {
        let paragraph = |row: usize| {
            let word = TELLING[row % 3];
            let qas: Vec<Value> = questions
                .iter()
                .enumerate()
                .map(|(number, question)| {
                    let [text, start] = [[json!(word), json!(0)], [json!("card"), json!(word.len() + 4 + 3)]]
                        [number % 2]
                        .clone();
                    json!({"id": format!("{row}-{number}"), "question": question,
                        "answers": [{"text": text, "answer_start": start}]})
                })
                .collect();
            json!({"context": format!("{word} my {row} card"), "qas": qas})
        };
        json!({"data": [{"title": "t", "paragraphs": (0..30).map(paragraph).collect::<Vec<_>>()}]})
            .to_string()
    };
    let checks = |text: String| {
        let settings = TrainSettings {
            train: Some(vec![tiny.write("asked.json", text)]),
            eval: None,
            ..questions(&tiny, "full", "run", false)
        };
        let report = retune::doctor::doctor(&settings, &mut crate::run::Ear::default()).unwrap();
        report
            .findings
            .iter()
            .map(|finding| format!("{}: {}", finding.check, finding.what))
            .collect::<Vec<_>>()
    };
    let about_rows = |found: &[String]| {
        let about =
            |check| found.iter().filter(|found| found.starts_with(check)).cloned().collect::<Vec<_>>();
        ["conflicting-labels", "duplicates"].map(about)
    };
    assert_eq!(about_rows(&checks(asked(&["is it?", "what?"]))), [vec![], Vec::<String>::new()]);
    let [conflicts, duplicates] = about_rows(&checks(asked(&["is it?", "is  it?"])));
    assert_eq!(
        conflicts,
        ["conflicting-labels: 54 rows have the text of another row and another label than it"]
    );
    assert_eq!(duplicates, ["duplicates: 50.0% of 54 rows repeat the text of an earlier row"]);
}
