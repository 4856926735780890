//! A run that was stopped, in whatever way, goes on to the bytes that it would have had.

use std::fs;
use std::path::Path;

use retune::{Error, Event, Report, TrainSettings};

use crate::run::{Ear, answers, difference, model, refused, settings, train};
use crate::tiny::Tiny;

/// 18 + 4 steps, evaluated after every fourth, saved after every third.
pub(crate) fn saved(tiny: &Tiny, method: &str, output: &str) -> TrainSettings {
    TrainSettings {
        eval_every: Some("4".into()),
        save_every: Some("3".into()),
        ..settings(tiny, method, output)
    }
}

pub(crate) fn resume(tiny: &Tiny, output: &str) -> TrainSettings {
    TrainSettings { output: Some(tiny.path(output)), resume: Some(true), ..TrainSettings::default() }
}

pub(crate) fn interrupted(settings: &TrainSettings, after: u64) -> Ear {
    let mut ear = Ear { interrupt_after: Some(after), ..Ear::default() };
    let error = retune::train(settings, &mut ear).unwrap_err();
    assert!(matches!(error, Error::Interrupted { step, .. } if step == after), "{error}");
    assert_eq!(error.exit_code(), 1);
    let words = format!("retune train --resume --output {}", settings.output.as_ref().unwrap().display());
    assert!(error.to_string().ends_with(&words), "{error}");
    ear
}

/// All but the times and the memory, which are those of the last process.
pub(crate) fn told(report: &Report) -> Report {
    Report {
        output: Path::new("").into(),
        train_seconds: 0.0,
        tokens_per_second: 0.0,
        peak_memory_bytes: None,
        peak_resident_bytes: None,
        evaluation: None,
        ..report.clone()
    }
}

pub(crate) fn same(tiny: &Tiny, output: &str, whole: &str) {
    let (got, expected) = (tiny.files(output), tiny.files(whole));
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected {
        assert!(*bytes == got[name], "{output}: {name} differs");
    }
}

#[test]
fn a_run_that_was_interrupted_becomes_the_run_that_was_not() {
    let tiny = Tiny::new();
    // What the last makes its rows of is in its checkpoints alone.
    for method in ["full", "lora", "adalora", "prefix-tuning"] {
        let whole = format!("{method}-whole");
        let (expected, _) = train(&saved(&tiny, method, &whole)).unwrap();
        for after in [1, 4, 6, 11, 17] {
            let output = format!("{method}-{after}");
            interrupted(&saved(&tiny, method, &output), after);
            // In a second process again.
            if after == 6 {
                let mut ear = Ear { interrupt_after: Some(9), ..Ear::default() };
                retune::train(&resume(&tiny, &output), &mut ear).unwrap_err();
            }
            let (report, ear) = train(&resume(&tiny, &output)).unwrap();
            let from = if after == 6 { 9 } else { after };
            assert!(ear.heard(&format!("going on from the checkpoint of step {from}")), "{:?}", ear.said);
            same(&tiny, &output, &whole);
            assert_eq!(told(&report), told(&expected), "{method} after {after}");
            // Also where the best evaluation was made by the process that is gone.
            let (now, then) = (report.evaluation.unwrap(), expected.evaluation.as_ref().unwrap());
            assert_eq!((now.loss, &now.metrics), (then.loss, &then.metrics));
        }
    }
}

#[test]
fn moments_in_bytes_come_back_to_the_bit() {
    let tiny = Tiny::new();
    // Of which some tensors are large enough.
    tiny.model("base", 1, |config| drop(config.insert("intermediate_size".into(), 256.into())));
    let settings = |output: &str| TrainSettings {
        optimizer: Some("adamw-8bit".into()),
        max_grad_norm: Some(0.0),
        ..saved(&tiny, "full", output)
    };
    train(&settings("whole")).unwrap();
    for after in [1, 5] {
        let output = format!("stopped-{after}");
        interrupted(&settings(&output), after);
        let other = TrainSettings { optimizer: Some("adamw".into()), ..resume(&tiny, &output) };
        assert!(refused(&other).contains("--optimizer was adamw-8bit and is adamw"));
        train(&resume(&tiny, &output)).unwrap();
        same(&tiny, &output, "whole");
    }
    let others = TrainSettings { optimizer: None, ..settings("others") };
    train(&others).unwrap();
    assert!(tiny.files("others")["model.safetensors"] != tiny.files("whole")["model.safetensors"]);
}

