//! Delimited files, well and badly formed.

use crate::files::{Folder, lines, row, table_as, table_of, values};
use retune_data::{DataError, Format, Random, ReadOptions, read_table};

fn error_of(bytes: impl AsRef<[u8]>) -> DataError {
    table_of(bytes).expect_err("a file that should not be read")
}

#[test]
fn quotes_line_breaks_and_blank_lines_keep_their_physical_lines() {
    let table = table_of(
        "text,label\n\n\"a \"\"quoted\"\", and\ntwo lines\",x\n  \
         \nplain,y\n\"\",\"z\"\n\"last\r\n\r\n\",\"é\"",
    )
    .unwrap();
    assert_eq!(table.format(), Format::Csv);
    assert_eq!(table.columns(), ["text", "label"]);
    assert_eq!(
        values(&table),
        [
            [Some("a \"quoted\", and\ntwo lines"), Some("x")],
            [Some("plain"), Some("y")],
            [Some(""), Some("z")],
            [Some("last\r\n\r\n"), Some("é")],
        ]
    );
    assert_eq!(lines(&table), [3, 6, 7, 8]);
    assert!(table.notices().is_empty());
}

#[test]
fn the_same_table_comes_from_every_line_ending_mark_and_delimiter() {
    let plain = "text;label\nGrüße, Welt;a\n\"x;y\";b\n";
    let expected = [[Some("Grüße, Welt"), Some("a")], [Some("x;y"), Some("b")]];
    for text in [
        plain.to_owned(),
        plain.replace('\n', "\r\n"),
        plain.replace('\n', "\r"),
        format!("\u{feff}{plain}"),
        plain.trim_end().to_owned(),
        format!("\r\n \n{plain}\n\n"),
    ] {
        let table = table_of(&text).unwrap();
        assert_eq!(table.columns(), ["text", "label"], "{text:?}");
        assert_eq!(values(&table), expected, "{text:?}");
    }
    let tabs = "text\tlabel\nGrüße, Welt\ta\n\"x;y\"\tb\n";
    let table = table_of(tabs).unwrap();
    assert_eq!(table.format(), Format::Tsv);
    assert_eq!(values(&table), expected);
}

#[test]
fn quotes_inside_a_plain_field_are_plain() {
    let table = table_of("text,label\nhe said \"hi\" twice,x\n5\" pipe,y\n").unwrap();
    assert_eq!(values(&table)[0][0], Some("he said \"hi\" twice"));
    assert_eq!(values(&table)[1][0], Some("5\" pipe"));
}

#[test]
fn a_quote_that_never_closes_is_named_where_it_opens() {
    let error = error_of("text,label\nfine,x\n\"one\ntwo\",y\n\"never closed,z\nmore,x\nand more,y\n");
    assert_eq!(error.line, Some(5));
    assert!(error.message.contains("expected a closing quote"), "{error}");
    assert!(error.to_string().contains("data.csv: line 5: "), "{error}");
}

#[test]
fn text_after_a_closing_quote_is_an_error() {
    let error = error_of("text,label\nfine,x\n\"Hello\" he said,y\n");
    assert_eq!(error.line, Some(3));
    assert!(error.message.contains("`,` or the end of the line after the quote"), "{error}");

    let error = error_of("text,label\n\"stray,x\nfine,y\nhe said \"no\",z\n");
    assert_eq!(error.line, Some(2), "{error}");
    assert!(error.message.contains("on line 4"), "{error}");
}

#[test]
fn a_field_that_swallows_records_is_noticed() {
    let table = table_of("text,label\na,x\n\"stray,x\nfine,y\nalso,x\nso he said \",z\nb,y\n").unwrap();
    assert_eq!(table.len(), 3);
    assert!(table.notices()[0].message.contains("record on line 3 holds lines that look like records"));
    let windows = "label,text\r\nx,\"stray\r\ny,fine\r\nx,also\r\nz,\"\r\nx,a\r\ny,b\r\n";
    assert!(table_of(windows).unwrap().notices()[0].message.contains("record on line 2"));
    for letter in [
        "text,label\n\"two\nlines, or\nthree\n\",x\n",
        "text,label\n\"Good evening.\n\nPlease cancel mine, if it can be done.\n\nMany thanks,\nÉva\",x\nno,y\n",
        "text,label\n\"Dear all,\nyes, x\nno, y\nthanks,\nÉva\",x\nno,y\n",
    ] {
        assert!(table_of(letter).unwrap().notices().is_empty(), "{letter}");
    }
}

