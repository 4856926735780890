//! `doctor` on a real model: it finds what was planted, and is silent where nothing was.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::command::{Done, retune};

/// Rows of the sample that most tests take: enough for every check, few enough to be quick.
const SOME: usize = 231;

/// A row of the sample.
type Row = (String, String);

struct Ward {
    folder: tempfile::TempDir,
    model: String,
}

impl Ward {
    /// None, said aloud, where there is no real model: a random one learns nothing, healthy or not.
    fn new() -> Option<Self> {
        let Some(model) = std::env::var_os("RETUNE_TEST_MODEL").map(PathBuf::from) else {
            eprintln!("SKIPPED: RETUNE_TEST_MODEL names no model's folder, such as that of all-MiniLM-L6-v2");
            return None;
        };
        Some(Ward { folder: tempfile::tempdir().unwrap(), model: model.display().to_string() })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, rows: &[Row]) -> String {
        let mut writer = csv::Writer::from_path(self.path(name)).unwrap();
        writer.write_record(["text", "intent"]).unwrap();
        rows.iter().for_each(|(text, intent)| writer.write_record([text, intent]).unwrap());
        writer.flush().unwrap();
        self.path(name)
    }

    fn doctor(&self, arguments: &[&str]) -> Done {
        retune(&[&["doctor", "--json"], arguments].concat())
    }

    /// The checks that found something.
    fn found(&self, arguments: &[&str]) -> Vec<String> {
        let model = ["--model", &self.model];
        let model = if arguments.contains(&"--model") { &[][..] } else { &model[..] };
        let done = self.doctor(&[model, arguments].concat()).succeeded();
        let document = done.json();
        let findings = document["findings"].as_array().unwrap();
        for finding in findings {
            // What, where, why and what to do are all said.
            for part in ["what", "place", "why", "fix"] {
                let said = finding[part].as_str().unwrap();
                assert!(!said.is_empty() && done.stderr.contains(said), "{part}: {finding}");
            }
        }
        findings.iter().map(|finding| finding["check"].as_str().unwrap().to_string()).collect()
    }
}

fn sample(name: &str) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/support").join(name);
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.records().map(|row| row.unwrap()).map(|row| (row[0].to_string(), row[1].to_string())).collect()
}

#[test]
fn healthy_runs_are_met_with_silence() {
    let Some(ward) = Ward::new() else { return };
    let rows = sample("train.csv");
    let all = ward.write("all.csv", &rows);
    let train = ward.write("train.csv", &rows[..SOME]);
    let test = ward.write("test.csv", &sample("test.csv")[..80]);
    let two: Vec<_> =
        rows.iter().filter(|row| row.1.contains("order") || row.1.contains("refund")).cloned().collect();
    let two = ward.write("two.csv", &two);
    for run in [
        &["--train", &train, "--method", "full"][..],
        &["--train", &train, "--method", "lora"],
        &["--train", &all, "--method", "bitfit"],
        &["--train", &train, "--method", "head"],
        &["--train", &train, "--eval", &test, "--method", "full", "--learning-rate", "3e-5"],
        &[
            "--train",
            &train,
            "--eval-split",
            "0",
            "--method",
            "lora",
            "--rank",
            "4",
            "--target-modules",
            "query,value",
        ],
        &["--train", &train, "--method", "full", "--batch-tokens", "400", "--label-smoothing", "0.1"],
        &["--train", &two, "--method", "full", "--batch-size", "8", "--epochs", "2"],
        &[
            "--train",
            &train,
            "--limit",
            "160",
            "--method",
            "lora",
            "--seed",
            "4",
            "--class-weights",
            "balanced",
        ],
        &[
            "--train",
            &train,
            "--method",
            "full",
            "--shuffle",
            "false",
            "--max-length",
            "64",
            "--accumulation",
            "2",
        ],
    ] {
        assert_eq!(ward.found(run), Vec::<String>::new(), "{run:?}");
    }
}

#[test]
fn faults_of_the_rows_are_found() {
    let Some(ward) = Ward::new() else { return };
    let rows = &sample("train.csv")[..SOME];
    let test = &sample("test.csv")[..80];
    let write = |name: &str, rows: &[Row]| ward.write(name, rows);
    let with_labels = |name: &str, label: &dyn Fn(usize) -> usize| {
        let rows: Vec<_> =
            (0..rows.len()).map(|row| (rows[row].0.clone(), rows[label(row)].1.clone())).collect();
        write(name, &rows)
    };
    // A permutation of the labels: 8 and the number of rows have no factor in common.
    assert!(!rows.len().is_multiple_of(8));
    let shuffled = with_labels("shuffled.csv", &|row| (row * 8 + 3) % rows.len());
    let contradicted: Vec<_> = rows
        .iter()
        .take(20)
        .map(|(text, _)| (format!(" {}", text.to_uppercase()), rows[30].1.clone()))
        .collect();
    let conflicting = write("conflicting.csv", &[rows, &contradicted].concat());
    let repeated = write("repeated.csv", &[rows, &rows[..120]].concat());
    let rare = rows.iter().enumerate().filter(|(row, (_, intent))| intent != "cancel_order" || *row < 8);
    let rare = write("rare.csv", &rare.map(|(_, row)| row.clone()).collect::<Vec<_>>());
    let leaking = write("leaking.csv", &[test, &rows[..40]].concat());
    let test = write("test.csv", test);
    let foreign =
        rows.iter().map(|(text, intent)| (text.replace(['a', 'e', 'i', 'o', 'u'], "ሀለ"), intent.clone()));
    let foreign = write("foreign.csv", &foreign.collect::<Vec<_>>());
    for (fault, run) in [
        ("shuffled-labels", &["--train", &shuffled, "--method", "head"][..]),
        ("conflicting-labels", &["--train", &conflicting, "--method", "head"]),
        ("duplicates", &["--train", &repeated, "--method", "head"]),
        ("imbalance", &["--train", &rare, "--method", "head"]),
        (
            "leak",
            &["--train", &shuffled.replace("shuffled", "repeated"), "--eval", &leaking, "--method", "head"],
        ),
        ("truncation", &["--train", &test, "--max-length", "6", "--method", "head"]),
        ("unknown-tokens", &["--train", &foreign, "--method", "head"]),
    ] {
        let found = ward.found(run);
        assert!(found.contains(&fault.to_string()), "{fault}: {found:?}");
    }
}

