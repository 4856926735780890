//! JSON lines, well and badly formed.

use crate::files::{lines, row, rows, table_of, values};
use retune_data::{DataError, Format};

fn error_of(text: &str) -> DataError {
    table_of(text).expect_err("a file that should not be read")
}

#[test]
fn what_is_no_text_is_known() {
    let table = crate::files::table_of("{\"a\": \"1\", \"b\": 1}\n{\"b\": [\"é\"], \"a\": null}\n").unwrap();
    let found: Vec<_> =
        rows(&table).flat_map(|row| [row.is_json(0), row.is_json(1), row.is_json(2)]).collect();
    assert_eq!(found, [false, true, false, false, true, false]);
}

#[test]
fn values_are_taken_as_written() {
    let table = table_of(concat!(
        "\u{feff}\r\n",
        r#"{"text": "a \"b\"\n\u00e9\ud83e\udd80", "label": 1.50, "extra": null}"#,
        "\r\n\n",
        r#"{"label": true, "text": "", "meta": {"k": [1, {"x": "}"}]}}"#,
        "\n",
        r#"{"text": "日本", "id": 12345678901234567890123, "label": -1e400, "meta": [ ]}"#,
    ))
    .unwrap();
    assert_eq!(table.format(), Format::Jsonl);
    assert_eq!(table.columns(), ["text", "label", "extra", "meta", "id"]);
    assert_eq!(
        values(&table),
        [
            [Some("a \"b\"\né🦀"), Some("1.50"), None, None, None],
            [Some(""), Some("true"), None, Some(r#"{"k": [1, {"x": "}"}]}"#), None],
            [Some("日本"), Some("-1e400"), None, Some("[ ]"), Some("12345678901234567890123")],
        ]
    );
    assert_eq!(lines(&table), [2, 4, 5]);
}

#[test]
fn syntax_errors_have_a_line_and_a_column() {
    let error = error_of("{\"text\": \"a\"}\n\n{\"text\": \"é\" \"label\": 1}\n");
    assert_eq!((error.line, error.column), (Some(3), Some(14)), "{error}");
    assert!(error.to_string().contains("line 3, column 14: expected a JSON object"), "{error}");

    let error = error_of("{\"text\": \"a\"} x\n");
    assert_eq!((error.line, error.column), (Some(1), Some(15)), "{error}");

    // A lone surrogate is found when the string is read, and its column is still the line's.
    let error = error_of("{\"text\": \"a\", \"label\": \"\\ud800!\"}\n");
    assert_eq!(error.line, Some(1));
    assert!(error.column.is_some_and(|column| (24..=33).contains(&column)), "{error}");

    let error = error_of("{\n  \"text\": \"a\"\n}\n");
    assert_eq!(error.line, Some(1));
    assert!(error.message.contains("an object must begin and end on one line"), "{error}");

    let error = error_of("{\"a\": 1}\n{\"a\": NaN}\n");
    assert_eq!(error.line, Some(2));
}

#[test]
fn every_line_is_an_object() {
    for (line, what) in [
        ("[1, 2]", "an array"),
        ("\"text\"", "a string"),
        ("-3", "a number"),
        ("true", "a boolean"),
        ("null", "null"),
        ("text,label", "text that is not JSON"),
    ] {
        let error = error_of(&format!("{{\"a\": 1}}\n{line}\n"));
        assert_eq!(error.line, Some(2));
        assert!(error.message.contains(&format!("got {what}: ")), "{error}");
    }
}

#[test]
fn a_key_comes_once() {
    let error = error_of("{\"a\": 1, \"b\": 2}\n{\"a\": null, \"b\": 2, \"\\u0061\": 3}\n");
    assert_eq!(error.line, Some(2));
    assert!(error.message.contains("got `a` twice"), "{error}");
}

#[test]
fn objects_without_keys_are_no_table() {
    assert!(error_of("{}\n{}\n").message.contains("only empty ones"));
}

#[test]
fn a_key_of_its_own_in_every_row_costs_no_square() {
    let text: String = (0..50_000).map(|row| format!("{{\"k{row}\": {row}}}\n")).collect();
    let table = table_of(text).unwrap();
    assert_eq!(table.columns().len(), 50_000);
    let last = row(&table, 49_999);
    assert_eq!((last.get(49_999), last.get(0)), (Some("49999"), None));
}

#[test]
fn deep_nesting_is_kept_or_refused_but_never_overflows() {
    let deep = format!("{{\"a\": {}{}}}\n", "[".repeat(200_000), "]".repeat(200_000));
    if let Ok(table) = table_of(&deep) {
        assert_eq!(row(&table, 0).get(0).map(str::len), Some(400_000));
    }
    assert!(table_of(format!("{{\"a\": {}", "[".repeat(200_000))).is_err());
}
