//! Words with tags and texts with spans: what is read of them, and where it is wrong.

use std::sync::Arc;

use retune_data::{
    DataError, Example, Label, ReadOptions, SentenceColumns, Sentences, TagScheme, Wanted, read_tables,
};

use crate::files::Folder;

/// The sentences in files of these names and texts.
fn sentences(
    files: &[(&str, &str)],
    asked: Option<TagScheme>,
    trained: Option<TagScheme>,
) -> Result<Sentences, DataError> {
    let folder = Folder::new();
    let named: Vec<_> = files.iter().map(|(name, text)| folder.write(name, text)).collect();
    let table = Arc::new(read_tables(&named, &ReadOptions::default())?);
    SentenceColumns::choose(&table, &Wanted::default())?.tagged(table, asked, trained)
}

fn tags(sentences: &Sentences) -> Vec<String> {
    let of = |label: &Option<Label>| match label {
        Some(Label::Words(words)) => {
            words.iter().map(|word| word.tag.as_deref().unwrap_or("?")).collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    };
    let told = |example: Result<_, DataError>| {
        example.map_or_else(|error| error.to_string(), |example: Example| of(&example.label))
    };
    sentences.examples.iter().map(told).collect()
}

#[test]
fn a_row_without_a_text_or_without_entities_is_no_row_of_none() {
    let first = "{\"text\": \"EU\", \"entities\": [[0, 2, \"org\"]]}\n";
    let read = |row: &str| sentences(&[("rows.jsonl", &format!("{first}{row}\n"))], None, None);
    for (row, words) in [
        (
            r#"{"text": "UN law"}"#,
            "column `entities`: expected a list of entities, got nothing: write [] where",
        ),
        (
            r#"{"text": "UN", "entities": null}"#,
            "column `entities`: expected a list of entities, got nothing",
        ),
        (r#"{"text": "UN", "entities": " "}"#, "column `entities`: expected a list of entities, got nothing"),
        (r#"{"entities": []}"#, "column `text`: expected a text, got nothing: fill it in"),
        (r#"{"text": null, "entities": []}"#, "column `text`: expected a text, got nothing"),
        (
            r#"{"text": {"a":1}, "entities": []}"#,
            "column `text`: expected a text, got `{\"a\":1}`: write it as a",
        ),
        (r#"{"text": 7, "entities": []}"#, "column `text`: expected a text, got `7`"),
    ] {
        let error = read(row).unwrap_err();
        assert!(error.message.contains(words), "{row}: {error}");
        assert_eq!(error.line, Some(2), "{row}");
        assert!(error.path.unwrap().ends_with("rows.jsonl"));
    }
    assert_eq!(tags(&read(r#"{"text": "UN law", "entities": []}"#).unwrap()), ["B-org", "O O"]);
    let lists = "{\"tokens\": [\"EU\"], \"tags\": [\"O\"]}\n{\"tags\": []}\n";
    let error = sentences(&[("rows.jsonl", lists)], None, None).unwrap_err();
    assert!(
        error.to_string().contains("line 2: column `tokens`: expected a list of words, got nothing"),
        "{error}"
    );
}

#[test]
fn tags_of_two_schemes_are_told_where_the_second_begins() {
    let files = [("a.conll", "EU\tB-org\nUN\tI-org\n"), ("b.conll", "a\tO\n\nit\tO\nlaw\tM-org\n")];
    let error = sentences(&files, None, None).unwrap_err();
    assert_eq!(error.line, Some(4));
    assert!(error.path.as_ref().unwrap().ends_with("b.conll"), "{error}");
    let words = "expected tags of one scheme, got the prefixes `I`, `M`, the second first for the word `law`";
    assert!(error.message.contains(words), "{error}");
}

#[test]
fn a_scheme_that_is_asked_for_is_held_to() {
    use TagScheme::{Bioes, Bmes, Iob2};
    let bmes = "EU\tB-org\nUN\tM-org\nit\tE-org\n";
    for (asked, text, line, got) in [
        (
            Iob2,
            bmes,
            2,
            "expected tags of iob2, as --tag-scheme says, whose prefixes are O and BI, got `M-org`",
        ),
        (Bioes, "EU\tB-org\n\nUN\tB-org\nit\tM-org\nlaw\tI-org\n", 4, "got `M-org` for the word `it`"),
    ] {
        let error = sentences(&[("rows.conll", text)], Some(asked), None).unwrap_err();
        assert_eq!(error.line, Some(line));
        assert!(error.message.contains(got), "{error}");
    }
    let read = |text, asked, trained| tags(&sentences(&[("rows", text)], asked, trained).unwrap());
    assert_eq!(read(bmes, Some(Bmes), None), ["B-org I-org E-org"]);
    // Spans become tags of that scheme, and else of the model's.
    let spans = "{\"text\": \"EU law UN\", \"entities\": [[0, 6, \"x\"], [7, 9, \"x\"]]}\n";
    assert_eq!(read(spans, None, None), ["B-x I-x B-x"]);
    assert_eq!(read(spans, Some(Bioes), None), ["B-x E-x S-x"]);
    assert_eq!(read(spans, None, Some(Bmes)), ["B-x E-x S-x"]);
    // Tags without ends are those of a file that breaks the model's scheme, unless somebody says that they are of another.
    let iob2 = "EU\tB-x\nlaw\tI-x\nUN\tB-x\n";
    assert_eq!(read(iob2, None, Some(Bioes)), ["B-x I-x B-x"]);
    assert_eq!(read(iob2, Some(Iob2), Some(Bioes)), ["B-x E-x S-x"]);
}

#[test]
fn what_spans_lose_is_told_of_each_file() {
    let rows = "{\"text\": \"foobar baz\", \"entities\": [[3, 6, \"x\"], [7, 10, \"x\"]]}\n";
    let said = |files: &[(&str, &str)]| -> Vec<String> {
        sentences(files, None, None).unwrap().notices.iter().map(ToString::to_string).collect()
    };
    let words = "1 of 2 entities begin or end inside a word, and are taken for whole words (line 1)";
    assert_eq!(said(&[("a.jsonl", rows)]), [words]);
    let said = said(&[("a.jsonl", rows), ("b.jsonl", rows)]);
    assert!(
        said.len() == 2 && said.iter().all(|said| said.ends_with(&format!(".jsonl: {words}"))),
        "{said:?}"
    );
}

#[test]
fn what_stands_in_a_tag_is_found() {
    let separator = |text| sentences(&[("rows.conll", text)], None, None).unwrap().separator;
    assert_eq!([separator("a\tO\nb\tB_x\n"), separator("a\tB-x\n")], ['_', '-']);
}
