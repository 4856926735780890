//! Files with rows, as they are named: one or several, folders and patterns; and other names for their columns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use retune_data::named_files;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, artefact};

/// What stands for all of them in words.
pub(crate) fn together(named: &[PathBuf]) -> PathBuf {
    match named {
        [] => PathBuf::new(),
        [one] => one.clone(),
        [first, one] => PathBuf::from(format!("{} and {}", first.display(), one.display())),
        [first, more @ ..] => PathBuf::from(format!("{} and {} more", first.display(), more.len())),
    }
}

/// The files that are named, from the root, and the hash of their bytes; of several the hash of their hashes, in order.
pub(crate) fn hash(named: &[PathBuf]) -> Result<(Vec<PathBuf>, String)> {
    let files = named_files(named)?;
    let hashes = files.iter().map(|file| artefact::hash_file(file)).collect::<Result<Vec<_>>>()?;
    let sha256 = match hashes.as_slice() {
        [one] => one.clone(),
        several => artefact::hash_bytes(several.concat().as_bytes()),
    };
    Ok((files.iter().map(|file| artefact::absolute(file)).collect(), sha256))
}

/// Errors if one of them is no file and no folder: what can be read once only.
pub(crate) fn check_lasting(named: &[PathBuf]) -> Result<()> {
    let once = |path: &&PathBuf| path.exists() && !path.is_file() && !path.is_dir();
    match named.iter().find(once) {
        // Its hash goes into the result, so it is read twice; a pipe would be empty by then.
        Some(path) => {
            Err(Error::place(path, "expected a file, got a pipe or a device; save its rows in a file first"))
        }
        None => Ok(()),
    }
}

/// Whether `path` is one of the files.
pub(crate) fn is_among(path: &Path, named: &[PathBuf]) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let files = named_files(named).unwrap_or_default();
    files.iter().any(|file| file.canonicalize().is_ok_and(|file| file == path))
}

/// One path as a text, several as a list.
pub(crate) mod one_or_more {
    use std::fmt;
    use std::path::PathBuf;

    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(paths: &Option<Vec<PathBuf>>, serializer: S) -> Result<S::Ok, S::Error> {
        match paths.as_deref() {
            None => serializer.serialize_none(),
            Some([one]) => one.serialize(serializer),
            Some(several) => several.serialize(serializer),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<PathBuf>>, D::Error> {
        struct Paths;

        impl<'de> Visitor<'de> for Paths {
            type Value = Option<Vec<PathBuf>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path or a list of paths")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_none<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_str<E>(self, path: &str) -> Result<Self::Value, E> {
                Ok(Some(vec![path.into()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut paths: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(path) = paths.next_element()? {
                    all.push(path);
                }
                Ok(Some(all))
            }
        }

        deserializer.deserialize_any(Paths)
    }
}

/// What columns are called here, by their names in files: on the command line `utterance=text,intent=label`, in a run file that
/// or a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "TextOrTable")]
pub struct Rename(pub BTreeMap<String, String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "a text such as \"utterance=text\", or a table of names")]
enum TextOrTable {
    Text(String),
    Table(BTreeMap<String, String>),
}

impl TryFrom<TextOrTable> for Rename {
    type Error = String;

    fn try_from(value: TextOrTable) -> std::result::Result<Self, String> {
        match value {
            TextOrTable::Text(text) => text.parse(),
            TextOrTable::Table(names) => Ok(Rename(names)),
        }
    }
}

impl FromStr for Rename {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let mut names = BTreeMap::new();
        for pair in text.split(',') {
            let parts = pair.split_once('=').map(|(old, new)| (old.trim(), new.trim()));
            let Some((old, new)) = parts.filter(|(old, new)| !old.is_empty() && !new.is_empty()) else {
                return Err(format!("expected old=new such as utterance=text,intent=label, got `{pair}`"));
            };
            if names.insert(old.to_string(), new.to_string()).is_some() {
                return Err(format!("expected each column once, got `{old}` twice"));
            }
        }
        Ok(Rename(names))
    }
}
