//! Parquet: columns in groups of rows.
//!
//! The format is read by the `parquet` crate, whose decoder of Zstandard is in C: pages that are packed so are unpacked
//! here, by the decoder that whole files have.

use std::any::Any;
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::bloom_filter::Sbbf;
use ::parquet::column::page::{Page, PageMetadata, PageReader};
use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaDataReader, RowGroupMetaData};
use ::parquet::file::reader::{ChunkReader, Length, RowGroupReader, SerializedPageReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::Type;

use super::FileUnderWay;
use crate::error::DataError;
use crate::format::Format;
use crate::input::{Bytes, BytesReader, Packing};

/// Reads all row groups, one after the other. A text is itself, as are dates; numbers, booleans, lists and groups stand as
/// JSON has them; null is a missing value.
///
/// # Errors
/// A file that is cut short or damaged; bytes that are no text. Row group and row are named.
pub(super) fn read(file: &mut FileUnderWay<'_>) -> std::result::Result<(), DataError> {
    file.table.set_format(Format::Parquet);
    let bytes = file.input.random_access()?;
    let length = bytes.len();
    let metadata = guarded(|| ParquetMetaDataReader::new().parse_and_finish(&bytes)).map_err(|error| {
        DataError::new(format!("expected the footer of a Parquet file, got an error: {error}; {MEND}"))
            .at_byte(usize::try_from(length.saturating_sub(8)).unwrap_or_default())
    })?;
    let schema = metadata.file_metadata().schema();
    let names: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
    let columns = file.columns(&names)?;
    if columns.is_empty() {
        return Err(DataError::new("expected columns, got a Parquet file without any"));
    }
    let bytes = Arc::new(bytes);
    for (group, metadata) in metadata.row_groups().iter().enumerate() {
        if let Some((column, codec)) = metadata.columns().iter().find_map(not_read) {
            return Err(DataError::new(format!(
                "column `{column}` is packed with {codec}, which is not read: write the file with snappy, gzip, lz4 or zstd"
            ))
            .in_row_group(group));
        }
        let reader = GroupReader { bytes: bytes.clone(), metadata };
        let mut rows =
            guarded(|| RowIter::from_row_group(None, &reader)).map_err(|error| damaged(&error, group))?;
        for row_in_group in 0..metadata.num_rows() {
            let number = file.table.file_rows() as u64 + 1;
            let fault = |error: &str| damaged(error, group).at_row(number);
            let row = guarded(|| rows.next().transpose()).map_err(|error| fault(&error))?;
            let row = row.ok_or_else(|| {
                fault(&format!("expected {} rows, got {row_in_group}", metadata.num_rows()))
            })?;
            for (column, (name, field)) in columns.iter().zip(row.get_column_iter()) {
                let value = Value::of(field).map_err(|what| {
                    DataError::new(format!("column `{name}`: {what}")).in_row_group(group).at_row(number)
                })?;
                match value {
                    Value::Text(text) => file.table.push_field(*column, &text),
                    Value::Json(json) => file.table.push_json(*column, &json),
                    Value::Missing => {}
                }
            }
            file.table.end_row(number)?;
            if file.table.file_rows() >= file.most {
                return Ok(());
            }
        }
    }
    if file.table.file_rows() == 0 {
        return Err(DataError::new("expected rows, got a Parquet file without any"));
    }
    Ok(())
}

/// The name of a column and of its codec, if that is none that is read.
fn not_read(column: &ColumnChunkMetaData) -> Option<(String, &'static str)> {
    let codec = match column.compression() {
        Compression::BROTLI(_) => "Brotli",
        Compression::LZO => "LZO",
        _ => return None,
    };
    Some((column.column_path().parts().join("."), codec))
}

const MEND: &str = "it was cut short or damaged: bring the whole file anew";

fn damaged(error: &str, group: usize) -> DataError {
    DataError::new(format!("the row group cannot be read: {error}; {MEND}")).in_row_group(group)
}

/// What the crate does. It panics at some damaged files: that is an error of the file.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, String> {
    let words = |panic: Box<dyn Any + Send>| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("damaged").to_owned()
    };
    catch_unwind(AssertUnwindSafe(work)).map_err(words)?.map_err(|error| error.to_string())
}

/// A field as the table has it.
enum Value {
    Text(String),
    Json(String),
    Missing,
}

