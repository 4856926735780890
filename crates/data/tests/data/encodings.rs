//! Files in many encodings; the bytes are written out or made by the standard's own encoder.

use crate::files::{table_as, table_of, values};
use encoding_rs::{BIG5, Encoding, GB18030, GBK, SHIFT_JIS, WINDOWS_1252};
use retune_data::{DataError, ReadOptions, Table};

fn read_as(bytes: impl AsRef<[u8]>, encoding: &str) -> Result<Table, DataError> {
    table_as(bytes, &ReadOptions { encoding: Some(encoding.to_owned()), ..ReadOptions::default() })
}

fn encoded(text: &str, encoding: &'static Encoding) -> Vec<u8> {
    let (bytes, _, lossy) = encoding.encode(text);
    assert!(!lossy, "{text}");
    bytes.into_owned()
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

const CHINESE: &str = "text,label\n我的卡还没有到,card\n\"请问，怎么退款？\",refund\n";
const FRENCH: &str =
    "text;label\nOù est ma carte ?;carte\nJe n'ai rien reçu, désolé;carte\nÇa coûte trop;frais\n";

#[test]
fn the_named_encoding_is_read() {
    for (text, encoding, label) in [
        (CHINESE, GBK, "gbk"),
        (CHINESE, GBK, "GB2312"),
        (CHINESE, GBK, "cp936"),
        ("text,label\n𠮷野家,x\nabc,y\n", GB18030, "gb18030"),
        (FRENCH, WINDOWS_1252, "latin1"),
        (FRENCH, WINDOWS_1252, "Latin-1"),
        (FRENCH, WINDOWS_1252, "windows-1252"),
        (FRENCH, WINDOWS_1252, "iso-8859-1"),
        ("text,label\nカードが届きません,x\nはい,y\n", SHIFT_JIS, "shift_jis"),
        ("text,label\n我的卡還沒有到,x\n好,y\n", BIG5, "big5"),
    ] {
        let bytes = encoded(text, encoding);
        let table = read_as(&bytes, label).unwrap();
        assert_eq!(values(&table), values(&table_of(text).unwrap()), "{label}");
        assert!(table.notices().is_empty(), "{label}: {:?}", table.notices());
    }
}

#[test]
fn a_byte_order_mark_decides() {
    let expected = table_of(CHINESE).unwrap();
    for bytes in [
        [b"\xef\xbb\xbf".as_slice(), CHINESE.as_bytes()].concat(),
        [b"\xff\xfe".as_slice(), &utf16(CHINESE, u16::to_le_bytes)].concat(),
        [b"\xfe\xff".as_slice(), &utf16(CHINESE, u16::to_be_bytes)].concat(),
    ] {
        let table = table_of(&bytes).unwrap();
        assert_eq!(table.columns(), ["text", "label"]);
        assert_eq!(values(&table), values(&expected));
        assert_eq!(values(&read_as(&bytes, "latin1").unwrap()), values(&expected));
    }
    let bare = utf16(CHINESE, u16::to_be_bytes);
    assert_eq!(values(&read_as(&bare, "utf-16be").unwrap()), values(&expected));
}

#[test]
fn bytes_that_are_not_utf8_are_named_with_the_likelier_encoding() {
    // "text,label\n" is 11 bytes, the first Chinese byte comes right after them.
    let error = table_of(encoded(CHINESE, GBK)).unwrap_err();
    assert_eq!((error.line, error.byte), (Some(2), Some(11)));
    assert!(error.message.contains("0xce"), "{error}");
    assert!(
        error.message.contains("`--encoding gbk`") && error.message.contains("我的卡还没有到"),
        "{error}"
    );

    let bytes = encoded(FRENCH, WINDOWS_1252);
    let error = table_of(&bytes).unwrap_err();
    let place = bytes.iter().position(|byte| *byte == 0xf9).unwrap();
    assert_eq!((error.line, error.byte), (Some(2), Some(place as u64)));
    assert!(error.message.contains("got the byte 0xf9"), "{error}");
    assert!(
        error.message.contains("`--encoding latin1`") && error.message.contains("Où est ma carte"),
        "{error}"
    );
}

#[test]
fn one_damaged_place_in_a_utf8_file_is_not_another_encoding() {
    let mut bytes = b"\xef\xbb\xbf".to_vec();
    bytes.extend(CHINESE.as_bytes());
    bytes.extend(b"\xe5\x8d,x\n");
    let place = bytes.len() as u64 - 5;
    let error = table_of(&bytes).unwrap_err();
    assert_eq!((error.line, error.byte), (Some(4), Some(place)));
    assert!(
        error.message.contains("the bytes 0xe5 0x8d") && error.message.contains("repair the line"),
        "{error}"
    );
    // Cut off in the middle of a character.
    let cut = &CHINESE.as_bytes()[..CHINESE.find('我').unwrap() + 8];
    let error = table_of(cut).unwrap_err();
    assert_eq!(error.byte, Some(17));
}

#[test]
fn a_named_encoding_is_strict_too() {
    let mut bytes = encoded(CHINESE, GBK);
    let place = bytes.len() as u64;
    bytes.extend(b"\xff,x\n");
    let error = read_as(&bytes, "gbk").unwrap_err();
    assert_eq!((error.line, error.byte), (Some(4), Some(place)));
    assert!(error.message.contains("expected gbk text, got the byte 0xff"), "{error}");

    // A lone surrogate in UTF-16, after the mark and one line.
    let mut bytes = b"\xff\xfe".to_vec();
    bytes.extend(utf16("a\n", u16::to_le_bytes));
    bytes.extend(b"\x00\xd8b\x00");
    let error = table_of(&bytes).unwrap_err();
    assert_eq!((error.line, error.byte), (Some(2), Some(6)));

    let error = read_as("text,label\nà la carte,x\n", "shift_jis").unwrap_err();
    assert!(error.message.contains("valid UTF-8, so leave --encoding out"), "{error}");
    let table = read_as("text,label\nà la carte,x\n", "latin1").unwrap();
    assert!(table.notices()[0].message.contains("it is valid UTF-8"), "{:?}", table.notices());
}

#[test]
fn unknown_encodings_are_answered_with_near_ones() {
    let error = read_as("a,b\n1,2\n", "gbkk").unwrap_err();
    assert!(error.message.starts_with("unknown encoding `gbkk` (did you mean `gbk`?)"), "{error}");
    assert!(read_as("a,b\n1,2\n", "hz-gb-2312").is_err());
}

#[test]
fn binary_files_are_recognised() {
    let error = table_of(b"text,label\nab\0c,x\n").unwrap_err();
    assert_eq!((error.line, error.byte), (Some(2), Some(13)));
    assert!(error.message.contains("a NUL byte: the file looks binary"), "{error}");
    let error = table_of(utf16("text,label\nabc,x\n", u16::to_le_bytes)).unwrap_err();
    assert!(error.message.contains("`--encoding utf-16le`"), "{error}");
    let error = table_of(utf16("text,label\nabc,x\n", u16::to_be_bytes)).unwrap_err();
    assert!(error.message.contains("`--encoding utf-16be`"), "{error}");
    let error = read_as(b"text,label\r\nab\0c,x\n", "latin1").unwrap_err();
    assert_eq!(error.line, Some(2));
    for (bytes, what) in [
        (b"PK\x03\x04\x14\0\x06\0".as_slice(), "an Excel workbook"),
        (b"\x1f\x8b\x08\0".as_slice(), "the gzip data ends too early"),
        (b"PAR1\x15\x04".as_slice(), "the footer of a Parquet file"),
    ] {
        let error = table_of(bytes).unwrap_err();
        assert!(error.message.contains(what), "{error}");
    }
}
