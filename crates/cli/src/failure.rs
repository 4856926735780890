use std::fmt;
use std::io::ErrorKind;

/// Why a verb did not do what was asked, and what the process ends with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub message: String,
    /// 2 where the request or its input is wrong, 130 and 143 after signals, 141 where nobody reads, 1 for anything else.
    pub code: u8,
}

impl Failure {
    /// What a shell makes of a process that SIGPIPE ended: nobody reads any more, as in `retune methods | head -1`.
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
            // Predictions that go into a pipe.
            retune::Error::Write { error, .. } if error.kind() == ErrorKind::BrokenPipe => error.into(),
            error => Failure { code: error.exit_code(), message: error.to_string() },
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let code = if error.kind() == ErrorKind::BrokenPipe { Self::BROKEN_PIPE } else { 1 };
        Failure { message: format!("cannot write the output: {error}"), code }
    }
}
