//! A folder that is there whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use retune_adapt::peft::Form;
use retune_model::formats::sync_folder;
use retune_model::tokenizer;
use tempfile::{Builder, TempDir};

use crate::run_folder::{EVENTS, LEFT_BEHIND};
use crate::{Error, Result};

/// A folder under way: written under another name beside its place, and renamed when all of it is there.
pub(crate) struct NewFolder {
    place: PathBuf,
    temporary: TempDir,
}

impl NewFolder {
    /// Errors if there is something at `place`, unless it is a result and may be replaced.
    pub fn create(place: &Path, overwrite: bool) -> Result<Self> {
        check(place, overwrite)?;
        let name = place.file_name();
        let parent = match place.parent() {
            _ if name.is_none() => {
                return Err(Error::place(place, "expected the name of a new folder for the result"));
            }
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(|error| Error::write(parent, "make the folder", error))?;
        let mut builder = Builder::new();
        builder.prefix(".retune-").suffix(".tmp");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let temporary =
            builder.tempdir_in(parent).map_err(|error| Error::write(parent, "write in", error))?;
        Ok(NewFolder { place: place.to_path_buf(), temporary })
    }

    /// Where to write meanwhile.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Puts it into its place.
    pub fn finish(self) -> Result<()> {
        let error = |error| Error::write(&self.place, "rename the finished folder to", error);
        sync_folder(self.path()).map_err(error)?;
        // What is replaced stays whole until the new one is there.
        let old = self.path().with_extension("old");
        let is_there = self.place.exists();
        if is_there {
            fs::rename(&self.place, &old).map_err(error)?;
        }
        if let Err(failed) = fs::rename(self.path(), &self.place) {
            if is_there {
                fs::rename(&old, &self.place).map_err(error)?;
            }
            return Err(error(failed));
        }
        if is_there {
            fs::remove_dir_all(&old).map_err(error)?;
        }
        let _ = self.temporary.keep();
        let parent = self.place.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(parent.unwrap_or(Path::new("."))).map_err(error)
    }
}

fn check(place: &Path, overwrite: bool) -> Result<()> {
    if place.is_file() {
        return Err(Error::place(place, "expected a folder for the result, got a file"));
    }
    let entries = match fs::read_dir(place) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::place(place, format!("cannot read: {error}"))),
    };
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let known = |name: &&String| {
        let all = LEFT_BEHIND.iter().chain(&Form::FILES).chain(&tokenizer::FILES).chain(&[EVENTS]);
        all.into_iter().any(|known| known == name) || name.starts_with("events.out.tfevents.")
    };
    if let Some(other) = names.iter().find(|name| !known(name)) {
        let message = format!(
            "it holds `{other}`, which is no part of a result; give an empty or new folder with --output"
        );
        return Err(Error::place(place, message));
    }
    if overwrite {
        return Ok(());
    }
    Err(Error::place(place, "it holds a result; give another --output, or --overwrite to replace it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_there_whole_or_not_at_all() {
        let at = tempfile::tempdir().unwrap();
        let place = at.path().join("né/w");
        for content in ["one", "two"] {
            let new = NewFolder::create(&place, content == "two").unwrap();
            fs::write(new.path().join("config.json"), content).unwrap();
            assert!(content == "two" || !place.exists());
            new.finish().unwrap();
            assert_eq!(fs::read(place.join("config.json")).unwrap(), content.as_bytes());
            assert_eq!(names(place.parent().unwrap()), ["w"]);
        }
        // One that is given up leaves nothing.
        let given_up = NewFolder::create(&place, true).unwrap();
        fs::write(given_up.path().join("config.json"), "three").unwrap();
        drop(given_up);
        assert_eq!(fs::read(place.join("config.json")).unwrap(), b"two");
        assert_eq!(names(place.parent().unwrap()), ["w"]);
    }

    #[test]
    fn what_is_no_result_is_left_alone() {
        let at = tempfile::tempdir().unwrap();
        let place = at.path().join("w");
        fs::create_dir(&place).unwrap();
        drop(NewFolder::create(&place, false).unwrap());
        fs::write(place.join("config.json"), "").unwrap();
        let refused = |overwrite| NewFolder::create(&place, overwrite).err().unwrap().to_string();
        assert!(
            refused(false)
                .ends_with("it holds a result; give another --output, or --overwrite to replace it")
        );
        fs::write(place.join("notes.txt"), "").unwrap();
        assert!(refused(true).contains("it holds `notes.txt`, which is no part of a result"));
        assert!(
            NewFolder::create(&place.join("notes.txt"), true)
                .err()
                .unwrap()
                .to_string()
                .contains("got a file")
        );
        assert!(NewFolder::create(Path::new("/"), true).is_err());
    }
}
