//! From the sample to predictions on a real model, where there is one.

use std::path::{Path, PathBuf};

use crate::command::retune;

#[test]
fn a_real_model_learns_the_sample() {
    let Some(model) = std::env::var_os("RETUNE_TEST_MODEL").map(PathBuf::from) else {
        eprintln!("SKIPPED: RETUNE_TEST_MODEL names no model's folder, such as that of all-MiniLM-L6-v2");
        return;
    };
    let model = model.display().to_string();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/support");
    let file = |name: &str| sample.join(name).display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (method, rate) in [("full", "3e-4"), ("lora", "5e-3")] {
        let result = path(method);
        let mut arguments =
            vec!["train", "--model", &model, "--output", &result, "--method", method, "--json"];
        let (rows, test) = (file("train.csv"), file("test.csv"));
        arguments.extend(["--train", &rows, "--limit", "240", "--eval-split", "0", "--batch-size", "16"]);
        arguments.extend(["--epochs", "2", "--learning-rate", rate]);
        let trained = retune(&arguments).succeeded().json();
        assert_eq!((trained["method"].as_str(), trained["steps"].as_u64()), (Some(method), Some(30)));
        assert_eq!(trained["labels"].as_array().unwrap().len(), 8);

        let evaluated = retune(&["evaluate", "--model", &result, "--data", &test, "--json"]).succeeded();
        let accuracy = evaluated.json()["metrics"]["accuracy"].as_f64().unwrap();
        // An eighth by chance.
        assert!(accuracy > 0.5, "{method}: {accuracy}");

        let texts = ["--text", "where is my parcel?", "--text", "i want to cancel my order"];
        let arguments = [&["predict", "--model", &result, "--json"][..], &texts].concat();
        let predicted = retune(&arguments).succeeded().json();
        assert_eq!(predicted["predictions"][1]["label"], "cancel_order", "{method}: {predicted}");
    }
}
