//! From what a user names to files: files themselves, all in a folder, all that fit a pattern.

use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::notice::Notice;
use crate::wording::{count, list};

/// How the names of files with rows end, which are taken from a folder; `.gz` and `.zst` may follow. A file that is named
/// itself may be called anything.
const ENDINGS: [&str; 6] = ["csv", "tsv", "jsonl", "ndjson", "json", "parquet"];

/// The same of files in CoNLL's form, which their names say.
pub const CONLL_ENDINGS: [&str; 3] = ["conll", "bio", "iob"];

/// The files that `named` are: a file, those in a folder that end as files with rows do, or those that fit a pattern such
/// as `data/part-*.csv`; each in the order of names. Also what was left aside in folders.
///
/// # Errors
/// A folder or a pattern without such files, a file that is named twice.
pub(crate) fn find_files(named: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<Notice>), DataError> {
    let (mut files, mut notices) = (Vec::new(), Vec::new());
    for path in named {
        if path.is_dir() {
            let (mut found, left) = in_folder(path)?;
            files.append(&mut found);
            notices.extend(left);
        } else if !path.exists()
            && let Some(pattern) = path.to_str().filter(|text| text.contains(['*', '?', '[']))
        {
            files.append(&mut fitting(path, pattern)?);
        } else {
            files.push(path.clone());
        }
    }
    let mut places: Vec<PathBuf> =
        files.iter().map(|file| file.canonicalize().unwrap_or_else(|_| file.clone())).collect();
    places.sort();
    if let Some([twice, _]) = places.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(DataError::new("the file is named twice, and its rows would count twice: name it once")
            .in_file(twice));
    }
    Ok((files, notices))
}

fn in_folder(folder: &Path) -> Result<(Vec<PathBuf>, Option<Notice>), DataError> {
    let failed = |error: std::io::Error| {
        DataError::new(format!("the folder cannot be read: {error}: check its permissions")).in_file(folder)
    };
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() && !is_hidden(&path) {
            all.push(path);
        }
    }
    all.sort();
    // Where there is nothing but text, that is what is meant.
    let wanted = if all.iter().any(|path| has_rows(path)) { has_rows } else { is_text_file };
    let (files, others): (Vec<PathBuf>, Vec<PathBuf>) = all.into_iter().partition(|path| wanted(path));
    let names: Vec<_> = others.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    if files.is_empty() {
        let got = if names.is_empty() { "none".to_owned() } else { list(&names, 5) };
        return Err(DataError::new(format!(
            "the folder has no file that ends in {} (.gz or .zst may follow), but {got}: name the file itself",
            [&ENDINGS[..], &CONLL_ENDINGS].concat().iter().map(|ending| format!(".{ending}")).collect::<Vec<_>>().join(", ")
        ))
        .in_file(folder));
    }
    let left = (!names.is_empty()).then(|| {
        let count = count(names.len(), "file");
        Notice::new(format!(
            "{count} in {} left aside, which end otherwise: {}",
            folder.display(),
            list(&names, 5)
        ))
    });
    Ok((files, left))
}

fn fitting(path: &Path, pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let entries = glob::glob(pattern).map_err(|error| {
        DataError::new(format!("the pattern cannot be read: {error}: correct it, or name the files"))
            .in_file(path)
    })?;
    let files: Vec<PathBuf> =
        entries.filter_map(Result::ok).filter(|path| path.is_file() && !is_hidden(path)).collect();
    if files.is_empty() {
        let message = "no file fits this pattern, and none has this very name: check the path";
        return Err(DataError::new(message).in_file(path));
    }
    Ok(files)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn has_rows(path: &Path) -> bool {
    is_conll_file(path) || ending_of(path).is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// Whether the file's name says that it is plain text: it ends in `.txt`; `.gz` or `.zst` may follow.
pub fn is_text_file(path: &Path) -> bool {
    ending_of(path).as_deref() == Some("txt")
}

/// Whether its name says a file in CoNLL's form.
pub(crate) fn is_conll_file(path: &Path) -> bool {
    ending_of(path).is_some_and(|ending| CONLL_ENDINGS.contains(&ending.as_str()))
}

/// How the name of a file ends, in small letters and without `.gz` or `.zst` behind it: `csv` of `a.CSV.gz`.
pub fn ending_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    name.rsplit_once('.').map(|(_, ending)| ending.to_owned())
}