#[test]
fn tab_separated_text_may_know_no_quoting() {
    let table = table_of("text\tlabel\n\"Hello , \" he said .\tx\n\" alone\ty\n").unwrap();
    assert_eq!(values(&table)[0][0], Some("\"Hello , \" he said ."));
    assert_eq!(lines(&table), [2, 3]);
    assert!(table.notices()[0].message.contains("plain characters"), "{:?}", table.notices());

    // Two quotes as tokens: read as quoting, they would swallow the records between them.
    let table = table_of("text\tlabel\n\"\tO\nhello\tB\n\nyou\tO\n\"\tO\nbye\tO\n").unwrap();
    assert_eq!(
        values(&table).iter().map(|row| row[0].unwrap()).collect::<Vec<_>>(),
        ["\"", "hello", "you", "\"", "bye"]
    );

    assert_eq!(table_of("text\tlabel\n\"\tO\n\"\tO\n").unwrap().len(), 2);

    // Here the quotes are meant, and the last record was cut off.
    let error = error_of("text\tlabel\n\"a\"\t\"x\"\n\"b\"\t\"y\n");
    assert_eq!(error.line, Some(3));
}

#[test]
fn ragged_records_are_named_with_both_numbers() {
    let error = error_of("text,label\na,x\n\nb,c,y\n");
    assert_eq!(error.line, Some(4));
    assert_eq!(
        error.message,
        "expected 2 fields as in the header (`text`, `label`), got 3: put double quotes around a field that \
         holds `,`"
    );
    let error = error_of("text;label;id\na;x;1\nb;y\n");
    assert_eq!(error.line, Some(3));
    assert!(error.message.contains("expected 3 fields") && error.message.contains("got 2"), "{error}");
    let error = error_of("text\nhello, world\n");
    assert!(error.message.contains("expected 1 field as"), "{error}");
}

#[test]
fn a_file_without_records_says_so() {
    for empty in ["", "\n\n", "  \r\n", "\u{feff}"] {
        let error = error_of(empty);
        assert!(error.message.starts_with("the file is empty"), "{empty:?}: {error}");
    }
    let error = error_of("\ntext,label\n\n");
    assert_eq!(error.line, Some(2));
    assert!(error.message.contains("(`text`, `label`), got none"), "{error}");
}

#[test]
fn every_column_has_a_name_of_its_own() {
    let error = error_of("text,label,text\na,x,b\n");
    assert!(error.message.contains("got `text` for columns 1 and 3"), "{error}");
    let error = error_of(",text,label\n0,a,x\n");
    assert!(
        error.message.contains("none for column 1 of 3") && error.message.contains("index=False"),
        "{error}"
    );
    let error = error_of("text;label;\na;x;\n");
    assert!(error.message.contains("none for column 3 of 3: name it, or remove the extra `;`"), "{error}");
}

#[test]
fn a_first_record_in_the_headers_place_is_noticed() {
    for text in [
        "I am still waiting on my card and it is late,card_arrival\nwhere is it,card_arrival\nwhy,fee\n",
        "good,pos\nbad,neg\nfine,pos\n",
        "where is it?,1\nwhy,0\n",
    ] {
        let table = table_of(text).unwrap();
        assert_eq!(table.notices().len(), 1, "{text}");
        assert!(table.notices()[0].message.contains("put a header above it"), "{:?}", table.notices());
    }
}

#[test]
fn the_asked_format_decides() {
    let bytes = "text,with,commas\tlabel\na\tx\n";
    let as_format = |format| table_as(bytes, &ReadOptions { format: Some(format), ..ReadOptions::default() });
    assert_eq!(as_format(Format::Tsv).unwrap().columns(), ["text,with,commas", "label"]);
    assert!(as_format(Format::Csv).is_err());
    assert!(as_format(Format::Jsonl).is_err());
    // The name decides nothing: these files are called data.csv.
    assert_eq!(table_of("{\"text\": \"a\"}\n").unwrap().format(), Format::Jsonl);
}

