//! Train, evaluate, predict: what one step says the next one finds.

use retune::predict::{self, Writing};
use retune::{Card, FileSettings, METHODS, TrainSettings};

use crate::run::{answers, model, score, settings, train};
use crate::tiny::{LABELS, Tiny};

/// What lies in a result's folder, by the form of the result.
pub(crate) fn files(method: &str) -> Vec<&'static str> {
    let mut files = match method {
        "full" | "head" | "bitfit" | "norms" | "top-layers" => vec!["config.json", "model.safetensors"],
        "houlsby" | "pfeiffer" | "parallel-adapter" | "compacter" => {
            vec!["adapter.safetensors", "adapter_config.json", "head_config.json", "model_head.safetensors"]
        }
        _ => vec!["adapter_config.json", "adapter_model.safetensors"],
    };
    files.extend(["events.jsonl", "retune.json", "tokenizer.json", "tokenizer_config.json"]);
    files.sort_unstable();
    files
}

const LOGITS: Writing = Writing { logits: true, overwrite: true };

#[test]
fn every_method_trains_and_its_result_answers() {
    let tiny = Tiny::new();
    for method in METHODS.iter().map(|method| method.name()) {
        let (report, ear) = train(&settings(&tiny, method, method)).unwrap();
        assert_eq!(tiny.names(method), files(method));
        let mut sorted = LABELS;
        sorted.sort_unstable();
        assert_eq!(report.labels, sorted, "{method}");
        assert_eq!((report.train_rows, report.eval_rows, report.steps), (72, 31, 22));
        assert!(report.trainable_parameters <= report.total_parameters);
        assert_eq!(report.trainable_parameters == report.total_parameters, method == "full");
        let losses = ear.losses();
        assert!(losses.iter().all(|loss| loss.is_finite()) && losses.len() == 22, "{method}: {losses:?}");

        let result = model(tiny.path(method));
        let evaluation = score(&result, &tiny, "test.csv").unwrap();
        let metrics = report.metrics.as_ref().unwrap();
        assert_eq!(
            metrics["accuracy"].to_bits(),
            evaluation.metrics.values["accuracy"].to_bits(),
            "{method}"
        );
        assert_eq!(
            metrics["f1_macro"].to_bits(),
            evaluation.metrics.values["f1_macro"].to_bits(),
            "{method}"
        );
        let (trained, loaded) = (report.evaluation.as_ref().unwrap().loss, evaluation.loss);
        // AdaLoRA's file leaves out what adds 0, so sums are taken in another order.
        let same = trained.to_bits() == loaded.to_bits();
        let near = method == "adalora" && (trained - loaded).abs() < 1e-6;
        assert!(same || near, "{method}: {trained} and {loaded}");
        assert_eq!(report.evaluation.as_ref().unwrap().matrix, evaluation.matrix, "{method}");
        let intervals = evaluation.metrics.intervals.unwrap();
        assert!(
            intervals.scores["accuracy"].low <= metrics["accuracy"]
                && metrics["accuracy"] <= intervals.scores["accuracy"].high
        );

        let card = Card::open(&tiny.path(method)).unwrap().unwrap();
        let receipt = card.receipt.unwrap();
        assert_eq!((&receipt.metrics, receipt.step), (metrics, report.kept_step), "{method}");
        assert_eq!((card.method.as_str(), card.labels.as_slice()), (method, report.labels.as_slice()));
        assert_eq!((card.train.rows, card.eval.unwrap().rows), (Some(72), Some(31)));
    }
}

#[test]
fn enough_steps_learn_the_rows() {
    let tiny = Tiny::new();
    for (method, least) in [("full", 0.9), ("lora", 0.8)] {
        // Without dropout, which is half of what so narrow a model knows: what it learns would be a matter of draws.
        let long =
            TrainSettings { epochs: Some(24.0), model_dropout: Some(0.0), ..settings(&tiny, method, method) };
        train(&long).unwrap();
        // Half of the rows have the commonest label.
        let learnt = score(&model(tiny.path(method)), &tiny, "test.csv").unwrap().metrics.values["accuracy"];
        assert!(learnt > least, "{method}: {learnt}");
    }
}

