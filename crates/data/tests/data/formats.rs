//! The same rows in every format, in files that others have written (`oracle/tables.py`), and in several files.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::files::{Folder, lines, rows, values};
use retune_data::{
    Format, QuestionColumns, ReadOptions, SentenceColumns, Table, named_files, read_head, read_table,
    read_tables,
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tables").join(name)
}

fn read(path: &Path) -> Table {
    read_table(path, &ReadOptions::default()).unwrap()
}

/// Which fields stand as JSON has them.
fn json(table: &Table) -> Vec<bool> {
    let columns = table.columns().len();
    rows(table).flat_map(|row| (0..columns).map(move |column| row.is_json(column))).collect()
}

#[test]
fn every_format_gives_the_same_rows() {
    let expected = read(&golden("rows.jsonl"));
    assert_eq!(expected.len(), 45);
    assert_eq!(expected.columns(), ["text", "label", "count", "score", "good", "tags", "meta"]);
    let mut tried = 0;
    for file in std::fs::read_dir(golden("")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.contains("brotli") || name.contains(".csv") {
            continue;
        }
        let table = read(&path);
        assert_eq!(table.columns(), expected.columns(), "{name}");
        assert_eq!(values(&table), values(&expected), "{name}");
        assert_eq!(json(&table), json(&expected), "{name}");
        assert_eq!(table.format() == Format::Parquet, name.ends_with("parquet"), "{name}");
        tried += 1;
    }
    assert_eq!(tried, 6 + 11);
}

#[test]
fn packed_text_is_the_text() {
    let expected = read(&golden("rows.csv"));
    let texts =
        |table: &Table| -> Vec<_> { values(table).into_iter().map(|row| row[..2].to_vec()).collect() };
    assert_eq!(texts(&expected), texts(&read(&golden("rows.jsonl"))));
    for name in ["rows.csv.gz", "rows.csv.zst", "rows.two.csv.gz", "rows.two.csv.zst"] {
        let table = read(&golden(name));
        assert_eq!((values(&table), lines(&table)), (values(&expected), lines(&expected)), "{name}");
        assert_eq!(table.format(), Format::Csv);
    }
}

#[test]
fn a_packed_file_may_hold_any_format_and_be_called_anything() {
    use std::io::Write;
    let folder = Folder::new();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&std::fs::read(golden("rows-zstd-v2.parquet")).unwrap()).unwrap();
    let path = folder.write("rows", encoder.finish().unwrap());
    assert_eq!(values(&read(&path)), values(&read(&golden("rows.jsonl"))));
}

#[test]
fn what_is_not_read_of_parquet_is_said() {
    let error = read_table(&golden("rows-brotli.parquet"), &ReadOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("rows-brotli.parquet: row group 0: column `text` is packed with Brotli"), "{text}");
}

#[test]
fn a_parquet_file_is_whole_or_refused() {
    let folder = Folder::new();
    for name in ["rows-none-v1.parquet", "rows-zstd-v2.parquet", "rows-snappy-v1.parquet"] {
        let bytes = std::fs::read(golden(name)).unwrap();
        for cut in [5, bytes.len() / 3, bytes.len() / 2, bytes.len() - 9, bytes.len() - 1] {
            let path = folder.write("cut.parquet", &bytes[..cut]);
            let error = read_table(&path, &ReadOptions::default()).unwrap_err();
            assert!(error.message.contains("cut short or damaged"), "{cut}: {error}");
        }
        // Something in the middle: an error with its place, or the very rows where nothing looks at it.
        let mut told = 0;
        for place in (4..bytes.len()).step_by(7) {
            let mut wrong = bytes.clone();
            wrong[place] ^= 0x2a;
            let read = read_table(&folder.write("wrong.parquet", wrong), &ReadOptions::default());
            told += usize::from(read.is_err());
            if let Err(error) = read {
                assert!(error.path.is_some() && !error.system, "{error:?}");
            }
        }
        assert!(told > 20, "{name}: {told}");
    }
}

