//! What goes on is the run that was begun: other settings, rows or weights are refused by name, and so is a second process.

use std::fs::{self, File};

use retune::TrainSettings;

use crate::resume::{interrupted, resume, same, saved, told};
use crate::run::{model, refused, train};
use crate::tiny::Tiny;

#[test]
fn a_finished_run_gives_its_report_and_changes_nothing() {
    let tiny = Tiny::new();
    let given = saved(&tiny, "lora", "result");
    let (expected, _) = train(&given).unwrap();
    let before = tiny.files("result");
    for settings in [resume(&tiny, "result"), TrainSettings { resume: Some(true), ..given.clone() }] {
        let (report, ear) = train(&settings).unwrap();
        assert!(ear.heard("the run is finished") && ear.events.is_empty(), "{:?}", ear.said);
        assert_eq!(told(&report), told(&expected));
        assert_eq!(report.train_seconds.to_bits(), expected.train_seconds.to_bits());
        assert!(tiny.files("result") == before);
    }
    let error = refused(&TrainSettings { resume: Some(true), epochs: Some(3.0), ..given.clone() });
    assert!(error.contains("--epochs was 2.0 and is 3.0"), "{error}");
    let error = refused(&TrainSettings { resume: Some(true), batch_size: Some(8), ..given });
    assert!(error.contains("--batching was {\"rows\":7} and is {\"rows\":8}"), "{error}");
    let mut ranked = resume(&tiny, "result");
    ranked.method_options.insert("rank".into(), 3.into());
    assert!(refused(&ranked).contains("--rank was not given and is 3"));
    // Other rows or weights, whether they are there or not; the same ones under another name are the same.
    tiny.model("other", 2, |_| ());
    tiny.model("copy", 1, |_| ());
    tiny.write("other.csv", "text,label\npay,pay\n");
    fs::copy(tiny.path("train.csv"), tiny.path("copy.csv")).unwrap();
    let inputs = |train: &str, eval: &str, base: &str| TrainSettings {
        train: Some(vec![tiny.path(train)]),
        eval: Some(vec![tiny.path(eval)]),
        model: model(tiny.path(base)),
        ..resume(&tiny, "result")
    };
    for other in ["other", "nowhere"] {
        let rows = format!("{other}.csv");
        let error = refused(&inputs(&rows, &rows, other));
        for words in ["--train was ", "--eval was ", "--model was "] {
            assert!(error.contains(words), "{words}: {error}");
        }
    }
    train(&inputs("copy.csv", "test.csv", "copy")).unwrap();
    fs::rename(tiny.path("train.csv"), tiny.path("away.csv")).unwrap();
    train(&inputs("train.csv", "test.csv", "base")).unwrap();
    tiny.write("train.csv", "text,label\npay,pay\n");
    assert!(refused(&inputs("train.csv", "test.csv", "base")).contains("train.csv of --train has changed"));
    fs::rename(tiny.path("away.csv"), tiny.path("train.csv")).unwrap();
    // Held back rows are counted too.
    let held = TrainSettings { eval: None, eval_split: Some(0.2), ..saved(&tiny, "head", "held") };
    let (expected, _) = train(&held).unwrap();
    assert_eq!(told(&train(&resume(&tiny, "held")).unwrap().0), told(&expected));
    let error = refused(&TrainSettings { eval: Some(vec![tiny.path("test.csv")]), ..resume(&tiny, "held") });
    assert!(error.contains("--eval was not given and is "), "{error}");
}

#[test]
fn where_it_rewinds_to_stays() {
    let tiny = Tiny::new();
    let rewinds = TrainSettings { on_spike: Some("rewind".into()), ..saved(&tiny, "head", "result") };
    interrupted(&rewinds, 5);
    let every = |steps: &str| TrainSettings { save_every: Some(steps.into()), ..resume(&tiny, "result") };
    for finished in [false, true] {
        assert!(refused(&every("4")).contains("--save-every was 3 and is 4"), "finished: {finished}");
        train(&every("3")).unwrap();
    }
    // What is done about spikes may change.
    train(&TrainSettings { on_spike: Some("skip".into()), ..every("4") }).unwrap();
}