#[test]
fn predictions_are_those_that_were_counted() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "full", "result")).unwrap();
    let result = model(tiny.path("result"));
    let evaluation = score(&result, &tiny, "test.csv").unwrap();
    let to = |name: &str| {
        let file = FileSettings::default();
        let done =
            predict::file(&result, &[tiny.path("test.csv")], &tiny.path(name), &file, None, LOGITS).unwrap();
        assert_eq!((done.rows, done.tokens, done.truncated), (31, evaluation.tokens, 0));
        std::fs::read_to_string(tiny.path(name)).unwrap()
    };
    let lines = to("out.jsonl");
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let table = to("out.CSV");
    let mut table = csv::Reader::from_reader(table.as_bytes());
    assert_eq!(table.headers().unwrap(), vec!["text", "label", "predicted_label", "score", "logits"]);
    let gold = std::fs::read_to_string(tiny.path("test.csv")).unwrap();
    let mut gold = csv::Reader::from_reader(gold.as_bytes());

    let mut right = 0;
    let all = lines.iter().zip(table.records()).zip(gold.records());
    for ((line, record), gold) in all {
        let (record, gold) = (record.unwrap(), gold.unwrap());
        assert_eq!((line["text"].as_str().unwrap(), &record[0]), (&gold[0], &gold[0]));
        assert_eq!((line["label"].as_str().unwrap(), &record[1]), (&gold[1], &gold[1]));
        assert_eq!(line["predicted_label"].as_str().unwrap(), &record[2]);
        right += usize::from(record[2] == gold[1]);
        let logits: Vec<f64> = serde_json::from_str(&record[4]).unwrap();
        assert_eq!(serde_json::json!(logits), line["logits"]);
        let best = logits.iter().copied().fold(f64::MIN, f64::max);
        let score = 1.0 / logits.iter().map(|logit| (logit - best).exp()).sum::<f64>();
        assert!((line["score"].as_f64().unwrap() - score).abs() < 1e-5);
    }
    assert_eq!(lines.len(), 31);
    assert!((right as f64 / 31.0 - evaluation.metrics.values["accuracy"]).abs() < 1e-12);
}

#[test]
fn a_row_alone_is_the_row_in_a_file() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "lora", "result")).unwrap();
    let result = model(tiny.path("result"));
    let together = answers(&result);
    for (row, text) in together.iter().map(|one| one.text.clone()).enumerate() {
        let (alone, done) = predict::texts(&result, &[text], None, true).unwrap();
        assert!(crate::run::difference(&alone, &together[row..=row]) < 1e-5);
        assert_eq!(done.rows, 1);
    }
}

#[test]
fn rows_to_predict_need_no_label_and_may_be_empty() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "head", "result")).unwrap();
    // The label's column is not there, another is, and a text is missing.
    tiny.write("new.csv", "id,text\n7,my card\n8,\n9,\"pay,\nnot lost\"\n");
    let out = tiny.path("out.jsonl");
    let file = FileSettings::default();
    let done = predict::file(
        &model(tiny.path("result")),
        &[tiny.path("new.csv")],
        &out,
        &file,
        None,
        Writing::default(),
    )
    .unwrap();
    assert_eq!(done.rows, 3);
    let lines = std::fs::read_to_string(&out).unwrap();
    let texts: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].as_str().unwrap().into())
        .collect();
    assert_eq!(texts, ["my card", "", "pay,\nnot lost"]);
    assert!(!lines.contains("logits"));
}

#[test]
fn predictions_do_not_replace_their_input() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "head", "result")).unwrap();
    let before = std::fs::read(tiny.path("test.csv")).unwrap();
    let file = FileSettings::default();
    let into = tiny.path("result/../test.csv");
    let error = predict::file(
        &model(tiny.path("result")),
        &[tiny.path("test.csv")],
        &into,
        &file,
        None,
        Writing::default(),
    );
    let error = error.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("is the input, which it would replace"), "{error}");
    assert_eq!(std::fs::read(tiny.path("test.csv")).unwrap(), before);
}

