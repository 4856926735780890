//! `plan` says what `train` then takes. Each runs in a process of its own, whose counters are its own.

use crate::command::retune;
use crate::tiny::{Tiny, chats};

#[test]
fn a_plan_holds_what_each_method_holds() {
    holds("f32");
}

#[test]
fn a_plan_holds_what_each_method_holds_in_bf16() {
    holds("bf16");
}

fn holds(precision: &str) {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    let (model, rows, output) = (path("base"), path("train.csv"), path("result"));
    for method in retune::METHODS {
        let name = method.name();
        // The sizes of a narrow model.
        let own: &[&str] = match name {
            "compacter" => &["--phm-dim", "2", "--bottleneck-size", "4"],
            _ if method.options().iter().any(|option| option.name == "num-virtual-tokens") => {
                &["--num-virtual-tokens", "3"]
            }
            _ => &[],
        };
        let job = ["--model", &model, "--train", &rows, "--method", name, "--epochs", "1", "--json"];
        let job = [&job[..], &["--precision", precision]].concat();
        // No gradient is so long: the same weights, by a pass of its own and by updates in the backward.
        let [apart, within] = ["1e30", "0"].map(|norm| {
            let job = [&job[..], own, &["--max-grad-norm", norm]].concat();
            let plan = retune(&[&["plan"], &job[..]].concat()).succeeded().json();
            let run = [&["train", "--output", &output, "--overwrite"], &job[..]].concat();
            let train = retune(&run).succeeded().json();
            for key in ["peak_memory_bytes", "trainable_parameters", "steps"] {
                assert_eq!(plan[key], train[key], "{key} of {name}, cut to {norm}");
            }
            let mut files = tiny.files("result");
            files.retain(|name, _| name.ends_with(".safetensors") || name == "events.jsonl");
            (files, plan["peak_memory_bytes"].as_u64().unwrap())
        });
        assert!(apart.0 == within.0, "{name}: another training where updates are made in the backward");
        assert!(within.1 <= apart.1, "{name}: {} and {}", within.1, apart.1);
    }
}

#[test]
fn a_plan_of_a_language_model_is_what_it_takes() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    tiny.write("chats.jsonl", chats(0..40));
    for (name, method, precision) in [
        ("gpt2", "full", "f32"),
        ("gpt2", "lora", "bf16"),
        ("llama", "full", "bf16"),
        ("llama", "lora", "f32"),
    ] {
        tiny.language_model(name);
        let (model, rows, output) = (path(name), path("chats.jsonl"), path("result"));
        let job = ["--model", &model, "--train", &rows, "--method", method, "--precision", precision];
        let job =
            [&job[..], &["--eval-split", "0.2", "--epochs", "1", "--batch-size", "5", "--json"]].concat();
        let plan = retune(&[&["plan"], &job[..]].concat()).succeeded().json();
        let run = [&["train", "--output", &output, "--overwrite"], &job[..]].concat();
        let train = retune(&run).succeeded().json();
        for key in ["peak_memory_bytes", "trainable_parameters", "steps", "real_tokens"] {
            assert_eq!(plan[key], train[key], "{key} of {method} on {name}, {precision}");
        }
    }
}

#[test]
fn a_plan_is_what_the_training_takes() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    let (model, rows, output) = (path("base"), path("train.csv"), path("result"));
    for forms in [
        &["--method", "full", "--batch-size", "5"][..],
        &["--method", "full", "--batch-tokens", "40", "--epochs", "1.5", "--eval-split", "0"],
        &["--method", "lora", "--batch-size", "4", "--accumulation", "3", "--eval-split", "0.2"],
        &["--method", "lora", "--init", "pissa", "--rank", "3", "--batch-size", "5"],
        &["--method", "oft", "--batch-size", "5"],
        &["--method", "bitfit", "--max-length", "8", "--eval-every", "3"],
        &["--method", "head", "--limit", "20"],
        &["--method", "prefix-tuning", "--num-virtual-tokens", "3", "--batch-size", "5"],
        &["--method", "p-tuning", "--num-virtual-tokens", "3", "--batch-size", "5", "--eval-split", "0.2"],
    ] {
        let job = ["--model", &model, "--train", &rows, "--json"];
        let plan = retune(&[&["plan"], &job[..], forms].concat()).succeeded().json();
        let run = [&["train", "--output", &output, "--overwrite"], &job[..], forms].concat();
        let train = retune(&run).succeeded().json();
        for key in
            ["peak_memory_bytes", "trainable_parameters", "real_tokens", "steps", "train_rows", "eval_rows"]
        {
            assert_eq!(plan[key], train[key], "{key} of {forms:?}");
        }
        assert!(
            plan["flops"].as_u64().unwrap() > 1_000_000 && plan["seconds"].as_f64().unwrap() > 0.0,
            "{plan}"
        );
        let whole = tiny.path("result").join("config.json").exists();
        let name = if whole { "model.safetensors" } else { "adapter_model.safetensors" };
        let saved = std::fs::metadata(tiny.path("result").join(name)).unwrap().len();
        let planned = plan["result_bytes"].as_u64().unwrap();
        assert!(planned <= saved && saved < planned + 16_384, "{planned} planned, {saved} saved");
        // Three checkpoints of weights, two moments and the best weights, where there is an evaluation.
        let values = if train["eval_rows"] == 0 { 3 } else { 4 };
        let kept = 3 * 4 * values * plan["trainable_parameters"].as_u64().unwrap();
        assert_eq!(plan["disk_bytes"].as_u64().unwrap(), planned + kept, "{forms:?}");
    }
    assert!(!tiny.path("planned").exists());
}

