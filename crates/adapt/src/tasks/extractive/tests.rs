use std::path::Path;

use retune_data::{Example, Examples, GoldAnswer, Label, LabelMap, Tokens};
use retune_metrics::Bootstrap;
use retune_model::tokenizer::Tokenizer;
use retune_tensor::{Device, Tape, Tensor, Var};

use super::{Extractive, Form, LossOptions};
use crate::tasks::{Answer, AnswerSearch, Answered, HeadOutput, QuestionSettings, Scoring, Thresholds};

const TEXT: &str = "the card is not lost. my payment is lost, and the transfer is not.";
const SETTINGS: QuestionSettings =
    QuestionSettings { doc_stride: 4, search: AnswerSearch { n_best: 3, max_answer_length: 6 } };

fn example(row: u64, text: &str, answers: &[&str]) -> Example {
    let answer = |answer: &&str| GoldAnswer { text: (*answer).into(), start: text.find(answer) };
    Example {
        row,
        line: row + 2,
        text: text.into(),
        pair: Some("is my card lost?".into()),
        label: Some(Label::Answers(answers.iter().map(answer).collect())),
    }
}

fn examples() -> Examples {
    vec![
        example(0, TEXT, &["payment", "my payment"]),
        example(1, TEXT, &[]),
        // Its place is not known, so nothing is learnt from it; its words still tell what is right.
        example(2, "my card is lost", &["my money"]),
    ]
    .into()
}

fn form(thresholds: Thresholds) -> Extractive {
    Extractive::new(LabelMap::of_answers(), thresholds, SETTINGS)
}

fn tokens(form: &Extractive, examples: &Examples) -> Tokens {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/tokenizer/uncased");
    form.tokens(examples, &Tokenizer::open(folder).unwrap(), 18).unwrap()
}

/// Logits that are high at the tokens of `answer`, or at the first token.
fn logits(tokens: &Tokens, row: usize, text: &str, answer: &str) -> Vec<f32> {
    let window = tokens.windows().row(row).unwrap();
    let mut logits: Vec<f32> = (0..2 * window.length).map(|at| (at * 7 % 5) as f32 / 10.0).collect();
    let place = text.find(answer).filter(|_| !answer.is_empty());
    let [start, end] =
        place.and_then(|start| window.positions(start..start + answer.len())).unwrap_or_default();
    logits[2 * start] += 6.0;
    logits[2 * end + 1] += 6.0;
    logits
}

/// What a model says that has these answers in mind.
fn said(tokens: &Tokens, examples: &Examples, answers: &[&str]) -> Vec<Vec<f32>> {
    let row = |row: usize| {
        let example = tokens.example(row);
        logits(tokens, row, &examples.get(example).unwrap().unwrap().text, answers[example])
    };
    (0..tokens.len()).map(row).collect()
}

