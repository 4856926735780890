//! Files into the cache: into a part beside the blobs first, which becomes a blob when its length and hash are right.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::Response;

use super::answer::{Failure, Listing, Remote, header, passing};
use super::cache::{Cache, make};
use super::client::Client;
use super::{Transfer, Watch};
use crate::ModelError;

const BUFFER: usize = 256 << 10;
/// An attempt that brings as much is not counted: a large file over a poor line may be cut any number of times.
const GETS_ON: u64 = 1 << 20;

/// Counts what has come, over all files.
pub(super) struct Meter<'a> {
    watch: &'a mut dyn Watch,
    done: u64,
    total: u64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(watch: &'a mut dyn Watch) -> Self {
        Meter { watch, done: 0, total: 0 }
    }

    fn tell(&mut self, file: &str, part: u64) {
        // A size that the hub did not tell is not in the total.
        let done = self.done.saturating_add(part);
        self.total = self.total.max(done);
        self.watch.transfer(Transfer { file, done, total: self.total });
    }
}

impl Watch for Meter<'_> {
    fn say(&mut self, sentence: &str) {
        self.watch.say(sentence);
    }
    fn transfer(&mut self, transfer: Transfer<'_>) {
        self.watch.transfer(transfer);
    }
}

/// Brings those of `names` that are not there into the snapshot of the listing's commit.
pub(super) fn all(
    client: &Client<'_>,
    cache: &Cache,
    listing: &Listing,
    names: &[String],
    meter: &mut Meter<'_>,
) -> Result<(), ModelError> {
    let folder = cache.folder(&listing.commit);
    let mut missing = Vec::new();
    for name in names.iter().filter(|name| !folder.join(name).is_file()) {
        let remote = client.remote(name, &listing.commit, meter).map_err(|failure| client.error(failure))?;
        missing.push((name, remote));
    }
    // A hub that lies may name any size; each file is then held to its own.
    let sizes = missing.iter().filter_map(|(_, remote)| remote.size);
    meter.total = sizes.fold(meter.total, u64::saturating_add);
    for (name, remote) in missing {
        let blob = cache.blob(&remote.etag);
        file(client, cache, &client.url(name, &listing.commit), name, &remote, meter)
            .map_err(|failure| client.error(failure))?;
        cache.link(&listing.commit, name, &blob)?;
        meter.done += blob.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(())
}

/// Brings one blob.
fn file(
    client: &Client<'_>,
    cache: &Cache,
    url: &str,
    name: &str,
    remote: &Remote,
    meter: &mut Meter<'_>,
) -> Result<(), Failure> {
    let blob = cache.blob(&remote.etag);
    make(blob.parent().unwrap_or(Path::new(".")))?;
    let (lock, path) = cache.lock_file(&remote.etag)?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => {
            meter.watch.say(&format!("another program is fetching {name}: waiting for it"));
            lock.lock().map_err(|error| ModelError::io(&path, "lock", error))?;
        }
        // A file system without locks: the last rename wins, and each is of a whole file.
        Err(TryLockError::Error(_)) | Ok(()) => {}
    }
    // Blobs are named by their content, but a disk may have been full.
    if blob.metadata().is_ok_and(|there| remote.size.is_none_or(|size| size == there.len())) {
        return Ok(());
    }
    let part = Part { path: blob.with_file_name(format!("{}.incomplete", remote.etag)), name, remote };
    client.patiently(meter, |meter| {
        let before = part.length();
        part.attempt(client, url, meter).map_err(|failure| match failure {
            Failure::Passing { why, pause, .. } => {
                Failure::Passing { why, pause, got_on: part.length() >= before + GETS_ON }
            }
            failure => failure,
        })
    })?;
    fs::rename(&part.path, &blob)
        .map_err(|error| ModelError::io(&blob, "rename the finished file to", error).into())
}

/// A file on its way.
struct Part<'a> {
    path: PathBuf,
    name: &'a str,
    remote: &'a Remote,
}