#[test]
fn a_row_keeps_all_that_it_had() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "head", "result")).unwrap();
    let result = model(tiny.path("result"));
    let file = FileSettings { text_column: Some("say it".into()), ..FileSettings::default() };
    let rows = "{\"id\": 7.50, \"say it\": \"my card\", \"score\": {\"é\": [1]}}\n{\"label\": \"12\", \"say it\": \"丢\"}\n";
    let from = [tiny.write("new.jsonl", rows)];
    let write = |to: &str, writing: Writing| {
        let done = predict::file(&result, &from, &tiny.path(to), &file, None, writing);
        done.map(|done| {
            (String::from_utf8_lossy(&std::fs::read(tiny.path(to)).unwrap()).into_owned(), done.said)
        })
    };
    let (lines, said) = write("out.jsonl", Writing::default()).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    assert!(
        lines[0].starts_with(r#"{"id":7.50,"say it":"my card","score":{"é": [1]},"predicted_label":""#),
        "{lines:?}"
    );
    assert!(lines[1].starts_with(r#"{"say it":"丢","label":"12","predicted_label":""#), "{lines:?}");
    let second: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert!(second["predicted_score"].as_f64().unwrap() > 0.3, "{second}");
    let words = "the prediction is in `predicted_label`, not `label`, `predicted_score`, not `score`: the file has such a column";
    assert!(said.iter().any(|sentence| sentence == words), "{said:?}");
    assert!(said.contains(&"text column `say it`: as asked".to_string()), "{said:?}");

    let (table, _) = write("out.tsv", Writing::default()).unwrap();
    assert!(
        table.starts_with("id\tsay it\tscore\tlabel\tpredicted_label\tpredicted_score\n7.50\tmy card\t"),
        "{table}"
    );
    // The name says what is written, packed or not, and another is refused.
    let (array, _) = write("out.json", Writing::default()).unwrap();
    let array: Vec<serde_json::Value> = serde_json::from_str(&array).unwrap();
    assert_eq!(
        array,
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    );
    for (name, magic) in [("out.csv.gz", &[0x1f, 0x8b][..]), ("out.jsonl.ZST", &[0x28, 0xb5, 0x2f, 0xfd])] {
        write(name, Writing::default()).unwrap();
        assert!(std::fs::read(tiny.path(name)).unwrap().starts_with(magic));
        let table = retune_data::read_table(&tiny.path(name), &retune_data::ReadOptions::default()).unwrap();
        assert_eq!(table.row(0).unwrap().unwrap().get(1), Some("my card"), "{name}");
    }
    for (name, ending) in [("out.parquet", "parquet"), ("out.conll.gz", "conll"), ("out.xlsx", "xlsx")] {
        let error = write(name, Writing::default()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let words = format!(
            "{name}: expected a name that ends in .csv, .tsv, .jsonl, .ndjson, .json, or in one of these and .gz or .zst, or \
             that has no ending, got `.{ending}`"
        );
        assert!(error.to_string().contains(&words), "{error}");
        assert!(!tiny.path(name).exists());
    }
    // What is there stays, unless it is empty or was given up.
    let error = write("out.tsv", Writing::default()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(
        error.to_string().contains("out.tsv: there is such a file; give another --output, or --overwrite"),
        "{error}"
    );
    assert_eq!(write("out.tsv", Writing { overwrite: true, ..Writing::default() }).unwrap().0, table);
    tiny.write("empty.tsv", "");
    assert_eq!(write("empty.tsv", Writing::default()).unwrap().0, table);

    // The model's own columns are not called asked for, and a pair that is found is not called given.
    let evaluation = score(&result, &tiny, "test.csv").unwrap();
    assert!(evaluation.said.contains(&"label column `label`: as the model was trained".to_string()));
    tiny.write("pairs.csv", "premise,hypothesis,label\nmy card,is lost,pay\n");
    let error = score(&result, &tiny, "pairs.csv").unwrap_err().to_string();
    assert!(
        error.contains("pairs.csv: `premise` and `hypothesis` are taken for two texts a row by their names"),
        "{error}"
    );
    assert!(error.ends_with("name the one to read with --text-column"), "{error}");
}
