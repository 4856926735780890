//! Requests to the hub: redirects, further attempts, and what an answer means.

use std::time::Duration;

use ureq::config::Config;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::address::{endpoint, joined, origin};
use super::answer::{Failure, Listing, Remote, Status, header, passing};
use super::cache::{is_plain, repo};
use super::{HubId, HubSettings, Watch};
use crate::ModelError;

/// How often a request is made that may go better the next time: with pauses of 1, 2, 4 and 8 seconds.
const ATTEMPTS: u32 = 5;
const REDIRECTS: usize = 10;
/// No listing of a model comes near this.
const LONGEST_LISTING: u64 = 32 << 20;

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
        Self::through(id, settings, Agent::new_with_config)
    }

    /// The same over the connections that `agent` makes.
    pub(super) fn through(
        id: &'a HubId,
        settings: &'a HubSettings,
        agent: impl FnOnce(Config) -> Agent,
    ) -> Result<Self, ModelError> {
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
        Ok(Client { id, settings, endpoint, agent: agent(config.build()) })
    }

    /// The files at the revision that was asked for, and its commit.
    pub(super) fn listing(&self, watch: &mut dyn Watch) -> Result<Listing, Failure> {
        let url = format!("{}/api/{}", self.endpoint, repo(self.id, self.id.revision()).api_url());
        let text = self.patiently(watch, |_| {
            let mut response = self.get(&url, 0)?;
            let text = response.body_mut().with_config().limit(LONGEST_LISTING).read_to_vec();
            text.map_err(|error| passing(&format!("{url}: {error}")))
        })?;
        Listing::parse(&text, &url)
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
            let response = request.call().map_err(|error| Failure::of(&error, &at))?;
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
            Failure::Status(status) => self.id.error(status.refusal(self.id, self.settings)),
        }
    }
}

fn certificates(path: &std::path::Path) -> Result<Vec<Certificate<'static>>, ModelError> {
    let pem = std::fs::read(path).map_err(|error| ModelError::io(path, "read", error))?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    Ok(parse_pem(&pem).filter_map(certificate).collect())
}
