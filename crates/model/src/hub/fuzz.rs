//! A hub whose answers lie, over connections in memory: what comes is right, or refused with words, and lies in the cache.

#[path = "../../../../tests/fuzz/mod.rs"]
mod fuzzer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fuzzer::Target;
use sha2::{Digest, Sha256};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Error};

use super::cache::Cache;
use super::client::Client;
use super::{HubId, HubSettings, bring};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &[u8] = b"not a few bytes of weights";
const INDEX: &[u8] = br#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}"#;
/// The beginnings of the requests whose answer may lie.
const ASKED: [&str; 4] = [
    "GET /api/",
    "HEAD /owner/small/resolve/0123456789abcdef0123456789abcdef01234567/model.",
    "GET /owner/small/resolve/0123456789abcdef0123456789abcdef01234567/model.",
    "GET /store/",
];

/// What each kind of request is answered with: a lie for one of them.
#[derive(Debug)]
struct Answers {
    lie: Vec<u8>,
    to: &'static str,
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn listing(names: &[&str]) -> Vec<u8> {
    let siblings: Vec<_> = names.iter().map(|name| serde_json::json!({"rfilename": name})).collect();
    answer("200 OK", serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string().as_bytes())
}

/// What a large file is announced with: its hash, its size and where it is.
fn linked(bytes: &[u8]) -> Vec<u8> {
    let (hash, size) = (hash(bytes), bytes.len());
    let head = format!(
        "302 Found\r\nlocation: http://cdn/store/x?y=z\r\nx-linked-etag: \"{hash}\"\r\nx-linked-size: {size}"
    );
    answer(&head, b"")
}

impl Answers {
    fn to(&self, request: &str) -> Vec<u8> {
        if request.starts_with(self.to) {
            return self.lie.clone();
        }
        if request.starts_with(ASKED[0]) {
            return listing(&["config.json", "tokenizer.json", "model.safetensors"]);
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        match (path.rsplit('/').next().unwrap_or_default(), request.starts_with("HEAD")) {
            ("model.safetensors" | "m-1.safetensors" | "m-2.safetensors", _) => linked(WEIGHTS),
            (name, _) if name.starts_with("x?") => answer("200 OK", WEIGHTS),
            ("model.safetensors.index.json", _) => answer("200 OK\r\netag: \"index\"", INDEX),
            (name, _) => answer(&format!("200 OK\r\netag: W/\"{}\"", name.len()), b"{}"),
        }
    }
}

impl Connector for Memory {
    type Out = Connection;

