//! Input that cannot be: exit 2, words that say what to do, and nothing half-written.

use crate::command::{Done, command, done, retune, train};
use crate::tiny::{Tiny, csv};

/// Trains on a file of these bytes.
fn on(tiny: &Tiny, bytes: impl AsRef<[u8]>, more: &[&str]) -> Done {
    let rows = tiny.write("rows.csv", bytes).display().to_string();
    let (model, result) =
        (tiny.path("base").display().to_string(), tiny.path("result").display().to_string());
    let arguments = ["train", "--model", &model, "--train", &rows, "--output", &result, "--epochs", "1"];
    let done = retune(&[&arguments[..], more].concat());
    assert!(done.code == 0 || !tiny.path("result").exists(), "a folder was left behind: {}", done.stderr);
    done
}

#[test]
fn rows() {
    let tiny = Tiny::new();
    on(&tiny, "text,intent,note\na,x,1\nb,y,2\n", &["--label-column", "label"])
        .refused("rows.csv: no column `label` for the label")
        .refused("the columns are `text`, `intent`, `note`");
    on(&tiny, "text,label\na,pay\nb,pay\nc,pay\n", &[])
        .refused("expected at least two classes in column `label`, got only `pay` in all 3 rows");
    on(&tiny, "", &[]).refused("rows.csv: ");
    on(&tiny, "text,label\n", &[]).refused("rows.csv: ");
    let other = tiny.write("other.csv", "text,label\na,pay\nb,pya\n").display().to_string();
    train(&tiny, "result", &["--eval", &other]).refused(
        "other.csv: line 3: expected one of training's 3 labels, got `pya` (1 row, first on line 3)",
    );
    train(&tiny, "model", &["--method", "head"]).succeeded();
    let (model, rows) =
        (tiny.path("model").display().to_string(), tiny.path("other.csv").display().to_string());
    retune(&["evaluate", "--model", &model, "--data", &rows])
        .refused("other.csv: line 3: expected one of training's 3");
    let output = tiny.path("out.csv").display().to_string();
    retune(&["predict", "--model", &model, "--input", &rows, "--output", &output, "--text-column", "txet"])
        .refused("no column `txet` for the text (did you mean `text`?)");
    assert!(!tiny.path("out.csv").exists() && !tiny.path("result").exists());
}

#[test]
fn encodings() {
    let tiny = Tiny::new();
    let latin = b"text,label\nmy card,pay\nverloren \xe9,lost\nthe card,pay\nis lost,lost\n";
    on(&tiny, latin, &[]).refused("rows.csv: line 3, byte 32: ").refused("--encoding");
    on(&tiny, latin, &["--encoding", "latin1"]).succeeded();
    std::fs::remove_dir_all(tiny.path("result")).unwrap();
    // 中国卡 and 丢了.
    let gbk =
        b"text,label\n\xd6\xd0\xb9\xfa\xbf\xa8,pay\n\xb6\xaa\xc1\xcb,lost\nmy card,pay\nnot my card,lost\n";
    on(&tiny, gbk, &[]).refused("rows.csv: line 2, byte 11: ");
    on(&tiny, gbk, &["--encoding", "gkb"]).refused("gkb");
    on(&tiny, gbk, &["--encoding", "gbk"]).succeeded();
    let (model, rows) =
        (tiny.path("result").display().to_string(), tiny.path("rows.csv").display().to_string());
    let output = tiny.path("out.jsonl").display().to_string();
    let arguments =
        ["predict", "--model", &model, "--input", &rows, "--output", &output, "--encoding", "gbk"];
    retune(&arguments).succeeded();
    assert!(std::fs::read_to_string(tiny.path("out.jsonl")).unwrap().contains("中国卡"));
}