#[test]
fn weights_moments_and_state_of_a_checkpoint_do_not_depend_on_interruptions() {
    let tiny = Tiny::new();
    let every = |output| TrainSettings { keep_checkpoints: Some(100), ..saved(&tiny, "lora", output) };
    interrupted(&every("straight"), 15);
    interrupted(&every("parted"), 5);
    let mut ear = Ear { interrupt_after: Some(15), ..Ear::default() };
    retune::train(&resume(&tiny, "parted"), &mut ear).unwrap_err();
    for step in [3, 6, 9, 12, 15] {
        let [straight, parted] =
            ["straight", "parted"].map(|output| tiny.files(&format!("{output}/checkpoints/step-{step}")));
        for name in ["weights.safetensors", "optimiser.safetensors", "best.safetensors"] {
            assert!(straight.get(name) == parted.get(name), "step {step}: {name}");
        }
        assert_eq!(straight.contains_key("best.safetensors"), step >= 6);
        let state = |files: &std::collections::BTreeMap<String, Vec<u8>>| {
            let mut state: serde_json::Value = serde_json::from_slice(&files["state.json"]).unwrap();
            state["state"].as_object_mut().unwrap().remove("seconds");
            state.as_object_mut().unwrap().remove("events_bytes");
            state
        };
        assert_eq!(state(&straight), state(&parted));
    }
    // As PyTorch calls them.
    let moments = tiny.files("straight/checkpoints/step-15")["optimiser.safetensors"].clone();
    let length = u64::from_le_bytes(moments[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&moments[8..8 + length]).unwrap();
    let name = "base_model.model.bert.encoder.layer.1.output.dense.lora_B.weight";
    for moment in ["exp_avg", "exp_avg_sq"] {
        assert_eq!(header[format!("{moment}.{name}")]["shape"], serde_json::json!([18, 8]));
    }
}

#[test]
fn old_checkpoints_go_once_newer_ones_are_whole() {
    let tiny = Tiny::new();
    let folders = |output: &str| {
        let mut names: Vec<String> = fs::read_dir(tiny.path(output).join("checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("step"))
            .collect();
        names.sort();
        names
    };
    interrupted(&saved(&tiny, "head", "two"), 14);
    assert_eq!(folders("two"), ["step-12", "step-14"]);
    interrupted(&TrainSettings { keep_checkpoints: Some(3), ..saved(&tiny, "head", "three") }, 14);
    assert_eq!(folders("three"), ["step-12", "step-14", "step-9"]);
    interrupted(&TrainSettings { save_every: Some("never".into()), ..saved(&tiny, "head", "none") }, 14);
    assert_eq!(folders("none"), ["step-14"]);
    // The one to rewind to stays, however old.
    let rewinds = TrainSettings {
        on_spike: Some("rewind".into()),
        keep_checkpoints: Some(1),
        save_every: Some("13".into()),
        ..saved(&tiny, "head", "rewinds")
    };
    interrupted(&rewinds, 14);
    assert_eq!(folders("rewinds"), ["step-13", "step-14"]);
}

#[test]
fn damage_of_any_kind_is_said_and_the_checkpoint_before_is_used() {
    type Damage = (&'static str, fn(&Path));
    fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
    let damages: [Damage; 9] = [
        ("weights.safetensors: expected sha256", |at| {
            change(&at.join("weights.safetensors"), |bytes| *bytes.last_mut().unwrap() ^= 1);
        }),
        ("optimiser.safetensors: expected", |at| {
            change(&at.join("optimiser.safetensors"), |bytes| bytes.truncate(bytes.len() / 2));
        }),
        ("best.safetensors: cannot read", |at| fs::remove_file(at.join("best.safetensors")).unwrap()),
        ("state.json: expected ", |at| {
            fs::write(at.join("state.json"), "").unwrap();
        }),
        ("manifest.json: cannot read", |at| fs::remove_file(at.join("manifest.json")).unwrap()),
        ("manifest.json: EOF", |at| change(&at.join("manifest.json"), |bytes| bytes.truncate(40))),
        ("manifest.json: `../run.json` is no file's name", |at| {
            let text = fs::read_to_string(at.join("manifest.json")).unwrap();
            fs::write(at.join("manifest.json"), text.replace("weights.safetensors", "../run.json")).unwrap();
        }),
        ("manifest.json: cannot read", |at| {
            fs::read_dir(at).unwrap().for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
        }),
        ("manifest.json: cannot read", |at| {
            fs::remove_dir_all(at).unwrap();
            fs::write(at, "a file").unwrap();
        }),
    ];
    let tiny = Tiny::new();
    train(&saved(&tiny, "lora", "whole")).unwrap();
    for (number, (words, damage)) in damages.into_iter().enumerate() {
        let output = format!("damaged-{number}");
        interrupted(&saved(&tiny, "lora", &output), 11);
        damage(&tiny.path(&output).join("checkpoints/step-11"));
        let (_, ear) = train(&resume(&tiny, &output)).unwrap();
        assert!(
            ear.heard("step-11 is damaged and not used: ") && ear.heard(words),
            "{words}: {:?}",
            ear.said
        );
        assert!(ear.heard("going on from the checkpoint of step 9"), "{:?}", ear.said);
        same(&tiny, &output, "whole");
    }
}

#[test]
fn where_no_checkpoint_is_whole_it_starts_again() {
    let tiny = Tiny::new();
    train(&saved(&tiny, "full", "whole")).unwrap();
    interrupted(&saved(&tiny, "full", "damaged"), 11);
    for step in [9, 11] {
        tiny.write(&format!("damaged/checkpoints/step-{step}/weights.safetensors"), "nonsense");
    }
    let (_, ear) = train(&resume(&tiny, "damaged")).unwrap();
    assert!(ear.heard("no checkpoint is whole: the training starts again"), "{:?}", ear.said);
    assert!(matches!(ear.events[0], Event::Start { .. }));
    same(&tiny, "damaged", "whole");

    // Killed before the first.
    interrupted(&saved(&tiny, "full", "early"), 2);
    fs::remove_dir_all(tiny.path("early/checkpoints/step-2")).unwrap();
    fs::create_dir(tiny.path("early/checkpoints/.step-2.tmp")).unwrap();
    let (_, ear) = train(&resume(&tiny, "early")).unwrap();
    assert!(ear.heard("no checkpoint was written yet: the training starts again"), "{:?}", ear.said);
    same(&tiny, "early", "whole");
    // TensorBoard does not see the attempt that came to nothing.
    let boards = fs::read_dir(tiny.path("early")).unwrap().flatten();
    let boards = boards.filter(|entry| entry.file_name().to_string_lossy().contains("tfevents"));
    assert_eq!(boards.count(), 1);

    // Killed before it had begun, or never there: the settings must then be given.
    for (output, left) in [("made", true), ("nothing", false)] {
        if left {
            fs::create_dir(tiny.path(output)).unwrap();
            tiny.write(&format!("{output}/events.jsonl"), "");
        }
        assert!(refused(&resume(&tiny, output)).contains("there is no run to go on with"));
        train(&TrainSettings { resume: Some(true), ..saved(&tiny, "full", output) }).unwrap();
        same(&tiny, output, "whole");
    }
}

#[test]
fn what_a_kill_leaves_is_cleared_away() {
    let tiny = Tiny::new();
    train(&saved(&tiny, "full", "whole")).unwrap();
    interrupted(&saved(&tiny, "full", "killed"), 8);
    // A line that was half written, lines of steps after the checkpoint, files with temporary names.
    let mut events = fs::read(tiny.path("killed/events.jsonl")).unwrap();
    events.extend(b"{\"event\":\"step\",\"step\":9,\"loss\":1.0}\n{\"event\":\"st");
    fs::write(tiny.path("killed/events.jsonl"), events).unwrap();
    tiny.write("killed/.retune-abc123.tmp", "half a model");
    tiny.write("killed/checkpoints/.retune-abc123.tmp", "half of the best weights");
    tiny.write("killed/model.safetensors", "the result of a step that is to come");
    train(&resume(&tiny, "killed")).unwrap();
    same(&tiny, "killed", "whole");

    // Finished, but for the last sweep.
    train(&saved(&tiny, "full", "swept")).unwrap();
    fs::create_dir_all(tiny.path("swept/checkpoints/step-3")).unwrap();
    tiny.write("swept/checkpoints/step-3/weights.safetensors", "old");
    train(&resume(&tiny, "swept")).unwrap();
    same(&tiny, "swept", "whole");

    // Events that were cut: what is left is kept, and said.
    interrupted(&saved(&tiny, "full", "cut"), 8);
    let events = fs::read(tiny.path("cut/events.jsonl")).unwrap();
    fs::write(tiny.path("cut/events.jsonl"), &events[..events.len() - 30]).unwrap();
    let (_, ear) = train(&resume(&tiny, "cut")).unwrap();
    assert!(ear.heard("events.jsonl is shorter than it was"), "{:?}", ear.said);
    let (got, mut whole) = (tiny.files("cut"), tiny.files("whole"));
    whole.remove("events.jsonl");
    assert!(whole.iter().all(|(name, bytes)| got[name] == *bytes));
}

#[test]
fn layers_learn_at_their_own_rates() {
    let tiny = Tiny::new();
    let decayed = |decay, output| TrainSettings { layer_decay: decay, ..settings(&tiny, "full", output) };
    train(&decayed(None, "none")).unwrap();
    train(&decayed(Some(1.0), "one")).unwrap();
    same(&tiny, "one", "none");
    train(&decayed(Some(1e-9), "steep")).unwrap();
    let card: serde_json::Value = serde_json::from_slice(&tiny.files("steep")["retune.json"]).unwrap();
    assert_eq!(card["settings"]["layer_decay"], 1e-9);
    // Deep layers stand still, so only the head and the pooler have learnt.
    assert!(difference(&answers(&model(tiny.path("steep"))), &answers(&model(tiny.path("none")))) > 1e-3);
    let bytes = |output: &str, file: &str| fs::read(tiny.path(output).join(file)).unwrap();
    let query = |output: &str| {
        let all = bytes(output, "model.safetensors");
        let length = u64::from_le_bytes(all[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&all[8..8 + length]).unwrap();
        let offsets = &header["bert.encoder.layer.0.attention.self.query.weight"]["data_offsets"];
        let [start, end] = [0, 1].map(|at| 8 + length + offsets[at].as_u64().unwrap() as usize);
        all[start..end].to_vec()
    };
    let moved = |output: &str| {
        let values = |bytes: Vec<u8>| {
            bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect::<Vec<_>>()
        };
        let (before, after) = (values(query("base")), values(query(output)));
        before.iter().zip(&after).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()))
    };
    assert!(moved("steep") < 1e-6 && moved("none") > 1e-3, "{} {}", moved("steep"), moved("none"));
}

#[test]
fn a_spike_that_stops_it_names_the_line_and_can_be_passed() {
    let tiny = Tiny::new();
    let mut rows = String::from("text,label\n");
    for row in 0..50 {
        rows += if row % 2 == 0 { "pay money,pay\n" } else { "my card is lost,lost\n" };
    }
    // Line 52 contradicts all of them.
    rows += "pay money,lost\nmy card is lost,lost\npay money,pay\n";
    tiny.write("rows.csv", rows);
    let spiky = |what: &str, output: &str| TrainSettings {
        train: Some(vec![tiny.path("rows.csv")]),
        eval: None,
        eval_split: Some(0.0),
        shuffle: Some(false),
        batch_size: Some(1),
        epochs: Some(1.0),
        schedule: Some("constant".into()),
        on_spike: Some(what.into()),
        save_every: Some("20".into()),
        ..settings(&tiny, "full", output)
    };
    let error = refused(&spiky("stop", "result"));
    assert!(
        error.contains("rows.csv: step 51: the loss is ") && error.contains("rows of this step: line 52."),
        "{error}"
    );
    assert!(error.contains("result --on-spike skip` goes on without them"), "{error}");
    // It stops there again, until it is told otherwise; and then it stays so.
    assert!(refused(&resume(&tiny, "result")).contains("step 51: the loss is "));
    let skip = TrainSettings { on_spike: Some("skip".into()), ..resume(&tiny, "result") };
    interrupted(&skip, 52);
    train(&resume(&tiny, "result")).unwrap();
    train(&spiky("skip", "whole")).unwrap();
    for name in ["model.safetensors", "retune.json"] {
        assert!(tiny.files("result")[name] == tiny.files("whole")[name], "{name}");
    }
    let (_, ear) = train(&spiky("rewind", "rewound")).unwrap();
    let spike = ear.events.iter().find(|event| matches!(event, Event::Spike { .. }));
    assert!(matches!(spike, Some(Event::Spike { step: 51, rewound_to: Some(40), .. })), "{spike:?}");
}

#[test]
fn a_healthy_run_has_nothing_to_tell() {
    let tiny = Tiny::new();
    for method in retune::METHODS.iter().map(|method| method.name()) {
        let (_, ear) =
            train(&TrainSettings { epochs: Some(6.0), ..settings(&tiny, method, method) }).unwrap();
        let odd = |event: &&Event| matches!(event, Event::Spike { .. } | Event::DeadGradients { .. });
        assert_eq!(ear.events.iter().find(odd), None, "{method}");
    }
}
