//! A run file, `--set` over it, flags over both.

use crate::command::{retune, train};
use crate::tiny::Tiny;

/// The settings that the run in `output` says it had.
fn used(tiny: &Tiny, output: &str) -> serde_json::Value {
    let card = std::fs::read(tiny.path(output).join("retune.json")).unwrap();
    let card: serde_json::Value = serde_json::from_slice(&card).unwrap();
    let mut settings = card["settings"].clone();
    settings["method"] = card["method"].clone();
    settings
}

#[test]
fn flags_are_stronger_than_set_and_set_than_the_file() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    tiny.write(
        "run.toml",
        format!(
            "# Each is a flag by the same name.\nmodel = {:?}\ntrain = {:?}\nmethod = \"lora\"\nepochs = 1\n\
             batch-size = 24\nlearning-rate = 1e-3\nseed = 5\neval-every = 2\nrank = 3\nalpha = 7.5\n\
             target-modules = [\"query\", \"value\"]\nlabel-smoothing = 0.1\n",
            tiny.path("base"),
            tiny.path("train.csv")
        ),
    );
    let arguments = [
        "train",
        &path("run.toml"),
        "--output",
        &path("result"),
        "--set",
        "seed=6",
        "--set",
        "learning-rate=2e-3",
        "--set",
        "rank=4",
        "--learning-rate",
        "0.003",
        "--rank",
        "5",
        "--warmup",
        "0",
    ];
    retune(&arguments).succeeded();
    let used = used(&tiny, "result");
    for (key, value) in [
        ("learning_rate", serde_json::json!(0.003)),
        ("seed", serde_json::json!(6)),
        ("epochs", serde_json::json!(1.0)),
        ("warmup", serde_json::json!(0.0)),
        ("label_smoothing", serde_json::json!(0.1)),
        ("batching", serde_json::json!({"rows": 24})),
        ("eval_every", serde_json::json!("2")),
        ("method", serde_json::json!("lora")),
    ] {
        assert_eq!(used[key], value, "{key}: {used}");
    }
    let config = std::fs::read(tiny.path("result/adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!((&config["r"], &config["lora_alpha"]), (&5.into(), &7.5.into()));
    assert_eq!(config["target_modules"], serde_json::json!(["query", "value"]));
}

#[test]
fn keep_takes_a_number_too() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    let kept = |output: &str| {
        let mut names = tiny.names(output);
        names.retain(|name| name.ends_with("state.json"));
        names.len()
    };
    // A run that stops leaves its checkpoints.
    let stop = ["--save-every", "1", "--epochs", "4", "--learning-rate", "1e30", "--warmup", "0.9"];
    tiny.write("one.toml", "keep = 1\n");
    for (output, number, keep) in [
        ("usual", 2, &[][..]),
        ("flag", 1, &["--keep", "1"]),
        ("file", 1, &[&path("one.toml"), "--keep", "last"]),
        ("set", 1, &["--set", "keep=1", "--set", "keep-checkpoints=1"]),
    ] {
        train(&tiny, output, &[&stop, keep].concat()).refused("the loss is NaN");
        assert_eq!(kept(output), number, "{output}: {:?}", tiny.names(output));
    }
    tiny.write("run.toml", "keep = 3\nkeep-checkpoints = 4\n");
    let words = "--keep 3 and --keep-checkpoints 4 both say how many checkpoints stay; give one of them";
    retune(&["train", &path("run.toml")]).refused(words);
    train(&tiny, "result", &["--keep", "3", "--keep-checkpoints", "4"]).refused(words);
    train(&tiny, "result", &["--keep", "0"]).refused("--keep-checkpoints: expected at least 1, got 0");
    train(&tiny, "result", &["--keep", "bset"])
        .refused("--keep: expected best or last, got `bset`; did you mean best?");
    train(&tiny, "result", &["--keep", "4", "--keep-checkpoints", "4", "--method", "head"]).succeeded();
}

#[test]
fn a_column_may_be_called_by_a_number() {
    let tiny = Tiny::new();
    let rows = std::fs::read_to_string(tiny.path("train.csv")).unwrap();
    tiny.write("train.csv", rows.replacen("text,label", "text,2024", 1));
    train(&tiny, "result", &["--method", "head", "--set", "label-column=2024"]).succeeded();
}

#[test]
fn a_run_file_that_cannot_be_is_told_with_its_place() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    for (text, words) in [
        (
            "epochs = 3\nlearning_rate = 0.1\n",
            "run.toml: line 2, column 1: `learning_rate` is no setting; did you mean `learning-rate`?",
        ),
        ("epochs = 3\nseed = = 1\n", "run.toml: line 2, column 8: "),
        ("epochs = \"é\"\n", "run.toml: line 1, column 1: `epochs`: "),
        ("\n\n[training]\nepochs = 1\n", "run.toml: line 3, column 2: `training` is no setting"),
        ("set = \"x\"\n", "`set` is no setting"),
    ] {
        tiny.write("run.toml", text);
        retune(&["train", &path("run.toml"), "--output", &path("result")]).refused(words);
    }
    retune(&["train", &path("no.toml")]).refused("no.toml: cannot read: ");
    tiny.write("run.toml", b"seed = 1 # \xff\n");
    retune(&["train", &path("run.toml")]).refused("run.toml: cannot read: ");
    assert!(!tiny.path("result").exists());
}

#[test]
fn threads_change_nothing_but_the_time() {
    let tiny = Tiny::new();
    for threads in ["1", "2"] {
        train(&tiny, threads, &["--method", "full", "--threads", threads]).succeeded();
    }
    assert!(tiny.files("1") == tiny.files("2"));
}
