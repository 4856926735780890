//! A training that is interrupted writes a checkpoint and says how to go on; killed, it goes on all the same.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{command, done, retune};
use crate::tiny::Tiny;

/// A training of some seconds.
fn start(tiny: &Tiny, output: &str) -> Child {
    let path = |name: &str| tiny.path(name).display().to_string();
    command()
        .args(["train", "--model", &path("base"), "--train", &path("train.csv"), "--output", &path(output)])
        .args(["--method", "lora", "--epochs", "60", "--batch-size", "4", "--save-every", "50", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until `there` is, while the training is at work.
fn until(child: &mut Child, there: impl Fn() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
        assert!(start.elapsed() < Duration::from_secs(120), "it never came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Whether ten steps are written down.
fn at_work(folder: &Path) -> bool {
    std::fs::read_to_string(folder.join("events.jsonl")).is_ok_and(|events| events.lines().count() > 10)
}

#[test]
fn an_interruption_leaves_a_checkpoint_and_the_line_that_goes_on() {
    let tiny = Tiny::new();
    let whole = done(start(&tiny, "whole").wait_with_output().unwrap()).succeeded();
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let output = format!("stopped by {signal}");
        let mut child = start(&tiny, &output);
        until(&mut child, || at_work(&tiny.path(&output)));
        // Twice at once, as `timeout` sends it to a process and to its group: that is one request.
        send(signal, &child);
        send(signal, &child);
        let stopped = done(child.wait_with_output().unwrap());
        assert_eq!(stopped.code, code, "{}", stopped.stderr);
        let line = format!("retune train --resume --output '{}'", tiny.path(&output).display());
        assert!(
            stopped.stderr.contains("interrupted: writing a checkpoint after step "),
            "{}",
            stopped.stderr
        );
        assert!(stopped.stderr.trim_end().ends_with(&line), "{}", stopped.stderr);
        assert_eq!(stopped.json()["exit_code"], code);
        assert!(!tiny.path(&output).join("retune.json").exists());

        let resumed =
            retune(&["train", "--resume", "--output", &tiny.path(&output).display().to_string(), "--json"])
                .succeeded();
        assert!(resumed.stderr.contains("going on from the checkpoint of step "), "{}", resumed.stderr);
        assert!(tiny.files(&output) == tiny.files("whole"));
        let [resumed, whole] = [&resumed, &whole].map(|done| done.json());
        for key in ["last_loss", "metrics", "steps", "real_tokens", "kept_step", "eval_rows"] {
            assert_eq!(resumed[key], whole[key], "{key}");
        }
    }
}

#[test]
fn a_kill_loses_nothing_but_time() {
    let tiny = Tiny::new();
    done(start(&tiny, "whole").wait_with_output().unwrap()).succeeded();
    let output = tiny.path("killed");
    let mut child = start(&tiny, "killed");
    until(&mut child, || output.join("checkpoints/step-100").is_dir());
    // Nobody else may write there meanwhile.
    let second = retune(&["train", "--resume", "--output", &output.display().to_string()]);
    second.refused("another run is at work there");
    child.kill().unwrap();
    child.wait().unwrap();
    let resumed = retune(&["train", "--resume", "--output", &output.display().to_string()]).succeeded();
    assert!(resumed.stderr.contains("going on from the checkpoint of step "), "{}", resumed.stderr);
    assert!(tiny.files("killed") == tiny.files("whole"));
    // It is done, and says so.
    let again = retune(&["train", "--resume", "--output", &output.display().to_string()]).succeeded();
    assert!(again.stderr.contains("the run is finished"), "{}", again.stderr);
    assert!(again.stdout.contains("accuracy"), "{}", again.stdout);
}

#[test]
fn relative_paths_are_meant_from_where_it_began() {
    let tiny = Tiny::new();
    let inside = |output: &str| {
        let mut command = command();
        command.current_dir(tiny.path("")).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.args([
            "train",
            "--model",
            "base",
            "--train",
            "train.csv",
            "--eval",
            "test.csv",
            "--output",
            output,
        ]);
        command.args(["--method", "head", "--epochs", "40", "--batch-size", "4", "--save-every", "20"]);
        command.spawn().unwrap()
    };
    done(inside("whole").wait_with_output().unwrap()).succeeded();
    let mut child = inside("killed");
    until(&mut child, || tiny.path("killed/checkpoints/step-40").is_dir());
    child.kill().unwrap();
    child.wait().unwrap();
    retune(&["train", "--resume", "--output", &tiny.path("killed").display().to_string()]).succeeded();
    assert!(tiny.files("killed") == tiny.files("whole"));
}