impl Part<'_> {
    fn length(&self) -> u64 {
        self.path.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Goes on from the bytes that are here until all are, and right.
    fn attempt(&self, client: &Client<'_>, url: &str, meter: &mut Meter<'_>) -> Result<(), Failure> {
        let file = OpenOptions::new().append(true).create(true).open(&self.path);
        let mut file = file.map_err(|error| ModelError::io(&self.path, "open", error))?;
        let start = self.length();
        let size = match self.remote.size {
            Some(size) if size == start => size,
            Some(size) if size < start => {
                return Err(self.discard(&format!("{start} bytes are here of {size}")));
            }
            _ => self.receive(client, url, start, &mut file, meter)?,
        };
        file.sync_all().map_err(|error| ModelError::io(&self.path, "write", error))?;
        let length = self.length();
        if length < size {
            return Err(passing(&format!(
                "{}: the connection ended after {length} of {size} bytes",
                self.name
            )));
        }
        let Some(expected) = self.remote.sha256() else { return Ok(()) };
        let got = sha256(&self.path).map_err(|error| ModelError::io(&self.path, "read", error))?;
        match got.eq_ignore_ascii_case(expected) {
            true => Ok(()),
            false => Err(self.discard(&format!("expected sha256 {expected}, got {got}"))),
        }
    }

    /// Appends what comes; gives the size that the whole file should have.
    fn receive(
        &self,
        client: &Client<'_>,
        url: &str,
        start: u64,
        file: &mut File,
        meter: &mut Meter<'_>,
    ) -> Result<u64, Failure> {
        let response = match client.get(url, start) {
            Err(Failure::Status(status)) if status.is_beyond_the_end() => {
                return Err(self.discard("the hub has no bytes behind those that are here"));
            }
            response => response?,
        };
        let start = match begins(&response) {
            Some(at) if at == start => start,
            Some(at) => {
                return Err(
                    self.discard(&format!("asked for the bytes from {start} on, got those from {at} on"))
                );
            }
            None if start == 0 => 0,
            // All of it comes again.
            None => {
                file.set_len(0).map_err(|error| ModelError::io(&self.path, "empty", error))?;
                0
            }
        };
        let length =
            header(response.headers(), "content-length").and_then(|length| length.parse::<u64>().ok());
        let size = match (self.remote.size, length) {
            (Some(size), Some(length)) if start.saturating_add(length) != size => {
                let got = start.saturating_add(length);
                return Err(self.discard(&format!("expected {size} bytes, got {got}")));
            }
            (Some(size), _) => size,
            (None, Some(length)) => start.saturating_add(length),
            (None, None) => {
                return Err(Failure::Nonsense(format!("{url}: it does not say how long the file is")));
            }
        };
        let (mut body, mut here) = (response.into_body().into_reader(), start);
        let mut buffer = vec![0; BUFFER];
        meter.tell(self.name, here);
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => return Ok(size),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(passing(&format!("{}: {error}", self.name))),
            };
            here += read as u64;
            if here > size {
                return Err(self.discard(&format!("expected {size} bytes, got more")));
            }
            let bytes = buffer.get(..read).unwrap_or_default();
            file.write_all(bytes).map_err(|error| ModelError::io(&self.path, "write", error))?;
            meter.tell(self.name, here);
        }
    }

    /// What is here is not what the hub has: the next attempt begins anew.
    fn discard(&self, why: &str) -> Failure {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                ModelError::io(&self.path, "remove", error).into()
            }
            _ => passing(&format!("{}: {why}", self.name)),
        }
    }
}

/// Where a part of a file begins; none if all of it comes.
fn begins(response: &Response<Body>) -> Option<u64> {
    if response.status().as_u16() != 206 {
        return None;
    }
    let range = header(response.headers(), "content-range").unwrap_or_default();
    // A part that does not say where it belongs is none that was asked for.
    Some(
        range
            .strip_prefix("bytes ")
            .and_then(|range| range.split('-').next()?.parse().ok())
            .unwrap_or(u64::MAX),
    )
}

fn sha256(path: &Path) -> io::Result<String> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
