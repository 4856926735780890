//! Reading and writing safetensors, the weights' file format: a JSON header, then the tensors' bytes.

mod convert;
mod header;
mod locate;
mod write;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
pub use safetensors::Dtype;

use crate::error::{nearest, quoted};
use crate::{ModelError, TensorProblem};
use locate::{Index, Location};
pub(crate) use locate::{architecture, shard_names};
pub use write::write_safetensors;

/// The type and shape of a tensor on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
}

/// The tensors of a checkpoint, mapped from disk and converted one at a time.
///
/// Only what a tensor is read into takes memory: pages of the files are given back after each conversion.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, Stored>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug)]
struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

/// Where a tensor lies: an index into `Weights::files`, and its bytes there.
#[derive(Debug)]
struct Stored {
    info: TensorInfo,
    file: usize,
    bytes: Range<usize>,
}

impl Weights {
    /// Opens the weights of a model: a folder with `model.safetensors` or `model.safetensors.index.json` and its
    /// shards, or one such file.
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
        match locate::locate(path)? {
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
    /// Errors if there is no such tensor (the nearest name is told), or if its type is none of F32, F16, BF16, F64.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        // The header was checked against the file, so this is a few times the bytes that are there at most.
        let elements = self.stored(name)?.info.shape.iter().product();
        let mut out = vec![0.0; elements];
        self.read_f32_into(name, &mut out)?;
        Ok(out)
    }

    /// Like [`Weights::read_f32`], into memory that is there. Errors too if `out` has not one place an element.
    pub fn read_f32_into(&self, name: &str, out: &mut [f32]) -> Result<(), ModelError> {
        let Stored { info, file, bytes } = self.stored(name)?;
        let problem = |problem| ModelError::Tensors { path: self.path.clone(), problems: vec![problem] };
        if info.shape.iter().product::<usize>() != out.len() {
            return Err(problem(TensorProblem::Shape {
                name: name.to_string(),
                expected: vec![out.len()],
                got: info.shape.clone(),
            }));
        }
        if let Some(file) = self.files.get(*file)
            && let Some(data) = file.map.get(bytes.clone())
        {
            convert::to_f32(info.dtype, data, out)
                .map_err(|reason| problem(TensorProblem::Dtype { name: name.to_string(), reason }))?;
            release(&file.map, bytes);
        }
        Ok(())
    }

    /// What keeps tensor `name` from being read as `f32` of `shape`: that it is missing, of other sizes or of a type
    /// that is not read.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<(), TensorProblem> {
        let Some(info) = self.info(name) else { return Err(self.missing(name)) };
        let name = name.to_string();
        if info.shape != shape {
            return Err(TensorProblem::Shape { name, expected: shape.to_vec(), got: info.shape.clone() });
        }
        convert::check(info.dtype).map_err(|reason| TensorProblem::Dtype { name, reason })
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
        let map = map(&path)?;
        let header = header::parse(&path, &map)?;
        for (name, info) in header.tensors {
            let (start, end) = info.data_offsets;
            let info = TensorInfo { dtype: info.dtype, shape: info.shape };
            let bytes = header.data_start + start..header.data_start + end;
            match self.tensors.entry(name) {
                Entry::Vacant(place) => {
                    place.insert(Stored { info, file: self.files.len(), bytes });
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
        release(&map, &(0..map.len()));
        self.files.push(MappedFile { path, map });
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

fn map(path: &Path) -> Result<Mmap, ModelError> {
    let file = File::open(path).map_err(|e| ModelError::io(path, "open", e))?;
    let kind = file.metadata().map_err(|e| ModelError::io(path, "open", e))?;
    if !kind.is_file() {
        return Err(ModelError::Unsupported {
            path: path.to_path_buf(),
            message: "not a regular file".into(),
        });
    }
    #[expect(unsafe_code, reason = "a memory map: a copy would hold a large model in memory twice")]
    // SAFETY: the map is read-only and only ever read as bytes, all of which are sound as integers and floats. What
    // cannot be ruled out, as with every map, is that another process changes the file meanwhile: overwritten, other
    // values are read than were there; cut short after its header was checked, the system ends this process with
    // SIGBUS at the first byte that is gone.
    let map = unsafe { Mmap::map(&file) };
    map.map_err(|e| ModelError::io(path, "map", e))
}

/// Gives the pages of `bytes` back, so that resident memory does not count what has been converted. Advice only:
/// where it fails or does not exist, nothing is lost.
#[cfg(unix)]
fn release(map: &Mmap, bytes: &Range<usize>) {
    if bytes.is_empty() {
        return;
    }
    #[expect(unsafe_code, reason = "advice on a memory map")]
    // SAFETY: the map is of a file and read-only, so dropped pages come back from the file, unchanged.
    let _ =
        unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, bytes.start, bytes.len()) };
}

#[cfg(not(unix))]
fn release(_: &Mmap, _: &Range<usize>) {}
