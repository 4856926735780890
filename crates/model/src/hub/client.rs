//! Requests to the hub: redirects, further attempts, and what an answer means.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::cache::{is_plain, repo};
use super::{HubId, HubSettings, Watch};
use crate::ModelError;

/// How often a request is made that may go better the next time: with pauses of 1, 2, 4 and 8 seconds.
const ATTEMPTS: u32 = 5;
const REDIRECTS: usize = 10;
/// No listing of a model comes near this.
const LONGEST_LISTING: u64 = 32 << 20;

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may go better the next time: a server that is not well, a connection that was cut.
    Passing {
        why: String,
        /// The pause that the server asks for.
        pause: Option<Duration>,
        /// Much has come before that, so that this attempt is not counted.
        got_on: bool,
    },
    /// The hub was not reached, or not for long enough.
    Network(String),
    /// The hub's answer is a refusal.
    Status(Status),
    /// The hub's answer makes no sense.
    Nonsense(String),
    /// What went wrong is on this machine.
    Here(ModelError),
}

/// An answer that is a refusal.
#[derive(Debug)]
pub(super) struct Status {
    code: u16,
    /// What the hub calls it, such as `GatedRepo`.
    word: String,
    /// What was asked for.
    path: String,
}

impl Status {
    /// Bytes were asked for that the file does not have.
    pub(super) fn is_beyond_the_end(&self) -> bool {
        self.code == 416
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Failure::Here(error)
    }
}

/// The files of a model at a commit.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: BTreeSet<String>,
}

impl Listing {
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains(name)
    }

    /// The first few, for a message.
    pub(super) fn shown(&self) -> String {
        const SHOWN: usize = 12;
        if self.files.is_empty() {
            return "nothing".into();
        }
        let first: Vec<&str> = self.files.iter().take(SHOWN).map(String::as_str).collect();
        let more = self.files.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", first.join(", ")).escape_debug().to_string()
    }
}

/// What the hub says of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    /// Names the content. Of large files it is their SHA-256.
    pub(super) etag: String,
    pub(super) size: Option<u64>,
}

