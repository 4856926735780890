//! What the hub's answers say, and what a failure means.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::HeaderMap;

use super::cache::is_plain;
use super::{HubId, HubSettings};
use crate::ModelError;

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
    pub(super) code: u16,
    /// What the hub calls it, such as `GatedRepo`.
    pub(super) word: String,
    /// What was asked for.
    pub(super) path: String,
}

impl Status {
    /// Bytes were asked for that the file does not have.
    pub(super) fn is_beyond_the_end(&self) -> bool {
        self.code == 416
    }

    /// What the person who asked can do about it.
    pub(super) fn refusal(&self, id: &HubId, settings: &HubSettings) -> String {
        let Status { code, word, path } = self;
        let (revision, file) = (id.revision(), settings.token_file.display());
        let asks = match &settings.token {
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

impl Failure {
    /// What the transfer's error means for another attempt.
    pub(super) fn of(error: &ureq::Error, url: &str) -> Self {
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
    /// What the hub's answer says, which came from `url`.
    pub(super) fn parse(text: &[u8], url: &str) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let answer: Answer = serde_json::from_slice(text).map_err(|error| {
            Failure::Nonsense(format!("{url}: expected a model's `sha` and `siblings` as JSON: {error}"))
        })?;
        if !is_plain(&answer.sha) {
            return Err(Failure::Nonsense(format!("{url}: `sha`: expected a commit, got {:?}", answer.sha)));
        }
        let files = answer.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Listing { commit: answer.sha, files })
    }

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

pub(super) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_string())
}

pub(super) fn passing(error: &impl std::fmt::Display) -> Failure {
    Failure::Passing { why: error.to_string(), pause: None, got_on: false }
}
