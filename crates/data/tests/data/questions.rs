//! Questions over texts: SQuAD's JSON, JSONL and tables.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use retune_data::{
    DataError, DataProfile, Example, Examples, Format, GoldAnswer, Keys, Label, LabelMap, LabelReading,
    QuestionColumns, Questions, ReadOptions, Strata, Table, Wanted, duplicate_groups, parse_table,
    read_tables,
};

use crate::files::Folder;

fn table(text: &str) -> Arc<Table> {
    Arc::new(parse_table(Path::new("file"), text, None).unwrap())
}

fn read(text: &str) -> Result<Questions, DataError> {
    let table = parse_table(Path::new("file"), text, None)?;
    QuestionColumns::choose(&table, &Wanted::default())?.answered(Arc::new(table))
}

fn example(questions: &Questions, row: usize) -> Example {
    questions.examples.get(row).unwrap().unwrap()
}

fn answers(questions: &Questions, row: usize) -> Vec<GoldAnswer> {
    let Some(Label::Answers(answers)) = example(questions, row).label else { return Vec::new() };
    answers
}

fn answer(text: &str, start: Option<usize>) -> GoldAnswer {
    GoldAnswer { text: text.into(), start }
}

const SQUAD: &str = r#"{"version": "v2.0", "data": [
  {"title": "Tea", "paragraphs": [
    {"context": "Tea came to Lišov in 1721. The first shop opened in 1730.", "qas": [
      {"id": "a1", "question": "When did tea come?", "is_impossible": false,
       "answers": [{"text": "1721", "answer_start": 21}, {"text": "in 1721", "answer_start": 18}]},
      {"id": "a2", "question": "Who drank it?", "is_impossible": true, "answers": [],
       "plausible_answers": [{"text": "Lišov", "answer_start": 12}]}]},
    {"context": "No tea here: 5 \"cups\".", "qas": [
      {"id": 7, "question": "How many\ncups?", "answers": [{"text": "5 \"cups\"", "answer_start": 0}]}]}]}]}
"#;

#[test]
fn squad_is_read_with_answers_found_and_repaired() {
    let table = table(SQUAD);
    assert_eq!(table.format(), Format::Squad);
    assert_eq!(table.columns(), ["id", "title", "context", "question", "answers", "is_impossible"]);
    let columns = QuestionColumns::choose(&table, &Wanted::default()).unwrap();
    assert_eq!(QuestionColumns::recognises(&table), Some("the file is SQuAD's JSON"));
    let questions = columns.answered(table.clone()).unwrap();
    assert_eq!(questions.examples.len(), 3);
    assert_eq!(answers(&questions, 0), [answer("1721", Some(22)), answer("in 1721", Some(19))]);
    assert_eq!(answers(&questions, 1), []);
    assert_eq!(answers(&questions, 2), [answer("5 \"cups\"", Some(13))]);
    assert_eq!(example(&questions, 2).pair.as_deref(), Some("How many\ncups?"));
    assert_eq!(questions.examples.iter().map(|example| example.unwrap().line).collect::<Vec<_>>(), [4, 6, 9]);
    let ids: Vec<String> = table.rows().map(|row| columns.id(&row.unwrap())).collect();
    assert_eq!(ids, ["a1", "a2", "7"]);
    let said: Vec<&str> = questions.notices.iter().map(|notice| notice.message.as_str()).collect();
    assert_eq!(
        said,
        [
            "1 of 3 questions has no answer in the text",
            "1 answer did not stand where the file says, and was found in the one place where it does: question `7` on line 9",
        ]
    );
}