impl Value {
    fn of(field: &Field) -> std::result::Result<Self, String> {
        Ok(match field {
            Field::Null => Value::Missing,
            Field::Str(text) => Value::Text(text.clone()),
            // Without a word on what they are, they are text in most files.
            Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => {
                    return Err("expected text, got bytes that are not UTF-8: leave the column out".into());
                }
            },
            Field::Float(value) if !value.is_finite() => Value::Text(value.to_string()),
            Field::Double(value) if !value.is_finite() => Value::Text(value.to_string()),
            Field::Float16(value) if !value.is_finite() => Value::Text(value.to_string()),
            Field::Float(value) => Value::Json(format!("{value:?}")),
            Field::Double(value) => Value::Json(format!("{value:?}")),
            Field::Float16(value) => Value::Json(format!("{:?}", f32::from(*value))),
            Field::ListInternal(list) => {
                let items: std::result::Result<Vec<_>, _> = list.elements().iter().map(json).collect();
                Value::Json(format!("[{}]", items?.join(", ")))
            }
            Field::MapInternal(map) => {
                let entries = map.entries().iter().map(|(key, value)| {
                    let key = match Value::of(key)? {
                        Value::Text(text) | Value::Json(text) => quoted(&text),
                        Value::Missing => quoted(""),
                    };
                    Ok(format!("{key}: {}", json(value)?))
                });
                Value::Json(format!(
                    "{{{}}}",
                    entries.collect::<std::result::Result<Vec<_>, String>>()?.join(", ")
                ))
            }
            Field::Group(row) => Value::Json(group(row)?),
            Field::Date(_) | Field::TimeMillis(_) | Field::TimeMicros(_) => Value::Text(field.to_string()),
            Field::TimestampMillis(_) | Field::TimestampMicros(_) => Value::Text(field.to_string()),
            // Booleans and whole numbers, and those with a fixed number of decimals.
            _ => Value::Json(field.to_string()),
        })
    }
}

fn group(row: &Row) -> std::result::Result<String, String> {
    let fields = row.get_column_iter().map(|(name, field)| Ok(format!("{}: {}", quoted(name), json(field)?)));
    Ok(format!("{{{}}}", fields.collect::<std::result::Result<Vec<_>, String>>()?.join(", ")))
}

fn json(field: &Field) -> std::result::Result<String, String> {
    Ok(match Value::of(field)? {
        Value::Text(text) => quoted(&text),
        Value::Json(json) => json,
        Value::Missing => "null".into(),
    })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Length for Bytes {
    fn len(&self) -> u64 {
        Bytes::len(self)
    }
}

impl ChunkReader for Bytes {
    type T = BufReader<BytesReader>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(BufReader::new(self.reader_from(start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<bytes::Bytes> {
        let mut buffer = Vec::new();
        self.reader_from(start).take(length as u64).read_to_end(&mut buffer)?;
        if buffer.len() < length {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} are not there")));
        }
        Ok(buffer.into())
    }
}

/// A row group whose pages the crate need not unpack if they are packed with Zstandard.
struct GroupReader<'m> {
    bytes: Arc<Bytes>,
    metadata: &'m RowGroupMetaData,
}

impl RowGroupReader for GroupReader<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.metadata
    }

    fn num_columns(&self) -> usize {
        self.metadata.num_columns()
    }

    fn get_column_page_reader(&self, column: usize) -> Result<Box<dyn PageReader>> {
        let metadata = self.metadata.column(column);
        let rows = usize::try_from(self.metadata.num_rows())?;
        if !matches!(metadata.compression(), Compression::ZSTD(_)) {
            return Ok(Box::new(SerializedPageReader::new(self.bytes.clone(), metadata, rows, None)?));
        }
        // Told that they are not packed, the crate gives pages as they lie in the file.
        let packed = metadata.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
        Ok(Box::new(ZstdPages(SerializedPageReader::new(self.bytes.clone(), &packed, rows, None)?)))
    }

    fn get_column_bloom_filter(&self, _: usize) -> Option<&Sbbf> {
        None
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

/// Pages that are packed with Zstandard.
struct ZstdPages(SerializedPageReader<Bytes>);

impl Iterator for ZstdPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for ZstdPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.0.get_next_page()?.map(unpacked).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.0.skip_next_page()
    }
}

fn unpacked(mut page: Page) -> Result<Page> {
    let (buf, plain) = match &mut page {
        Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => (buf, 0),
        Page::DataPageV2 { is_compressed: false, .. } => return Ok(page),
        // Levels come first, and are never packed.
        Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
            (buf, (*def_levels_byte_len as usize).saturating_add(*rep_levels_byte_len as usize))
        }
    };
    if plain > buf.len() {
        return Err(ParquetError::General("levels are longer than their page".into()));
    }
    let mut bytes = buf[..plain].to_vec();
    let packed = buf.slice(plain..);
    if !packed.is_empty() {
        Packing::Zstd.unpack(std::io::Cursor::new(packed)).read_to_end(&mut bytes)?;
    }
    *buf = bytes.into();
    Ok(page)
}
