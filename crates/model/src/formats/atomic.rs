//! Writing a file so that it is there whole or not at all, even if the power goes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::{Builder, NamedTempFile};

use crate::ModelError;

/// Writes the file at `path` through `content`, replacing what was there only when all of it is on the disk.
///
/// The bytes go to a temporary name in the same folder (a rename across file systems is not atomic), are synced,
/// and are renamed; then the folder is synced. Errors if any step fails, with `path` named; the temporary file is
/// then removed and an older file at `path` is untouched.
pub fn write_atomic(
    path: impl AsRef<Path>,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), ModelError> {
    let path = path.as_ref();
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = create_in(folder).map_err(|e| ModelError::io(path, "create", e))?;
    fill(&mut temporary, content).map_err(|e| ModelError::io(path, "write", e))?;
    temporary.persist(path).map_err(|e| ModelError::io(path, "rename the finished file to", e.error))?;
    sync_folder(folder).map_err(|e| ModelError::io(folder, "sync", e))
}

fn create_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(".retune-").suffix(".tmp");
    // A temporary file is private by default, and the rename would keep that: a model is as open as any other file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

fn fill(file: &mut NamedTempFile, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(1 << 18, file.as_file_mut());
    content(&mut writer)?;
    writer.flush()?;
    drop(writer);
    file.as_file().sync_all()
}

/// Brings a folder's list of names to the disk: a rename lies in the folder, so it lasts only when that is synced too.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names_in(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("模型.json");
        write_atomic(&path, |w| w.write_all(b"old and longer")).unwrap();
        write_atomic(&path, |w| w.write_all("né".as_bytes())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), "né".as_bytes());
        assert_eq!(names_in(folder.path()), ["模型.json"]);
    }

    #[test]
    fn a_full_disk_keeps_the_old_file_and_no_half() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        fs::write(&path, b"old").unwrap();
        let error = write_atomic(&path, |w| {
            w.write_all(&[7; 1 << 20])?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("a.bin: cannot write: no storage space"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names_in(folder.path()), ["a.bin"]);
    }

    #[test]
    fn a_panic_while_writing_leaves_no_half() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        let write = std::panic::AssertUnwindSafe(|| write_atomic(&path, |_| panic!("the caller's own")));
        assert!(std::panic::catch_unwind(write).is_err());
        assert!(names_in(folder.path()).is_empty());
    }

    #[test]
    fn a_missing_folder_and_a_folder_in_the_way_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no/such/a.bin");
        let error = write_atomic(&missing, |_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("no/such/a.bin: cannot create: "), "{error}");

        let in_the_way = folder.path().join("b.bin");
        fs::create_dir(&in_the_way).unwrap();
        let error = write_atomic(&in_the_way, |w| w.write_all(b"x")).unwrap_err().to_string();
        assert!(error.contains("b.bin: cannot rename"), "{error}");
        assert_eq!(names_in(folder.path()), ["b.bin"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_read_only_folder_is_an_error_and_gets_no_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
        // The superuser may write anywhere: nothing to show then.
        if File::create(folder.path().join("probe")).is_err() {
            let error = write_atomic(folder.path().join("a"), |_| Ok(())).unwrap_err().to_string();
            assert!(error.contains("cannot create"), "{error}");
            assert!(names_in(folder.path()).is_empty());
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_as_readable_as_any_other() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        fs::write(folder.path().join("plain"), b"").unwrap();
        write_atomic(folder.path().join("ours"), |_| Ok(())).unwrap();
        assert_eq!(mode("ours"), mode("plain"));
    }
}
