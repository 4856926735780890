//! Models by their id: trained on, named as the base, found again.

use retune::{ModelSettings, Source, TrainSettings};
use serde_json::{Value, json};

use crate::run::{Ear, answers, model, settings, train};
use crate::server::{COMMIT, Hub};
use crate::tiny::Tiny;

const ID: &str = "owner/tiny-bert";

/// A hub with the tiny model under [`ID`], and how it is reached.
fn hub(tiny: &Tiny) -> (Hub, retune::HubSettings) {
    let hub = Hub::new();
    let files = tiny.files("base");
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    hub.model(ID, &files);
    let settings = retune::HubSettings {
        endpoint: Some(hub.endpoint.clone()),
        offline: false,
        cache: tiny.path("cache é"),
        ..tiny.offline()
    };
    (hub, settings)
}

#[test]
fn a_model_of_the_hub_opens_by_its_id() {
    let tiny = Tiny::new();
    let (server, hub) = hub(&tiny);
    let by_id = |id: &str| ModelSettings { hub: Some(hub.clone()), ..model(id) };
    let source = Source::find(&by_id(ID)).unwrap();
    assert_eq!(source.origin.unwrap().commit, COMMIT);
    assert!(source.base.starts_with(tiny.path("cache é")));
    let pinned = ModelSettings { revision: Some(COMMIT.into()), ..by_id(ID) };
    server.requests();
    assert_eq!(Source::find(&pinned).unwrap().base, source.base);
    assert!(server.requests().is_empty());
    let error = Source::find(&by_id("owner/tiny-brt")).err().unwrap();
    assert!(error.to_string().contains("nor such a model on the hub"), "{error}");
    assert_eq!(error.exit_code(), 2);
    let nowhere = retune::HubSettings { endpoint: Some("http://127.0.0.1:9".into()), ..hub.clone() };
    let error = Source::find(&ModelSettings { hub: Some(nowhere), ..model("owner/other") }).err().unwrap();
    assert_eq!(error.exit_code(), 1, "{error}");
}

#[test]
fn a_result_names_its_base_on_the_hub_and_finds_it_again() {
    let tiny = Tiny::new();
    let (server, hub) = hub(&tiny);
    let settings = TrainSettings {
        model: ModelSettings { hub: Some(hub.clone()), ..model(ID) },
        ..settings(&tiny, "lora", "lora")
    };
    train(&settings).unwrap();
    let read =
        |name: &str| serde_json::from_slice::<Value>(&std::fs::read(tiny.path(name)).unwrap()).unwrap();
    let config = read("lora/adapter_config.json");
    assert_eq!((&config["base_model_name_or_path"], &config["revision"]), (&json!(ID), &json!(COMMIT)));
    let base = &read("lora/retune.json")["base"];
    assert_eq!((&base["path"], &base["revision"]), (&json!(ID), &json!(COMMIT)));

    // The same bits as from the folder, but for the names.
    let local =
        TrainSettings { model: model(tiny.path("base")), output: Some(tiny.path("local")), ..settings };
    train(&local).unwrap();
    let weights = |run: &str| tiny.files(run)["adapter_model.safetensors"].clone();
    assert!(weights("lora") == weights("local"));

    // The base is in the cache: nobody is asked. In an empty one it is fetched.
    server.requests();
    let opened =
        |hub: &retune::HubSettings| ModelSettings { hub: Some(hub.clone()), ..model(tiny.path("lora")) };
    let expected = answers(&model(tiny.path("local")));
    assert_eq!(answers(&opened(&retune::HubSettings { offline: true, ..hub.clone() })), expected);
    assert!(server.requests().is_empty());
    let empty = retune::HubSettings { cache: tiny.path("empty"), ..hub.clone() };
    assert_eq!(answers(&opened(&empty)), expected);
    // An adapter that `peft` saved has no card, and its configuration says the same.
    std::fs::remove_file(tiny.path("lora/retune.json")).unwrap();
    let source = Source::find(&opened(&hub)).unwrap();
    assert_eq!(source.origin.unwrap().id, ID);
}

#[test]
fn an_adapter_on_the_hub_brings_its_base() {
    let tiny = Tiny::new();
    let (server, hub) = hub(&tiny);
    let by_id = |id: &str| ModelSettings { hub: Some(hub.clone()), ..model(id) };
    train(&TrainSettings { model: by_id(ID), ..settings(&tiny, "lora", "lora") }).unwrap();
    let files = tiny.files("lora");
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    server.model("owner/tiny-lora", &files);
    let source = Source::find(&by_id("owner/tiny-lora")).unwrap();
    assert!(source.card.is_some() && source.adapter.is_some());
    assert_eq!(source.origin.unwrap().id, ID);
    assert_eq!(
        answers(&by_id("owner/tiny-lora")),
        answers(&ModelSettings { hub: Some(hub.clone()), ..model(tiny.path("lora")) })
    );
}

#[test]
fn a_run_goes_on_from_the_commit_that_it_was_begun_with() {
    let tiny = Tiny::new();
    let (server, hub) = hub(&tiny);
    let begun = TrainSettings {
        model: ModelSettings { hub: Some(hub.clone()), ..model(ID) },
        ..settings(&tiny, "head", "result")
    };
    let mut ear = Ear { interrupt_after: Some(3), ..Ear::default() };
    retune::train(&begun, &mut ear).unwrap_err();
    server.requests();
    let resume = TrainSettings {
        model: ModelSettings { hub: Some(hub), ..ModelSettings::default() },
        output: begun.output,
        resume: Some(true),
        ..TrainSettings::default()
    };
    assert_eq!(resume.resumed().unwrap().model.revision.as_deref(), Some(COMMIT));
    // A folder in its place has no revisions.
    let local = TrainSettings { model: model(tiny.path("base")), ..resume.clone() };
    assert_eq!(local.resumed().unwrap().model.revision, None);
    // The branch is not asked for again.
    train(&resume).unwrap();
    assert!(server.requests().is_empty());
}
