//! Writing safetensors: the same tensors give the same bytes, each time and everywhere.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::header::METADATA_KEY;
use crate::error::quoted;
use crate::formats::write_atomic;
use crate::{ModelError, TensorProblem};

/// Writes `tensors`, each a name, a shape and its elements with the last dimension fastest, as F32 to `path`,
/// whole or not at all. `metadata` goes into `__metadata__`; loaders of the Hugging Face libraries ask for
/// `format: pt` there.
///
/// The tensors lie in the order of their names, and the header is padded to 8 bytes, as the `safetensors` crate
/// does it. Errors if a name stands twice or is `__metadata__`, if a shape does not fit its elements, or if the file
/// cannot be written.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[(String, Vec<usize>, &[f32])],
    metadata: &BTreeMap<String, String>,
) -> Result<(), ModelError> {
    let path = path.as_ref();
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let header = Header { metadata, tensors: layout(path, &sorted)? };
    let mut header =
        serde_json::to_vec(&header).map_err(|e| ModelError::io(path, "write the header of", e.into()))?;
    // Spaces are JSON's own padding: the elements then lie at a multiple of 8.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomic(path, |writer| {
        writer.write_all(&(header.len() as u64).to_le_bytes())?;
        writer.write_all(&header)?;
        sorted.iter().try_for_each(|(_, _, elements)| write_f32(writer, elements))
    })
}

/// Gives each of the tensors, which are sorted, its offsets.
fn layout<'a>(
    path: &Path,
    sorted: &[&'a (String, Vec<usize>, &[f32])],
) -> Result<Vec<(&'a str, TensorInfo)>, ModelError> {
    let mut layout: Vec<(&str, TensorInfo)> = Vec::with_capacity(sorted.len());
    let mut end = 0;
    for (name, shape, elements) in sorted {
        if name == METADATA_KEY || layout.last().is_some_and(|(previous, _)| previous == name) {
            return Err(ModelError::Format {
                path: path.to_path_buf(),
                place: format!("tensor {}", quoted(name)),
                expected: format!("names that differ, and none of them {METADATA_KEY}"),
                got: "this name again".into(),
            });
        }
        let size = shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim));
        if size != Some(elements.len()) {
            return Err(ModelError::Tensors {
                path: path.to_path_buf(),
                problems: vec![TensorProblem::Shape {
                    name: name.clone(),
                    expected: shape.clone(),
                    got: vec![elements.len()],
                }],
            });
        }
        let start = end;
        end += size_of_val(*elements);
        layout
            .push((name, TensorInfo { dtype: Dtype::F32, shape: shape.clone(), data_offsets: (start, end) }));
    }
    Ok(layout)
}

fn write_f32(writer: &mut dyn Write, elements: &[f32]) -> io::Result<()> {
    let mut buffer = [0; 1 << 14];
    for elements in elements.chunks(buffer.len() / 4) {
        let (places, _) = buffer.as_chunks_mut::<4>();
        for (place, element) in places.iter_mut().zip(elements) {
            *place = element.to_le_bytes();
        }
        writer.write_all(buffer.get(..size_of_val(elements)).unwrap_or_default())?;
    }
    Ok(())
}

/// The crate's own header keeps the metadata in a hash map, whose order differs from run to run.
struct Header<'a> {
    metadata: &'a BTreeMap<String, String>,
    tensors: Vec<(&'a str, TensorInfo)>,
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry(METADATA_KEY, self.metadata)?;
        }
        for (name, info) in &self.tensors {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}