#[test]
fn weights_that_lie() {
    let tiny = Tiny::new();
    let path = tiny.path("base/model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(whole[8..8 + length].to_vec()).unwrap();
    let lying = |from: &str, to: &str| {
        let header = header.replacen(from, to, 1);
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &whole[8 + length..]].concat()
    };
    for bytes in [
        whole[..whole.len() / 2].to_vec(),
        whole[..4].to_vec(),
        Vec::new(),
        [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat(),
        lying("[107,18]", "[107,19]"),
        lying("\"F32\"", "\"F31\""),
        lying("[0,7704]", "[0,99999999]"),
        lying("[0,7704]", "[7704,0]"),
        [&whole[..], b"more"].concat(),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let model = tiny.path("base").display().to_string();
        train(&tiny, "result", &[]).refused("model.safetensors");
        retune(&["inspect", &model]).refused("model.safetensors");
    }
    assert!(!tiny.path("result").exists());
}

#[test]
fn a_configuration_that_does_not_match() {
    let tiny = Tiny::new();
    let config = std::fs::read_to_string(tiny.path("base/config.json")).unwrap();
    tiny.write("base/config.json", config.replace("\"hidden_size\":18", "\"hidden_size\":21"));
    let refused = train(&tiny, "result", &["--json"]).refused("of the tensors do not fit:");
    let message = refused.json()["error"].as_str().unwrap().to_string();
    // The embeddings with their norm, fifteen of each block (a wide bias has no width in it), the pooler.
    assert_eq!(message.lines().count() - 1, 5 + 2 * 15 + 2, "{message}");
    assert!(!tiny.path("result").exists());
}

#[test]
fn an_output_folder_that_holds_something() {
    let tiny = Tiny::new();
    train(&tiny, "result", &["--method", "head"]).succeeded();
    let before = tiny.files("result");
    train(&tiny, "result", &[]).refused("it holds a finished run; give another --output, or --overwrite");
    assert!(tiny.files("result") == before);
    train(&tiny, "base", &["--overwrite"]).refused("it holds files that are no run");
    train(&tiny, "result", &["--method", "lora", "--overwrite"]).succeeded();
    assert!(!tiny.path("result/model.safetensors").exists());
}

#[test]
fn a_place_among_results_is_no_id_of_a_model() {
    let tiny = Tiny::new();
    std::fs::create_dir_all(tiny.path("runs/banking")).unwrap();
    tiny.write("runs/banking/events.jsonl", "");
    let output = command().current_dir(tiny.path(".")).args(["inspect", "runs/bankng"]).output().unwrap();
    done(output).refused("runs/bankng: there is no such folder; did you mean `runs/banking`?");
}

#[test]
fn a_loss_that_is_no_number() {
    let tiny = Tiny::new();
    let stopped = train(&tiny, "result", &["--learning-rate", "1e30", "--epochs", "3", "--json"])
        .refused("the loss is NaN; rows of this step: line ");
    assert_eq!(stopped.json()["exit_code"], 2);
    let left = tiny.names("result");
    let of_a_run = |name: &String| ["events.jsonl", "checkpoints/run.json"].contains(&name.as_str());
    let kept = |name: &String| of_a_run(name) || name.starts_with("checkpoints/last-good/");
    assert!(left.iter().all(kept) && left.len() > 2, "{left:?}");
    let model = tiny.path("result/checkpoints/last-good").display().to_string();
    retune(&["inspect", &model]).succeeded();
    // At such a rate the weights are numbers, and what they give is none.
    retune(&["predict", "--model", &model, "--text", "my card"]).refused("its answers are no numbers");
}

#[test]
fn a_place_for_predictions_that_is_not_there() {
    let tiny = Tiny::new();
    train(&tiny, "result", &["--method", "head"]).succeeded();
    let [model, rows, nowhere] =
        ["result", "test.csv", "no/such/out.csv"].map(|name| tiny.path(name).display().to_string());
    let predict =
        |output: &str| retune(&["predict", "--model", &model, "--input", &rows, "--output", output]);
    predict(&nowhere).refused("out.csv: its folder is not there; make it first");
    predict(&rows).refused("is the input, which it would replace");
    assert_eq!(std::fs::read_to_string(tiny.path("test.csv")).unwrap(), csv(100..131));
    assert!(!tiny.path("no").exists());
    let there = tiny.write("there.csv", "mine").display().to_string();
    predict(&there)
        .refused("there.csv: there is such a file; give another --output, or --overwrite to replace it");
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "mine");
    let arguments = ["predict", "--model", &model, "--input", &rows, "--output", &there, "--overwrite"];
    retune(&arguments).succeeded();
    assert!(std::fs::read_to_string(&there).unwrap().starts_with("text,label,predicted_label,score\n"));
}

