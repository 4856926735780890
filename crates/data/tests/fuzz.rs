//! Tables that break in every way: they are read or refused with words, all the way to numbered labels and statistics.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at the first surprise")]

#[path = "../../../tests/fuzz/mod.rs"]
mod fuzz;

use std::path::Path;
use std::sync::Arc;

use fuzz::{Input, Target};
use retune_data::{
    Columns, DataProfile, Examples, Format, Keys, Label, LabelMap, LabelReading, ProblemType,
    QuestionColumns, ReadOptions, Table, Wanted, choose_columns, duplicate_groups, labelled_examples,
    parse_table, read_table, stratified_sample, stratified_split, unlabelled_examples,
};

const WORDS: [&str; 22] = [
    "\"",
    "\"\"",
    "\r\n",
    "\r",
    "\t",
    ";",
    "|",
    ",",
    "text",
    "label",
    "sentence1,sentence2,label\n",
    "[\"a\",\"b\"]",
    "[]",
    "NaN",
    "inf",
    "1e39",
    "\u{feff}",
    "\u{0}",
    "\u{2028}",
    "İ",
    "\\u0000",
    "\\ud800",
];

fn seeds(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

const CSV: [&str; 7] = [
    "text,label\nwhere is my card,card\n\"it said \"\"no\"\", twice\",pay\n转账 失败,转账\nwhere is my card,pay\n",
    "sentence1,sentence2,score\na man sleeps,a man is asleep,4.5\nx,y,-0.25\nx,y,1e3\nü,é,3\n",
    "id;question;intent\r\n1;\"two\r\nlines\";a\r\n2;x;b\r\n3;;a\r\n",
    "review,labels\ngood,\"[\"\"a\"\", \"\"b\"\"]\"\nbad,[]\nso so,\"[\"\"b\"\"]\"\n",
    "text,tags\na b,x|y\nb c,\nc d,y| z |y\n",
    "only one column\nand a row\n",
    "a,b,c,d\n1,2,3,4\n5,6,7,8\n",
];
const TSV: [&str; 2] = [
    "premise\thypothesis\tlabel\nit rains\tit is wet\tyes\n\"quoted\tstill\"\tx\tno\n",
    "text\tlabel\na \"b\" c\t0\n'\t1\nz\t0\n",
];
const JSONL: [&str; 5] = [
    "{\"text\": \"where\", \"label\": \"card\"}\n{\"label\": \"pay\", \"text\": \"it \\\"said\\\" \\u8f6c\"}\n",
    "{\"text\": \"a\", \"labels\": [\"x\", \"y\"]}\n{\"text\": \"b\", \"labels\": []}\n\n{\"text\": \"c\", \"labels\": null}\n",
    "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"score\": 0.5}\r\n{\"sentence1\": \"c\", \"sentence2\": \"d\", \"score\": -1e-3}\r\n",
    "{\"text\": {\"nested\": [1, 2]}, \"label\": true}\n{\"text\": 12345678901234567890123, \"label\": false, \"more\": null}\n",
    "{\"text\":\"\\ud83d\\ude00\",\"label\":0}\n{\"text\":\"b\",\"label\":1}",
];

/// All that is done with a table before a model is asked.
fn use_table(table: &Table, input: &mut Input<'_>) {
    assert!(!table.is_empty() && !table.columns().is_empty());
    let mut last = 0;
    for (index, row) in table.rows().enumerate() {
        let row = row.unwrap();
        assert!(row.index() == index && row.line() >= last);
        last = row.line();
        assert_eq!(row.values().count(), table.columns().len());
    }
    table.notices().iter().for_each(|notice| drop(format!("{notice:?}")));
    let names = table.columns();
    let any = names.get(input.random.below(names.len())).cloned();
    let (text, label) = match input.random.below(4) {
        0 => (any.as_deref(), None),
        1 => (None, any.as_deref()),
        _ => (None, None),
    };
    let Ok(columns) = choose_columns(table, text, label, None) else { return };
    assert!(columns.why().all(|why| !why.is_empty()));
    assert_eq!(unlabelled_examples(table, &columns).unwrap().len(), table.len());
    let separator = ["", ",", "|", " ", "é"].get(input.random.below(8)).map(ToString::to_string);
    let found = ProblemType::of_column(table, &columns, separator.as_deref()).map(|found| found.problem_type);
    let all = [ProblemType::SingleLabel, ProblemType::MultiLabel, ProblemType::Regression];
    let asked = all.get(input.random.below(6)).copied();
    let Some(problem_type) = asked.or(found.ok()) else { return };
    use_labels(table, &columns, &LabelReading { problem_type, separator }, input);
}

fn use_labels(table: &Table, columns: &Columns, reading: &LabelReading, input: &mut Input<'_>) {
    let Ok(all) = labelled_examples(table, columns, reading) else { return };
    assert_eq!(all.len(), table.len());
    let lengths: Vec<u32> = all.iter().map(|example| example.text.len() as u32).collect();
    let examples: Examples = all.into();
    let keys = Keys::of(&examples).unwrap();
    let Ok(labels) = LabelMap::from_examples(&examples, table, columns) else { return };
    drop(labels.notices());
    let groups = keys.groups();
    let fraction = [0.1, 0.5, 0.999, f64::MIN_POSITIVE, 0.0, f64::NAN][input.random.below(6)];
    let strata = labels.encode(&examples, table.path());
    let (strata, classes) = match &strata {
        Ok(classes) => (classes.clone(), labels.len()),
        Err(_) => (vec![0; examples.len()], 1),
    };
    assert!(strata.iter().all(|class| (*class as usize) < classes));
    if let Ok(split) = stratified_split(&strata, &groups, classes, fraction, input.random.next()) {
        assert_eq!(split.train.len() + split.eval.len(), examples.len());
    }
    let wanted = input.random.below(9);
    if let Ok(sample) = stratified_sample(&strata, classes, wanted, 1) {
        assert!(sample.len() <= examples.len());
    }
    if let Ok(rows) = labels.encode_many(&examples, table.path()) {
        assert!(rows.iter().flatten().all(|label| *label < labels.len()));
    }
    let profile = DataProfile::new(&examples, &keys, Some(&labels)).unwrap();
    let profile = profile.with_lengths(lengths, wanted).unwrap();
    let all: Vec<u32> = (0..examples.len() as u32).collect();
    let (left, right) = all.split_at(all.len() / 2);
    assert!(
        profile.with_eval(&keys.pick(left), &keys.pick(right)).lines().iter().all(|line| !line.is_empty())
    );
}

fn fuzz_text(name: &str, cost: u64, seeds: Vec<Vec<u8>>, format: Option<Format>) {
    Target { name, cost, seeds, dictionary: &WORDS }.run(|input| {
        let text = input.text().into_owned();
        match parse_table(Path::new("表.csv"), &text, format) {
            Ok(table) => use_table(&table, input),
            Err(error) => assert!(error.to_string().starts_with("表.csv: "), "{error}"),
        }
    });
}

#[test]
fn csv() {
    fuzz_text("csv", 1, seeds(&CSV), Some(Format::Csv));
}

#[test]
fn tsv() {
    fuzz_text("tsv", 1, seeds(&TSV), Some(Format::Tsv));
}

#[test]
fn jsonl() {
    fuzz_text("jsonl", 1, seeds(&JSONL), Some(Format::Jsonl));
}

#[test]
fn any_table() {
    fuzz_text("any-table", 1, seeds(&[&CSV[..], &TSV, &JSONL].concat()), None);
}

#[test]
fn encodings() {
    let wide = |bytes: fn(u16) -> [u8; 2]| CSV[0].encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let seeds = vec![
        CSV[0].as_bytes().to_vec(),
        [&b"\xef\xbb\xbf"[..], CSV[2].as_bytes()].concat(),
        [&b"\xff\xfe"[..], &wide(u16::to_le_bytes)].concat(),
        [&b"\xfe\xff"[..], &wide(u16::to_be_bytes)].concat(),
        // GBK, Latin 1, Shift JIS.
        b"text,label\n\xd7\xaa\xd5\xcb,a\nx,b\n".to_vec(),
        b"text;label\ncaf\xe9;a\n\xfcber;b\n".to_vec(),
        b"text,label\n\x93\xfa\x96{,a\nx,b\n".to_vec(),
    ];
    let dictionary = ["\u{feff}", "\u{fffd}", "\u{0}", "\n", ",", "é", "转"];
    let folder = fuzz::folder();
    let path = folder.path().join("t");
    Target { name: "encodings", cost: 4, seeds, dictionary: &dictionary }.run(|input| {
        let names = ["gbk", "latin1", "shift_jis", "utf-16", "utf-16be", "iso-2022-jp", "big5", "utf-7", "é"];
        let encoding = names.get(input.random.below(12)).map(ToString::to_string);
        fuzz::write(&path, input.bytes);
        match read_table(&path, &ReadOptions { encoding, ..ReadOptions::default() }) {
            Ok(table) => use_table(&table, input),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

#[test]
fn label_lists() {
    let all = [
        "[\"a\", \"b\"]",
        "[]",
        "a|b||c",
        "[1, 2.5, true]",
        "[\"\\u8f6c\", null]",
        "3.5",
        "-1e-7",
        "x;[y];z",
        " ",
    ];
    let dictionary = ["[", "]", "\"", "|", ";", ",", "null", "nan", "inf", "\\u0000", "\u{a0}", "[[", "é"];
    Target { name: "label-lists", cost: 1, seeds: seeds(&all), dictionary: &dictionary }.run(|input| {
        // Two rows of one label column: what a spreadsheet or a JSON file would bring.
        let cell = input.text().replace('\0', "").replace('"', "\"\"");
        let text = format!("text,label\na,\"{cell}\"\nb,\"[]\"\nc,\"{cell}\"\n");
        let table = parse_table(Path::new("l.csv"), &text, Some(Format::Csv)).unwrap();
        let columns = choose_columns(&table, Some("text"), Some("label"), None).unwrap();
        for problem_type in [ProblemType::SingleLabel, ProblemType::MultiLabel, ProblemType::Regression] {
            let separator =
                ["|", ";", ",", " ", "[", "\u{a0}"].get(input.random.below(9)).map(ToString::to_string);
            let _ = ProblemType::of_column(&table, &columns, separator.as_deref());
            use_labels(&table, &columns, &LabelReading { problem_type, separator }, input);
        }
    });
}

const SQUAD: [&str; 3] = [
    "{\"version\": \"1.1\", \"data\": [{\"title\": \"t\", \"paragraphs\": [{\"context\": \"tea čaj tea\", \"qas\": [{\"id\": \
     \"a\", \"question\": \"what?\", \"answers\": [{\"text\": \"čaj\", \"answer_start\": 4}]}, {\"id\": 2, \"question\": \"who\", \
     \"answers\": [], \"is_impossible\": true}]}]}]}",
    "{\n \"data\": [\n  {\"paragraphs\": [\n   {\"context\": \"北京是首都\",\n    \"qas\": [\n     {\"id\": \"\\u8f6c\", \"question\": \"哪\", \
     \"answers\": [\n      {\"text\": \"首都\", \"answer_start\": 0}]}]}]}]}\n",
    "{\"data\":[{\"paragraphs\":[]},{\"paragraphs\":[{\"context\":\"\",\"qas\":[{\"id\":\"\",\"question\":\"\"}]}]}]}",
];
const QUESTIONS: [&str; 4] = [
    "{\"id\": \"x\", \"context\": \"a b a\", \"question\": \"?\", \"answers\": {\"text\": [\"a\", \"b\"], \"answer_start\": [0, 3]}}\n",
    "context,question,answer,answer_start\na b,?,b,2\na b,?,,\nč b,?,b,1.0\n",
    "passage\tquestion\tanswers\nč b\t?\t[\"\"b\"\"]\na\tb\t[]\n",
    "text,question,label,is_impossible\na,b,,true\na,b,a,0\n",
];
const QUESTION_WORDS: [&str; 14] = [
    "\"data\"",
    "\"paragraphs\"",
    "\"answers\"",
    "answer_start",
    "null",
    "-1",
    "1e99",
    "{",
    "[",
    "\\ud800",
    "\\u0000",
    "č",
    "\u{feff}",
    "true",
];

fn use_questions(table: Table) {
    let table = Arc::new(table);
    let Ok(columns) = QuestionColumns::choose(&table, &Wanted::default()) else { return };
    assert!(table.rows().all(|row| !columns.id(&row.unwrap()).is_empty()));
    if let Ok(asked) = columns.asked(table.clone()) {
        assert_eq!(asked.len(), table.len());
    }
    let Ok(questions) = columns.answered(table.clone()) else { return };
    assert_eq!(duplicate_groups(&questions.examples).unwrap().len(), table.len());
    for example in questions.examples.iter().map(Result::unwrap) {
        let Some(Label::Answers(answers)) = &example.label else { panic!("{example:?}") };
        for answer in answers {
            let fits =
                |start: usize| example.text.get(start..).is_some_and(|rest| rest.starts_with(&answer.text));
            assert!(answer.start.is_none_or(fits), "{answer:?}");
        }
    }
}

fn fuzz_questions(name: &str, all: &[&str], format: Option<Format>) {
    let seeds = all.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    Target { name, cost: 1, seeds, dictionary: &QUESTION_WORDS }.run(|input| {
        match parse_table(Path::new("f"), &input.text(), format) {
            Ok(table) => use_questions(table),
            Err(error) => assert!(error.to_string().starts_with("f: "), "{error}"),
        }
    });
}

#[test]
fn squad() {
    fuzz_questions("squad", &SQUAD, Some(Format::Squad));
}

#[test]
fn any_questions() {
    fuzz_questions("any-questions", &[&SQUAD[..], &QUESTIONS].concat(), None);
}
