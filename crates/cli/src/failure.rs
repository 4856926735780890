use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

/// Why a verb did not do what was asked, and what the process ends with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub message: String,
    /// 2 where the request or its input is wrong, 130 and 143 after signals, 141 where nobody reads stdout, 1 for anything else.
    pub code: u8,
}

impl Failure {
    /// What a shell makes of a process that SIGPIPE ended: nobody reads its stdout any more.
    pub(crate) const BROKEN_PIPE: u8 = 141;

    /// A request that cannot be.
    pub(crate) fn request(message: impl Into<String>) -> Self {
        Failure { message: message.into(), code: 2 }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<retune::Error> for Failure {
    fn from(error: retune::Error) -> Self {
        match error {
            // Predictions that go to stdout by its name. Any other pipe is a file like others: whoever asked for it is told.
            retune::Error::Write { path, error, .. }
                if error.kind() == ErrorKind::BrokenPipe && is_stdout(&path) =>
            {
                error.into()
            }
            error => Failure { code: error.exit_code(), message: error.to_string() },
        }
    }
}

/// Of writing to stdout: a failure of any other file is a [`retune::Error`], with its path.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let code = if error.kind() == ErrorKind::BrokenPipe { Self::BROKEN_PIPE } else { 1 };
        Failure { message: format!("cannot write the output: {error}"), code }
    }
}

/// Whether `path` is another name of stdout, such as `/dev/stdout`.
#[cfg(unix)]
fn is_stdout(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let file = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    file(path).is_some_and(|named| file(Path::new("/dev/stdout")) == Some(named))
}

/// Whether `path` is another name of stdout: it has none here.
#[cfg(not(unix))]
fn is_stdout(_: &Path) -> bool {
    false
}
