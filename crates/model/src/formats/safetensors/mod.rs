//! Reading and writing safetensors: a JSON header, then the tensors' bytes.

mod convert;
mod header;
mod locate;
mod read;
mod write;

use std::fs::File;
use std::path::Path;

use crate::ModelError;
use header::Header;

pub(super) use convert::{check, to_f32};
pub(super) use locate::{Index, Location, locate};
pub(crate) use locate::{architecture, shard_names};
pub(super) use read::read_at;
pub use safetensors::Dtype;
pub use write::write_safetensors;

/// The header of a file of `size` bytes.
pub(super) fn header(path: &Path, file: &File, size: usize) -> Result<Header, ModelError> {
    let beginning = header::beginning(|bytes, start| read_at(file, bytes, start), size)
        .map_err(|error| ModelError::io(path, "read", error))?;
    header::parse(path, &beginning, size)
}
