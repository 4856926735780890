//! The tensors of a checkpoint, in whichever format they lie.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use retune_tensor::{BlockType, DType};

use super::gguf::{self, Gguf, Order};
use super::safetensors::{self, Dtype, Index, Location, read_at};
use crate::error::{nearest, quoted};
use crate::{ModelError, TensorProblem};

/// The type and shape of a tensor on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// How its elements lie.
    pub dtype: Encoding,
    /// Its sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
}

/// How the elements of a tensor lie in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// One by one.
    Plain(Dtype),
    /// In the blocks of a GGUF file.
    Blocks(BlockType),
}

impl Encoding {
    /// The values and the bytes of what lies together.
    pub(super) fn block(self) -> (usize, usize) {
        match self {
            Encoding::Plain(dtype) => (1, dtype.bitsize().div_ceil(8)),
            Encoding::Blocks(kind) => (kind.values(), kind.block_bytes()),
        }
    }

    /// Errors with the reason if it is not read as f32.
    fn check(self) -> Result<(), String> {
        match self {
            Encoding::Plain(dtype) => safetensors::check(dtype),
            Encoding::Blocks(_) => Ok(()),
        }
    }

    /// The values of whole blocks, each into its place. Errors with the reason if they are not read as f32.
    fn read(self, bytes: &[u8], out: &mut [f32]) -> Result<(), String> {
        match self {
            Encoding::Plain(dtype) => safetensors::to_f32(dtype, bytes, out)?,
            Encoding::Blocks(kind) => kind.dequantise(bytes, out),
        }
        Ok(())
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Encoding::Plain(dtype) => write!(f, "{dtype:?}"),
            Encoding::Blocks(kind) => f.write_str(kind.name()),
        }
    }
}

/// The tensors of a checkpoint, read from disk and converted one at a time.
///
/// Only what a tensor is read into takes memory, beside a small buffer. Files are read and not mapped: of a map, bytes
/// that somebody cuts off meanwhile end the process, and a read of them is an error.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    files: Vec<OpenFile>,
    tensors: BTreeMap<String, Stored>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: File,
}

/// Where a tensor lies: an index into `Weights::files`, and its bytes there.
#[derive(Debug)]
struct Stored {
    info: TensorInfo,
    file: usize,
    bytes: Range<usize>,
    order: Order,
}

/// Values that are read at once: a multiple of every block's.
const BUFFER: usize = 1 << 16;

