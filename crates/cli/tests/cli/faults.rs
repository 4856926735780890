//! The system refuses: a folder that is read-only, a disk that is full, memory that is not there, a reader that left.
//! It ends with words, and nothing is lost or left half-written.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use retune::{Event, Listener, Observer, TrainSettings};

use crate::command::{Done, command, done, retune, train};
use crate::tiny::{Tiny, csv};

/// Interrupts after the fifth step.
#[derive(Default)]
struct Impatient(u64);

impl Observer for Impatient {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        self.0 += u64::from(matches!(event, Event::Step { .. }));
        Ok(())
    }

    fn interrupted(&self) -> bool {
        self.0 >= 5
    }
}

impl Listener for Impatient {
    fn say(&mut self, _: &str) {}
}

fn settings(tiny: &Tiny, output: &str, save_every: &str) -> TrainSettings {
    let mut settings = TrainSettings {
        train: Some(vec![tiny.path("train.csv")]),
        output: Some(tiny.path(output)),
        method: Some("full".into()),
        epochs: Some(2.0),
        batch_size: Some(16),
        save_every: Some(save_every.into()),
        ..TrainSettings::default()
    };
    settings.model.model = Some(tiny.path("base"));
    settings
}

/// A run with checkpoints of steps 4 and 5.
fn interrupted(tiny: &Tiny, output: &str) {
    retune::train(&settings(tiny, output, "2"), &mut Impatient::default()).unwrap_err();
    assert_eq!(steps(&tiny.path(output)), ["step-4", "step-5"]);
}

/// What the checkpoints' folder holds beside the record and the best weights.
fn steps(output: &Path) -> Vec<String> {
    let entries = fs::read_dir(output.join("checkpoints")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name != "run.json" && name != "best.safetensors");
    names.sort();
    names
}

/// The binary after some lines of a shell.
fn after<S: AsRef<OsStr>>(lines: &str, arguments: &[S]) -> Output {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{lines}\nexec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_retune"));
    shell.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn resume(tiny: &Tiny, output: &str) -> [String; 4] {
    ["train", "--resume", "--output", &tiny.path(output).display().to_string()].map(str::to_string)
}

fn failed(output: Output, words: &str) -> Done {
    let failed = done(output);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    assert!(failed.stderr.contains(words), "expected `{words}`: {}", failed.stderr);
    failed
}

/// Runs the binary while nothing can be written into `folder`. The superuser may write into any folder, so his gets a
/// read-only mount over it; none where he may not mount either, which is said.
fn read_only<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> Option<Output> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap();
    let superuser = fs::File::create(folder.join("probe")).is_ok();
    let _ = fs::remove_file(folder.join("probe"));
    let output = if superuser {
        let mount =
            "mount --bind \"$FOLDER\" \"$FOLDER\" && mount -o remount,bind,ro \"$FOLDER\" || exit 99\n";
        unshared(mount, folder, arguments)
    } else {
        Some(command().args(arguments).output().unwrap())
    };
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    output
}

/// Runs lines and the binary in a mount namespace of their own, with `FOLDER`; none where that is not allowed.
fn unshared<S: AsRef<OsStr>>(lines: &str, folder: &Path, arguments: &[S]) -> Option<Output> {
    let mut shell = Command::new("unshare");
    shell.args(["-rm", "sh", "-c"]).arg(format!(
        "{lines}\n\"$0\" \"$@\"\ncode=$?\n[ -z \"$OUT\" ] || cp -r \"$FOLDER\"/. \"$OUT\"\nexit $code"
    ));
    shell.arg(env!("CARGO_BIN_EXE_retune")).args(arguments).env("FOLDER", folder).stdin(Stdio::null());
    let out = folder.with_extension("out");
    if out.is_dir() {
        shell.env("OUT", out);
    }
    let output = shell.output().ok().filter(|output| output.status.code() != Some(99) && !refuses(output));
    if output.is_none() {
        eprintln!("SKIPPED: this system lets nobody mount in a namespace of his own");
    }
    output
}

fn refuses(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("unshare")
}