    fn connect(&self, _: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Connection>, Error> {
        let buffers = LazyBuffers::new(4096, 4096);
        Ok(Some(Connection { buffers, answers: Arc::clone(&self.0), request: Vec::new(), answer: None }))
    }
}

impl Resolver for Memory {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(([127, 0, 0, 1], 9).into());
        Ok(addresses)
    }
}

#[derive(Debug)]
struct Memory(Arc<Answers>);

#[derive(Debug)]
struct Connection {
    buffers: LazyBuffers,
    answers: Arc<Answers>,
    request: Vec<u8>,
    /// What has not come yet.
    answer: Option<Vec<u8>>,
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        self.request.extend(&self.buffers.output()[..amount]);
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let request = String::from_utf8_lossy(&self.request);
        let answer = self.answer.get_or_insert_with(|| self.answers.to(&request));
        let room = self.buffers.input_append_buf();
        let amount = room.len().min(answer.len());
        room[..amount].copy_from_slice(&answer[..amount]);
        answer.drain(..amount);
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // A connection a request.
        false
    }
}

/// An answer whose length is right again, if its head can be told from its body.
fn with_length(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    if bytes[..head].windows(7).any(|seven| seven == b"chunked") {
        return None;
    }
    let (head, body) = (std::str::from_utf8(&bytes[..head]).ok()?, &bytes[head + 4..]);
    let others = head.split("\r\n").filter(|line| !line.starts_with("content-length:"));
    let head = others.collect::<Vec<_>>().join("\r\n");
    Some([format!("{head}\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat())
}

#[test]
fn answers() {
    let half = answer(&format!("206 Partial Content\r\ncontent-range: bytes 9-{}/26", 25), &WEIGHTS[9..]);
    // Which request it answers, and a sound answer.
    let seeds = [
        (0, listing(&["config.json", "tokenizer.json", "model.safetensors", "README.md"])),
        (0, listing(&["config.json", "vocab.txt", "model.safetensors.index.json", "m-1.safetensors", "m-2.safetensors"])),
        (0, listing(&["adapter_config.json", "adapter_model.safetensors"])),
        (0, answer("307 Temporary Redirect\r\nlocation: /api/models/owner/new/revision/main", b"")),
        (0, answer("503 Unavailable\r\nx-error-code: X", b"")),
        (1, linked(WEIGHTS)),
        (1, answer("200 OK\r\netag: W/\"0123456789\"\r\nx-linked-size: 26", b"")),
        (1, answer("401 Unauthorized\r\nx-error-code: GatedRepo", b"")),
        (2, answer("302 Found\r\nlocation: ../../../store/x?y=z", b"")),
        (2, answer("416 Range Not Satisfiable\r\ncontent-range: bytes */26", b"")),
        (3, answer("200 OK\r\netag: \"x\"", WEIGHTS)),
        (3, half),
        (3, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1a\r\nnot a few bytes of weights\r\n0\r\n\r\n".to_vec()),
    ];
    let dictionary = [
        "HTTP/1.1 ",
        "HTTP/1.0 ",
        "200 OK",
        "206",
        "301",
        "302",
        "304",
        "307",
        "401",
        "403",
        "404",
        "416",
        "429",
        "500",
        "100 Continue\r\n\r\n",
        "\r\n",
        "location: ",
        "x-linked-etag: ",
        "x-linked-size: ",
        "etag: \"",
        "content-length: ",
        "content-range: bytes ",
        "transfer-encoding: chunked",
        "content-encoding: gzip",
        "x-error-code: ",
        "GatedRepo",
        "RevisionNotFound",
        "http://",
        "https://",
        "//",
        "../",
        "?",
        "#",
        "[::1]:0",
        "%00",
        "18446744073709551615",
        "9223372036854775807",
        "\"sha\"",
        "\"siblings\"",
        "\"rfilename\"",
        "model.safetensors",
        "pytorch_model.bin",
        "model.safetensors.index.json",
        "../../evil",
        "\u{e9}",
    ];
    let folder = fuzzer::folder();
    let root = folder.path().join("cache");
    let variables = [("HF_HOME", root.to_str().unwrap()), ("HF_ENDPOINT", "http://hub")];
    let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    let mut settings = HubSettings::from_variables(find).unwrap();
    settings.pause = Duration::ZERO;
    let id = HubId::parse(Path::new("owner/small")).unwrap();
    let (asked, seeds): (Vec<usize>, Vec<Vec<u8>>) = seeds.into_iter().unzip();
    Target { name: "hub-answers", cost: 8, seeds, dictionary: &dictionary }.run(|input| {
        let mended = (input.random.below(4) > 0).then(|| with_length(input.bytes)).flatten();
        let lie = mended.unwrap_or_else(|| input.bytes.to_vec());
        if String::from_utf8_lossy(&lie).to_lowercase().contains("retry-after") {
            // It would be waited for.
            return;
        }
        let _ = std::fs::remove_dir_all(&root);
        let cache = Cache::new(&settings.cache, &id);
        // Now and then a part of the weights is here.
        if input.random.below(2) == 0 {
            let blob = cache.blob(&format!("{}.incomplete", hash(WEIGHTS)));
            std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
            let length = [9, input.random.below(WEIGHTS.len() + 1)][input.random.below(2)];
            std::fs::write(blob, &WEIGHTS[..length]).unwrap();
        }
        let answers = Arc::new(Answers { lie, to: ASKED[asked[input.seed]] });
        let agent =
            |config| Agent::with_parts(config, Memory(Arc::clone(&answers)), Memory(Arc::clone(&answers)));
        let client = Client::through(&id, &settings, agent).unwrap();
        match bring(&client, &cache, cache.snapshot(), &["retune.json"], &mut ()) {
            Ok(snapshot) => {
                assert!(snapshot.folder.starts_with(&root), "{}", snapshot.folder.display());
                let weights = std::fs::read(snapshot.folder.join("model.safetensors"));
                assert!(asked[input.seed] < 2 || weights.unwrap() == WEIGHTS);
            }
            Err(error) => {
                let words = error.to_string();
                assert!(!words.is_empty() && words.len() < 1_000_000, "{} bytes of words", words.len());
            }
        }
        assert!(std::fs::read_dir(folder.path()).unwrap().count() <= 1);
    });
}