impl Weights {
    /// Opens the weights of a model: a folder with `model.safetensors` or `model.safetensors.index.json` and its
    /// shards, or one such file; or a GGUF file, whose tensors are called and shaped as the family's checkpoints have them.
    ///
    /// Errors if a file is missing or is a pickle, or if a header lies: about names, sizes, offsets or shards.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let mut weights = Self {
            path: path.to_path_buf(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
        };
        if gguf::is_gguf(path) {
            weights.add_gguf(path)?;
            return Ok(weights);
        }
        match safetensors::locate(path)? {
            Location::Single(file) => weights.add_file(file)?,
            Location::Sharded(index) => {
                let folder = index.path.parent().unwrap_or(Path::new("."));
                for shard in index.shards() {
                    weights.add_file(folder.join(shard))?;
                }
                weights.check_index(&index)?;
            }
        }
        Ok(weights)
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What kind of tensor `name` is; none if there is no such tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|stored| &stored.info)
    }

    /// The `__metadata__` of the header; for shards, all of theirs, the first file's words first.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The file that tensor `name` lies in; none if there is no such tensor.
    pub fn path_of(&self, name: &str) -> Option<&Path> {
        Some(&self.files.get(self.tensors.get(name)?.file)?.path)
    }

    /// The files that hold the tensors, in the order of their names.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// The elements of tensor `name` as `f32`, the last dimension running fastest.
    ///
    /// Errors if there is no such tensor (the nearest name is told), if its type is none of F32, F16, BF16, F64, or if
    /// there is no memory for it.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        // The header was checked against the file, so this is a few times the bytes that are there at most.
        let elements = self.stored(name)?.info.shape.iter().product();
        let mut out = zeros(elements)?;
        self.read_f32_into(name, &mut out)?;
        Ok(out)
    }

    /// Like [`Weights::read_f32`], into memory that is there. Errors too if `out` has not one place an element.
    pub fn read_f32_into(&self, name: &str, out: &mut [f32]) -> Result<(), ModelError> {
        let Stored { info, file, bytes, order } = self.stored(name)?;
        let problem = |problem| ModelError::Tensors { path: self.path.clone(), problems: vec![problem] };
        let unreadable = |reason| problem(TensorProblem::Dtype { name: name.to_string(), reason });
        if info.shape.iter().product::<usize>() != out.len() {
            return Err(problem(TensorProblem::Shape {
                name: name.to_string(),
                expected: vec![out.len()],
                got: info.shape.clone(),
            }));
        }
        info.dtype.check().map_err(unreadable)?;
        let Some(OpenFile { path, file }) = self.files.get(*file) else { return Ok(()) };
        let (values, size) = info.dtype.block();
        let mut buffer = vec![0; (BUFFER.min(out.len()) / values * size).max(size)];
        let mut start = bytes.start;
        for out in out.chunks_mut(BUFFER) {
            let Some(part) = buffer.get_mut(..out.len() / values * size) else { return Ok(()) };
            read_at(file, part, start).map_err(|error| ModelError::io(path, "read", error))?;
            info.dtype.read(part, out).map_err(unreadable)?;
            start += part.len();
        }
        if let Some(ordered) = order.ordered(&info.shape, out) {
            out.copy_from_slice(&ordered);
        }
        Ok(())
    }

    /// As what tensor `name` may be kept as it lies, where that is not f32: blocks, halves and bf16. None where it has to be
    /// converted, and where it is kept the other way round.
    pub fn kept_as(&self, name: &str) -> Option<DType> {
        let Stored { info, order, .. } = self.tensors.get(name)?;
        match info.dtype {
            _ if *order == Order::Transposed => None,
            Encoding::Plain(Dtype::BF16) => Some(DType::Bf16),
            Encoding::Plain(Dtype::F16) => Some(DType::Blocks(BlockType::F16)),
            Encoding::Plain(_) => None,
            Encoding::Blocks(kind) => Some(DType::Blocks(kind)),
        }
    }

    /// The bytes of tensor `name` as they are kept in blocks. Errors if there is no such tensor, or `out` has not their size.
    pub fn read_blocks_into(&self, name: &str, out: &mut [u8]) -> Result<(), ModelError> {
        let Stored { info, file, bytes, order } = self.stored(name)?;
        if out.len() != bytes.len() {
            let problem = TensorProblem::Dtype {
                name: name.to_string(),
                reason: format!("has {} bytes in the file, and is to have {}", bytes.len(), out.len()),
            };
            return Err(ModelError::Tensors { path: self.path.clone(), problems: vec![problem] });
        }
        let Some(OpenFile { path, file }) = self.files.get(*file) else { return Ok(()) };
        let read = |out: &mut [u8], start| {
            read_at(file, out, start).map_err(|error| ModelError::io(path, "read", error))
        };
        let rows = info.shape.first().copied().unwrap_or(1);
        let Some(width) = out.len().checked_div(rows).filter(|width| *width > 0) else { return Ok(()) };
        if *order == Order::AsItIs {
            return read(out, bytes.start);
        }
        // Rows are whole blocks, so they change places as such.
        out.chunks_mut(width)
            .enumerate()
            .try_for_each(|(row, out)| read(out, bytes.start + order.row(row, rows) * width))
    }

    /// What keeps tensor `name` from being read as `f32` of `shape`: that it is missing, of other sizes or of a type
    /// that is not read.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<(), TensorProblem> {
        let Some(info) = self.info(name) else { return Err(self.missing(name)) };
        let name = name.to_string();
        if info.shape != shape {
            return Err(TensorProblem::Shape { name, expected: shape.to_vec(), got: info.shape.clone() });
        }
        info.dtype.check().map_err(|reason| TensorProblem::Dtype { name, reason })
    }

    fn missing(&self, name: &str) -> TensorProblem {
        TensorProblem::Missing { name: name.to_string(), nearest: nearest(name, self.names()) }
    }

    fn stored(&self, name: &str) -> Result<&Stored, ModelError> {
        self.tensors.get(name).ok_or_else(|| ModelError::Tensors {
            path: self.path.clone(),
            problems: vec![self.missing(name)],
        })
    }

    fn add_file(&mut self, path: PathBuf) -> Result<(), ModelError> {
        let (file, size) = open(&path)?;
        let header = safetensors::header(&path, &file, size)?;
        for (name, info) in header.tensors {
            let (start, end) = info.data_offsets;
            let info = TensorInfo { dtype: Encoding::Plain(info.dtype), shape: info.shape };
            let bytes = header.data_start + start..header.data_start + end;
            match self.tensors.entry(name) {
                Entry::Vacant(place) => {
                    place.insert(Stored { info, file: self.files.len(), bytes, order: Order::AsItIs });
                }
                Entry::Occupied(other) => {
                    let holder = self.files.get(other.get().file).map(|file| file.path.display().to_string());
                    return Err(ModelError::Format {
                        path,
                        place: format!("tensor {}", quoted(other.key())),
                        expected: "each tensor in one shard only".into(),
                        got: format!("another of this name in {}", holder.unwrap_or_default()),
                    });
                }
            }
        }
        for (key, value) in header.metadata {
            self.metadata.entry(key).or_insert(value);
        }
        self.files.push(OpenFile { path, file });
        Ok(())
    }

    fn add_gguf(&mut self, path: &Path) -> Result<(), ModelError> {
        let gguf = Gguf::open(path)?;
        let called = gguf.named()?;
        for (tensor, (name, order)) in gguf.tensors.into_iter().zip(called) {
            let info = TensorInfo { dtype: tensor.encoding, shape: order.shape(tensor.shape) };
            self.tensors.insert(name, Stored { info, file: 0, bytes: tensor.bytes, order });
        }
        let (file, _) = open(path)?;
        self.files.push(OpenFile { path: path.to_path_buf(), file });
        Ok(())
    }

    /// Holds that each tensor lies where the index says. A tensor that the index forgot is no harm.
    fn check_index(&self, index: &Index) -> Result<(), ModelError> {
        for (name, shard) in &index.weight_map {
            let found = self.path_of(name).and_then(Path::file_name);
            if found.is_none_or(|found| found != shard.as_str()) {
                return Err(ModelError::Format {
                    path: index.path.clone(),
                    place: format!("weight_map, tensor {}", quoted(name)),
                    expected: format!("it to lie in {}", quoted(shard)),
                    got: match found {
                        None => "no such tensor in any shard".to_string(),
                        Some(found) => format!("it in {}", quoted(&found.to_string_lossy())),
                    },
                });
            }
        }
        Ok(())
    }
}