#[test]
fn what_was_changed_meanwhile_is_refused_by_name() {
    let tiny = Tiny::new();
    interrupted(&saved(&tiny, "lora", "result"), 5);
    let before = tiny.files("result");
    let again = |change: fn(&mut TrainSettings)| {
        let mut settings = TrainSettings { resume: Some(true), ..saved(&tiny, "lora", "result") };
        change(&mut settings);
        let error = refused(&settings);
        assert!(tiny.files("result") == before, "{error}");
        error
    };
    let error = again(|s| {
        s.epochs = Some(3.0);
        s.seed = Some(2);
        s.method_options.insert("rank".into(), 3.into());
    });
    for words in ["--epochs was 2.0 and is 3.0", "--seed was 1 and is 2", "--rank was not given and is 3"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(!error.contains("--save-every") && error.starts_with("--resume: "), "{error}");
    assert!(again(|s| s.method = Some("full".into())).contains("--method was lora and is full"));
    assert!(again(|s| s.learning_rate = Some(0.5)).contains("--learning-rate was 0.02 and is 0.5"));

    let rows = fs::read(tiny.path("train.csv")).unwrap();
    tiny.write("train.csv", [&rows[..], b"one more,pay\n"].concat());
    let error = again(|_| ());
    assert!(error.contains("train.csv: the training rows have changed since the run in"), "{error}");
    tiny.write("train.csv", rows);
    let error = again(|s| s.train = s.eval.clone());
    assert!(error.contains("test.csv: they are not the training rows of the run in"), "{error}");
    assert!(
        error.contains("train.csv with sha256 ") && error.contains("leave --train out to go on"),
        "{error}"
    );
    let rows = fs::read(tiny.path("test.csv")).unwrap();
    tiny.write("test.csv", [&rows[..], b"one more,pay\n"].concat());
    assert!(again(|_| ()).contains("the evaluation rows have changed"));
    tiny.write("test.csv", rows);
    tiny.model("base", 2, |_| ());
    assert!(again(|_| ()).contains("the weights of the base have changed"));
    tiny.model("base", 1, |_| ());

    // A number may be given as a text.
    let mut ranked = saved(&tiny, "lora", "ranked");
    ranked.method_options.insert("rank".into(), 3.into());
    interrupted(&ranked, 2);
    ranked.method_options.insert("rank".into(), "3".into());
    train(&TrainSettings { resume: Some(true), ..ranked.clone() }).unwrap();
    train(&TrainSettings { resume: Some(true), ..ranked }).unwrap();

    // What changes no bit of the result may change.
    let free = TrainSettings {
        save_every: Some("1".into()),
        keep_checkpoints: Some(5),
        threads: Some(1),
        on_spike: Some("tell".into()),
        ..resume(&tiny, "result")
    };
    train(&free).unwrap();
    train(&saved(&tiny, "lora", "whole")).unwrap();
    same(&tiny, "result", "whole");
}

#[test]
fn a_folder_takes_one_run_at_a_time() {
    let tiny = Tiny::new();
    interrupted(&saved(&tiny, "full", "result"), 3);
    let before = tiny.files("result");
    let held = File::open(tiny.path("result/events.jsonl")).unwrap();
    held.try_lock().unwrap();
    let anew = saved(&tiny, "full", "result");
    for settings in [resume(&tiny, "result"), TrainSettings { overwrite: Some(true), ..anew.clone() }, anew] {
        let error = refused(&settings);
        assert!(error.contains("result: another run is at work there; wait for it, stop it"), "{error}");
    }
    assert!(tiny.files("result") == before);
    drop(held);
    train(&resume(&tiny, "result")).unwrap();
}

#[test]
fn a_checkpoint_of_another_run_is_not_used() {
    let tiny = Tiny::new();
    train(&saved(&tiny, "lora", "whole")).unwrap();
    interrupted(&saved(&tiny, "lora", "mine"), 4);
    interrupted(&TrainSettings { seed: Some(2), ..saved(&tiny, "lora", "other") }, 8);
    fs::rename(tiny.path("other/checkpoints/step-8"), tiny.path("mine/checkpoints/step-8")).unwrap();
    let (_, ear) = train(&resume(&tiny, "mine")).unwrap();
    assert!(ear.heard("it belongs to a run with other settings"), "{:?}", ear.said);
    assert!(ear.heard("going on from the checkpoint of step 4"));
    same(&tiny, "mine", "whole");
}