#[test]
fn several_files_are_one_table() {
    let folder = Folder::new();
    let one = folder.write("b.csv", "text,label\nwhere is it,card\nwhen,pay\n");
    let two = folder.write(
        "a.jsonl",
        "{\"label\": \"pay\", \"text\": \"how\", \"id\": 7}\n\n{\"text\": \"who\", \"label\": \"card\"}\n",
    );
    folder.write("notes.md", "no rows");
    folder.write(".hidden.csv", "no,rows\n1,2\n");
    let expected = [
        [Some("where is it"), Some("card"), None],
        [Some("when"), Some("pay"), None],
        [Some("how"), Some("pay"), Some("7")],
        [Some("who"), Some("card"), None],
    ];
    let table = read_tables(&[one.clone(), two.clone()], &ReadOptions::default()).unwrap();
    assert_eq!(table.columns(), ["text", "label", "id"]);
    assert_eq!(values(&table), expected);
    assert_eq!(lines(&table), [2, 3, 1, 3]);
    let paths: Vec<&Path> = (0..4).map(|row| table.path_of(row)).collect();
    assert_eq!(paths, [&one, &one, &two, &two]);
    assert_eq!(table.path().display().to_string(), format!("{} and 1 more file", one.display()));

    // By the order of their names, where they are not named.
    let whole = read_tables(&[folder.path().to_owned()], &ReadOptions::default()).unwrap();
    assert_eq!(whole.files().collect::<Vec<_>>(), [&two, &one]);
    assert!(whole.notices()[0].message.contains("1 file in "), "{:?}", whole.notices());
    // Of other folders beside this one who knows what they hold.
    let (own, _) = folder.path().file_name().unwrap().to_str().unwrap().split_at(7);
    for pattern in ["*.[cj]s*", "?.*", &format!("../{own}*/?.*s*")] {
        let files = named_files(&[folder.path().join(pattern)]).unwrap();
        assert_eq!(files.len(), 2, "{pattern}: {files:?}");
    }
    let named = |paths: &[&str]| {
        let paths: Vec<PathBuf> = paths.iter().map(|path| folder.path().join(path)).collect();
        read_tables(&paths, &ReadOptions::default()).unwrap_err().to_string()
    };
    assert!(named(&["*.parquet"]).contains("no file fits this pattern"));
    assert!(named(&["b.csv", "?.csv"]).contains("b.csv: the file is named twice"));
    assert!(named(&["b.csv", "c.csv"]).contains("c.csv: the file cannot be read"));
    folder.write("odd.csv", "text,label\nx\n");
    assert!(named(&["b.csv", "odd.csv"]).contains("odd.csv: line 2: expected 2 fields"));
    let nothing = Folder::new();
    nothing.write("notes.md", "no rows");
    let error = named_files(&[nothing.path().to_owned()]).unwrap_err().to_string();
    assert!(
        error.contains("the folder has no file that ends in .csv") && error.contains("`notes.md`"),
        "{error}"
    );
}

#[test]
fn columns_are_renamed_by_their_names_in_the_files() {
    let folder = Folder::new();
    let one = folder.write("one.csv", "utterance,intent\nwhere,card\n");
    let two = folder.write("two.jsonl", "{\"text\": \"how\", \"label\": \"pay\"}\n");
    let read = |rename: &[(&str, &str)]| {
        let rename: BTreeMap<_, _> =
            rename.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        let options = ReadOptions { rename, ..ReadOptions::default() };
        read_tables(&[one.clone(), two.clone()], &options).map_err(|error| error.to_string())
    };
    let table = read(&[("utterance", "text"), ("intent", "label")]).unwrap();
    assert_eq!(values(&table), [[Some("where"), Some("card")], [Some("how"), Some("pay")]]);
    let error = read(&[("utterance", "text"), ("intents", "label")]).unwrap_err();
    assert!(error.contains("no column `intents` to be renamed (did you mean `intent`?)"), "{error}");
    let error = read(&[("utterance", "text"), ("intent", "text")]).unwrap_err();
    assert!(
        error.contains("one.csv: line 1: expected different columns, got `utterance` and `intent`"),
        "{error}"
    );
}

#[test]
fn json_arrays_are_read_and_their_faults_have_places() {
    let folder = Folder::new();
    let table = read(&folder.write(
        "a",
        "\n[ {\"text\": \"a\\u00e9\",\n\"n\": 1.50},{\"text\":\"b\", \"n\": null}\n, {\"n\": [1, 2]}]\n",
    ));
    assert_eq!(values(&table), [[Some("aé"), Some("1.50")], [Some("b"), None], [None, Some("[1, 2]")]]);
    assert_eq!((lines(&table), table.format()), (vec![2, 3, 4], Format::Json));
    // More than is read at a time, in objects of many lengths.
    let long = "ü\\\"x ".repeat(60_000);
    let objects: Vec<String> =
        (0..40).map(|n| format!("{{\"n\": {n}, \"t\": \"{}\"}}", &long[..n * 8_000 / 6 * 6])).collect();
    let table = read(&folder.write("long", format!("[{}]", objects.join(",\n"))));
    let lengths = |row: retune_data::Row<'_>| row.get(1).map_or(0, |text| text.chars().count());
    assert_eq!(
        rows(&table).map(lengths).collect::<Vec<_>>(),
        (0..40).map(|n| n * 8_000 / 6 * 4).collect::<Vec<_>>()
    );
    for (text, place, words) in [
        ("[]", (None, None), "the file is empty: expected an array"),
        ("[{\"a\": 1}\n", (Some(2), None), "it was cut short"),
        ("[{\"a\": 1},\n {\"a\": 2}, {\"a\"", (Some(2), None), "it was cut short"),
        ("[{\"a\": 1},\n {\"a\": é}]", (Some(2), Some(8)), "got an error: expected value"),
        ("[{\"a\": 1}, {\n\"a\": \"x\", \"a\": 2}]", (Some(1), None), "got `a` twice"),
        ("[{\"a\": 1},\n\n  7]", (Some(3), Some(3)), "got a number in it"),
        ("[{\"a\": 1}\n{\"a\": 2}]", (Some(2), Some(1)), "expected a comma or the end of the array"),
        ("[{\"a\": 1},]", (Some(1), Some(11)), "remove the comma"),
        ("[{\"a\": 1}]\n[{\"a\": 1}]", (Some(2), Some(1)), "expected nothing behind the array"),
        ("[{\"a\": \"\\ud800!\"}]", (Some(1), None), "got an error"),
        ("[{}]", (None, None), "only empty ones"),
    ] {
        let error = read_table(&folder.write("wrong", text), &ReadOptions::default()).unwrap_err();
        assert!(error.message.contains(words), "{text}: {error}");
        let column = place.1.or(error.column);
        assert_eq!((error.line, error.column), (place.0, column), "{text}: {error}");
    }
    let json = ReadOptions { format: Some(Format::Json), ..ReadOptions::default() };
    let error = read_table(&folder.write("object", "{\"a\": 1}\n"), &json).unwrap_err();
    assert!(error.message.contains("got an object: give --format jsonl"), "{error}");
}

