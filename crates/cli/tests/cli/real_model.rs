//! From the sample to predictions on a real model, where there is one.

use std::path::{Path, PathBuf};

use crate::command::retune;

/// Three of the sample's eight intents: enough to tell from chance after a few steps.
const INTENTS: [&str; 3] = ["account_access", "cancel_order", "product_question"];

/// The rows of the sample's file `name` with these intents, in `folder`.
fn part(name: &str, folder: &Path) -> String {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/support").join(name);
    let mut reader = csv::Reader::from_path(sample).unwrap();
    let path = folder.join(name);
    let mut writer = csv::Writer::from_path(&path).unwrap();
    writer.write_record(reader.headers().unwrap()).unwrap();
    for row in reader.records().map(|row| row.unwrap()).filter(|row| INTENTS.contains(&&row[1])) {
        writer.write_record(&row).unwrap();
    }
    writer.flush().unwrap();
    path.display().to_string()
}

#[test]
fn a_real_model_learns_the_sample() {
    let Some(model) = std::env::var_os("RETUNE_TEST_MODEL").map(PathBuf::from) else {
        eprintln!("SKIPPED: RETUNE_TEST_MODEL names no model's folder, such as that of all-MiniLM-L6-v2");
        return;
    };
    let model = model.display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let [rows, test] = ["train.csv", "test.csv"].map(|name| part(name, folder.path()));
    for (method, rate) in [("full", "3e-4"), ("lora", "5e-3")] {
        let result = folder.path().join(method).display().to_string();
        let mut arguments = vec!["train", "--model", &model, "--train", &rows, "--output", &result, "--json"];
        arguments.extend(["--method", method, "--learning-rate", rate, "--limit", "72", "--eval-split", "0"]);
        arguments.extend(["--epochs", "2", "--batch-size", "8", "--max-length", "32"]);
        let trained = retune(&arguments).succeeded().json();
        assert_eq!((trained["method"].as_str(), trained["steps"].as_u64()), (Some(method), Some(18)));
        assert_eq!(trained["labels"], serde_json::json!(INTENTS));

        let evaluated = retune(&["evaluate", "--model", &result, "--data", &test, "--json"]).succeeded();
        let accuracy = evaluated.json()["metrics"]["accuracy"].as_f64().unwrap();
        // A third by chance.
        assert!(accuracy > 0.7, "{method}: {accuracy}");
        eprintln!("{method}: accuracy {accuracy:.3} after 18 steps");

        let texts =
            ["--text", "i cannot log in, the password is wrong", "--text", "i want to cancel my order"];
        let predicted = retune(&[&["predict", "--model", &result, "--json"][..], &texts].concat());
        let predicted = predicted.succeeded().json();
        for (row, intent) in INTENTS.iter().take(2).enumerate() {
            assert_eq!(predicted["predictions"][row]["label"], *intent, "{method}: {predicted}");
        }
    }
}