#[test]
fn questions_in_tables_are_the_same_as_in_squad() {
    let context = "Tea came to Lišov in 1721. The first shop opened in 1730.";
    for text in [
        format!(
            "{{\"id\": \"x\", \"context\": \"{context}\", \"question\": \"When?\", \"answers\": {{\"text\": [\"1721\"], \
             \"answer_start\": [21]}}}}\n{{\"id\": \"y\", \"context\": \"{context}\", \"question\": \"Who?\", \"answers\": \
             {{\"text\": [], \"answer_start\": []}}}}\n"
        ),
        format!("question,passage,answer,answer_start\nWhen?,{context},1721,21\nWho?,{context},,\n"),
        format!("question,passage,answer\nWhen?,{context},1721\nWho?,{context},\n"),
        format!(
            "query\tdocument\tanswers\nWhen?\t{context}\t\"[{{\"\"text\"\": \"\"1721\"\", \"\"answer_start\"\": \
             3}}]\"\nWho?\t{context}\t[]\n"
        ),
    ] {
        let questions = read(&text).unwrap();
        assert_eq!(answers(&questions, 0), [answer("1721", Some(22))], "{text}");
        assert_eq!(answers(&questions, 1), [], "{text}");
        assert_eq!(example(&questions, 0).text, context);
    }
}

#[test]
fn what_cannot_be_repaired_is_counted_and_named() {
    let rows: String = (0..8)
        .map(|row| {
            let (answer, start) = [("tea", 3), ("coffee", 0)][row % 2];
            format!(
                "{{\"id\": \"q{row}\", \"context\": \"tea and tea\", \"question\": \"what?\", \"answers\": [{{\"text\": \
                 \"{answer}\", \"answer_start\": {start}}}]}}\n"
            )
        })
        .collect();
    let more = "{\"id\": \"z\", \"context\": \"tea\", \"question\": \"what?\", \"answers\": [\"milk\", \"water\", \"tea\"]}\n";
    let questions = read(&format!("{rows}{more}")).unwrap();
    assert_eq!(answers(&questions, 0), [answer("tea", None)]);
    let said: Vec<&str> = questions.notices.iter().map(|notice| notice.message.as_str()).collect();
    assert_eq!(
        said,
        [
            "6 answers stand nowhere in their contexts and are not learnt from: question `q1` on line 2, question `q3` on \
             line 4, question `q5` on line 6, question `q7` on line 8, question `z` on line 9 and 1 more",
            "4 answers do not stand where the file says and in several other places, and are not learnt from: question \
             `q0` on line 1, question `q2` on line 3, question `q4` on line 5, question `q6` on line 7",
        ]
    );
}