#[test]
fn plain_text_is_a_text_a_file_or_a_line() {
    let folder = Folder::new();
    folder.write("a.txt", "\n\n  A tale, of two\nlines; and\tmore.\n\n\"The end\r\n");
    folder.write("b.txt", "Another.\n");
    folder.write("c.txt", "{\"text\": \"a row\"}\n");
    folder.write("notes.md", "no text\n");
    let as_format = |format| ReadOptions { format: Some(format), ..ReadOptions::default() };
    let texts = |table: &Table| -> Vec<(u64, String)> {
        assert_eq!(table.columns(), ["text"]);
        rows(table).map(|row| (row.line(), row.get(0).unwrap().to_owned())).collect()
    };
    let whole = read_table(&folder.path().join("a.txt"), &as_format(Format::Text)).unwrap();
    let tale = "A tale, of two\nlines; and\tmore.\n\n\"The end";
    assert_eq!((texts(&whole), whole.format()), (vec![(3, tale.to_owned())], Format::Text));
    let lines = read_table(&folder.path().join("a.txt"), &as_format(Format::Lines)).unwrap();
    let each = [(3, "  A tale, of two"), (4, "lines; and\tmore."), (6, "\"The end")];
    assert_eq!(texts(&lines), each.map(|(line, text)| (line, text.to_owned())));
    // Of a folder without tables the texts are read; one of JSON is that still.
    let plain = ReadOptions { plain_text: true, ..ReadOptions::default() };
    let all = read_tables(&[folder.path().to_owned()], &plain).unwrap();
    let of: Vec<String> = texts(&all).into_iter().map(|(_, text)| text).collect();
    assert_eq!(of, [tale, "Another.", "a row"]);
    folder.write("empty.txt", " \n\n");
    for format in [Format::Text, Format::Lines] {
        let error = read_table(&folder.path().join("empty.txt"), &as_format(format)).unwrap_err();
        assert!(error.to_string().ends_with("empty.txt: the file is empty: expected text"), "{error}");
    }
}

/// What a file is, its first records say, whatever its format and its size.
#[test]
fn a_file_is_known_by_its_first_records() {
    let folder = Folder::new();
    let many = |record: &str, between: &str| vec![record; (3 << 20) / record.len()].join(between);
    let sentence = "{\"tokens\": [\"Ana\", \"ran\"], \"tags\": [\"B-x\", \"O\"]}";
    let long = format!("{{\"tokens\": [\"{}\"], \"tags\": [\"O\"]}}", "é".repeat(1 << 20));
    let head = |name: &str, text: String, options: &ReadOptions| {
        read_head(&folder.write(name, text), options).unwrap()
    };
    let none = ReadOptions::default();
    for (name, text) in [
        ("array.json", format!("[{}]", many(sentence, ","))),
        ("lines.json", format!("[\n{}\n]", many(sentence, ",\n"))),
        ("rows.jsonl", many(sentence, "\n")),
        ("long.jsonl", format!("{long}\n{long}\n")),
    ] {
        let table = head(name, text, &none);
        assert!(table.len() < 30_000 && SentenceColumns::recognises(&table), "{name}: {}", table.len());
    }
    // The part ends within quotes.
    let record = format!("\"{}\",b,c\n", "a line\n".repeat(100_000));
    let table = head("rows.csv", format!("context,question,answers\n{}", record.repeat(4)), &none);
    assert!(QuestionColumns::recognises(&table).is_some());
    let names = [("text", "context"), ("label", "question"), ("tags", "answers")];
    let rename = BTreeMap::from(names.map(|(old, new)| (old.to_owned(), new.to_owned())));
    let renamed = ReadOptions { rename, ..ReadOptions::default() };
    let table = read_head(&golden("rows-snappy-v1.parquet"), &renamed).unwrap();
    assert!(QuestionColumns::recognises(&table).is_some());
    // What is wrong with the first record is said.
    let wrong = format!("[{{\"a\": 1,}}, {}]", many(sentence, ","));
    assert!(read_head(&folder.write("wrong.json", wrong), &none).is_err());
}