#[test]
fn a_read_only_folder_gets_and_loses_nothing() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    fs::create_dir(tiny.path("locked")).unwrap();
    tiny.write("locked/old.csv", "what was there");
    for output in ["locked/result", "locked"] {
        if output == "locked" {
            fs::remove_file(tiny.path("locked/old.csv")).unwrap();
        }
        let arguments =
            ["train", "--model", &path("base"), "--train", &path("train.csv"), "--output", &path(output)];
        let Some(output) = read_only(&tiny.path("locked"), &arguments) else { return };
        failed(output, "locked");
        assert!(tiny.names("locked").iter().all(|name| name == "old.csv"), "{:?}", tiny.names("locked"));
    }
    train(&tiny, "model", &["--method", "head"]).succeeded();
    tiny.write("locked/old.csv", "what was there");
    for name in ["old.csv", "new.csv"] {
        let output = path(&format!("locked/{name}"));
        let arguments = [
            "predict",
            "--model",
            &path("model"),
            "--input",
            &path("test.csv"),
            "--output",
            &output,
            "--overwrite",
        ];
        let output = read_only(&tiny.path("locked"), &arguments).unwrap();
        failed(output, &format!("{name}: cannot create: "));
        assert_eq!(tiny.names("locked"), ["old.csv"]);
    }
    assert_eq!(fs::read(tiny.path("locked/old.csv")).unwrap(), b"what was there");
    // A run that would go on there waits for better days.
    interrupted(&tiny, "run");
    let before = tiny.files("run");
    failed(read_only(&tiny.path("run"), &resume(&tiny, "run")).unwrap(), "run");
    assert!(tiny.files("run") == before);
    retune(&resume(&tiny, "run")).succeeded();
}

#[test]
fn a_checkpoint_that_does_not_fit_on_the_disk_leaves_those_before() {
    let tiny = Tiny::new();
    interrupted(&tiny, "whole");
    retune(&resume(&tiny, "whole")).succeeded();
    interrupted(&tiny, "full");
    let before = tiny.files("full");
    // The optimiser's moments are the largest file, and the weights fit.
    let largest = before["checkpoints/step-5/optimiser.safetensors"].len();
    let full = format!("trap '' XFSZ; ulimit -f {}", largest * 3 / 4 / 512);
    let output =
        failed(after(&full, &resume(&tiny, "full")), "optimiser.safetensors: cannot write: File too large");
    assert!(output.stderr.contains("going on from the checkpoint of step 5"), "{}", output.stderr);
    let left = tiny.files("full");
    for (name, bytes) in before.iter().filter(|(name, _)| name.contains("/step-")) {
        assert!(left[name] == *bytes, "{name}");
    }
    assert_eq!(steps(&tiny.path("full")), ["step-4", "step-5"]);
    retune(&resume(&tiny, "full")).succeeded();
    assert!(tiny.files("full") == tiny.files("whole"));
}

#[test]
fn a_result_that_does_not_fit_on_the_disk_is_not_half_there() {
    let tiny = Tiny::new();
    interrupted(&tiny, "whole");
    retune(&resume(&tiny, "whole")).succeeded();
    interrupted(&tiny, "full");
    let model = tiny.files("whole")["model.safetensors"].len();
    let full = format!("trap '' XFSZ; ulimit -f {}", model * 3 / 4 / 512);
    let never = [&resume(&tiny, "full")[..], &["--save-every".to_string(), "never".into()]].concat();
    let checkpoints = tiny.files("full").into_iter().filter(|(name, _)| name.contains("/step-"));
    let checkpoints: Vec<_> = checkpoints.collect();
    failed(after(&full, &never), "safetensors: cannot write: File too large");
    let left = tiny.files("full");
    assert!(checkpoints.iter().all(|(name, bytes)| left[name] == *bytes));
    assert!(
        left.keys().all(|name| name.starts_with("checkpoints/") || name == "events.jsonl"),
        "{:?}",
        left.keys()
    );
    assert!(left.keys().all(|name| !name.contains(".tmp")));
    retune(&resume(&tiny, "full")).succeeded();
    assert!(tiny.files("full") == tiny.files("whole"));
}

#[test]
fn a_disk_that_is_full_is_told_as_such() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    for folder in ["disk", "disk.out"] {
        fs::create_dir(tiny.path(folder)).unwrap();
    }
    let (model, rows, output) = (path("base"), path("train.csv"), path("disk/result"));
    let arguments = ["train", "--model", &model, "--train", &rows, "--output", &output, "--method", "full"];
    let mount = "mount -t tmpfs -o size=160k none \"$FOLDER\" || exit 99";
    let arguments = [&arguments[..], &["--epochs", "2", "--batch-size", "16", "--save-every", "1"]].concat();
    let Some(output) = unshared(mount, &tiny.path("disk"), &arguments) else { return };
    failed(output, "No space left on device");
    // Checkpoints that are there are whole, and the run goes on where there is room.
    let copied = tiny.path("disk.out/result");
    assert!(steps(&copied).iter().all(|name| name.starts_with("step-")), "{:?}", steps(&copied));
    retune(&["train", "--resume", "--output", &copied.display().to_string()]).succeeded();
    retune(&["predict", "--model", &copied.display().to_string(), "--text", "my card"]).succeeded();
}

