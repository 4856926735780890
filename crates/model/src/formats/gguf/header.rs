//! The header of a GGUF file: metadata, then what tensors there are and which bytes are whose. Nothing in it is believed
//! before it is held against the file's length.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use retune_tensor::BlockType;
use safetensors::Dtype;

use super::super::safetensors::read_at;
use super::super::weights::{Encoding, open};
use super::MAGIC;
use crate::ModelError;
use crate::error::{nearest, quoted};

/// A GGUF file that was looked at.
#[derive(Debug)]
pub(in crate::formats) struct Gguf {
    pub(in crate::formats) path: PathBuf,
    metadata: BTreeMap<String, Meta>,
    /// In the order of the file.
    pub(in crate::formats) tensors: Vec<Tensor>,
}

/// A tensor of the file.
#[derive(Debug)]
pub(in crate::formats) struct Tensor {
    pub(in crate::formats) name: String,
    pub(in crate::formats) encoding: Encoding,
    /// Outermost first, other than in the file.
    pub(in crate::formats) shape: Vec<usize>,
    /// In the file.
    pub(in crate::formats) bytes: Range<usize>,
}

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::formats) enum Meta {
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
    Texts(Vec<String>),
    /// Lists of lists, which no key that is read here has.
    Lists,
}

/// No header of a model has more of them.
const MOST_DIMENSIONS: u64 = 4;

/// The deepest lists of lists that are passed over.
const DEEPEST: usize = 4;

impl Gguf {
    /// Reads the header. Errors, with the place, if it is not one, or does not fit the file.
    pub(in crate::formats) fn open(path: &Path) -> Result<Self, ModelError> {
        let (file, size) = open(path)?;
        let mut reader = Reader { path, file: BufReader::new(file), size, at: 0, place: "start".into() };
        let start = reader.bytes::<4>()?;
        if start != *MAGIC {
            return Err(reader.wrong("a file that begins with `GGUF`", "other bytes"));
        }
        let version = reader.u32()?;
        if version.swap_bytes() < 1 << 8 && version > 1 << 16 {
            return Err(reader.wrong("little-endian numbers", "big-endian ones; convert it on this machine"));
        }
        if !(2..=3).contains(&version) {
            return Err(reader.wrong("version 2 or 3", format!("version {version}")));
        }
        let (tensors, keys) = (reader.u64()?, reader.u64()?);
        // The least that each takes: a name's length, a type and a value; a name's length, dimensions, a type, a place.
        reader.check_count(keys, 13, "keys")?;
        reader.check_count(tensors, 24, "tensors")?;
        let mut metadata = BTreeMap::new();
        for _ in 0..keys {
            reader.place = "the name of a key".into();
            let key = reader.text()?;
            reader.place = format!("key {}", quoted(&key));
            let kind = reader.u32()?;
            let value = reader.value(kind, 0)?;
            match metadata.entry(key) {
                Entry::Vacant(place) => drop(place.insert(value)),
                Entry::Occupied(_) => return Err(reader.wrong("each key once", "it a second time")),
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Meta::Int(alignment @ 8..=1_048_576)) if alignment % 8 == 0 => *alignment as usize,
            Some(other) => {
                reader.place = "key `general.alignment`".into();
                return Err(reader.wrong("a multiple of 8 up to 1048576", other.described()));
            }
        };
        let heads: Vec<Head> = (0..tensors).map(|_| reader.head()).collect::<Result<_, _>>()?;
        let start = reader.at.next_multiple_of(alignment);
        let tensors = heads.into_iter().map(|head| head.placed(&mut reader, start, alignment));
        let tensors: Vec<Tensor> = tensors.collect::<Result<_, _>>()?;
        check_apart(&mut reader, &tensors)?;
        Ok(Gguf { path: path.to_path_buf(), metadata, tensors })
    }

    pub(in crate::formats) fn get(&self, key: &str) -> Option<&Meta> {
        self.metadata.get(key)
    }