/// The file, and its length.
pub(super) fn open(path: &Path) -> Result<(File, usize), ModelError> {
    let unsupported =
        |message: &str| ModelError::Unsupported { path: path.to_path_buf(), message: message.into() };
    let kind = fs::metadata(path).map_err(|e| ModelError::io(path, "open", e))?;
    // Before it is opened: a pipe would wait for somebody who writes.
    if !kind.is_file() {
        return Err(unsupported("not a regular file"));
    }
    let file = File::open(path).map_err(|e| ModelError::io(path, "open", e))?;
    let length = file.metadata().map_err(|e| ModelError::io(path, "open", e))?.len();
    match usize::try_from(length) {
        Ok(length) => Ok((file, length)),
        Err(_) => Err(unsupported("larger than memory can be addressed on this machine")),
    }
}

/// `elements` zeros. Errors where the system gives no memory for them.
fn zeros(elements: usize) -> Result<Vec<f32>, retune_tensor::Error> {
    let mut out = Vec::new();
    out.try_reserve_exact(elements).map_err(|_| retune_tensor::Error::OutOfMemory {
        bytes: elements.saturating_mul(size_of::<f32>()),
        live: retune_tensor::memory::usage(retune_tensor::Device::Cpu).current,
        source: io::ErrorKind::OutOfMemory.into(),
    })?;
    out.resize(elements, 0.0);
    Ok(out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_that_is_not_there_is_an_error_with_its_size() {
        let error = super::zeros(usize::MAX / 4).unwrap_err().to_string();
        let size = format!("out of memory: {} bytes asked for, ", usize::MAX - 3);
        assert!(error.starts_with(&size), "{error}");
        assert_eq!(super::zeros(3).unwrap(), [0.0; 3]);
    }
}
