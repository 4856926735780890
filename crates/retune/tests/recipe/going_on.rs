//! Training goes on from a result: its weights, its head, the order of its labels.

use retune::{METHODS, TrainSettings};

use crate::run::{answers, difference, model, refused, settings, train};
use crate::tiny::{Tiny, csv};

/// One epoch at a rate that changes nothing, from the result `from`.
fn onward(tiny: &Tiny, method: Option<&str>, from: &str, output: &str) -> TrainSettings {
    TrainSettings {
        model: model(tiny.path(from)),
        method: method.map(str::to_string),
        learning_rate: Some(1e-12),
        epochs: Some(1.0),
        ..settings(tiny, "", output)
    }
}

#[test]
fn a_result_is_where_the_next_training_starts() {
    let tiny = Tiny::new();
    let left_behind = ["prefix-tuning", "p-tuning"];
    for method in METHODS.iter().map(|method| method.name()).filter(|name| !left_behind.contains(name)) {
        let next = format!("{method}-next");
        train(&settings(&tiny, method, method)).unwrap();
        let (report, ear) = train(&onward(&tiny, Some(method), method, &next)).unwrap();
        let [first, second] = [method, &next].map(|output| answers(&model(tiny.path(output))));
        let apart = difference(&first, &second);
        assert!(apart < 1e-5, "{method}: {apart}");
        assert_eq!(report.method, method);
        assert!(ear.heard("labels: the 3 that the model was trained on, in its order"), "{:?}", ear.said);
        assert!(!ear.heard("new weights"), "{method}: {:?}", ear.said);
    }
}

#[test]
fn a_whole_result_goes_on_with_another_method() {
    let tiny = Tiny::new();
    train(&settings(&tiny, "full", "full")).unwrap();
    for method in ["lora", "bitfit", "head"] {
        train(&onward(&tiny, Some(method), "full", method)).unwrap();
        let apart = difference(&answers(&model(tiny.path("full"))), &answers(&model(tiny.path(method))));
        assert!(apart < 1e-5, "{method}: {apart}");
    }
}

#[test]
fn an_adapter_goes_on_as_itself() {
    let tiny = Tiny::new();
    let mut lora = settings(&tiny, "lora", "lora");
    lora.method_options.insert("rank".into(), 3.into());
    lora.method_options.insert("target-modules".into(), "query,output.dense".into());
    train(&lora).unwrap();
    // The method need not be named: it is the adapter's.
    let (report, ear) = train(&onward(&tiny, None, "lora", "next")).unwrap();
    assert_eq!(report.method, "lora");
    assert!(
        ear.heard("the model is an adapter of it, and training goes on from its values"),
        "{:?}",
        ear.said
    );
    let configs = ["lora", "next"]
        .map(|output| std::fs::read_to_string(tiny.path(output).join("adapter_config.json")).unwrap());
    assert_eq!(configs[0], configs[1]);

    let error = refused(&onward(&tiny, Some("full"), "lora", "other"));
    assert!(
        error.contains("--method: the model is an adapter of `lora`, which cannot go on as `full`"),
        "{error}"
    );
    let mut ranked = onward(&tiny, None, "lora", "other");
    ranked.method_options.insert("rank".into(), 9.into());
    let error = refused(&ranked);
    assert!(error.contains("`rank` belongs to the adapter"), "{error}");
    assert!(!tiny.path("other").exists());
}

#[test]
fn what_made_virtual_tokens_is_left_behind_and_they_go_on_by_themselves() {
    let tiny = Tiny::new();
    for (method, other) in [("prefix-tuning", "p-tuning-v2"), ("p-tuning", "prompt-tuning")] {
        train(&settings(&tiny, method, method)).unwrap();
        for named in [None, Some(method)] {
            let error = refused(&onward(&tiny, named, method, "next"));
            assert!(
                error.contains(&format!(
                    "training cannot go on as `{method}`: the file has the virtual tokens"
                )) && error.contains(&format!("--method {other} trains the tokens themselves")),
                "{error}"
            );
        }
        let error = refused(&onward(&tiny, Some("lora"), method, "next"));
        assert!(
            error.contains(&format!("an adapter of `{method}`, which cannot go on as `lora`")),
            "{error}"
        );
        let (report, ear) = train(&onward(&tiny, Some(other), method, other)).unwrap();
        assert_eq!(report.method, other);
        assert!(ear.heard("4 of the model's 24 positions are those of virtual tokens"), "{:?}", ear.said);
        let apart = difference(&answers(&model(tiny.path(method))), &answers(&model(tiny.path(other))));
        assert!(apart < 1e-5, "{method}: {apart}");
        // And that is a result of the other method, which goes on as it is.
        let (report, _) = train(&onward(&tiny, None, other, &format!("{other}-next"))).unwrap();
        assert_eq!(report.method, other);
    }
}

