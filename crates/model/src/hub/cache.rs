//! The cache's layout, which Python's `huggingface_hub` shares: `blobs/` by content, `snapshots/COMMIT/` with links to
//! them, `refs/` from branches and tags to commits.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{CacheRepo, Repo, RepoType};

use super::wanted;
use super::{HubId, Snapshot};
use crate::ModelError;
use crate::formats::write_atomic;

pub(super) struct Cache {
    repo: CacheRepo,
    refs: PathBuf,
    locks: PathBuf,
    /// The revision that was asked for, if it names a commit that a reference can be kept of.
    named: Option<String>,
    revision: String,
}

/// A snapshot that is here, and what is missing of it.
pub(super) struct Here {
    pub(super) snapshot: Snapshot,
    pub(super) lacks: Vec<String>,
}

pub(super) fn repo(id: &HubId, revision: &str) -> Repo {
    Repo::with_revision(id.id().to_string(), RepoType::Model, revision.to_string())
}

impl Cache {
    pub(super) fn new(folder: &Path, id: &HubId) -> Self {
        let name = repo(id, id.revision()).folder_name();
        Cache {
            repo: hf_hub::Cache::new(folder.to_path_buf()).repo(repo(id, id.revision())),
            refs: folder.join(&name).join("refs"),
            locks: folder.join(".locks").join(&name),
            named: (!id.is_commit()).then(|| id.revision().to_string()),
            revision: id.revision().to_string(),
        }
    }

    /// What is here of the revision that was asked for.
    pub(super) fn snapshot(&self) -> Option<Here> {
        let commit = match &self.named {
            Some(name) => fs::read_to_string(self.refs.join(name)).ok()?.trim().to_string(),
            None => self.revision.clone(),
        };
        if !is_plain(&commit) {
            return None;
        }
        let folder = self.folder(&commit);
        let lacks = folder.is_dir().then(|| wanted::lacks(&folder))?;
        Some(Here { snapshot: Snapshot { folder, commit }, lacks })
    }

    pub(super) fn folder(&self, commit: &str) -> PathBuf {
        self.repo.pointer_path(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.repo.blob_path(etag)
    }

    /// The file that whoever writes the blob `etag` holds: Python's library takes the same.
    pub(super) fn lock_file(&self, etag: &str) -> Result<(File, PathBuf), ModelError> {
        make(&self.locks)?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::create(&path).map_err(|error| ModelError::io(&path, "create", error))?;
        Ok((file, path))
    }

    /// Puts the blob into the snapshot, as `name`.
    pub(super) fn link(&self, commit: &str, name: &str, blob: &Path) -> Result<(), ModelError> {
        let path = self.folder(commit).join(name);
        make(&self.folder(commit))?;
        let target = Path::new("../../blobs").join(blob.file_name().unwrap_or_default());
        // A link that leads nowhere is what is left where somebody emptied `blobs`.
        if path.symlink_metadata().is_ok() && !path.exists() {
            fs::remove_file(&path).map_err(|error| ModelError::io(&path, "replace", error))?;
        }
        match symlink(&target, blob, &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(ModelError::io(&path, "link", error))
            }
            _ => Ok(()),
        }
    }

    /// Writes down which commit the revision is.
    pub(super) fn name(&self, commit: &str) -> Result<(), ModelError> {
        let Some(name) = &self.named else { return Ok(()) };
        let path = self.refs.join(name);
        make(path.parent().unwrap_or(&self.refs))?;
        if fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        write_atomic(&path, |writer| writer.write_all(commit.as_bytes()))
    }
}

#[cfg(unix)]
fn symlink(target: &Path, _: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Links need a right that not everybody has there; then the file itself takes the place, as in Python's library.
#[cfg(windows)]
fn symlink(target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    match std::os::windows::fs::symlink_file(target, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(blob, path),
        done => done,
    }
}

pub(super) fn make(folder: &Path) -> Result<(), ModelError> {
    fs::create_dir_all(folder).map_err(|error| ModelError::io(folder, "make the folder", error))
}

/// Whether a word of the hub may name a file: nothing that leads elsewhere.
pub(super) fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=128).contains(&word.len()) && word.chars().all(plain) && !word.starts_with('.')
}
