//! The header of a safetensors file: what tensors there are and which bytes are whose.
//!
//! The types of the `safetensors` crate are used, not its reader: that one keeps the last of two tensors with one
//! name, and does not say which tensor a wrong shape belongs to. Every file it refuses is refused here too.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::Path;

use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use crate::ModelError;
use crate::error::quoted;

/// The format's own limit; a larger length is a sign of a file that is no safetensors file.
const LARGEST_HEADER: usize = 100_000_000;

/// Bytes of the little-endian length before the header.
const LENGTH_BYTES: usize = 8;

/// The one key that is no tensor.
pub(super) const METADATA_KEY: &str = "__metadata__";

/// What a checked header says: the tensors tile the bytes after it without gap or overlap.
pub(in crate::formats) struct Header {
    pub(in crate::formats) metadata: BTreeMap<String, String>,
    /// In the order of their bytes; offsets count from `data_start`.
    pub(in crate::formats) tensors: Vec<(String, TensorInfo)>,
    /// Where in the file the tensors' bytes begin.
    pub(in crate::formats) data_start: usize,
}

/// The header of a file of `size` bytes with what stands before it; or, if none can be told, a few bytes to tell why.
pub(super) fn beginning(
    read: impl Fn(&mut [u8], usize) -> io::Result<()>,
    size: usize,
) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size.min(64)];
    read(&mut bytes, 0)?;
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    let length = length.and_then(|length| usize::try_from(length).ok()).filter(|n| *n <= LARGEST_HEADER);
    let end = length.map(|length| LENGTH_BYTES + length).filter(|end| *end <= size);
    if let Some(end) = end {
        bytes.resize(end, 0);
        read(&mut bytes, 0)?;
    }
    Ok(bytes)
}

/// Reads and checks the header of a safetensors file of `size` bytes of which `file` is the [`beginning`]. `path` is for
/// the errors.
pub(super) fn parse(path: &Path, file: &[u8], size: usize) -> Result<Header, ModelError> {
    let wrong = |place: String, expected: String, got: String| ModelError::Format {
        path: path.to_path_buf(),
        place,
        expected,
        got,
    };
    if let Some(other) = other_format(file) {
        return Err(wrong("start".into(), "a safetensors file".into(), other.into()));
    }
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        let got = if file.is_empty() { "an empty file".into() } else { format!("{} bytes", file.len()) };
        return Err(wrong("start".into(), "the header's length in 8 bytes".into(), got));
    };
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok().filter(|&n| n <= LARGEST_HEADER).ok_or_else(|| {
        let expected = format!("a header length of at most {LARGEST_HEADER}");
        wrong("byte 0".into(), expected, format!("{length}: this is no safetensors file"))
    })?;
    let rest_length = size.saturating_sub(LENGTH_BYTES);
    let bytes = rest.get(..header).ok_or_else(|| {
        let expected = format!("a header length of at most {rest_length}, the bytes that follow it");
        wrong("byte 0".into(), expected, format!("{length}: the file was cut short"))
    })?;
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let place = format!("header, byte {}", LENGTH_BYTES + e.valid_up_to());
        wrong(place, "UTF-8 text".into(), "other bytes".into())
    })?;
    let entries: Unique<Entry> = serde_json::from_str(text)
        .map_err(|e| wrong("header".into(), "a JSON object of tensors".into(), e.to_string()))?;

    let mut metadata = BTreeMap::new();
    let mut tensors = Vec::with_capacity(entries.0.len());
    for (name, entry) in entries.0 {
        match entry {
            Entry::Metadata(map) => metadata = map,
            Entry::Tensor(info) => tensors.push((name, info)),
        }
    }
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let data = rest_length.saturating_sub(header);
    check_layout(&tensors, data)
        .map_err(|fault| wrong(fault.place, fault.expected, fault.got))
        .map(|()| Header { metadata, tensors, data_start: LENGTH_BYTES + header })
}

