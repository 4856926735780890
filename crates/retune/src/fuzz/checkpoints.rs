use std::path::{Path, PathBuf};

use retune_train::SaveEvery;

use super::fuzzer::{self, Input, Target, read};
use super::linear::train;
use super::{copy, is_said};
use crate::manifest;

/// A run that was interrupted after seven of its nine steps, with a checkpoint before that.
struct Interrupted {
    sound: PathBuf,
    folder: PathBuf,
    /// The weights that it would have come to.
    weights: Vec<f32>,
    _temporary: tempfile::TempDir,
}

const NEWEST: &str = "step-7";
const BEFORE: &str = "step-6";

impl Interrupted {
    fn new() -> Self {
        let temporary = fuzzer::folder();
        let [whole, sound, folder] = ["whole", "sound", "folder"].map(|name| temporary.path().join(name));
        for folder in [&whole, &sound, &folder] {
            std::fs::create_dir(folder).unwrap();
        }
        let weights = train(&whole, SaveEvery::Never, None).unwrap();
        train(&sound, SaveEvery::Steps(2), Some(7)).unwrap_err();
        let run = Interrupted { sound, folder, weights, _temporary: temporary };
        run.mend();
        assert!(run.goes_on().unwrap() == run.weights);
        run
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(NEWEST).join(file)
    }

    /// As it was when it was interrupted.
    fn mend(&self) {
        let _ = std::fs::remove_dir_all(&self.folder);
        for step in [NEWEST, BEFORE] {
            copy(&self.sound.join(step), &self.folder.join(step));
        }
    }

    fn goes_on(&self) -> Result<Vec<f32>, String> {
        train(&self.folder, SaveEvery::Never, None)
    }

    /// Goes on with a changed `file`. Found by its hash, it changes nothing; with a hash that was made to match, it may
    /// be refused.
    fn with(&self, file: &str, bytes: &[u8], input: &mut Input<'_>) {
        fuzzer::write(&self.path(file), bytes);
        let hashed = input.random.below(8) > 0;
        if hashed {
            rehash(&self.folder.join(NEWEST));
        }
        match self.goes_on() {
            Ok(weights) => assert!(hashed || weights == self.weights),
            Err(words) if hashed => is_said(words),
            Err(words) => panic!("{words}"),
        }
        self.mend();
    }
}

fn rehash(folder: &Path) {
    std::fs::remove_file(folder.join("manifest.json")).unwrap();
    manifest::write(folder).unwrap();
}

#[test]
fn manifests() {
    let run = Interrupted::new();
    let small =
        br#"{"files": {"../step-6/state.json": {"bytes": 1, "sha256": ""}, "": {"bytes": 0, "sha256": ""}}}"#;
    let seeds = vec![read(run.path("manifest.json")), small.to_vec(), b"{\"files\": {}}".to_vec()];
    let dictionary = [
        "\"files\"",
        "\"bytes\"",
        "\"sha256\"",
        "state.json",
        "weights.safetensors",
        "manifest.json",
        "../",
        "/dev/zero",
        "..",
        ".",
        "\\u0000",
        "{}",
        "null",
    ];
    Target { name: "manifest", cost: 8, seeds, dictionary: &dictionary }.run(|input| {
        fuzzer::write(&run.path("manifest.json"), input.bytes);
        // What it names or not, the files are those that there were, or the checkpoint before is.
        assert!(run.goes_on().unwrap() == run.weights);
        run.mend();
    });
}

#[test]
fn states() {
    let run = Interrupted::new();
    let seeds = vec![read(run.path("state.json"))];
    let dictionary = [
        "format_version",
        "fingerprint",
        "base_sha256",
        "trained",
        "events_bytes",
        "state",
        "step",
        "epoch",
        "index",
        "updates",
        "tokens",
        "seconds",
        "last_loss",
        "rows",
        "evaluated_at",
        "best",
        "kept",
        "since_best",
        "recent",
        "first",
        "last",
        "silent",
        "rewind_to",
        "\"NaN\"",
        "\"-Infinity\"",
        "[7]",
        "7",
        "layer.weight",
        "true",
        "18446744073709551615",
        "1e308",
    ];
    Target { name: "checkpoint-state", cost: 8, seeds, dictionary: &dictionary }.run(|input| {
        run.with("state.json", input.bytes, input);
    });
}

#[test]
fn tensors() {
    let run = Interrupted::new();
    let files = ["weights.safetensors", "optimiser.safetensors", "best.safetensors"];
    let seeds = files.map(|file| read(run.path(file))).to_vec();
    let dictionary = [
        "exp_avg.",
        "exp_avg_sq.",
        "layer.weight",
        "layer.bias",
        "\"F16\"",
        "\"F64\"",
        "\"I32\"",
        "[0,0]",
        "[3,5]",
        "shape",
        "data_offsets",
        "}}",
        "\u{0}\u{0}\u{7f}\u{80}",
    ];
    Target { name: "checkpoint-tensors", cost: 8, seeds, dictionary: &dictionary }.run(|input| {
        let mended = (input.random.below(4) > 0).then(|| fuzzer::with_length(input.bytes)).flatten();
        run.with(files[input.seed], mended.as_deref().unwrap_or(input.bytes), input);
    });
}
