//! Questions over texts: SQuAD's JSON, JSONL and tables.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;

use retune_data::{
    DataError, Format, GoldAnswer, Label, LabelMap, QuestionColumns, Questions, Strata, Table, Wanted,
    duplicate_groups, looks_like_questions, parse_table,
};

fn table(text: &str) -> Table {
    parse_table(Path::new("file"), text, None).unwrap()
}

fn read(text: &str) -> Result<Questions, DataError> {
    let table = parse_table(Path::new("file"), text, None)?;
    QuestionColumns::choose(&table, &Wanted::default())?.answered(&table)
}

fn answers(questions: &Questions, row: usize) -> Vec<GoldAnswer> {
    let Some(Label::Answers(answers)) = &questions.examples[row].label else { return Vec::new() };
    answers.clone()
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
    assert_eq!(looks_like_questions(SQUAD), Some("the file is SQuAD's JSON"));
    let questions = columns.answered(&table).unwrap();
    assert_eq!(questions.examples.len(), 3);
    assert_eq!(answers(&questions, 0), [answer("1721", Some(22)), answer("in 1721", Some(19))]);
    assert_eq!(answers(&questions, 1), []);
    assert_eq!(answers(&questions, 2), [answer("5 \"cups\"", Some(13))]);
    assert_eq!(questions.examples[2].pair.as_deref(), Some("How many\ncups?"));
    assert_eq!(questions.examples.iter().map(|example| example.line).collect::<Vec<_>>(), [4, 6, 9]);
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
        assert_eq!(questions.examples[0].text, context);
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
            "file: 1 row has nothing in column `question` (line 2)",
        ),
        (one(r#"{"id": "a", "question": "?"}"#), "file: 1 row has nothing in column `answers` (line 2)"),
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
    ] {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(words), "{error}\nexpected {words}");
    }
}

#[test]
fn texts_stay_whole_when_rows_are_held_back() {
    let questions = read(SQUAD).unwrap();
    assert_eq!(duplicate_groups(&questions.examples.clone().into()).unwrap(), [0, 0, 2]);
    let table = table(SQUAD);
    let columns =
        retune_data::choose_columns(&table, Some("context"), Some("answers"), Some("question")).unwrap();
    let labels = LabelMap::from_examples(&questions.examples.clone().into(), &table, &columns).unwrap();
    assert_eq!(labels.names(), ["start", "end"]);
    let strata = Strata::of(&questions.examples.into(), &labels, Path::new("file")).unwrap();
    assert_eq!((strata.of_row, strata.count), (vec![0, 1, 0], 2));
}

#[test]
fn columns_may_be_named() {
    let table = table("a,b,c\nwhy?,because of it,it\n");
    let named =
        Wanted { text: Some("b".into()), label: Some("c".into()), pair: Some("a".into()), separator: None };
    let questions = QuestionColumns::choose(&table, &named).unwrap().answered(&table).unwrap();
    assert_eq!(answers(&questions, 0), [answer("it", Some(11))]);
    for (beginning, expected) in [
        ("a,b,c\nwhy?,because of it,it\n", false),
        ("\"question\";\"Context\";\"answer\"\n", true),
        ("question,sentence,label\n", false),
        ("{\"context\": \"question\", \"question\": \"a\", \"answers\": []}\n", true),
        ("{\"text\": \"context question answers\"}\n", false),
    ] {
        assert_eq!(looks_like_questions(beginning).is_some(), expected, "{beginning}");
    }
    let error = QuestionColumns::choose(&table, &Wanted { pair: Some("d".into()), ..named }).unwrap_err();
    assert!(error.to_string().contains("no column `d` for the question"), "{error}");
}