#[test]
fn flags_of_another_task() {
    let tiny = Tiny::new();
    train(&tiny, "model", &["--method", "head"]).succeeded();
    let [model, rows, output] =
        ["model", "test.csv", "out.csv"].map(|name| tiny.path(name).display().to_string());
    let file = ["predict", "--model", &model, "--input", &rows, "--output", &output];
    let text = ["predict", "--model", &model, "--text", "my card"];
    let evaluate = ["evaluate", "--model", &model, "--data", &rows];
    let more = |arguments: &[&str], more: &[&str]| retune(&[arguments, more].concat());
    let stride =
        "--doc-stride: it is for question-answering, and the task is text-classification: leave it out";
    for verb in [&file[..], &text, &evaluate] {
        more(verb, &["--doc-stride", "3"]).refused(stride);
    }
    train(&tiny, "other", &["--doc-stride", "3"]).refused(stride);
    let scheme =
        "--tag-scheme: it is for token-classification, and the task is text-classification: leave it out";
    for verb in [&file[..], &evaluate] {
        more(verb, &["--tag-scheme", "nonsense"]).refused(scheme);
    }
    train(&tiny, "other", &["--tag-scheme", "nonsense"]).refused(scheme);
    more(&text, &["--tag-scheme", "nonsense"])
        .refused("--tag-scheme: it says how --input is read, and there is none");
    assert!(!tiny.path("out.csv").exists() && !tiny.path("other").exists());
    let prompt = ["generate", "--model", &model, "--prompt", "a", "--output", &output];
    retune(&prompt)
        .refused("out.csv: expected a name that ends in .jsonl, .ndjson, or in one of these and .gz or .zst");
}

#[test]
fn rows_in_the_place_of_a_run_file() {
    let tiny = Tiny::new();
    for verb in ["train", "plan", "doctor"] {
        let rows = tiny.path("train.csv").display().to_string();
        retune(&[verb, &rows]).refused(&format!("a name of a file with rows; give it as --train {rows}"));
        let model = tiny.path("base").display().to_string();
        retune(&[verb, &model]).refused(&format!("got a folder; a model is given as --model {model}"));
    }
}

#[test]
fn several_labels_that_are_not_said_to_be() {
    let tiny = Tiny::new();
    let rows = |row: usize| format!("card {row},{}\n", ["a;b", "b;a", "a", "b"][row % 4]);
    let rows: String = (0..24).map(rows).collect();
    let hint = "column `what` looks like several labels a row and is taken for one class a row; --label-separator \";\"";
    let done = on(&tiny, format!("text,what\n{rows}"), &["--method", "head"]).succeeded();
    assert!(done.stderr.contains(hint), "{}", done.stderr);
    std::fs::remove_dir_all(tiny.path("result")).unwrap();
    let done = on(
        &tiny,
        format!("text,what\n{rows}"),
        &["--method", "head", "--label-separator", ";", "--eval-split", "0.2"],
    );
    let done = done.succeeded();
    assert!(
        done.stderr.contains("thresholds: 0.5 for each label, as none has the five evaluation rows"),
        "{}",
        done.stderr
    );
    let card = std::fs::read_to_string(tiny.path("result/retune.json")).unwrap();
    assert!(!card.contains("\"thresholds\": ["), "{card}");
}

#[cfg(unix)]
#[test]
fn a_link_to_a_pipe_is_written_to_and_stays_a_link() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    train(&tiny, "result", &["--eval-split", "0"]).succeeded();
    let (link, dangling) = (tiny.path("out"), tiny.path("nowhere"));
    std::os::unix::fs::symlink("/proc/self/fd/1", &link).unwrap();
    std::os::unix::fs::symlink(tiny.path("none"), &dangling).unwrap();
    let predict = |output: &str| {
        retune(&["predict", "--model", &path("result"), "--input", &path("test.csv"), "--output", output])
    };
    let written = predict(&path("out")).succeeded().stdout;
    assert_eq!(written.lines().count(), 31, "{written}");
    assert!(link.is_symlink());
    predict(&path("nowhere")).refused("it is a link to what is not there");
    assert!(dangling.is_symlink());
    retune(&["predict", "--model", &path("result"), "--text", "hi", "--output", &path("z.csv")])
        .refused("cannot be used with");
    retune(&["train", "--resume", "--output", &path("typo")]).refused("there is no run to go on with");
}
