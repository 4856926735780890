//! A hub with a model on it, and whoever fetches it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use retune_model::ModelError;
use retune_model::hub::{HubId, HubSettings, Snapshot, Transfer, Watch, fetch};

use crate::server::{COMMIT, Hub};

pub(crate) const ID: &str = "owner/small-bert";

#[derive(Default)]
pub(crate) struct Ear {
    pub(crate) said: Vec<String>,
    pub(crate) transfers: Vec<(String, u64, u64)>,
}

impl Watch for Ear {
    fn say(&mut self, sentence: &str) {
        self.said.push(sentence.to_string());
    }
    fn transfer(&mut self, transfer: Transfer<'_>) {
        self.transfers.push((transfer.file.to_string(), transfer.done, transfer.total));
    }
}

/// A hub with one model, and an empty cache.
pub(crate) struct Scene {
    pub(crate) hub: Hub,
    pub(crate) cache: tempfile::TempDir,
    pub(crate) settings: HubSettings,
    pub(crate) weights: Vec<u8>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let (hub, cache) = (Hub::new(), tempfile::tempdir().unwrap());
        // Larger than any buffer, and no multiple of one.
        let weights: Vec<u8> =
            (0..1_234_567u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
        hub.model(
            ID,
            &[
                ("config.json", br#"{"model_type": "bert", "architectures": ["BertModel"]}"#),
                ("tokenizer.json", "{\"é\": 1}".as_bytes()),
                ("vocab.txt", b""),
                ("model.safetensors", &weights),
                ("pytorch_model.bin", b"a pickle"),
                ("model.onnx", b"not asked for"),
                ("README.md", b"#"),
            ],
        );
        let variables = [("HF_HOME", cache.path().to_str().unwrap()), ("HF_ENDPOINT", &hub.endpoint)];
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        let mut settings = HubSettings::from_variables(find).unwrap();
        settings.pause = Duration::from_millis(1);
        settings.timeout = Duration::from_millis(400);
        Scene { hub, cache, settings, weights }
    }

    pub(crate) fn id() -> HubId {
        HubId::parse(Path::new(ID)).unwrap()
    }

    pub(crate) fn fetch(&self) -> (Result<Snapshot, ModelError>, Ear) {
        let mut ear = Ear::default();
        (fetch(&Self::id(), &["retune.json"], &self.settings, &mut ear), ear)
    }

    pub(crate) fn error(&self) -> String {
        self.fetch().0.unwrap_err().to_string()
    }

    /// Fetches, and holds that all is there and right.
    pub(crate) fn whole(&self) -> Ear {
        let (snapshot, ear) = self.fetch();
        let snapshot = snapshot.unwrap();
        assert_eq!(snapshot.commit, COMMIT);
        let names = ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"];
        assert_eq!(self.files(&snapshot.folder).keys().collect::<Vec<_>>(), names);
        assert!(self.files(&snapshot.folder)["model.safetensors"] == self.weights);
        ear
    }

    pub(crate) fn files(&self, folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| (path.file_name().unwrap().to_str().unwrap().into(), fs::read(path).unwrap()))
            .collect()
    }

    pub(crate) fn part(&self) -> Option<u64> {
        let blobs = fs::read_dir(self.cache.path().join("hub/models--owner--small-bert/blobs")).ok()?;
        let part = blobs
            .map(|entry| entry.unwrap())
            .find(|e| e.file_name().to_str().unwrap().ends_with(".incomplete"));
        Some(part?.metadata().unwrap().len())
    }
}