#[cfg(target_os = "linux")]
#[test]
fn memory_that_is_not_there_is_an_error_with_its_size() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    tiny.model("wide", 3, |config| drop(config.insert("intermediate_size".into(), 40_000.into())));
    let limited = |output: &str, batch_size: &str| {
        let inputs =
            ["train", "--model", &path("wide"), "--train", &path("train.csv"), "--output", &path(output)];
        let how = ["--method", "full", "--batch-size", batch_size, "--epochs", "0.1", "--eval-split", "0"];
        let threads = ["--threads", "2", "--json"];
        after("ulimit -v 330000", &[&inputs[..], &how, &threads].concat())
    };
    let refused = failed(limited("large", "72"), "error: ");
    let words = refused.json()["error"].as_str().unwrap().to_string();
    let asked = words.strip_prefix("out of memory: ").unwrap_or_else(|| panic!("{words}"));
    let bytes: usize = asked.split(' ').next().unwrap().parse().unwrap();
    // Rows of some tokens, 40,000 numbers each.
    assert!(bytes > 72 * 40_000 * 4, "{words}");
    assert!(words.contains(" bytes in use by tensors (Cannot allocate memory"), "{words}");
    let of_a_run = ["checkpoints/run.json", "events.jsonl"];
    assert_eq!(tiny.names("large"), of_a_run);
    done(limited("small", "1")).succeeded();
    let many = ["predict", "--model", &path("small"), "--text", "my card", "--threads", "1000"];
    failed(after("ulimit -v 300000", &many), "cannot start 1000 threads: ");
}

/// The binary, writing to somebody who has left.
fn unread<S: AsRef<OsStr>>(arguments: &[S]) -> Done {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    done(
        command()
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap(),
    )
}

#[test]
fn whoever_stops_reading_hears_nothing_more() {
    for arguments in
        [&["methods"][..], &["methods", "--json"], &["--help"], &["train", "--help"], &["--version"]]
    {
        let closed = unread(arguments);
        assert_eq!((closed.code, closed.stderr.as_str()), (141, ""), "{arguments:?}");
        let full = command().args(arguments).stdout(fs::File::create("/dev/full").unwrap()).output().unwrap();
        failed(full, "cannot write the output: No space left on device");
    }
    // The request was wrong all the same.
    assert_eq!(unread(&["trian", "--json"]).code, 2);
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    let (model, rows, result) = (path("base"), path("train.csv"), path("result"));
    let arguments = ["train", "--model", &model, "--train", &rows, "--output", &result, "--method", "head"];
    let closed = unread(&[&arguments[..], &["--epochs", "1", "--json"]].concat());
    assert!(closed.code == 141 && !closed.stderr.contains("error"), "{}", closed.stderr);
    // The training was done by then, and its result is whole.
    retune(&["predict", "--model", &result, "--text", "my card"]).succeeded();
    let predict = ["predict", "--model", &result, "--input", &rows, "--output", "/proc/self/fd/1"];
    let closed = unread(&predict);
    assert!(closed.code == 141 && !closed.stderr.contains("error"), "{}", closed.stderr);
    // Any other pipe is a file like others, and whoever reads stdout is told.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let predict = ["predict", "--model", &result, "--input", &rows, "--output", "/proc/self/fd/0", "--json"];
    let closed = failed(command().args(predict).stdin(writer).output().unwrap(), "/proc/self/fd/0: ");
    let words = closed.json()["error"].as_str().unwrap().to_string();
    assert!(words.contains("Broken pipe"), "{words}");
}

#[test]
fn rows_come_from_a_pipe_where_they_are_read_once() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    train(&tiny, "model", &["--method", "head"]).succeeded();
    assert!(Command::new("mkfifo").arg(tiny.path("pipe")).status().unwrap().success());
    let (model, pipe, output) = (path("model"), path("pipe"), path("out.csv"));
    let on = ["train", "--model", &path("base"), "--train", &pipe, "--output", &path("result")]
        .map(str::to_string);
    retune(&on).refused("pipe: expected a file, got a pipe or a device; save its rows in a file first");
    let to = tiny.path("pipe");
    let writer = std::thread::spawn(move || fs::write(to, csv(0..31)).unwrap());
    retune(&["predict", "--model", &model, "--input", &pipe, "--output", &output]).succeeded();
    writer.join().unwrap();
    assert_eq!(fs::read_to_string(&output).unwrap().lines().count(), 32);
    // Neither weights nor rows without an end.
    fs::remove_file(tiny.path("model/model.safetensors")).unwrap();
    std::os::unix::fs::symlink(tiny.path("pipe"), tiny.path("model/model.safetensors")).unwrap();
    retune(&["inspect", &model]).refused("model.safetensors: not a regular file");
    fs::remove_dir_all(tiny.path("model")).unwrap();
    train(&tiny, "model", &["--method", "head"]).succeeded();
    retune(&["evaluate", "--model", &model, "--data", "/dev/zero"])
        .refused("zero: expected a file with rows, got a device");
}
