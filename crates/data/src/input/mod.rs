//! From a path to text, a piece at a time: the file, what it is packed with, its encoding.

pub(crate) mod encoding;
mod packing;
mod paths;
mod text;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::DataError;
use crate::store::read_at;

pub(crate) use packing::Packing;
pub use packing::write_packed;
pub use paths::{CONLL_ENDINGS, ending_of, is_text_file};
pub(crate) use paths::{find_files, is_conll_file};
pub(crate) use text::Text;

/// A file's bytes, which can be read more than once.
#[derive(Debug)]
pub(crate) struct Input {
    path: PathBuf,
    bytes: Bytes,
    /// What they are packed with, by how they begin.
    packing: Option<Packing>,
}

#[derive(Debug, Clone)]
pub(crate) enum Bytes {
    /// A file, and how long it was when it was opened.
    File(Arc<File>, u64),
    Memory(Arc<[u8]>),
}

impl Input {
    /// Opens the file at `path`. What comes from a pipe, and can be read once only, is kept in a temporary file.
    /// Errors if it cannot be read, or there is no end to it.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let failed = |error: io::Error| {
            DataError::new(format!("the file cannot be read: {error}: check the path and its permissions"))
                .in_file(path)
        };
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if is_device(kind) {
            let message = "expected a file with rows, got a device: write the rows to a file and give that";
            return Err(DataError::new(message).in_file(path));
        }
        let file = File::open(path).map_err(failed)?;
        let file = if kind.is_file() { file } else { kept(file).map_err(failed)? };
        let bytes = Bytes::file(file).map_err(failed)?;
        Self::new(path, bytes).map_err(|error| error.in_file(path))
    }

    /// Bytes that are here already; `path` only names them.
    pub fn memory(path: &Path, bytes: &[u8]) -> Result<Self, DataError> {
        Self::new(path, Bytes::Memory(bytes.into()))
    }

    fn new(path: &Path, bytes: Bytes) -> Result<Self, DataError> {
        let packing = Packing::of(&head(bytes.reader())?);
        Ok(Input { path: path.to_owned(), bytes, packing })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes, unpacked, from the first on.
    pub fn reader(&self) -> Box<dyn Read> {
        let reader = self.bytes.reader();
        match self.packing {
            None => Box::new(reader),
            Some(packing) => packing.unpack(reader),
        }
    }

    /// How the bytes begin, unpacked.
    pub fn head(&self) -> Result<Vec<u8>, DataError> {
        head(self.reader()).map_err(|error| error.in_file(&self.path))
    }

    /// The bytes, unpacked, for a reader that goes back and forth in them.
    #[cfg(feature = "parquet")]
    pub fn random_access(&self) -> Result<Bytes, DataError> {
        if self.packing.is_none() {
            return Ok(self.bytes.clone());
        }
        kept(self.reader()).and_then(Bytes::file).map_err(|error| read_error(&error).in_file(&self.path))
    }
}

/// How many of the first bytes tell what a file is.
const HEAD: usize = 16;

fn head(reader: impl Read) -> Result<Vec<u8>, DataError> {
    let mut head = Vec::new();
    reader.take(HEAD as u64).read_to_end(&mut head).map_err(|error| read_error(&error))?;
    Ok(head)
}

/// All that `reader` gives, in a file without a name.
fn kept(mut reader: impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut reader, &mut file)?;
    Ok(file)
}

/// What the system said, or whatever unpacks.
pub(crate) fn read_error(error: &io::Error) -> DataError {
    let broken = matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
    if broken {
        DataError::new(error.to_string())
    } else {
        DataError::new(format!("the file cannot be read: {error}"))
    }
}

#[cfg(unix)]
fn is_device(kind: std::fs::FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_char_device() || kind.is_block_device()
}

#[cfg(not(unix))]
fn is_device(_: std::fs::FileType) -> bool {
    false
}

impl Bytes {
    fn file(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Bytes::File(Arc::new(file), length))
    }

    pub fn len(&self) -> u64 {
        match self {
            Bytes::File(_, length) => *length,
            Bytes::Memory(bytes) => bytes.len() as u64,
        }
    }

    pub fn reader(&self) -> BytesReader {
        self.reader_from(0)
    }

    pub fn reader_from(&self, at: u64) -> BytesReader {
        BytesReader { bytes: self.clone(), at }
    }
}

/// Reads by places, so that several can read one file.
#[derive(Debug)]
pub(crate) struct BytesReader {
    bytes: Bytes,
    at: u64,
}

impl Read for BytesReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.bytes.len().saturating_sub(self.at);
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..wanted];
        match &self.bytes {
            Bytes::File(file, _) => read_at(file, buffer, self.at).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::other("it became shorter while it was read"),
                _ => error,
            })?,
            Bytes::Memory(bytes) => {
                let from = usize::try_from(self.at).unwrap_or(usize::MAX);
                buffer.copy_from_slice(bytes.get(from..from + wanted).unwrap_or_default());
            }
        }
        self.at += wanted as u64;
        Ok(wanted)
    }
}
