//! Adapters that lie, put on a sound model: loaded or refused with words.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

#[path = "../../../tests/fuzz/mod.rs"]
mod fuzz;
#[path = "golden/mod.rs"]
mod models;

use std::path::{Path, PathBuf};

use fuzz::{Target, golden, read};
use models::Case;
use retune_adapt::peft;

/// Models with an adapter each.
const ADAPTERS: [(&str, &str); 26] = [
    ("bert-classifier", "prefix-tuning"),
    ("bert-classifier", "adalora"),
    ("bert-classifier", "adalora-shared-out"),
    ("bert-classifier", "dora"),
    ("bert-classifier", "ia3"),
    ("bert-classifier", "loha"),
    ("bert-classifier", "lokr"),
    ("bert-classifier", "lokr-both"),
    ("bert-classifier", "oft"),
    ("bert-classifier", "oft-block-share"),
    ("bert-classifier", "oft-exact"),
    ("bert-classifier", "vera"),
    ("electra-classifier", "prompt-tuning"),
    ("bert-classifier", "lora"),
    ("bert-classifier", "lora-rslora"),
    ("distilbert-classifier", "lora"),
    ("electra-classifier", "lora"),
    ("modernbert-classifier", "lora"),
    ("roberta-classifier", "lora"),
    // Of the `adapters` library.
    ("bert-classifier", "houlsby"),
    ("bert-classifier", "bottleneck-norm"),
    ("bert-classifier", "bottleneck-blocks"),
    ("bert-classifier", "bottleneck-behind"),
    ("bert-classifier", "compacter-plus-plus"),
    ("electra-classifier", "parallel-adapter"),
    ("modernbert-classifier", "pfeiffer"),
];
/// How many of them are of `peft`.
const OF_PEFT: usize = 19;

const CONFIG: &str = "adapter_config.json";
const HEAD_CONFIG: &str = "head_config.json";
const HEAD_WEIGHTS: &str = "model_head.safetensors";

/// The file with the adapter's own tensors.
fn weights(number: usize) -> &'static str {
    if number < OF_PEFT { "adapter_model.safetensors" } else { "adapter.safetensors" }
}

/// Its files.
fn files(number: usize) -> Vec<&'static str> {
    let of_library: &[_] = if number < OF_PEFT { &[] } else { &[HEAD_CONFIG, HEAD_WEIGHTS] };
    [&[CONFIG, weights(number)], of_library].concat()
}

/// A folder for each adapter.
fn copies(folder: &Path) -> Vec<PathBuf> {
    let copy = |(number, (model, adapter)): (usize, (&str, &str))| {
        let to = folder.join(number.to_string());
        std::fs::create_dir(&to).unwrap();
        for file in files(number) {
            std::fs::copy(golden(model).join(adapter).join(file), to.join(file)).unwrap();
        }
        to
    };
    ADAPTERS.into_iter().enumerate().map(copy).collect()
}

fn load(model: &str, folder: &Path) {
    let case = Case::open(model, true, |model| {
        let (method, files) = peft::open_adapter(folder)?;
        let _ = (files.base().is_some(), files.head_rows(&model.classifier.name), files.labels());
        let _ = files.unknown_keys();
        method.load(model, &files)
    });
    match case {
        Ok(case) => assert!(!case.trained().is_empty() || case.saved().is_empty()),
        Err(error) => {
            assert!(!error.to_string().is_empty(), "{error}")
        }
    }
}