/// What people give by mistake most often, told from its first bytes.
fn other_format(file: &[u8]) -> Option<&'static str> {
    if file.starts_with(b"version https://git-lfs") {
        Some("a git-lfs pointer: the weights themselves were not fetched (`git lfs pull` does that)")
    } else if file.starts_with(b"PK\x03\x04") {
        Some("a zip archive, as PyTorch's pickles are: these are never loaded")
    } else if file.starts_with(b"GGUF") {
        Some("a GGUF file")
    } else if file.starts_with(b"<!DOCTYPE") || file.starts_with(b"<html") {
        Some("a web page: the download went wrong")
    } else {
        None
    }
}

struct Fault {
    place: String,
    expected: String,
    got: String,
}

/// Holds that the tensors, sorted by their offsets, fill exactly `data` bytes, each as many as its shape needs.
fn check_layout(tensors: &[(String, TensorInfo)], data: usize) -> Result<(), Fault> {
    let mut end_before = 0;
    for (name, info) in tensors {
        let (start, end) = info.data_offsets;
        let fault = |expected: String, got: String| {
            Err(Fault { place: format!("tensor {}", quoted(name)), expected, got })
        };
        if start != end_before {
            let what = if start < end_before { "bytes shared with another tensor" } else { "unused bytes" };
            return fault(format!("its bytes to start at offset {end_before}"), format!("{start}: {what}"));
        }
        if end < start || end > data {
            let expected = format!("its bytes to end between offsets {start} and {data}");
            let cut = if end > data { ": the file was cut short" } else { "" };
            return fault(expected, format!("{end}{cut}"));
        }
        let dtype = info.dtype;
        match byte_size(info) {
            None => {
                return fault(
                    "a size in whole bytes that memory can address".into(),
                    format!("{dtype} of shape {}", shape_text(&info.shape)),
                );
            }
            Some(size) if size != end - start => {
                let shape = shape_text(&info.shape);
                return fault(
                    format!("{size} bytes for {dtype} of shape {shape}"),
                    (end - start).to_string(),
                );
            }
            Some(_) => end_before = end,
        }
    }
    if end_before != data {
        return Err(Fault {
            place: format!("data offset {end_before}"),
            expected: "the end of the file after the last tensor".into(),
            got: format!("{} more bytes", data - end_before),
        });
    }
    Ok(())
}

/// A shape for a message; a hostile one may have millions of dimensions.
fn shape_text(shape: &[usize]) -> String {
    match shape.get(..16) {
        Some(first) if shape.len() > 16 => format!("{first:?} and {} more dimensions", shape.len() - 16),
        _ => format!("{shape:?}"),
    }
}

/// Bytes that a tensor's elements take; none if that overflows, or is no whole number (4-bit types).
fn byte_size(info: &TensorInfo) -> Option<usize> {
    let elements = info.shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim))?;
    let bits = elements.checked_mul(info.dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

enum Entry {
    Metadata(BTreeMap<String, String>),
    Tensor(TensorInfo),
}

/// A JSON object in which no key stands twice. The standard maps keep the last one without a word.
pub(super) struct Unique<V>(pub(super) BTreeMap<String, V>);

/// A value whose type may depend on the key it stands under.
pub(super) trait ReadValue: Sized {
    fn read<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Self, A::Error>;
}

impl ReadValue for String {
    fn read<'de, A: MapAccess<'de>>(_: &str, map: &mut A) -> Result<Self, A::Error> {
        map.next_value()
    }
}

impl ReadValue for Entry {
    fn read<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Self, A::Error> {
        if key == METADATA_KEY {
            let metadata: Option<Unique<String>> = map.next_value()?;
            return Ok(Self::Metadata(metadata.map(|unique| unique.0).unwrap_or_default()));
        }
        let info = map.next_value().map_err(|e| A::Error::custom(format!("tensor {}: {e}", quoted(key))))?;
        Ok(Self::Tensor(info))
    }
}

impl<'de, V: ReadValue> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<V>(PhantomData<V>);

        impl<'de, V: ReadValue> Visitor<'de> for Reader<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = V::read(&key, &mut map)?;
                    if entries.contains_key(&key) {
                        return Err(A::Error::custom(format!("{} named twice", quoted(&key))));
                    }
                    entries.insert(key, value);
                }
                Ok(Unique(entries))
            }
        }

        deserializer.deserialize_map(Reader(PhantomData))
    }
}