#[test]
fn a_huge_field_is_a_field() {
    let huge = "ü,\"\"\n".repeat(500_000);
    let table = table_of(format!("text,label\n\"{huge}\",x\nb,y\n")).unwrap();
    assert_eq!(row(&table, 0).get(0), Some(huge.replace("\"\"", "\"").as_str()));
    assert_eq!(lines(&table), [2, 500_003]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = Folder::new();
    let error = read_table(&folder.path().join("none.csv"), &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("none.csv: the file cannot be read: "), "{error}");
    let error = read_table(folder.path(), &ReadOptions::default()).unwrap_err();
    assert!(error.message.starts_with("the file cannot be read: "), "{error}");
}

#[test]
fn what_the_csv_crate_writes_comes_back() {
    let mut random = Random::new(3);
    let pieces = [
        "a", "\"", ",", ";", "|", "\t", "\n", "\r\n", "\r", " ", "é", "你好", "🦀", "", "{", "[", "1.5", "\\",
    ];
    for case in 0..400 {
        let width = 2 + random.below(4) as usize;
        let height = 1 + random.below(12) as usize;
        let mut field = || -> String {
            (0..random.below(6)).map(|_| pieces[random.below(pieces.len() as u64) as usize]).collect()
        };
        let rows: Vec<Vec<String>> = (0..height).map(|_| (0..width).map(|_| field()).collect()).collect();
        let header: Vec<String> = (0..width).map(|column| format!("c{column}")).collect();
        let (delimiter, format) = if case % 2 == 0 { (b',', Format::Csv) } else { (b'\t', Format::Tsv) };
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for row in std::iter::once(&header).chain(&rows) {
            // Counted apart from the reader: the line ends before the record, each as an editor sees it.
            let before = String::from_utf8_lossy(&bytes).replace("\r\n", "\n").replace('\r', "\n");
            starts.push(1 + before.matches('\n').count() as u64);
            let mut writer = csv::WriterBuilder::new();
            writer.delimiter(delimiter);
            if case % 3 == 0 {
                writer.quote_style(csv::QuoteStyle::Always).terminator(csv::Terminator::CRLF);
            }
            let mut writer = writer.from_writer(&mut bytes);
            writer.write_record(row).unwrap();
            writer.flush().unwrap();
        }
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        // Fields are noise here, so the delimiter could be anything: the format is given.
        let options = ReadOptions { format: Some(format), ..ReadOptions::default() };
        let table = table_as(&bytes, &options).unwrap_or_else(|error| panic!("{error}\n{shown}"));
        let read: Vec<Vec<String>> = table
            .rows()
            .map(|row| row.unwrap().values().map(|v| v.unwrap_or("missing").to_owned()).collect())
            .collect();
        assert_eq!(read, rows, "{shown}");
        assert_eq!(lines(&table), starts[1..], "{shown}");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = Random::new(11);
    let pieces: [&[u8]; 16] = [
        b"\"",
        b",",
        b";",
        b"\t",
        b"\n",
        b"\r",
        b"{",
        b"}",
        b"[",
        b":",
        b"\"a\"",
        b"null",
        b"\\",
        b"\xe9",
        b"\xff\xfe",
        b"x",
    ];
    let folder = Folder::new();
    for _ in 0..500 {
        let bytes: Vec<u8> =
            (0..random.below(24)).flat_map(|_| pieces[random.below(16) as usize].iter().copied()).collect();
        let path = folder.write("noise", &bytes);
        for format in [None, Some(Format::Csv), Some(Format::Tsv), Some(Format::Jsonl)] {
            for encoding in [None, Some("gbk"), Some("latin1"), Some("utf-16le")] {
                let options =
                    ReadOptions { format, encoding: encoding.map(str::to_owned), ..ReadOptions::default() };
                if let Ok(table) = read_table(&path, &options) {
                    assert!(!table.is_empty() && !table.columns().is_empty());
                }
            }
        }
    }
}

#[test]
fn nothing_is_said_of_the_sample() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/support");
    for file in ["train.csv", "test.csv"] {
        let table = read_table(&folder.join(file), &ReadOptions::default()).unwrap();
        assert!(table.notices().is_empty(), "{file}: {:?}", table.notices());
    }
}
