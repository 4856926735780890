//! Parameters of the model itself that are trained beside a method: which a pattern means, and how they are saved.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

mod golden;

use std::collections::BTreeSet;

use golden::{Case, options};
use retune_adapt::AdaptError;
use retune_adapt::peft::{self, Adapter, Applied, METHODS, Model};
use serde_json::json;

const BASE: &str = "bert-classifier";

fn beside(method: &str, given: &[(&str, &str)], patterns: &[&str]) -> Result<Case, String> {
    let method = peft::find(method).unwrap();
    let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
    let adjust = |model: &mut Model<'_>| -> Result<Applied, AdaptError> {
        let chosen = model.select(&patterns)?;
        let mut applied = method.apply(model, &options(given))?;
        applied.train_also(model, &chosen)?;
        Ok(applied)
    };
    Case::open(BASE, true, adjust).map_err(|error| error.to_string())
}

fn adapter(case: &Case) -> &Adapter {
    match &case.applied {
        Applied::Adapter(adapter) => adapter,
        Applied::Model => panic!("an adapter"),
    }
}

/// The method with the least of its own.
fn chosen(pattern: &str) -> usize {
    beside("head", &[], &[pattern]).unwrap().parameters.count().1
        - Case::open(BASE, true, |model| peft::find("head").unwrap().apply(model, &options(&[])))
            .unwrap()
            .parameters
            .count()
            .1
}

#[test]
fn a_pattern_chooses_by_whole_parts_of_a_name() {
    for (pattern, count) in [
        ("norms", 7 * 40),
        ("LayerNorm", 7 * 40),
        ("*orm", 7 * 40),
        ("layer.1.*.bias", 5 * 20 + 37 + 2 * 20),
        ("layer.1.*.LayerNorm", 2 * 40),
        ("word_embeddings", 61 * 20),
        ("bert.encoder.layer.0.output.dense.weight", 37 * 20),
        ("query.bias", 3 * 20),
        // Is trained already.
        ("pooler", 0),
    ] {
        assert_eq!(chosen(pattern), count, "{pattern}");
    }
}

#[test]
fn a_pattern_that_means_nothing_is_named_with_the_near_miss() {
    for (pattern, expected) in [
        (
            "LayrNorm",
            "--train-also: no parameter's name has `LayrNorm` between dots; did you mean `LayerNorm`?",
        ),
        ("norm", "did you mean `norms`?"),
        ("layer.3", "no parameter's name has `layer.3` between dots"),
    ] {
        let error = beside("head", &[], &["norms", pattern]).err().unwrap();
        assert!(error.contains(expected), "{pattern}: {error}");
    }
    let error = beside("lora", &[("target-modules", "query")], &["layer.0"]).err().unwrap();
    assert!(
        error.contains(
            "--train-also: `bert.encoder.layer.0.attention.self.query.weight` is of a layer that the method"
        ),
        "{error}"
    );
}

#[test]
fn what_is_trained_beside_has_gradients_and_is_saved_with_the_whole_of_its_module() {
    for method in METHODS {
        let given: &[_] = match method.name() {
            "houlsby" | "pfeiffer" | "parallel-adapter" | "compacter" => &[("bottleneck-size", "4")],
            _ => &[],
        };
        let case = beside(method.name(), given, &["layer.1.*.LayerNorm.bias"]).unwrap();
        let names =
            ["attention.output", "output"].map(|part| format!("bert.encoder.layer.1.{part}.LayerNorm"));
        let gradients = case.gradients();
        for (id, parameter) in case.parameters.iter() {
            assert_eq!(
                gradients.get(id).is_some(),
                parameter.trainable,
                "{}: {}",
                method.name(),
                parameter.name
            );
        }
        for name in &names {
            assert!(case.trained().contains(&format!("{name}.bias").as_str()), "{}: {name}", method.name());
        }
        let Applied::Adapter(adapter) = &case.applied else { continue };
        let saved: BTreeSet<_> = case.saved().into_iter().collect();
        assert_eq!(saved.len(), adapter.tensors.len(), "each once");
        for name in &names {
            for part in ["weight", "bias"] {
                let end = format!("{name}.{part}");
                assert!(saved.iter().any(|saved| saved.ends_with(&end)), "{}: {end}", method.name());
            }
        }
    }
    let case = beside("lora", &[], &["norms"]).unwrap();
    let modules = adapter(&case).config["modules_to_save"].as_array().unwrap().clone();
    assert_eq!(modules.len(), 1 + 7);
    assert!(modules.contains(&json!("classifier")) && modules.contains(&json!("bert.embeddings.LayerNorm")));
}

#[test]
fn top_layers_are_those_nearest_the_head() {
    let top = |layers: &str| {
        let method = peft::find("top-layers").unwrap();
        Case::open(BASE, true, |model| method.apply(model, &options(&[("layers", layers)])))
            .map_err(|error| error.to_string())
    };
    let two = top("2").unwrap();
    assert!(two.trained().iter().any(|name| name.contains("layer.1.")));
    assert!(!two.trained().iter().any(|name| name.contains("layer.0.") || name.contains("embeddings")));
    assert!(top("3").is_ok());
    for (layers, expected) in [
        ("4", "--layers: expected 1 to 3, the blocks that there are, got 4"),
        ("0", "--layers: expected 1 to 3, the blocks that there are, got 0; the method `head` trains none"),
    ] {
        assert_eq!(top(layers).err().unwrap(), expected);
    }
}
