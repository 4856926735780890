//! Models by their id: fetched once, whole or not at all, whatever the network does.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod scene;
mod server;

use std::fs;
use std::path::Path;
use std::time::Duration;

use retune_model::ModelError;
use retune_model::hub::{HubId, fetch};

use scene::{ID, Scene};
use server::{COMMIT, Fault};

const WEIGHTS: &str = "GET /store/owner/small-bert/model.safetensors";

#[test]
fn what_is_needed_is_fetched_once_into_the_shared_layout() {
    let scene = Scene::new();
    let ear = scene.whole();
    let root = scene.cache.path().join("hub/models--owner--small-bert");
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    let link = fs::read_link(root.join("snapshots").join(COMMIT).join("model.safetensors")).unwrap();
    assert!(link.starts_with("../../blobs"), "{}", link.display());
    assert_eq!(link.file_name().unwrap().len(), 64);
    assert_eq!(scene.part(), None);
    // Progress goes up over all files, and ends where it should.
    assert!(ear.transfers.windows(2).all(|pair| pair[0].1 <= pair[1].1));
    let (_, done, total) = ear.transfers.last().unwrap();
    assert_eq!(done, total);
    assert!(ear.said.is_empty(), "{:?}", ear.said);
    let asked = scene.hub.requests();
    assert!(
        asked.iter().all(|request| !request.contains("pytorch") && !request.contains("onnx")),
        "{asked:?}"
    );

    // Again: which commit the branch is, and nothing else.
    scene.whole();
    assert_eq!(scene.hub.requests(), [format!("GET /api/models/{ID}/revision/main")]);
    // A commit does not change, so nobody is asked.
    let pinned = fetch(&Scene::id().at(COMMIT).unwrap(), &[], &scene.settings, &mut ()).unwrap();
    assert_eq!((pinned.commit.as_str(), scene.hub.requests().len()), (COMMIT, 0));
    // Another branch at the same commit: its name is new, its files are not.
    fetch(&Scene::id().at("refs/pr/7").unwrap(), &[], &scene.settings, &mut ()).unwrap();
    assert_eq!(fs::read_to_string(root.join("refs/refs/pr/7")).unwrap(), COMMIT);
    assert_eq!(scene.hub.requests().len(), 1);
}

#[test]
fn without_a_network_what_is_here_is_used_and_what_is_not_is_named() {
    let mut scene = Scene::new();
    scene.settings.offline = true;
    let error = scene.error();
    assert!(
        error.starts_with("owner/small-bert: HF_HUB_OFFLINE is set, and nothing of revision `main` is"),
        "{error}"
    );
    assert!(error.contains("run `retune inspect owner/small-bert` once without it"), "{error}");
    scene.settings.offline = false;
    scene.whole();
    scene.hub.requests();
    scene.settings.offline = true;
    scene.whole();
    let weights = scene.cache.path().join("hub/models--owner--small-bert/snapshots").join(COMMIT);
    fs::remove_file(weights.join("model.safetensors")).unwrap();
    let error = scene.error();
    assert!(error.contains("and model.safetensors is not in the cache"), "{error}");
    let error = fetch(&Scene::id().at("v2").unwrap(), &[], &scene.settings, &mut ()).unwrap_err().to_string();
    assert!(error.contains("nothing of revision `v2`") && error.contains("--revision v2`"), "{error}");
    assert!(scene.hub.requests().is_empty());

    // A hub that is not reached, without being told so beforehand: quickly an error, or what is here.
    scene.settings.offline = false;
    scene.whole();
    scene.settings.endpoint = Some("http://127.0.0.1:9".into());
    let ear = scene.whole();
    assert!(ear.said[0].contains("the hub cannot be reached"), "{:?}", ear.said);
    scene.settings.cache = scene.cache.path().join("other");
    let (error, ear) = scene.fetch();
    let error = error.unwrap_err();
    assert!(matches!(error, ModelError::Network { .. }) && ear.said.is_empty(), "{error} {:?}", ear.said);
}

#[test]
fn a_server_that_is_not_well_is_asked_again() {
    for begin in ["GET /api/", "HEAD /owner/small-bert/resolve/", WEIGHTS] {
        let scene = Scene::new();
        scene.hub.faults(
            begin,
            [Fault::Status(500, ""), Fault::Silence, Fault::Status(503, ""), Fault::Status(429, "")],
        );
        let ear = scene.whole();
        assert_eq!(ear.said.len(), 4, "{begin}: {:?}", ear.said);
        assert!(ear.said[0].contains("status 500; trying again in"), "{:?}", ear.said);
    }
    let scene = Scene::new();
    scene.hub.faults(WEIGHTS, vec![Fault::Status(502, ""); 5]);
    let error = scene.error();
    assert!(error.contains("status 502 (5 attempts). what came so far is kept"), "{error}");
    scene.whole();
}