#[test]
fn the_loss_is_the_mean_of_start_and_end_over_windows() {
    let (form, examples) = (form(Thresholds::Tune), examples());
    let tokens = tokens(&form, &examples);
    assert!(tokens.len() > 5);
    let targets = form.targets(&examples, &tokens, Path::new("f"), LossOptions::default()).unwrap();
    let rows: Vec<usize> = (0..tokens.len()).collect();
    let each = said(&tokens, &examples, &["my payment", "", "card"]);
    // Plain: a window has its target at the first token where it does not hold "payment".
    let (mut sum, mut learnt) = (0.0, 0.0);
    for (row, logits) in each.iter().enumerate().filter(|(row, _)| tokens.example(*row) != 2) {
        let start = TEXT.find("payment").filter(|_| tokens.example(row) == 0);
        let window = tokens.windows().row(row).unwrap();
        let target = start.and_then(|start| window.positions(start..start + 7)).unwrap_or_default();
        for side in [0, 1] {
            let scores: Vec<f64> = logits.iter().skip(side).step_by(2).map(|x| f64::from(*x)).collect();
            sum += (scores.iter().map(|x| x.exp()).sum::<f64>().ln() - scores[target[side]]) / 2.0;
        }
        learnt += 1.0;
    }
    assert!((f64::from(targets.denominator(&rows)) - learnt).abs() < 1e-9);
    let loss = |rows: &[usize], denominator: f32| {
        let values: Vec<f32> = rows.iter().flat_map(|row| each[*row].clone()).collect();
        let logits = Tensor::from_slice(Device::Cpu, &[values.len() / 2, 2], &values).unwrap();
        let (tape, batch) = (Tape::inference(), tokens.batch(rows).unwrap());
        let output = HeadOutput::of_logits(&tape, &batch, Var::constant(logits));
        let loss = targets.loss(&output, rows, denominator).unwrap();
        f64::from(loss.value().item().unwrap())
    };
    let whole = loss(&rows, targets.denominator(&rows));
    assert!((whole - sum / learnt).abs() < 1e-5, "{whole} {}", sum / learnt);
    // A step in parts is the step in one, and the evaluation's loss is the training's.
    let parts: f64 = rows.chunks(2).map(|rows| loss(rows, targets.denominator(&[0, 1, 2, 3, 4]))).sum();
    let all: f64 = loss(&rows, targets.denominator(&[0, 1, 2, 3, 4]));
    assert!((parts - all).abs() < 1e-5);
    let mut score = targets.score(Scoring::default());
    rows.iter().for_each(|row| score.add(&[*row], &each[*row]).unwrap());
    assert!((score.measure(None).loss - whole).abs() < 1e-5);
}

#[test]
fn answers_are_told_with_their_places() {
    let (form, examples) = (form(Thresholds::Set(vec![0.0])), examples());
    let tokens = tokens(&form, &examples);
    let each = said(&tokens, &examples, &["my payment", "", "card"]);
    let mut together = form.decode(&examples, &tokens).unwrap();
    let rows: Vec<usize> = (0..tokens.len()).collect();
    let all: Vec<Answered> = together.add(&rows, &each.concat()).unwrap();
    let mut alone = form.decode(&examples, &tokens).unwrap();
    let one_by_one: Vec<Answered> =
        rows.iter().flat_map(|row| alone.add(&[*row], &each[*row]).unwrap()).collect();
    assert_eq!(all, one_by_one);
    let spans: Vec<(String, Option<usize>, Option<usize>)> = all
        .iter()
        .filter_map(|answered| match &answered.answer {
            Answer::Span { answer, start, end, score, n_best, .. } => {
                assert!(*score > 0.5 && n_best.len() == 4);
                let best = n_best.iter().map(|one| one.score);
                assert!(best.clone().zip(best.skip(1)).all(|(one, next)| one >= next));
                Some((answer.clone(), *start, *end))
            }
            _ => None,
        })
        .collect();
    let expected = [("my payment", Some(22), Some(32)), ("", None, None), ("card", Some(3), Some(7))]
        .map(|(a, b, c)| (a.to_string(), b, c));
    assert_eq!(spans, expected);
}

#[test]
fn the_threshold_is_tuned_and_mistakes_are_told() {
    let (form, examples) = (form(Thresholds::Tune), examples());
    let tokens = tokens(&form, &examples);
    let targets = form.targets(&examples, &tokens, Path::new("f"), LossOptions::default()).unwrap();
    let mut score = targets.score(Scoring { tallies: true, mistakes: 5 });
    for (row, logits) in said(&tokens, &examples, &["my payment", "", "card"]).iter().enumerate() {
        score.add(&[row], logits).unwrap();
    }
    let measured = score.measure(Some(Bootstrap { resamples: 50, ..Bootstrap::default() }));
    let metric = |name: &str| measured.metrics.get(name).unwrap();
    assert!((metric("exact_match") - 2.0 / 3.0).abs() < 1e-9 && (metric("f1") - 2.0 / 3.0).abs() < 1e-9);
    assert!((metric("no_answer_f1") - 1.0).abs() < 1e-9 && (metric("has_answer_f1") - 0.5).abs() < 1e-9);
    assert!(measured.metrics.get("f1_at_zero").is_some() && measured.thresholds.is_some());
    assert_eq!(measured.tallies.len(), 3);
    assert_eq!(measured.mistakes.len(), 1);
    let mistake = &measured.mistakes[0];
    assert_eq!((mistake.example, mistake.predicted.as_str()), (2, "card"));
    assert_eq!(mistake.expected, ["my money"]);
    let sum = measured.tallies.iter().fold([0.0; 4], |mut sum, tally| {
        sum.iter_mut().zip(tally).for_each(|(sum, more)| *sum += more);
        sum
    });
    assert!(((form.spec().decided)(&sum) - metric("f1")).abs() < 1e-9);
}

