use std::fmt;

/// Why a verb did not do what was asked, and what the process ends with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub message: String,
    /// 2 where the request or its input is wrong, 1 for anything else.
    pub code: u8,
}

impl Failure {
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
        Failure { code: error.exit_code(), message: error.to_string() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure { message: format!("cannot write the output: {error}"), code: 1 }
    }
}
