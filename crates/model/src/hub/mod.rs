//! Models by their id on the hub, `owner/name`: what is needed of them is fetched once, into the cache that Python's
//! `huggingface_hub` keeps too, and read from there ever after.
//!
//! Names, the layout of the cache and the hub's address come from the `hf-hub` crate; the transfer is ours, as the crate
//! does not check what it got, appends to a half file whatever the server sends, and knows no offline use.

mod address;
mod answer;
mod cache;
mod client;
mod download;
#[cfg(test)]
mod fuzz;
mod settings;
mod wanted;

use std::path::{Path, PathBuf};

use crate::ModelError;
use answer::Failure;
use cache::{Cache, Here};
use client::Client;
pub use settings::HubSettings;

/// A model on the hub, at one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubId {
    id: String,
    revision: String,
}

/// The files of a model at one commit, on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder with the files.
    pub folder: PathBuf,
    /// The commit, which names these files for ever.
    pub commit: String,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer<'a> {
    /// The file that is coming.
    pub file: &'a str,
    /// Bytes that are here, of all files that were missing.
    pub done: u64,
    /// Bytes of all of them, as far as they are known.
    pub total: u64,
}

/// Who is told of a download.
pub trait Watch {
    /// A sentence about something that happened.
    fn say(&mut self, sentence: &str);
    /// Some more bytes are here.
    fn transfer(&mut self, transfer: Transfer<'_>);
}

/// Nobody is told.
impl Watch for () {
    fn say(&mut self, _: &str) {}
    fn transfer(&mut self, _: Transfer<'_>) {}
}

impl HubId {
    /// The id that `name` is, if it has the form of one: `owner/name`, of letters, digits, `-`, `_` and `.`.
    pub fn parse(name: &Path) -> Option<Self> {
        let id = name.to_str()?;
        let (owner, model) = id.split_once('/')?;
        let part = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            (1..=96).contains(&part.len())
                && part.chars().all(known)
                && !part.starts_with(['-', '.'])
                && !part.ends_with(['-', '.'])
                && !part.contains("--")
                && !part.contains("..")
        };
        (part(owner) && part(model)).then(|| HubId { id: id.to_string(), revision: "main".into() })
    }

    /// The same at another revision: a branch, a tag or a commit. Errors if none can have this name.
    pub fn at(self, revision: &str) -> Result<Self, ModelError> {
        let plain = |c: char| c.is_ascii_graphic() && !"?#%\\:*\"<>|".contains(c);
        let sound = revision.chars().all(plain)
            && revision.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if !sound {
            let message = format!(
                "expected a revision such as a branch, a tag or a commit, got `{}`",
                revision.escape_debug()
            );
            return Err(ModelError::Hub { id: self.id, message });
        }
        Ok(HubId { revision: revision.to_string(), ..self })
    }

    /// `owner/name`
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Whether the revision is a commit, which never changes.
    fn is_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    fn error(&self, message: impl Into<String>) -> ModelError {
        ModelError::Hub { id: self.id.clone(), message: message.into() }
    }
}

/// Brings what is needed of a model here, unless it is here: its configuration, tokenizer and safetensors, or those of an
/// adapter; and the files `also`, where it has them.
///
/// Errors if there is no such model or no right to it, if it has only weights that run code when loaded, if the network
/// fails for longer than a few attempts, or if what came is not what the hub has. What came so far is kept for the
/// next time, and never taken for a whole file.
pub fn fetch(
    id: &HubId,
    also: &[&str],
    settings: &HubSettings,
    watch: &mut dyn Watch,
) -> Result<Snapshot, ModelError> {
    let cache = Cache::new(&settings.cache, id);
    let here = cache.snapshot();
    if let Some(whole) = here.as_ref().filter(|here| here.lacks.is_empty())
        && (settings.offline || id.is_commit())
    {
        return Ok(whole.snapshot.clone());
    }
    if settings.offline {
        return Err(id.error(offline(id, &settings.cache, here.map(|here| here.lacks))));
    }
    bring(&Client::new(id, settings)?, &cache, here, also, watch)
}

/// Brings what the cache lacks, or takes what is `here` if the hub is not reached.
fn bring(
    client: &Client<'_>,
    cache: &Cache,
    here: Option<Here>,
    also: &[&str],
    watch: &mut dyn Watch,
) -> Result<Snapshot, ModelError> {
    let id = client.id;
    let listing = match client.listing(watch) {
        Ok(listing) => listing,
        // What is here is better than nothing; that it may be old is said.
        Err(Failure::Network(why)) if here.as_ref().is_some_and(|here| here.lacks.is_empty()) => {
            let Some(here) = here else { return Err(client.error(Failure::Network(why))) };
            let commit = &here.snapshot.commit;
            watch.say(&format!(
                "the hub cannot be reached ({why}): {} as of commit {commit} is used",
                id.id()
            ));
            return Ok(here.snapshot);
        }
        Err(failure) => return Err(client.error(failure)),
    };
    let commit = listing.commit.clone();
    let mut meter = download::Meter::new(watch);
    download::all(client, cache, &listing, &wanted::first(id, &listing, also)?, &mut meter)?;
    let folder = cache.folder(&commit);
    download::all(client, cache, &listing, &wanted::weights(id, &listing, &folder)?, &mut meter)?;
    // Only now, so that a reference never names a snapshot with half of its files.
    cache.name(&commit)?;
    Ok(Snapshot { folder, commit })
}

fn offline(id: &HubId, cache: &Path, lacks: Option<Vec<String>>) -> String {
    let at = match id.revision() {
        "main" => String::new(),
        revision => format!(" --revision {revision}"),
    };
    let missing = match lacks {
        None => format!("nothing of revision `{}` is", id.revision()),
        Some(lacks) => format!("{} {} not", lacks.join(", "), if lacks.len() == 1 { "is" } else { "are" }),
    };
    format!(
        "HF_HUB_OFFLINE is set, and {missing} in the cache {}. run `retune inspect {}{at}` once without it, or on a \
         machine with a network, and copy the cache",
        cache.display(),
        id.id()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_two_parts_and_nothing_that_means_more() {
        for id in ["owner/name", "a/b", "sentence-transformers/all-MiniLM-L6-v2", "o_1/n.2-x"] {
            assert_eq!(HubId::parse(Path::new(id)).unwrap().id(), id);
        }
        for name in [
            "bert", "a/b/c", "/a/b", "./a", "../a", "a/", "/a", "~/a", "a/..", "a/.b", "é/a", "a b/c",
            "a\\b/c", "a--b/c", "a/b..c", "", "a/-b", "a:b/c", "a/b?c",
        ] {
            assert_eq!(HubId::parse(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn a_revision_stays_in_its_folder_and_its_address() {
        let id = HubId::parse(Path::new("o/n")).unwrap();
        for revision in ["main", "refs/pr/7", "v1.0-é".trim_end_matches('é'), "ab12"] {
            assert_eq!(id.clone().at(revision).unwrap().revision(), revision);
        }
        for revision in ["", "..", "a/../b", "a//b", "/a", "a?b", "a#b", "a%2e", "a b", "a\nb", "a\\b", "é"]
        {
            assert!(id.clone().at(revision).is_err(), "{revision}");
        }
    }
}