    /// A text, if the key is there.
    pub(in crate::formats) fn text(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.typed(key, "a text", |value| match value {
            Meta::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A text that must be there.
    pub(in crate::formats) fn require_text(&self, key: &str) -> Result<&str, ModelError> {
        self.text(key)?.ok_or_else(|| self.missing(key, "a text"))
    }

    /// A whole number from 0 on, if the key is there.
    pub(in crate::formats) fn size(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.typed(key, "a whole number from 0 to 2147483647", |value| match value {
            Meta::Int(size @ 0..=0x7FFF_FFFF) => usize::try_from(*size).ok(),
            _ => None,
        })
    }

    /// The same where it must be there.
    pub(in crate::formats) fn require_size(&self, key: &str) -> Result<usize, ModelError> {
        self.size(key)?.ok_or_else(|| self.missing(key, "a whole number"))
    }

    /// A number, if the key is there.
    pub(in crate::formats) fn number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.typed(key, "a number", |value| match value {
            Meta::Float(number) => Some(*number),
            Meta::Int(number) => Some(*number as f64),
            _ => None,
        })
    }

    /// True or false, if the key is there.
    pub(in crate::formats) fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.typed(key, "true or false", |value| match value {
            Meta::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A list of texts, if the key is there.
    pub(in crate::formats) fn texts(&self, key: &str) -> Result<Option<&[String]>, ModelError> {
        self.typed(key, "a list of texts", |value| match value {
            Meta::Texts(texts) => Some(texts.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Meta) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(key, expected, value.described()))
    }

    fn missing(&self, key: &str, expected: &str) -> ModelError {
        let near = nearest(key, self.metadata.keys().map(String::as_str));
        let got = near.map_or("no such key".into(), |near| format!("no such key, but {}", quoted(&near)));
        self.wrong(key, expected, got)
    }

    /// The error that `key` has `got` where `expected` was needed.
    pub(in crate::formats) fn wrong(
        &self,
        key: &str,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> ModelError {
        ModelError::Config {
            path: self.path.clone(),
            key: key.to_string(),
            expected: expected.into(),
            got: got.into(),
        }
    }

    /// The values of a small tensor of type F32, as they lie. Errors if there is no such tensor.
    pub(in crate::formats) fn read_f32(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        const SMALL: usize = 1 << 20;
        let tensor = self.tensors.iter().find(|tensor| tensor.name == name);
        let small = tensor.filter(|tensor| tensor.encoding == Encoding::Plain(Dtype::F32));
        let Some(Tensor { bytes, .. }) = small.filter(|tensor| tensor.bytes.len() <= SMALL) else {
            return Err(self.wrong(name, "a small tensor of type F32", "another or none"));
        };
        let mut content = vec![0; bytes.len()];
        let (file, _) = open(&self.path)?;
        read_at(&file, &mut content, bytes.start)
            .map_err(|error| ModelError::io(&self.path, "read", error))?;
        Ok(content.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
    }

    /// Whether it has a tensor that is called so.
    pub(in crate::formats) fn has(&self, name: &str) -> bool {
        self.tensors.iter().any(|tensor| tensor.name == name)
    }
}

impl Meta {
    /// For a message, short whatever it holds.
    pub(in crate::formats) fn described(&self) -> String {
        match self {
            Meta::Int(number) => number.to_string(),
            Meta::Float(number) => number.to_string(),
            Meta::Bool(flag) => flag.to_string(),
            Meta::Text(text) => format!("the text {}", quoted(text)),
            Meta::Ints(list) => format!("a list of {} whole numbers", list.len()),
            Meta::Floats(list) => format!("a list of {} numbers", list.len()),
            Meta::Bools(list) => format!("a list of {} flags", list.len()),
            Meta::Texts(list) => format!("a list of {} texts", list.len()),
            Meta::Lists => "a list of lists".into(),
        }
    }
}

/// What the header says of a tensor.
struct Head {
    name: String,
    shape: Vec<usize>,
    encoding: Encoding,
    offset: u64,
}

impl Head {
    /// Holds it against the file.
    fn placed(self, reader: &mut Reader<'_>, start: usize, alignment: usize) -> Result<Tensor, ModelError> {
        let Head { name, shape, encoding, offset } = self;
        reader.place = format!("tensor {}", quoted(&name));
        if offset % alignment as u64 != 0 {
            let expected = format!("an offset that is a multiple of the alignment, {alignment}");
            return Err(reader.wrong(expected, offset.to_string()));
        }
        let (values, bytes) = encoding.block();
        let columns = shape.last().copied().unwrap_or(1);
        if !columns.is_multiple_of(values) {
            let expected = format!("rows of whole blocks of {values} values, as {encoding} has them");
            return Err(reader.wrong(expected, format!("rows of {columns}")));
        }
        let len = shape.iter().try_fold(1usize, |len, size| len.checked_mul(*size));
        let size = len.and_then(|len| (len / values).checked_mul(bytes));
        let first = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(start));
        let end = first.zip(size).and_then(|(first, size)| first.checked_add(size));
        match (first, end) {
            (Some(first), Some(end)) if end <= reader.size => {
                Ok(Tensor { name, encoding, shape, bytes: first..end })
            }
            _ => {
                let sizes = format!("{shape:?} of {encoding} at byte {offset} of the data");
                let got = format!("{} bytes in all: the file was cut short, or lies", reader.size);
                Err(reader.wrong(format!("room for {sizes}"), got))
            }
        }
    }
}

/// Errors if two tensors have one name, or share bytes.
fn check_apart(reader: &mut Reader<'_>, tensors: &[Tensor]) -> Result<(), ModelError> {
    let mut by_name: Vec<&Tensor> = tensors.iter().collect();
    by_name.sort_by(|one, other| one.name.cmp(&other.name));
    let mut by_place: Vec<&Tensor> = tensors.iter().filter(|tensor| !tensor.bytes.is_empty()).collect();
    by_place.sort_by_key(|tensor| tensor.bytes.start);
    for pair in by_name.windows(2) {
        if let [one, other] = pair
            && one.name == other.name
        {
            reader.place = format!("tensor {}", quoted(&one.name));
            return Err(reader.wrong("each tensor once", "it a second time"));
        }
    }
    for pair in by_place.windows(2) {
        if let [one, other] = pair
            && one.bytes.end > other.bytes.start
        {
            reader.place = format!("tensor {}", quoted(&other.name));
            return Err(reader.wrong("bytes of its own", format!("some of those of {}", quoted(&one.name))));
        }
    }
    Ok(())
}

/// Reads what stands in order, and knows where it is.
struct Reader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    size: usize,
    at: usize,
    /// What is being read.
    place: String,
}

impl Reader<'_> {
    fn wrong(&self, expected: impl Into<String>, got: impl Into<String>) -> ModelError {
        ModelError::Format {
            path: self.path.to_path_buf(),
            place: format!("{}, byte {}", self.place, self.at),
            expected: expected.into(),
            got: got.into(),
        }
    }

    fn left(&self) -> usize {
        self.size.saturating_sub(self.at)
    }

    /// Errors if so many of at least this many bytes each are more than is left.
    fn check_count(&self, count: u64, least: usize, what: &str) -> Result<usize, ModelError> {
        let most = self.left() / least;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => {
                let expected = format!("at most {most} {what}, as {} bytes are left", self.left());
                Err(self.wrong(expected, format!("{count}: the file was cut short, or lies")))
            }
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ModelError> {
        if bytes.len() > self.left() {
            let got = format!("{}: the file was cut short", self.left());
            return Err(self.wrong(format!("{} more bytes", bytes.len()), got));
        }
        self.file.read_exact(bytes).map_err(|error| ModelError::io(self.path, "read", error))?;
        self.at += bytes.len();
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, ModelError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ModelError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, ModelError> {
        let length = self.u64()?;
        let length = self.check_count(length, 1, "bytes of a text")?;
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.wrong("a text in UTF-8", "other bytes"))
    }

    fn list<T>(
        &mut self,
        count: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, ModelError>,
    ) -> Result<Vec<T>, ModelError> {
        (0..count).map(|_| read(self)).collect()
    }

    fn integer(&mut self, kind: u32) -> Result<i64, ModelError> {
        Ok(match kind {
            0 => i64::from(self.bytes::<1>()?[0]),
            1 => i64::from(i8::from_le_bytes(self.bytes()?)),
            2 => i64::from(u16::from_le_bytes(self.bytes()?)),
            3 => i64::from(i16::from_le_bytes(self.bytes()?)),
            4 => i64::from(self.u32()?),
            5 => i64::from(i32::from_le_bytes(self.bytes()?)),
            // None of the sizes and numbers that are read here is so large.
            10 => i64::try_from(self.u64()?).unwrap_or(i64::MAX),
            _ => i64::from_le_bytes(self.bytes()?),
        })
    }

    fn float(&mut self, kind: u32) -> Result<f64, ModelError> {
        Ok(match kind {
            6 => f64::from(f32::from_le_bytes(self.bytes()?)),
            _ => f64::from_le_bytes(self.bytes()?),
        })
    }

    fn flag(&mut self) -> Result<bool, ModelError> {
        match self.bytes::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.wrong("0 or 1 for a flag", other.to_string())),
        }
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Meta, ModelError> {
        Ok(match kind {
            0..=5 | 10 | 11 => Meta::Int(self.integer(kind)?),
            6 | 12 => Meta::Float(self.float(kind)?),
            7 => Meta::Bool(self.flag()?),
            8 => Meta::Text(self.text()?),
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                let least = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    8 | 10..=12 => 8,
                    _ => 12,
                };
                let count = self.check_count(count, least, "values of a list")?;
                match kind {
                    0..=5 | 10 | 11 => Meta::Ints(self.list(count, |reader| reader.integer(kind))?),
                    6 | 12 => Meta::Floats(self.list(count, |reader| reader.float(kind))?),
                    7 => Meta::Bools(self.list(count, Self::flag)?),
                    8 => Meta::Texts(self.list(count, Self::text)?),
                    _ if depth == DEEPEST => return Err(self.wrong("shallower lists", "lists in lists")),
                    _ => {
                        for _ in 0..count {
                            self.value(kind, depth + 1)?;
                        }
                        Meta::Lists
                    }
                }
            }
            other => return Err(self.wrong("a type of value from 0 to 12", other.to_string())),
        })
    }

    fn head(&mut self) -> Result<Head, ModelError> {
        self.place = "the name of a tensor".into();
        let name = self.text()?;
        self.place = format!("tensor {}", quoted(&name));
        let dimensions = u64::from(self.u32()?);
        if dimensions > MOST_DIMENSIONS {
            return Err(self.wrong(format!("at most {MOST_DIMENSIONS} dimensions"), dimensions.to_string()));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = self.u64()?;
            if size == 0 {
                return Err(self.wrong("sizes of at least 1", "0"));
            }
            // What fits in memory at all is found out from the bytes.
            shape.push(usize::try_from(size).unwrap_or(usize::MAX));
        }
        shape.reverse();
        let kind = self.u32()?;
        let Some(encoding) = encoding(kind) else {
            let known: Vec<_> = BlockType::IN_FILES.iter().map(|kind| kind.name()).collect();
            let expected = format!("a tensor of type F32, BF16, {}", known.join(", "));
            return Err(self.wrong(expected, unknown(kind)));
        };
        Ok(Head { name, shape, encoding, offset: self.u64()? })
    }
}

/// The type with this number in ggml.
fn encoding(kind: u32) -> Option<Encoding> {
    Some(match kind {
        0 => Encoding::Plain(Dtype::F32),
        1 => Encoding::Plain(Dtype::F16),
        2 => Encoding::Blocks(BlockType::Q4_0),
        3 => Encoding::Blocks(BlockType::Q4_1),
        6 => Encoding::Blocks(BlockType::Q5_0),
        7 => Encoding::Blocks(BlockType::Q5_1),
        8 => Encoding::Blocks(BlockType::Q8_0),
        12 => Encoding::Blocks(BlockType::Q4K),
        13 => Encoding::Blocks(BlockType::Q5K),
        14 => Encoding::Blocks(BlockType::Q6K),
        28 => Encoding::Plain(Dtype::F64),
        30 => Encoding::Plain(Dtype::BF16),
        _ => return None,
    })
}

/// Another type, by the name that people know.
fn unknown(kind: u32) -> String {
    let name = match kind {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("the number {kind}, which no type is known to have"),
    };
    format!("{name}, which is not read; get the model in another quantisation, such as Q4_K_M or Q8_0")
}