#[test]
fn files_that_are_wrong_are_told_with_their_place() {
    let one = |qa: &str| {
        format!(
            "{{\"data\": [{{\"title\": \"t\", \"paragraphs\": [{{\"context\": \"čaj\", \"qas\": [\n{qa}\n]}}]}}]}}"
        )
    };
    for (text, words) in [
        (
            SQUAD.replace("\"answers\": [],", "\"answers\": [{\"text\": \"Lišov\", \"answer_start\": 12}],"),
            "file: line 6: column `answers`: expected no answer where `is_impossible` is true, got `Lišov`",
        ),
        (SQUAD[..300].to_owned(), "the file ends before its JSON does"),
        (
            one(r#"{"id": "a", "question": 5, "answers": []}"#),
            "file: line 2, column 25: expected SQuAD's JSON, got an error: invalid type: integer `5`, expected a string",
        ),
        (
            one(r#"{"id": ["č"], "question": "?", "answers": []}"#),
            "file: line 2: `id`: expected a string, got an array",
        ),
        (one(r#"{"question": "?", "answers": []}"#), "missing field `id`"),
        (one(r#"{"id": "a", "id": "b", "question": "?", "answers": []}"#), "duplicate field `id`"),
        (
            one(r#"{"id": "a", "question": " ", "answers": []}"#),
            "file: expected a text, a question and its answers in every row, but 1 row has nothing in column `question` (line 2)",
        ),
        (one(r#"{"id": "a", "question": "?"}"#), "1 row has nothing in column `answers` (line 2)"),
        (
            one(r#"{"id": "a", "question": "?", "answers": 5}"#),
            "invalid type: integer `5`, expected a sequence",
        ),
        (
            one(r#"{"id": "a", "question": "?", "answers": [{"text": 5}]}"#),
            "expected the text of an answer, got `5`",
        ),
        (one(""), "expected questions in `data`, `paragraphs`, `qas`, got none"),
        ("{\"data\": {\"paragraphs\": []}}".to_owned(), "invalid type: map, expected a sequence"),
        (
            "question,answer\nwhy?,so\n".to_owned(),
            "no column stands out as the context: give --text-column with one of `question`, `answer`",
        ),
        ("context,answer\nwhy?,so\n".to_owned(), "no column stands out as the question: give --pair-column"),
        (
            "context,question\nwhy?,so\n".to_owned(),
            "no column stands out as the answers: give --label-column",
        ),
        (
            "context,question,answer,answer_start\na b,?,b,two\n".to_owned(),
            "file: line 2: column `answer`: expected the number of the character",
        ),
        (
            "context,question,answer,is_impossible\na b,?,b,False\na b,?,,yes\n".to_owned(),
            "file: line 3: column `is_impossible`: expected true or false, got `yes`",
        ),
        (
            "{\"context\": \"a [1]\", \"question\": \"?\", \"answers\": [1]}\n".to_owned(),
            "file: line 1: column `answers`: expected the text of an answer, got `1`",
        ),
    ] {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(words), "{error}\nexpected {words}");
    }
}

/// Longer than what is read of a file at a time, with articles and other keys that lie across the parts.
#[test]
fn a_long_document_is_read_article_by_article() {
    let context = |number: usize| format!("{number} čaj {}", "a long text ".repeat(number % 977));
    let article = |number: usize| {
        format!(
            "{{\"title\": \"t{number}\",\r\n\"paragraphs\": [{{\"context\": \"{}\", \"qas\": [\n{{\"id\": {number}, \
             \"question\": \"what?\",\n\"answers\": [{{\"text\": \"čaj\", \"answer_start\": 9}}]}}]}}]}}",
            context(number)
        )
    };
    let articles = (0..800).map(article).collect::<Vec<_>>().join(",\n");
    let long = "x".repeat(1 << 20);
    let document = |last: &str| {
        format!(
            "{{\"version\": 1.1, \"note\": [],\n\"data\": [\n{articles}{last}], \"more\": [\"{long}\"]}}\n"
        )
    };
    let questions = read(&document("")).unwrap();
    assert_eq!(questions.examples.len(), 800);
    for (number, example) in questions.examples.iter().enumerate() {
        let example = example.unwrap();
        assert_eq!((example.text, example.line), (context(number), 5 + 4 * number as u64));
    }
    for (last, words) in [
        (
            ", {\"title\": 5}",
            "line 3202, column 65: expected SQuAD's JSON, got an error: invalid type: integer `5`",
        ),
        (",\n", "line 3203, column 1: expected SQuAD's JSON, got an error: trailing comma"),
        (
            ",\n{\"paragraphs\": [{\"context\": \"čaj\", \"qas\": [{\"id\": null, \"question\": \"\"}]}]}",
            "line 3203: `id`: expected a string, got null",
        ),
        ("], \"data\": [", "duplicate field `data`"),
        ("]}\n{", "trailing characters"),
    ] {
        let error = read(&document(last)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}\nexpected {words}");
    }
    let cut = document("");
    let error = read(&cut[..cut.len() - 300]).unwrap_err().to_string();
    assert!(error.contains("the file ends before its JSON does"), "{error}");
}

#[test]
fn texts_stay_whole_when_rows_are_held_back() {
    let questions = read(SQUAD).unwrap();
    assert_eq!(duplicate_groups(&questions.examples).unwrap(), [0, 0, 2]);
    let table = table(SQUAD);
    let columns =
        retune_data::choose_columns(&table, Some("context"), Some("answers"), Some("question")).unwrap();
    let labels = LabelMap::from_examples(&questions.examples, &table, &columns).unwrap();
    assert_eq!(labels.names(), ["start", "end"]);
    let strata = Strata::of(&questions.examples, &labels, Path::new("file")).unwrap();
    assert_eq!((strata.of_row, strata.count), (vec![0, 1, 0], 2));
}

#[test]
fn columns_may_be_named() {
    let table = table("a,b,c\nwhy?,because of it,it\n");
    let named =
        Wanted { text: Some("b".into()), label: Some("c".into()), pair: Some("a".into()), separator: None };
    let questions = QuestionColumns::choose(&table, &named).unwrap().answered(table.clone()).unwrap();
    assert_eq!(answers(&questions, 0), [answer("it", Some(11))]);
    for (text, expected) in [
        ("a,b,c\nwhy?,because of it,it\n", false),
        ("\"question\";\"Context\";\"answer\"\na;b;c\n", true),
        ("question,sentence,label\na,b,c\n", false),
        ("[{\"context\": \"question\",\n \"question\": \"a\", \"answers\": []}]\n", true),
        ("{\"context\": \"question\", \"question\": \"a\", \"answers\": []}\n", true),
        ("{\"text\": \"context question answers\"}\n", false),
    ] {
        assert_eq!(QuestionColumns::recognises(&self::table(text)).is_some(), expected, "{text}");
    }
    let error = QuestionColumns::choose(&table, &Wanted { pair: Some("d".into()), ..named }).unwrap_err();
    assert!(error.to_string().contains("no column `d` for the question"), "{error}");
}

/// Of several files the one is named in which something is.
#[test]
fn places_are_told_with_their_file() {
    let folder = Folder::new();
    let header = "context,question,answer\n";
    let read = |first: &str, second: &str| {
        let files = [("a.csv", first), ("b.csv", second)];
        let named = files.map(|(name, rows)| folder.write(name, format!("{header}{rows}")));
        let table = Arc::new(read_tables(&named, &ReadOptions::default()).unwrap());
        QuestionColumns::choose(&table, &Wanted::default()).unwrap().answered(table)
    };
    let place = |name: &str| folder.path().join(name).display().to_string();
    let error = read("tea,?,tea\n", "tea,?,tea\n ,?,tea\n").unwrap_err();
    assert_eq!(error.path, Some(folder.path().join("b.csv")));
    assert!(error.to_string().contains("nothing in column `context` (line 3): "), "{error}");
    let error = read("tea,?,tea\n,?,a\n,?,b\n", "tea,,tea\n ,?,tea\n").unwrap_err().to_string();
    let words = format!(
        "3 rows have nothing in column `context` (lines 3, 4 of {}, line 3 of {})",
        place("a.csv"),
        place("b.csv")
    );
    assert!(
        error.starts_with(&format!("{} and 1 more file: ", place("a.csv"))) && error.contains(&words),
        "{error}"
    );
    let questions = read("tea,?,tea\n", "tea,?,milk\ntea,?,tea\n").unwrap();
    let said = &questions.notices[0].message;
    assert!(said.ends_with(&format!("question `1` on line 2 of {}", place("b.csv"))), "{said}");
    assert_eq!(questions.examples.file_of(&example(&questions, 2)), Some(&*folder.path().join("b.csv")));
}

#[test]
fn texts_with_labels_are_placed_the_same_way() {
    let folder = Folder::new();
    let read = |first: &str, second: &str| {
        let files = [("a.csv", first), ("b.csv", second)];
        let named = files.map(|(name, rows)| folder.write(name, format!("text,label\n{rows}")));
        let table = Arc::new(read_tables(&named, &ReadOptions::default()).unwrap());
        let columns = retune_data::choose_columns(&table, None, None, None).unwrap();
        Examples::labelled(table, &columns, &LabelReading::default())
    };
    let error = read("tea,x\n", "milk,y\nwater,\n").unwrap_err();
    assert_eq!(error.path, Some(folder.path().join("b.csv")));
    let rows = read("tea,x\nmilk,y\n", "milk,x\ncoffee,z\n").unwrap();
    let profile = DataProfile::new(&rows, &Keys::of(&rows).unwrap(), None).unwrap();
    let files = ["a.csv", "b.csv"].map(|name| folder.path().join(name).display().to_string());
    let words = format!("such as on line 3 of {}, line 2 of {}: ", files[0], files[1]);
    assert!(profile.lines().iter().any(|line| line.contains(&words)), "{:?}", profile.lines());
    // The label of each file is where it is.
    let error =
        LabelMap::new(vec!["x".into()]).unwrap().encode(&rows, Path::new("all")).unwrap_err().to_string();
    assert!(
        error.starts_with(&files[0])
            && error.contains(&format!("`z` (1 row, first on line 3 of {}", files[1])),
        "{error}"
    );
}