impl Remote {
    /// The SHA-256 of the content, where the hub tells it.
    pub(super) fn sha256(&self) -> Option<&str> {
        let is_hash = self.etag.len() == 64 && self.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash.then_some(self.etag.as_str())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Method {
    Head,
    Get,
}

pub(super) struct Client<'a> {
    pub(super) id: &'a HubId,
    pub(super) settings: &'a HubSettings,
    endpoint: String,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub(super) fn new(id: &'a HubId, settings: &'a HubSettings) -> Result<Self, ModelError> {
        let endpoint = endpoint(id, settings)?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed here: what is asked is in the headers on the way, and the token stays at the hub.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("retune/", env!("CARGO_PKG_VERSION")))
            // Lengths and hashes are those of the file, not of a packed form.
            .accept_encoding("identity")
            .timeout_resolve(Some(settings.timeout))
            .timeout_connect(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout));
        if let Some(path) = &settings.certificates {
            let roots = certificates(path)?;
            config = config.tls_config(TlsConfig::builder().root_certs(RootCerts::from(roots)).build());
        }
        Ok(Client { id, settings, endpoint, agent: config.build().into() })
    }

    /// The files at the revision that was asked for, and its commit.
    pub(super) fn listing(&self, watch: &mut dyn Watch) -> Result<Listing, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let url = format!("{}/api/{}", self.endpoint, repo(self.id, self.id.revision()).api_url());
        let text = self.patiently(watch, |_| {
            let mut response = self.get(&url, 0)?;
            let text = response.body_mut().with_config().limit(LONGEST_LISTING).read_to_vec();
            text.map_err(|error| passing(&format!("{url}: {error}")))
        })?;
        let answer: Answer = serde_json::from_slice(&text).map_err(|error| {
            Failure::Nonsense(format!("{url}: expected a model's `sha` and `siblings` as JSON: {error}"))
        })?;
        if !is_plain(&answer.sha) {
            return Err(Failure::Nonsense(format!("{url}: `sha`: expected a commit, got {:?}", answer.sha)));
        }
        let files = answer.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Listing { commit: answer.sha, files })
    }

    /// What the hub says of the file `name`.
    pub(super) fn remote(&self, name: &str, commit: &str, watch: &mut dyn Watch) -> Result<Remote, Failure> {
        let url = self.url(name, commit);
        self.patiently(watch, |_| {
            let (mut etag, mut size) = (None, None);
            let last = self.follow(Method::Head, &url, 0, |headers| {
                etag = etag.take().or_else(|| header(headers, "x-linked-etag"));
                size = size.take().or_else(|| header(headers, "x-linked-size"));
                // A server for large files may not take this kind of request, and need not be asked.
                etag.is_some() && size.is_some()
            })?;
            let etag = etag.or_else(|| header(last.headers(), "etag"));
            let size = size.or_else(|| header(last.headers(), "content-length"));
            let etag = etag.as_deref().map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
            match etag.filter(|etag| is_plain(etag)) {
                Some(etag) => {
                    Ok(Remote { etag: etag.to_string(), size: size.and_then(|size| size.parse().ok()) })
                }
                None => Err(Failure::Nonsense(format!("{url}: expected an etag, got {etag:?}"))),
            }
        })
    }

    pub(super) fn url(&self, name: &str, commit: &str) -> String {
        let repo = repo(self.id, commit);
        format!("{}/{}/resolve/{}/{name}", self.endpoint, repo.url(), repo.url_revision())
    }

    /// Asks for the bytes from `start` on.
    pub(super) fn get(&self, url: &str, start: u64) -> Result<Response<Body>, Failure> {
        self.follow(Method::Get, url, start, |_| false)
    }

    /// Asks, and goes where the answer points to, until one is no redirect or `enough` says so of its headers.
    fn follow(
        &self,
        method: Method,
        url: &str,
        start: u64,
        mut enough: impl FnMut(&HeaderMap) -> bool,
    ) -> Result<Response<Body>, Failure> {
        let mut at = url.to_string();
        for _ in 0..=REDIRECTS {
            let mut request = match method {
                Method::Head => self.agent.head(&at),
                Method::Get => self.agent.get(&at),
            };
            if let Some(token) =
                self.settings.token.as_ref().filter(|_| origin(&at) == origin(&self.endpoint))
            {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if start > 0 {
                request = request.header("range", format!("bytes={start}-"));
            }
            let response = request.call().map_err(|error| failed(&error, &at))?;
            let code = response.status().as_u16();
            let to = header(response.headers(), "location").filter(|_| (300..400).contains(&code));
            if (code < 400 && enough(response.headers())) || (200..300).contains(&code) {
                return Ok(response);
            }
            match (code, to) {
                (_, Some(to)) => {
                    let to = joined(&at, &to);
                    if at.starts_with("https:") && !to.starts_with("https:") {
                        let message =
                            format!("{at}: a redirect from https to {to}, which anybody could read along");
                        return Err(Failure::Nonsense(message));
                    }
                    at = to;
                }
                (408 | 425 | 429 | 500..=599, None) => {
                    let pause =
                        header(response.headers(), "retry-after").and_then(|seconds| seconds.parse().ok());
                    let most = |seconds: u64| Duration::from_secs(seconds.min(60));
                    let why = format!("{at}: status {code}");
                    return Err(Failure::Passing { why, pause: pause.map(most), got_on: false });
                }
                _ => {
                    let word = header(response.headers(), "x-error-code").unwrap_or_default();
                    return Err(Failure::Status(Status { code, word, path: at }));
                }
            }
        }
        Err(Failure::Nonsense(format!("{url}: more than {REDIRECTS} redirects, the last to {at}")))
    }

    /// Tries again, after longer and longer pauses, what may go better the next time.
    pub(super) fn patiently<W: Watch + ?Sized, T>(
        &self,
        watch: &mut W,
        mut attempt: impl FnMut(&mut W) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut failed = 0;
        loop {
            let (why, asked, got_on) = match attempt(watch) {
                Err(Failure::Passing { why, pause, got_on }) => (why, pause, got_on),
                done => return done,
            };
            failed = if got_on { 0 } else { failed + 1 };
            if failed == ATTEMPTS {
                return Err(Failure::Network(format!("{why} ({ATTEMPTS} attempts)")));
            }
            let pause = asked.unwrap_or(self.settings.pause * 2u32.pow(failed.saturating_sub(1)));
            watch.say(&format!("{why}; trying again in {:.0} s", pause.as_secs_f64()));
            std::thread::sleep(pause);
        }
    }

    /// What a failure means for whoever asked for the model.
    pub(super) fn error(&self, failure: Failure) -> ModelError {
        let id = self.id.id();
        match failure {
            Failure::Here(error) => error,
            Failure::Passing { why, .. } | Failure::Network(why) => ModelError::Network {
                id: id.to_string(),
                message: format!(
                    "the hub did not give it: {why}. what came so far is kept: the same command goes on from there"
                ),
            },
            Failure::Nonsense(why) => {
                ModelError::Network { id: id.to_string(), message: format!("the hub gave no sense: {why}") }
            }
            Failure::Status(status) => self.id.error(self.refusal(&status)),
        }
    }

    fn refusal(&self, Status { code, word, path }: &Status) -> String {
        let (revision, file) = (self.id.revision(), self.settings.token_file.display());
        let asks = match &self.settings.token {
            None => format!("no token was given: set HF_TOKEN, or write one to {file}"),
            Some(_) => "the token that was given (HF_TOKEN, or its file) does not open it".to_string(),
        };
        match (code, word.as_str()) {
            (401 | 403, "GatedRepo") => {
                format!("it is gated: ask for access on its page first. {asks} (status {code})")
            }
            (404, "RevisionNotFound") => {
                format!("it has no revision `{revision}`: see its branches and tags on its page")
            }
            (401, _) => format!(
                "there is no folder of this name here, and the hub has no public model so called, or wants to know who \
                 asks: check the spelling. {asks} (status 401)"
            ),
            (403, _) => format!("the hub refuses it (status 403): it may be gated or private. {asks}"),
            (404, _) if revision != "main" => format!(
                "the hub has no such model, or no revision `{revision}` of it: check the spelling of both ({path}: status \
                 404)"
            ),
            (404, _) => format!(
                "there is neither a folder of this name here nor such a model on the hub: check the spelling ({path}: \
                 status 404)"
            ),
            _ => format!("the hub refuses it: {path}: status {code} {word}"),
        }
    }
}