#[test]
fn a_prompt_begins_as_a_text() {
    let tiny = Tiny::new();
    let start = |text: &str, output: &str| {
        let mut settings =
            TrainSettings { learning_rate: Some(1e-12), ..settings(&tiny, "prompt-tuning", output) };
        settings.method_options.insert("init-text".into(), text.into());
        train(&settings).unwrap();
        let files = tiny.path(output).join("adapter_model.safetensors");
        retune_model::formats::Weights::open(files).unwrap().read_f32("prompt_embeddings").unwrap()
    };
    let table = retune_model::formats::Weights::open(tiny.path("base")).unwrap();
    let table = table.read_f32("bert.embeddings.word_embeddings.weight").unwrap();
    let tokenizer = retune_model::tokenizer::Tokenizer::open(tiny.path("base")).unwrap();
    for text in ["pay", "my card is lost money"] {
        let ids = tokenizer.encode(text, None, 99).unwrap().input_ids;
        let expected: Vec<f32> =
            ids.iter().cycle().take(4).flat_map(|id| table[*id as usize * 18..][..18].to_vec()).collect();
        let rows = start(text, text);
        let apart = rows.iter().zip(&expected).fold(0.0f32, |max, (a, b)| max.max((a - b).abs()));
        assert!(rows.len() == 72 && apart < 1e-6, "{text}: {apart}");
    }
}

#[test]
fn modules_that_an_adapter_saves_stay_saved() {
    let tiny = Tiny::new();
    train(&TrainSettings { train_pooler: Some(false), ..settings(&tiny, "lora", "lora") }).unwrap();
    // As `peft` writes it for a run whose word embeddings were trained too.
    let path = tiny.path("lora/adapter_config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["modules_to_save"] = serde_json::json!(["classifier", "score", "word_embeddings"]);
    std::fs::write(&path, config.to_string()).unwrap();
    train(&onward(&tiny, None, "lora", "next")).unwrap();
    let next: serde_json::Value =
        serde_json::from_slice(&std::fs::read(tiny.path("next/adapter_config.json")).unwrap()).unwrap();
    assert_eq!(next["modules_to_save"], config["modules_to_save"]);
}

#[test]
fn the_labels_keep_their_order_and_data_with_some_of_them_is_enough() {
    let tiny = Tiny::new();
    for method in ["full", "lora"] {
        let (report, _) = train(&settings(&tiny, method, method)).unwrap();
        // Only two of the three labels, and not the first.
        let rows = csv(0..72);
        let two: Vec<&str> = rows.lines().filter(|line| !line.ends_with(&report.labels[0])).collect();
        tiny.write("two.csv", two.join("\n"));
        let next = format!("{method}-next");
        let settings =
            TrainSettings { train: Some(vec![tiny.path("two.csv")]), ..onward(&tiny, None, method, &next) };
        let settings = TrainSettings { method: Some(method.into()), ..settings };
        let (after, _) = train(&settings).unwrap();
        assert_eq!(after.labels, report.labels, "{method}");
        let apart = difference(&answers(&model(tiny.path(method))), &answers(&model(tiny.path(&next))));
        assert!(apart < 1e-5, "{method}: {apart}");
    }
}

#[test]
fn other_labels_make_a_whole_models_head_anew_and_are_no_adapters() {
    let tiny = Tiny::new();
    let other = csv(0..72).replace("pay\n", "zahlen\n");
    tiny.write("other.csv", other);
    let onto = |method: &str, output: &str| TrainSettings {
        train: Some(vec![tiny.path("other.csv")]),
        eval: None,
        ..onward(&tiny, Some(method), method, output)
    };
    train(&settings(&tiny, "full", "full")).unwrap();
    let (report, ear) = train(&onto("full", "full-next")).unwrap();
    assert!(report.labels.contains(&"zahlen".to_string()) && !report.labels.contains(&"pay".to_string()));
    assert!(ear.heard("new weights, trained from scratch: classifier"), "{:?}", ear.said);

    train(&settings(&tiny, "lora", "lora")).unwrap();
    let error = refused(&onto("lora", "lora-next"));
    assert!(error.contains("the adapter was trained for 3 labels"), "{error}");
    assert!(!tiny.path("lora-next").exists());
}

#[test]
fn a_base_whose_labels_contradict_themselves_gets_a_head_of_its_own() {
    let tiny = Tiny::new();
    tiny.model("odd", 1, |config| {
        config.insert("id2label".into(), serde_json::json!({"0": "up", "1": "down"}));
        config.insert("label2id".into(), serde_json::json!({"up": 1, "down": 0}));
    });
    let odd = TrainSettings { model: model(tiny.path("odd")), ..settings(&tiny, "head", "result") };
    let (report, _) = train(&odd).unwrap();
    assert_eq!(report.labels.len(), 3);
    // As a classifier it cannot be used: nobody knows which is which.
    let error = retune::TextModel::open(&model(tiny.path("odd"))).err().unwrap();
    assert!(error.to_string().contains("label2id"), "{error}");
}
