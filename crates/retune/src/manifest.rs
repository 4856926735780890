//! A folder whose files are known by their hashes: any byte that was lost or changed since is found.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use retune_model::formats::write_atomic;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, artefact};

const FILE: &str = "manifest.json";

#[derive(Serialize, Deserialize)]
struct Manifest {
    files: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    sha256: String,
}

/// Writes down what lies in `folder`, which is then whole.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| Error::write(folder, "read", error))? {
        let path = entry.map_err(|error| Error::write(folder, "read", error))?.path();
        let metadata = fs::metadata(&path).map_err(|error| Error::write(&path, "read", error))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, Entry { bytes: metadata.len(), sha256: artefact::hash_file(&path)? });
    }
    Ok(write_atomic(folder.join(FILE), |writer| {
        serde_json::to_writer_pretty(&mut *writer, &Manifest { files })?;
        writer.write_all(b"\n")
    })?)
}

/// Errors, in words, if a file of `folder` is missing or not what it was when it was written down.
pub(crate) fn verify(folder: &Path) -> std::result::Result<(), String> {
    let text = fs::read(folder.join(FILE)).map_err(|error| format!("{FILE}: cannot read: {error}"))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| format!("{FILE}: {error}"))?;
    for (name, Entry { bytes, sha256 }) in manifest.files {
        // A name is a file of this folder, whatever somebody wrote there.
        if Path::new(&name).file_name().is_none_or(|plain| plain != name.as_str()) {
            return Err(format!("{FILE}: `{name}` is no file's name"));
        }
        let path = folder.join(&name);
        let found = fs::metadata(&path).map_err(|error| format!("{name}: cannot read: {error}"))?;
        if !found.is_file() || found.len() != bytes {
            return Err(format!("{name}: expected {bytes} bytes, got {}", found.len()));
        }
        let found = artefact::hash_file(&path).map_err(|error| error.to_string())?;
        if found != sha256 {
            return Err(format!("{name}: expected sha256 {sha256}, got {found}"));
        }
    }
    Ok(())
}