#[test]
fn adapter_config() {
    let seeds = ADAPTERS.map(|(model, adapter)| read(golden(model).join(adapter).join(CONFIG))).to_vec();
    let folder = fuzz::folder();
    let folders = copies(folder.path());
    let dictionary = [
        "peft_type",
        "\"LORA\"",
        "\"VERA\"",
        "target_modules",
        "\"all-linear\"",
        "[\"query\"]",
        "\"(a|b)+\"",
        "r",
        "lora_alpha",
        "rank_pattern",
        "alpha_pattern",
        "oft_block_size",
        "block_share",
        "num_cayley_neumann_terms",
        "decompose_factor",
        "target_r",
        "num_virtual_tokens",
        "rank_pattern",
        "alpha_pattern",
        "{\"query\": 0}",
        "use_rslora",
        "use_dora",
        "bias",
        "\"lora_only\"",
        "fan_in_fan_out",
        "modules_to_save",
        "exclude_modules",
        "layers_to_transform",
        "lora_dropout",
        "leave_out",
        "reduction_factor",
        "phm_layer",
        "phm_dim",
        "residual_before_ln",
        "\"post_add\"",
        "non_linearity",
        "\"gelu_orig\"",
        "ln_after",
        "is_parallel",
        "output_adapter",
        "{\"default\": 3, \"1\": 0.01}",
        "1e300",
        "true",
        "null",
        "4294967296",
        "18446744073709551615",
    ];
    Target { name: "adapter-config", cost: 30, seeds, dictionary: &dictionary }.run(|input| {
        fuzz::write(&folders[input.seed].join(CONFIG), input.bytes);
        load(ADAPTERS[input.seed].0, &folders[input.seed]);
    });
}

#[test]
fn adapter_weights() {
    let seeds = ADAPTERS.into_iter().enumerate();
    let seeds =
        seeds.map(|(number, (model, adapter))| read(golden(model).join(adapter).join(weights(number))));
    let seeds = seeds.collect();
    let folder = fuzz::folder();
    let folders = copies(folder.path());
    let dictionary = [
        "adapter_down.0.weight",
        ".adapters.",
        "phm_rule",
        "lora_A",
        "lora_B",
        ".weight",
        "base_model.model.",
        "classifier",
        "\"F16\"",
        "\"I32\"",
        "[0,0]",
        "shape",
        "}}",
    ];
    Target { name: "adapter-weights", cost: 30, seeds, dictionary: &dictionary }.run(|input| {
        let mended = (input.random.below(4) > 0).then(|| fuzz::with_length(input.bytes)).flatten();
        let file = folders[input.seed].join(weights(input.seed));
        fuzz::write(&file, mended.as_deref().unwrap_or(input.bytes));
        load(ADAPTERS[input.seed].0, &folders[input.seed]);
    });
}

/// Of the library's form, which has files of the head's own.
fn of_the_library(file: &str) -> Vec<Vec<u8>> {
    ADAPTERS[OF_PEFT..].iter().map(|(model, adapter)| read(golden(model).join(adapter).join(file))).collect()
}

#[test]
fn head_config() {
    let folder = fuzz::folder();
    let folders = copies(folder.path());
    let dictionary =
        ["label2id", "num_labels", "\"LABEL_0\"", "null", "-1", "18446744073709551616", "[]", "{}"];
    let seeds = of_the_library(HEAD_CONFIG);
    Target { name: "head-config", cost: 30, seeds, dictionary: &dictionary }.run(|input| {
        let number = OF_PEFT + input.seed;
        fuzz::write(&folders[number].join(HEAD_CONFIG), input.bytes);
        load(ADAPTERS[number].0, &folders[number]);
    });
}

#[test]
fn head_weights() {
    let folder = fuzz::folder();
    let folders = copies(folder.path());
    let dictionary =
        ["classifier.weight", "classifier.out_proj", "bert.pooler", "\"F16\"", "[0,0]", "shape", "}}"];
    let seeds = of_the_library(HEAD_WEIGHTS);
    Target { name: "head-weights", cost: 30, seeds, dictionary: &dictionary }.run(|input| {
        let number = OF_PEFT + input.seed;
        let mended = (input.random.below(4) > 0).then(|| fuzz::with_length(input.bytes)).flatten();
        fuzz::write(&folders[number].join(HEAD_WEIGHTS), mended.as_deref().unwrap_or(input.bytes));
        load(ADAPTERS[number].0, &folders[number]);
    });
}