#[test]
fn without_a_threshold_there_is_always_an_answer() {
    let (form, examples) = (form(Thresholds::Set(vec![f32::INFINITY])), examples());
    let tokens = tokens(&form, &examples);
    let mut decode = form.decode(&examples, &tokens).unwrap();
    for (row, logits) in said(&tokens, &examples, &["", "", ""]).iter().enumerate() {
        for answered in decode.add(&[row], logits).unwrap() {
            let Answer::Span { answer, n_best, .. } = answered.answer else { return };
            assert!(!answer.is_empty() && n_best.len() == 3);
        }
    }
}

#[test]
fn a_text_without_a_token_has_no_answer_and_no_probability() {
    let examples: Examples = vec![example(0, "\u{200b}", &[])].into();
    for (threshold, expected) in [(f32::INFINITY, 0.0), (0.0, 1.0)] {
        let form = form(Thresholds::Set(vec![threshold]));
        let tokens = tokens(&form, &examples);
        let mut decode = form.decode(&examples, &tokens).unwrap();
        let logits = logits(&tokens, 0, "", "");
        let answered = decode.add(&[0], &logits).unwrap().remove(0).answer;
        let Answer::Span { answer, score, n_best, .. } = answered else { panic!("{answered:?}") };
        assert_eq!((answer.as_str(), n_best.len()), ("", usize::from(threshold.is_finite())));
        assert!((score - expected).abs() < 1e-9, "{score}");
        let targets = form.targets(&examples, &tokens, Path::new("f"), LossOptions::default()).unwrap();
        let mut score = targets.score(Scoring { tallies: false, mistakes: 1 });
        score.add(&[0], &logits).unwrap();
        assert!(score.measure(None).mistakes.iter().all(|mistake| mistake.score.is_finite()));
    }
}

#[test]
fn chinese_answers_are_compared_by_characters() {
    let form = form(Thresholds::Set(vec![f32::INFINITY]));
    let text = "中国卡丢了 the card";
    let examples: Examples = vec![example(0, text, &["中国卡"])].into();
    let tokens = tokens(&form, &examples);
    let targets = form.targets(&examples, &tokens, Path::new("f"), LossOptions::default()).unwrap();
    assert!(targets.said()[0].contains("by characters"));
    let mut score = targets.score(Scoring::default());
    (0..tokens.len()).for_each(|row| score.add(&[row], &logits(&tokens, row, text, "中国")).unwrap());
    let f1 = score.measure(None).metrics.get("f1").unwrap();
    assert!((f1 - 0.8).abs() < 1e-9, "{f1}");
}

#[test]
fn what_has_no_meaning_is_refused() {
    let (form, examples) = (form(Thresholds::Tune), examples());
    let tokens = tokens(&form, &examples);
    for options in [
        LossOptions { balanced: true, ..LossOptions::default() },
        LossOptions { label_smoothing: 0.1, ..LossOptions::default() },
    ] {
        assert!(form.targets(&examples, &tokens, Path::new("f"), options).is_err());
    }
    let wide = Extractive::new(
        LabelMap::of_answers(),
        Thresholds::Tune,
        QuestionSettings { doc_stride: 18, ..SETTINGS },
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/tokenizer/uncased");
    let error = wide.tokens(&examples, &Tokenizer::open(folder).unwrap(), 18).unwrap_err().to_string();
    assert!(error.starts_with("--doc-stride: expected fewer tokens"), "{error}");
}
