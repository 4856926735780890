//! A hub in a test: models by id, large files behind a redirect to another port, and faults in their order.

#![allow(dead_code, reason = "each of the crates that share it uses its own part of it")]

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// What goes wrong with one answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This status, and the hub's word for it.
    Status(u16, &'static str),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The body ends so early, and the answer's length says so too.
    Short(usize),
    /// So many bytes too many, and the answer's length says so too.
    Long(usize),
    /// A byte is another.
    Corrupt,
    /// The whole file, whatever was asked for.
    WithoutRange,
    /// Another place.
    Redirect(String),
    /// No answer for a while.
    Slow(Duration),
    /// No answer at all.
    Silence,
}

#[derive(Default)]
struct State {
    /// Id to commit and files.
    models: BTreeMap<String, (String, BTreeMap<String, Vec<u8>>)>,
    /// Old ids to new ones.
    moved: BTreeMap<String, String>,
    /// What begins with this path meets these faults, one a request.
    faults: Vec<(String, VecDeque<Fault>)>,
    requests: Vec<String>,
}

pub(crate) struct Hub {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl Hub {
    pub(crate) fn new() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let [hub, store] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [endpoint, cdn] =
            [&hub, &store].map(|listener| format!("http://{}", listener.local_addr().unwrap()));
        for listener in [hub, store] {
            let (state, cdn) = (state.clone(), cdn.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, cdn) = (state.clone(), cdn.clone());
                    // Whoever asked may be gone already: that is part of the tests.
                    std::thread::spawn(move || drop(answer(&stream, &state, &cdn)));
                }
            });
        }
        Hub { endpoint, state }
    }

    pub(crate) fn model(&self, id: &str, files: &[(&str, &[u8])]) {
        let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect();
        self.state.lock().unwrap().models.insert(id.into(), (COMMIT.into(), files));
    }

    pub(crate) fn moved(&self, old: &str, new: &str) {
        self.state.lock().unwrap().moved.insert(old.into(), new.into());
    }

    /// The next requests whose method and path begin so meet these faults.
    pub(crate) fn faults(&self, begin: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.push((begin.into(), faults.into_iter().collect()));
    }

    /// What was asked for since this was last called: method, path, `from N` where a part was, `with TOKEN`.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn answer(stream: &TcpStream, state: &Mutex<State>, cdn: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_string());
    let (mut start, mut token) = (None, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "range" => start = value.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().ok(),
            "authorization" => token = Some(value.trim_start_matches("Bearer ").to_string()),
            _ => {}
        }
    }
    let mut request = format!("{method} {path}");
    let fault = {
        let mut state = state.lock().unwrap();
        let faults =
            state.faults.iter_mut().find(|(begin, faults)| request.starts_with(begin) && !faults.is_empty());
        let fault = faults.and_then(|(_, faults)| faults.pop_front());
        let more = start
            .map(|start| format!(" from {start}"))
            .into_iter()
            .chain(token.map(|t| format!(" with {t}")));
        request.extend(more);
        state.requests.push(request);
        fault
    };
    let (mut code, mut headers, mut body) = found(&state.lock().unwrap(), &path, cdn);
    let mut cut = None;
    match fault {
        Some(Fault::Status(status, word)) => {
            (code, headers, body) = (status, format!("x-error-code: {word}\r\n"), Vec::new());
        }
        Some(Fault::Redirect(to)) => {
            (code, headers, body) = (302, format!("location: {to}\r\n"), Vec::new());
        }
        Some(Fault::WithoutRange) => start = None,
        Some(Fault::Cut(bytes)) => cut = Some(bytes),
        Some(Fault::Short(bytes)) => body.truncate(body.len() - bytes),
        Some(Fault::Long(bytes)) => body.extend(vec![7; bytes]),
        Some(Fault::Corrupt) => *body.last_mut().unwrap() ^= 1,
        Some(Fault::Slow(time)) => std::thread::sleep(time),
        Some(Fault::Silence) => return Ok(()),
        None => {}
    }
    if code == 200
        && let Some(start) = start
    {
        if start >= body.len() {
            (code, body) = (416, Vec::new());
        } else {
            code = 206;
            write!(headers, "content-range: bytes {start}-{}/{}\r\n", body.len() - 1, body.len()).unwrap();
            body.drain(..start);
        }
    }
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {code} X\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n",
        body.len()
    )?;
    if method != "HEAD" {
        stream.write_all(&body[..cut.unwrap_or(body.len())])?;
    }
    stream.flush()?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // What was not read would reset the connection, and with it the answer.
    drop(reader.take(1 << 16).read_to_end(&mut Vec::new()));
    Ok(())
}

/// Status, headers and body of the sound answer.
fn found(state: &State, path: &str, cdn: &str) -> (u16, String, Vec<u8>) {
    let missing = |word: &str| (404, format!("x-error-code: {word}\r\n"), Vec::new());
    for (old, new) in &state.moved {
        if path.contains(&format!("/{old}/")) {
            return (307, format!("location: {}\r\n", path.replace(old, new)), Vec::new());
        }
    }
    let Some((id, (commit, files))) = state.models.iter().find(|(id, _)| path.contains(&format!("/{id}/")))
    else {
        return missing("RepoNotFound");
    };
    let revision = |named: &str| named == "main" || named == commit || named == "refs%2Fpr%2F7";
    if let Some(named) = path.strip_prefix(&format!("/api/models/{id}/revision/")) {
        if !revision(named) {
            return missing("RevisionNotFound");
        }
        let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"id": id, "sha": commit, "siblings": siblings, "private": false});
        return (200, String::new(), body.to_string().into_bytes());
    }
    let name = path.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let named = path.strip_prefix(&format!("/{id}/resolve/")).and_then(|rest| rest.split('/').next());
    let Some(bytes) = files.get(name).filter(|_| named.is_none_or(revision)) else {
        return missing("EntryNotFound");
    };
    let hash = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if path.starts_with("/store/") {
        return (200, "etag: \"of-the-store\"\r\n".into(), bytes.clone());
    }
    if name.ends_with(".safetensors") {
        let size = bytes.len();
        let headers = format!(
            "location: {cdn}/store/{id}/{name}?signed=x%2Fy\r\nx-linked-etag: \"{hash}\"\r\nx-linked-size: {size}\r\n\
             x-repo-commit: {commit}\r\n"
        );
        return (302, headers, Vec::new());
    }
    (200, format!("etag: W/\"{}\"\r\nx-repo-commit: {commit}\r\n", &hash[..40]), bytes.clone())
}