#[test]
fn faults_of_the_settings_are_found() {
    let Some(ward) = Ward::new() else { return };
    let mut rows = sample("train.csv")[..SOME].to_vec();
    let train = ward.write("train.csv", &rows);
    rows.sort_by(|left, right| left.1.cmp(&right.1));
    let sorted = ward.write("sorted.csv", &rows);
    for (fault, run) in [
        ("learning-rate", &["--train", &train, "--method", "full", "--learning-rate", "0.1"][..]),
        ("overfit", &["--train", &train, "--method", "full", "--learning-rate", "0.1"]),
        ("learning-rate", &["--train", &train, "--method", "lora", "--learning-rate", "2e-6"]),
        (
            "order-of-rows",
            &["--train", &sorted, "--method", "head", "--shuffle", "false", "--batch-size", "16"],
        ),
        ("steps", &["--train", &train, "--method", "head", "--epochs", "0.5"]),
    ] {
        let found = ward.found(run);
        assert!(found.contains(&fault.to_string()), "{fault}: {found:?}");
    }
    let strict =
        ["--model", &ward.model, "--train", &train, "--method", "head", "--epochs", "0.5", "--strict"];
    assert_eq!(ward.doctor(&strict).code, 2);
    let output = ward.path("result");
    let refused = retune(&[&["train", "--output", &output], &strict[..]].concat());
    refused.refused("--strict: 1 finding (steps); mend them, or leave --strict out");
    assert!(!Path::new(&output).exists(), "nothing is written");
}

#[test]
fn faults_of_a_trained_model_are_found() {
    let Some(ward) = Ward::new() else { return };
    let train = ward.write("train.csv", &sample("train.csv")[..SOME]);
    let job = |method: &str, output: &str, more: &[&str]| {
        let fixed =
            ["train", "--model", &ward.model, "--train", &train, "--method", method, "--output", output];
        retune(&[&fixed, more].concat()).succeeded();
    };
    let swapped = ward.path("swapped");
    job("head", &swapped, &["--learning-rate", "0.01", "--epochs", "6", "--eval-split", "0"]);
    assert_eq!(
        ward.found(&["--model", &swapped, "--train", &train, "--method", "head"]),
        Vec::<String>::new()
    );
    rename(&swapped);
    let found = ward.found(&["--model", &swapped, "--train", &train, "--method", "head"]);
    assert!(found.contains(&"swapped-labels".to_string()), "{found:?}");
    assert!(found.contains(&"starting-loss".to_string()), "{found:?}");

    let frozen = ward.path("frozen");
    job("lora", &frozen, &["--limit", "24", "--epochs", "1", "--eval-split", "0"]);
    silence(&Path::new(&frozen).join("adapter_model.safetensors"));
    let found = ward.found(&["--model", &frozen, "--train", &train]);
    assert!(found.contains(&"gradients".to_string()), "{found:?}");
}

/// Gives each label of a saved model the name of the next.
fn rename(folder: &str) {
    let edit = |name: &str, change: &dyn Fn(&mut Map<String, Value>)| {
        let path = Path::new(folder).join(name);
        let mut document: Map<String, Value> =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut document);
        std::fs::write(path, Value::Object(document).to_string()).unwrap();
    };
    let mut names: Vec<Value> = Vec::new();
    edit("retune.json", &|card| card["labels"].as_array_mut().unwrap().rotate_left(1));
    let card: Value =
        serde_json::from_slice(&std::fs::read(Path::new(folder).join("retune.json")).unwrap()).unwrap();
    names.extend(card["labels"].as_array().unwrap().iter().cloned());
    edit("config.json", &|config| {
        let pairs = || names.iter().map(|name| name.as_str().unwrap().to_string()).enumerate();
        config["id2label"] =
            pairs().map(|(id, name)| (id.to_string(), json!(name))).collect::<Map<_, _>>().into();
        config["label2id"] = pairs().map(|(id, name)| (name, json!(id))).collect::<Map<_, _>>().into();
    });
}

/// Sets every matrix of an adapter's branches to zero.
fn silence(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    for (name, tensor) in header.iter().filter(|(name, _)| name.contains(".lora_")) {
        let offset = |index: usize| 8 + length + tensor["data_offsets"][index].as_u64().unwrap() as usize;
        assert!(bytes[offset(0)..offset(1)].iter().any(|byte| *byte != 0), "{name}");
        bytes[offset(0)..offset(1)].fill(0);
    }
    std::fs::write(path, bytes).unwrap();
}
