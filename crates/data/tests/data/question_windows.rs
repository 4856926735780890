//! Windows of questions over texts, as the tokenizers of transformers part them: see `oracle/question_windows.py`.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;

use retune_data::{Example, Tokens};
use retune_model::tokenizer::Tokenizer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    tokenizer: String,
    question: String,
    text: String,
    answer: Option<(String, usize)>,
    max_length: usize,
    stride: usize,
    windows: Vec<Window>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Window {
    input_ids: Vec<u32>,
    token_type_ids: Vec<u32>,
    text_begins: usize,
    spans: Vec<[usize; 2]>,
    target: [usize; 2],
}

fn tokenizer(name: &str) -> Tokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/tokenizer").join(name);
    Tokenizer::open(folder).unwrap()
}

fn example(text: &str, question: &str) -> Example {
    Example { row: 3, line: 9, text: text.into(), pair: Some(question.into()), label: None }
}

/// The byte of a character.
fn byte(text: &str, character: usize) -> usize {
    text.chars().take(character).map(char::len_utf8).sum()
}

/// How many characters end before a byte.
fn character(text: &str, byte: u32) -> usize {
    text[..byte as usize].chars().count()
}

fn found(tokens: &Tokens, case: &Case) -> Vec<Window> {
    let answer = case.answer.as_ref().map(|(answer, start)| {
        let start = byte(&case.text, *start);
        start..start + answer.len()
    });
    let window = |row| {
        let batch = tokens.batch(&[row]).unwrap();
        let window = tokens.windows().row(row).unwrap();
        let spans = window.spans.iter().map(|span| span.map(|byte| character(&case.text, byte)));
        Window {
            input_ids: batch.input_ids.to_vec(),
            token_type_ids: batch.token_type_ids.to_vec(),
            text_begins: window.begins,
            spans: spans.collect(),
            target: answer.clone().and_then(|answer| window.positions(answer)).unwrap_or_default(),
        }
    };
    (0..tokens.len()).map(window).collect()
}

#[test]
fn windows_are_those_of_transformers() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/question_windows.json")).unwrap();
    assert!(cases.len() > 50 && cases.iter().any(|case| case.windows.len() > 5));
    for case in cases {
        let examples = [example(&case.text, &case.question)];
        let tokenizer = tokenizer(&case.tokenizer);
        let tokens =
            Tokens::of_questions(&tokenizer, &examples.to_vec().into(), case.max_length, case.stride)
                .unwrap();
        let found = found(&tokens, &case);
        let Case { tokenizer, question, text, mut windows, .. } = case;
        // A byte-level tokenizer of transformers leaves the space before the first word of a later window in its span.
        for [start, end] in windows.iter_mut().skip(1).filter_map(|window| window.spans.first_mut()) {
            if tokenizer == "roberta" && text[byte(&text, *start)..].starts_with(' ') {
                *start += 1;
                *end = (*end).max(*start);
            }
        }
        assert_eq!(found, windows, "{tokenizer}: {question} / {text}");
    }
}

#[test]
fn questions_over_one_text_share_its_tokens_and_keep_their_rows() {
    let tokenizer = tokenizer("uncased");
    let (one, other) = ("the card is lost. the card is not lost.", "my pay");
    let examples = [example(one, "is it?"), example(other, "my?"), example(one, "the card")];
    let together = Tokens::of_questions(&tokenizer, &examples.to_vec().into(), 12, 3).unwrap();
    let mut row = 0;
    for (number, example) in examples.iter().enumerate() {
        let alone = Tokens::of_questions(&tokenizer, &vec![example.clone()].into(), 12, 3).unwrap();
        for window in 0..alone.len() {
            assert_eq!(together.example(row), number);
            assert_eq!(together.batch(&[row]).unwrap().input_ids, alone.batch(&[window]).unwrap().input_ids);
            assert_eq!(
                together.windows().row(row).unwrap().spans,
                alone.windows().row(window).unwrap().spans
            );
            assert_eq!((together.line(row), together.cut(row)), (9, 0));
            row += 1;
        }
    }
    assert_eq!((row, together.examples()), (together.len(), 3));
    assert!(together.len() > 4);
}

#[test]
fn a_long_question_is_cut_and_no_text_is_a_window_all_the_same() {
    let tokenizer = tokenizer("uncased");
    let long = "is my card lost or is it not lost? ".repeat(9);
    let tokens =
        Tokens::of_questions(&tokenizer, &vec![example("the card is lost", &long)].into(), 13, 2).unwrap();
    assert!((0..tokens.len()).all(|row| tokens.length(row) <= 13));
    assert!(tokens.cut(0) > 50 && tokens.truncated() == 1);
    assert_eq!(tokens.windows().row(0).unwrap().begins, 7);
    // Of the 13 tokens 5 are left: windows that should share 5 share 2, and that is counted.
    for (text, overlap, crowded) in [
        ("the card is lost", 5, 0),
        ("is my card lost or not lost?", 4, 0),
        ("is my card lost or not lost?", 5, 1),
    ] {
        let tokens =
            Tokens::of_questions(&tokenizer, &vec![example(text, &long)].into(), 13, overlap).unwrap();
        assert_eq!(
            (tokens.windows().crowded(), tokens.len() > 1),
            (crowded, text.len() > 20),
            "{text} {overlap}"
        );
    }
    let blank = Tokens::of_questions(&tokenizer, &vec![example(" ", "lost?")].into(), 13, 2).unwrap();
    let window = blank.windows().row(0).unwrap();
    assert_eq!(
        (blank.len(), window.length, window.spans.len(), window.positions(0..0)),
        (1, blank.length(0), 0, None)
    );
    assert!(Tokens::of_questions(&tokenizer, &vec![example("a", "b")].into(), 4, 2).is_err());
}
