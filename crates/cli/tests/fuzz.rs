//! Run files and `--set`: settings, or an error that has a place.

#![expect(clippy::panic, reason = "a test may stop at the first surprise")]

#[path = "../../../tests/fuzz/mod.rs"]
mod fuzz;

// The command line has no library: what reads settings is taken as it stands.
#[path = "../src/failure.rs"]
mod failure;
#[path = "../src/run_file.rs"]
mod run_file;
#[path = "../src/size.rs"]
mod size;

use fuzz::Target;

const WORDS: [&str; 34] = [
    "epochs",
    "method",
    "rank",
    "target-modules",
    "batch-size",
    "learning-rate",
    "eval-every",
    "seed",
    "threads",
    "layers",
    "label-separator",
    "model",
    "\"\"\"",
    "'''",
    "[[",
    "]]",
    "[model]",
    "= ",
    "\n",
    "#",
    "\\u0000",
    "\\U0010FFFF",
    "inf",
    "nan",
    "-nan",
    "0x",
    "1_000",
    "1979-05-27",
    "07:32:00",
    "true",
    "{ a = 1 }",
    "é",
    ".",
    "\r\n",
];

fn seeds(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

#[test]
fn run_toml() {
    let all = [
        "model = \"base\"\ntrain = \"t.csv\"\noutput = 'out'\nmethod = \"lora\"\nepochs = 2.5\nrank = 4\n",
        "# é\neval-every = 50\nbatch-size = 7\nseed = 18446744073709551615\ntarget-modules = [\"query\", \"value\"]\n",
        "learning-rate = 1e-3\nschedule = \"cosine\"\nlabel-separator = \"|\"\noverwrite = true\n",
        "epochs = 1\r\n\r\nwarmup = 0.1\r\n",
    ];
    let folder = fuzz::folder();
    let path = folder.path().join("run.toml");
    Target { name: "run-toml", cost: 8, seeds: seeds(&all), dictionary: &WORDS }.run(|input| {
        fuzz::write(&path, input.bytes);
        match run_file::read(&path) {
            Ok(layer) => drop(run_file::settings(layer)),
            Err(failure) => assert!(failure.message.contains("run.toml: ") && failure.code == 2),
        }
    });
}

#[test]
fn set() {
    let all = [
        "epochs=2",
        "target-modules=[\"query\"]",
        "eval-every=50",
        "label-separator==",
        "seed = 3 # x",
        "rank='4'",
    ];
    Target { name: "set", cost: 8, seeds: seeds(&all), dictionary: &WORDS }.run(|input| match run_file::set(
        &input.text(),
    ) {
        Ok((name, value)) => drop(run_file::settings(run_file::Layer::from_iter([(name, value)]))),
        Err(failure) => assert!(failure.message.starts_with("--set: ") && failure.code == 2),
    });
}

#[test]
fn sizes() {
    let all = ["12GB", "1.5 GiB", "800MB", "4096", "0", "1e3kB", "12 giB"];
    let words = ["GB", "GiB", "MB", "kB", "B", ".", "e", "-", " ", "inf", "nan", "١", "é", "\u{a0}"];
    Target { name: "sizes", cost: 1, seeds: seeds(&all), dictionary: &words }.run(|input| {
        if let Err(words) = size::size(&input.text()) {
            assert!(!words.is_empty());
        }
    });
}