#[test]
fn a_slow_answer_is_waited_for_and_a_silent_one_is_not() {
    let scene = Scene::new();
    scene
        .hub
        .faults(WEIGHTS, [Fault::Slow(Duration::from_millis(100)), Fault::Slow(Duration::from_millis(1500))]);
    assert!(scene.whole().said.is_empty());
    let scene = Scene::new();
    scene.hub.faults(WEIGHTS, [Fault::Slow(Duration::from_millis(1500))]);
    let ear = scene.whole();
    assert!(ear.said.len() == 1 && ear.said[0].contains("timeout"), "{:?}", ear.said);
}

#[test]
fn a_cut_download_goes_on_from_its_bytes() {
    let scene = Scene::new();
    // The first attempts of a process that gives up; the next process goes on.
    scene.hub.faults(WEIGHTS, [vec![Fault::Cut(300_001)], vec![Fault::Status(500, ""); 4]].concat());
    scene.error();
    assert_eq!(scene.part(), Some(300_001));
    let half = scene
        .cache
        .path()
        .join("hub/models--owner--small-bert/snapshots")
        .join(COMMIT)
        .join("model.safetensors");
    assert!(!half.exists());
    scene.hub.requests();
    scene.whole();
    let asked: Vec<String> = scene.hub.requests().into_iter().filter(|r| r.starts_with(WEIGHTS)).collect();
    assert_eq!(asked, [format!("{WEIGHTS}?signed=x%2Fy from 300001")]);

    // Any number of cuts that bring much each.
    let scene = Scene::new();
    scene.hub.faults(
        WEIGHTS,
        [Fault::Cut(1_100_000), Fault::Cut(3), Fault::Cut(5), Fault::Cut(7), Fault::Silence],
    );
    scene.whole();
    // A server that knows no parts begins anew.
    let scene = Scene::new();
    scene.hub.faults(WEIGHTS, [Fault::Cut(300_001), Fault::WithoutRange]);
    scene.whole();
}

#[test]
fn what_is_not_the_file_is_never_taken_for_it() {
    for fault in [Fault::Corrupt, Fault::Short(3), Fault::Long(3)] {
        let scene = Scene::new();
        scene.hub.faults(WEIGHTS, vec![fault.clone(); 5]);
        let error = scene.error();
        let expected = if matches!(fault, Fault::Corrupt) {
            "expected sha256 "
        } else {
            "expected 1234567 bytes, got 12345"
        };
        assert!(error.contains(expected), "{fault:?}: {error}");
        assert_eq!(scene.part(), None, "{fault:?}");
        assert!(!scene.cache.path().join("hub/models--owner--small-bert/refs/main").exists());
        // Once is an accident.
        scene.hub.faults(WEIGHTS, [fault]);
        scene.whole();
    }
    // What an earlier program left that is too long, or not the beginning of this file.
    for left in [vec![1; 2_000_000], vec![1; 4711]] {
        let scene = Scene::new();
        scene.hub.faults(WEIGHTS, [vec![Fault::Cut(9)], vec![Fault::Status(500, ""); 4]].concat());
        scene.error();
        let blobs = scene.cache.path().join("hub/models--owner--small-bert/blobs");
        let part = fs::read_dir(blobs).unwrap().map(|e| e.unwrap().path());
        let part = part.into_iter().find(|path| path.extension().is_some_and(|e| e == "incomplete")).unwrap();
        fs::write(part, left).unwrap();
        scene.whole();
    }
}

#[test]
fn redirects_are_followed_and_the_token_stays_at_the_hub() {
    let mut scene = Scene::new();
    scene.settings.token = Some("secret".into());
    scene.hub.moved("before/small", ID);
    let old = HubId::parse(Path::new("before/small")).unwrap();
    let snapshot = fetch(&old, &[], &scene.settings, &mut ()).unwrap();
    assert!(fs::read(snapshot.folder.join("model.safetensors")).unwrap() == scene.weights);
    for request in scene.hub.requests() {
        let elsewhere = request.contains("/store/");
        assert_eq!(request.ends_with(" with secret"), !elsewhere, "{request}");
    }
    scene.hub.faults("GET /api/", [Fault::Redirect("../../../owner/small-bert/revision/main".into())]);
    fetch(&Scene::id().at("refs/pr/7").unwrap(), &[], &scene.settings, &mut ()).unwrap();
    let scene = Scene::new();
    scene.hub.faults("GET /api/", vec![Fault::Redirect(format!("/api/models/{ID}/revision/main")); 20]);
    let error = scene.error();
    assert!(error.contains("more than 10 redirects"), "{error}");
}

