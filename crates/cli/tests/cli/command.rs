//! The binary, run.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::tiny::Tiny;

/// What a run came to.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_retune"));
    command.stdin(Stdio::null());
    command
}

/// Runs the binary; what is said may hold no panic, whatever was asked.
pub(crate) fn retune<S: AsRef<OsStr>>(arguments: &[S]) -> Done {
    done(command().args(arguments).output().unwrap())
}

pub(crate) fn done(output: Output) -> Done {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(!stderr.contains("panicked"), "{stderr}");
    Done { code: output.status.code().unwrap_or_else(|| panic!("killed: {stderr}")), stdout, stderr }
}

impl Done {
    /// The one JSON document on stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }

    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    /// Asserts that it was refused with these words, on stderr, as the one thing there.
    pub(crate) fn refused(self, words: &str) -> Self {
        assert_eq!(self.code, 2, "{words}: {}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(words), "expected `{words}`: {}", self.stderr);
        assert!(self.stderr.lines().any(|line| line.starts_with("error: ")), "{}", self.stderr);
        self
    }
}

/// A short training of the tiny model with more flags, into `output`.
pub(crate) fn train(tiny: &Tiny, output: &str, more: &[&str]) -> Done {
    let path = |name: &str| tiny.path(name).display().to_string();
    let (model, rows, result) = (path("base"), path("train.csv"), path(output));
    let mut arguments = vec!["train", "--model", &model, "--train", &rows, "--output", &result];
    for (flag, value) in [("--epochs", "1"), ("--learning-rate", "0.01"), ("--batch-size", "16")] {
        if !more.contains(&flag) {
            arguments.extend([flag, value]);
        }
    }
    arguments.extend(more);
    retune(&arguments)
}