#[test]
fn a_plan_knows_moments_in_bytes() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    tiny.model("base", 1, |config| drop(config.insert("intermediate_size".into(), 1000.into())));
    let (model, rows, output) = (path("base"), path("train.csv"), path("result"));
    let [full, bytes] = ["adamw", "adamw-8bit"].map(|optimizer| {
        let job =
            ["--model", &model, "--train", &rows, "--method", "full", "--optimizer", optimizer, "--json"];
        let job = [&job[..], &["--max-grad-norm", "0", "--batch-size", "4"]].concat();
        let plan = retune(&[&["plan"], &job[..]].concat()).succeeded().json();
        let run = [&["train", "--output", &output, "--overwrite"], &job[..]].concat();
        let train = retune(&run).succeeded().json();
        assert_eq!(plan["peak_memory_bytes"], train["peak_memory_bytes"], "{optimizer}");
        ["peak_memory_bytes", "disk_bytes"].map(|key| plan[key].as_u64().unwrap())
    });
    // Four matrices of 18,000 values take 6 bytes less each, and so does each of three checkpoints.
    for ((full, bytes), times) in full.into_iter().zip(bytes).zip([1, 3]) {
        let (difference, most) = (full - bytes, times * 4 * 18_000 * 6);
        assert!(difference > most * 9 / 10 && difference < most, "{difference} of {most}");
    }
}

#[test]
fn blocks_computed_once_more_take_less_and_a_plan_knows_it() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    tiny.model("base", 6, |config| drop(config.insert("num_hidden_layers".into(), 6.into())));
    let (model, rows, output) = (path("base"), path("train.csv"), path("result"));
    for method in ["full", "lora", "p-tuning-v2"] {
        let [kept, again] = ["false", "true"].map(|recompute| {
            let job =
                ["--model", &model, "--train", &rows, "--method", method, "--recompute", recompute, "--json"];
            let plan = retune(&[&["plan"], &job[..]].concat()).succeeded().json();
            let run = [&["train", "--output", &output, "--overwrite"], &job[..]].concat();
            let train = retune(&run).succeeded().json();
            assert_eq!(plan["peak_memory_bytes"], train["peak_memory_bytes"], "{method}");
            plan["peak_memory_bytes"].as_u64().unwrap()
        });
        assert!(again < kept, "{method}: {again} bytes, {kept} without");
    }
}

#[test]
fn the_largest_batch_that_fits_is_found() {
    let tiny = Tiny::new();
    let path = |name: &str| tiny.path(name).display().to_string();
    let (model, rows) = (path("base"), path("train.csv"));
    let plan = |more: &[&str]| {
        let job =
            ["plan", "--model", &model, "--train", &rows, "--method", "full", "--json", "--threads", "1"];
        retune(&[&job, more].concat()).succeeded().json()
    };
    assert_eq!(plan(&["--memory", "1MiB"])["largest_batch"], 0);
    // All rows fit, and there are no more.
    let all = plan(&["--memory", "1GiB", "--eval-split", "0"]);
    assert_eq!((&all["largest_batch"], &all["train_rows"]), (&72.into(), &72.into()));
    assert!(plan(&["--batch-tokens", "30", "--memory", "1GiB"])["largest_batch"].as_u64().unwrap() > 72);
    let refused = ["plan", "--model", &model, "--train", &rows, "--memory", "lots"];
    retune(&refused).refused("--memory");
}