#[test]
fn refusals_say_what_to_do() {
    for (fault, revision, words) in [
        (
            Fault::Status(401, "RepoNotFound"),
            "main",
            "there is no folder of this name here, and the hub has no public",
        ),
        (Fault::Status(401, "RepoNotFound"), "main", "no token was given: set HF_TOKEN, or write one to "),
        (
            Fault::Status(403, "GatedRepo"),
            "main",
            "it is gated: ask for access on its page first. no token was given",
        ),
        (Fault::Status(401, "GatedRepo"), "main", "it is gated"),
        (Fault::Status(403, ""), "main", "the hub refuses it (status 403)"),
        (
            Fault::Status(404, "RepoNotFound"),
            "main",
            "neither a folder of this name here nor such a model on the hub",
        ),
        (Fault::Status(404, "RevisionNotFound"), "v9", "it has no revision `v9`"),
        (Fault::Status(404, ""), "v9", "no revision `v9`"),
        (Fault::Status(418, ""), "main", "status 418"),
    ] {
        let mut scene = Scene::new();
        scene.hub.faults("GET /api/", [fault.clone(), fault]);
        let id = Scene::id().at(revision).unwrap();
        let error = fetch(&id, &[], &scene.settings, &mut ()).unwrap_err();
        assert!(matches!(error, ModelError::Hub { .. }), "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
        scene.settings.token = Some("secret".into());
        let error = fetch(&id, &[], &scene.settings, &mut ()).unwrap_err().to_string();
        assert!(!error.contains("secret") && !error.contains("no token was given"), "{error}");
    }
    // A gated model lists its files to everybody.
    let scene = Scene::new();
    scene.hub.faults("HEAD /owner/small-bert/resolve/", [Fault::Status(403, "GatedRepo")]);
    assert!(scene.error().contains("it is gated"));
}

#[test]
fn pickles_are_never_fetched() {
    let scene = Scene::new();
    let config = br#"{"architectures": ["BertForSequenceClassification"]}"#;
    scene.hub.model(ID, &[("config.json", config), ("pytorch_model.bin", b"x"), ("vocab.txt", b"x")]);
    let error = scene.error();
    for words in [
        "only pytorch_model.bin: a pickle, which can run any code",
        "python -c 'from transformers import BertForSequenceClassification as M",
        "save_pretrained(\"small-bert\", safe_serialization=True)",
    ] {
        assert!(error.contains(words), "{error}");
    }
    scene.hub.model(ID, &[("adapter_config.json", b"{}"), ("adapter_model.bin", b"x")]);
    let error = scene.error();
    assert!(error.contains("save_file(torch.load(") && error.contains("weights_only=True"), "{error}");
    assert!(scene.hub.requests().iter().all(|request| !request.contains(".bin")));

    scene.hub.model(ID, &[("README.md", b"x"), ("model.gguf", b"x")]);
    assert!(
        scene.error().contains(
            "it has no config.json, so it is no model of transformers: it has README.md, model.gguf"
        )
    );
}

#[test]
fn shards_come_by_their_index_and_lead_nowhere_else() {
    let scene = Scene::new();
    let index =
        |second: &str| format!(r#"{{"weight_map": {{"a": "m-1-of-2.safetensors", "b": "{second}"}}}}"#);
    let model = |second: &str, files: &[(&str, &[u8])]| {
        let index = index(second);
        let always: [(&str, &[u8]); 3] = [
            ("config.json", b"{}"),
            ("tokenizer.json", b"{}"),
            ("model.safetensors.index.json", index.as_bytes()),
        ];
        scene.hub.model(ID, &[&always, files].concat());
    };
    model("../../evil", &[("m-1-of-2.safetensors", b"1")]);
    assert!(scene.error().contains("expected the name of a file in the same folder"), "{}", scene.error());
    fs::remove_dir_all(scene.cache.path().join("hub")).unwrap();
    model("m-2-of-2.safetensors", &[("m-1-of-2.safetensors", b"1")]);
    assert!(
        scene.error().contains("names m-2-of-2.safetensors, which it does not have"),
        "{}",
        scene.error()
    );
    model(
        "m-2-of-2.safetensors",
        &[("m-1-of-2.safetensors", b"1"), ("m-2-of-2.safetensors", b"22"), ("other.safetensors", b"no")],
    );
    let snapshot = scene.fetch().0.unwrap();
    let files = scene.files(&snapshot.folder);
    assert_eq!(files.len(), 5);
    assert_eq!(files["m-2-of-2.safetensors"], b"22");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_as_such() {
    let scene = Scene::new();
    scene.hub.faults(WEIGHTS, [vec![Fault::Cut(9)], vec![Fault::Status(500, ""); 4]].concat());
    scene.error();
    let blobs = scene.cache.path().join("hub/models--owner--small-bert/blobs");
    let mut parts = fs::read_dir(blobs).unwrap().map(|e| e.unwrap().path());
    let part = parts.find(|path| path.extension().is_some_and(|e| e == "incomplete")).unwrap();
    fs::remove_file(&part).unwrap();
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let error = scene.error();
    assert!(error.contains(".incomplete: cannot write: No space left on device"), "{error}");
}