/// The address of the hub: as the settings say, or as the `hf-hub` crate knows it.
fn endpoint(id: &HubId, settings: &HubSettings) -> Result<String, ModelError> {
    if let Some(endpoint) = &settings.endpoint {
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(id.error(format!(
                "HF_ENDPOINT: expected an address with http:// or https://, got `{endpoint}`"
            )));
        }
        return Ok(endpoint.clone());
    }
    let cache = hf_hub::Cache::new(settings.cache.clone());
    let api = hf_hub::api::sync::ApiBuilder::from_cache(cache).with_progress(false).build();
    let api = api.map_err(|error| id.error(format!("the hub's address is not known: {error}")))?;
    let url = api.repo(repo(id, "main")).url("");
    Ok(url.split_once(&format!("/{}/", id.id())).map(|(endpoint, _)| endpoint.to_string()).unwrap_or(url))
}

fn certificates(path: &std::path::Path) -> Result<Vec<Certificate<'static>>, ModelError> {
    let pem = std::fs::read(path).map_err(|error| ModelError::io(path, "read", error))?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    Ok(parse_pem(&pem).filter_map(certificate).collect())
}

pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_string())
}

fn failed(error: &ureq::Error, url: &str) -> Failure {
    use std::io::ErrorKind;
    match error {
        // Whoever has no network should not wait for it.
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
            Failure::Network(format!("{url}: {error}"))
        }
        ureq::Error::Io(io)
            if matches!(
                io.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable
            ) =>
        {
            Failure::Network(format!("{url}: {io}"))
        }
        ureq::Error::Http(_) | ureq::Error::BadUri(_) | ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
            Failure::Network(format!("{url}: {error}"))
        }
        _ => passing(&format!("{url}: {error}")),
    }
}

pub(super) fn passing(error: &impl std::fmt::Display) -> Failure {
    Failure::Passing { why: error.to_string(), pause: None, got_on: false }
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

/// Where `to` leads from `at`.
fn joined(at: &str, to: &str) -> String {
    let origin = origin(at);
    if to.contains("://") && !to.starts_with(['/', '?']) {
        return to.to_string();
    }
    if let Some(host) = to.strip_prefix("//") {
        let scheme = at.split("://").next().unwrap_or("https");
        return format!("{scheme}://{host}");
    }
    let (path, query) = to.split_once('?').map_or((to, None), |(path, query)| (path, Some(query)));
    let from = at[origin.len()..].split(['?', '#']).next().unwrap_or_default();
    let path = match path {
        "" => from.to_string(),
        path if path.starts_with('/') => path.to_string(),
        path => format!("{}/{path}", from.rsplit_once('/').map_or("", |(folder, _)| folder)),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{origin}/{}{query}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_where_it_says() {
        let at = "https://hub:8443/o/n/resolve/main/a.bin?download=true";
        for (to, expected) in [
            ("http://other:1/x?y=https://z", "http://other:1/x?y=https://z"),
            ("//cdn/x", "https://cdn/x"),
            ("/p/q?s=1", "https://hub:8443/p/q?s=1"),
            ("b.bin", "https://hub:8443/o/n/resolve/main/b.bin"),
            ("../../x/./y", "https://hub:8443/o/n/x/y"),
            ("../../../../../../x", "https://hub:8443/x"),
            ("?s=2", "https://hub:8443/o/n/resolve/main/a.bin?s=2"),
            ("/api?to=http://z", "https://hub:8443/api?to=http://z"),
        ] {
            assert_eq!(joined(at, to), expected, "{to}");
        }
        assert_eq!(origin("http://h"), "http://h");
        assert_ne!(origin("http://hub.evil/x"), origin("http://hub/x"));
    }
}
