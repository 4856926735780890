//! Settings that say which rows, which weights and which loss.

use retune::{Card, TrainSettings};

use crate::run::{answers, difference, model, refused, score, settings, train};
use crate::tiny::{Tiny, csv};

#[test]
fn a_limit_takes_a_stratified_sample() {
    let tiny = Tiny::new();
    let limited = TrainSettings { limit: Some(12), ..settings(&tiny, "head", "result") };
    let (report, ear) = train(&limited).unwrap();
    assert_eq!((report.train_rows, report.eval_rows, report.steps), (12, 31, 4));
    // Half, a third and a sixth of the rows.
    assert!(ear.heard("12 rows in 3 classes: from 2 of `verloren é` to 6 of `转账`"), "{:?}", ear.said);
    assert!(ear.heard("--limit: 12 of 72 rows"), "{:?}", ear.said);
    assert_eq!(Card::open(&tiny.path("result")).unwrap().unwrap().train.rows, Some(12));
}

#[test]
fn rows_are_held_back_where_no_file_is_given() {
    let tiny = Tiny::new();
    let own =
        |share, output| TrainSettings { eval: None, eval_split: share, ..settings(&tiny, "head", output) };
    for (share, held, output) in [(None, 7, "usual"), (Some(0.25), 18, "quarter"), (Some(0.0), 0, "none")] {
        let (report, ear) = train(&own(share, output)).unwrap();
        assert_eq!((report.train_rows, report.eval_rows), (72 - held, held), "{output}");
        assert_eq!(report.metrics.is_some(), held > 0);
        if held == 0 {
            assert!(ear.heard("no evaluation rows: the last weights are the result"), "{:?}", ear.said);
            assert_eq!(report.kept_step, report.steps);
            assert!(Card::open(&tiny.path(output)).unwrap().unwrap().receipt.is_none());
        }
    }
    // A tenth of few rows would say little.
    tiny.write("few.csv", csv(0..49));
    let few = TrainSettings { train: Some(vec![tiny.path("few.csv")]), ..own(None, "few") };
    assert_eq!(train(&few).unwrap().0.eval_rows, 0);
}

#[test]
fn the_last_weights_or_the_best_are_kept() {
    let tiny = Tiny::new();
    // A rate at which the best evaluation is hardly ever the last.
    let wild = |keep: &str, output| TrainSettings {
        keep: Some(keep.into()),
        learning_rate: Some(0.1),
        epochs: Some(4.0),
        eval_every: Some("3".into()),
        ..settings(&tiny, "full", output)
    };
    let (best, ear) = train(&wild("best", "best")).unwrap();
    let (last, _) = train(&wild("last", "last")).unwrap();
    assert_eq!(last.kept_step, last.steps);
    let scores: Vec<(u64, f64, f64)> = ear
        .events
        .iter()
        .filter_map(|event| match event {
            retune::Event::Evaluation { step, metrics, loss, .. } => {
                Some((*step, metrics["accuracy"], *loss))
            }
            _ => None,
        })
        .collect();
    let highest = scores.iter().map(|(_, score, _)| *score).fold(0.0, f64::max);
    // Of equal ones that with less loss.
    let equal = scores.iter().filter(|(_, score, _)| score.to_bits() == highest.to_bits());
    let kept = equal.min_by(|(.., one), (.., other)| one.total_cmp(other)).unwrap().0;
    assert_eq!((best.kept_step, best.metrics.unwrap()["accuracy"].to_bits()), (kept, highest.to_bits()));
    assert!(best.kept_step < best.steps, "the case does not tell: the best step is the last, {scores:?}");
    let [best, last] = ["best", "last"].map(|output| model(tiny.path(output)));
    assert!(difference(&answers(&best), &answers(&last)) > 1e-3);
    assert!(
        (crate::run::score(&best, &tiny, "test.csv").unwrap().metrics.values["accuracy"] - highest).abs()
            < 1e-12
    );
}

#[test]
fn early_stopping_is_told_and_ends_it() {
    let tiny = Tiny::new();
    let settings = TrainSettings {
        // Nothing can get better at this rate.
        learning_rate: Some(1e-12),
        early_stopping: Some(2),
        epochs: Some(9.0),
        ..settings(&tiny, "head", "result")
    };
    let (report, ear) = train(&settings).unwrap();
    assert_eq!((report.steps, report.kept_step), (33, 11));
    assert!(
        ear.events.iter().any(|event| matches!(event, retune::Event::EarlyStop { step: 33, evaluations: 2 }))
    );
}

/// The loss of the first and only step, over all rows of a file, and the logits it was made of with their labels.
fn one_step(
    tiny: &Tiny,
    output: &str,
    change: impl FnOnce(&mut TrainSettings),
) -> (f64, Vec<(Vec<f64>, usize)>) {
    let mut settings = TrainSettings {
        eval: None,
        eval_split: Some(0.0),
        batch_size: Some(72),
        epochs: Some(1.0),
        // The weights stay where they are, so that the result's logits are those of the step.
        learning_rate: Some(1e-12),
        head_learning_rate: Some(1e-12),
        warmup: Some(0.0),
        model_dropout: Some(0.0),
        ..settings(tiny, "full", output)
    };
    change(&mut settings);
    let (report, ear) = train(&settings).unwrap();
    let rows = std::fs::read_to_string(tiny.path("train.csv")).unwrap();
    let mut rows = csv::Reader::from_reader(rows.as_bytes());
    let rows: Vec<_> = rows.records().map(|row| row.unwrap()).collect();
    let texts: Vec<String> = rows.iter().map(|row| row[0].to_string()).collect();
    let (answers, _) = retune::predict::texts(&model(tiny.path(output)), &texts, None, true).unwrap();
    let logits = answers.into_iter().zip(&rows).map(|(answer, row)| {
        let class = report.labels.iter().position(|label| *label == row[1]).unwrap();
        (answer.logits.unwrap().into_iter().map(f64::from).collect(), class)
    });
    (ear.losses()[0], logits.collect())
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
    logits.iter().map(|logit| logit - sum).collect()
}

#[test]
fn smoothing_and_class_weights_are_in_the_loss() {
    let tiny = Tiny::new();
    let (loss, rows) = one_step(&tiny, "plain", |_| ());
    let expected = rows.iter().map(|(logits, class)| -log_softmax(logits)[*class]).sum::<f64>() / 72.0;
    assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");

    let (loss, rows) = one_step(&tiny, "smooth", |settings| settings.label_smoothing = Some(0.3));
    let smoothed = rows.iter().map(|(logits, class)| {
        let logs = log_softmax(logits);
        -0.7 * logs[*class] - 0.3 / 3.0 * logs.iter().sum::<f64>()
    });
    let expected = smoothed.sum::<f64>() / 72.0;
    assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");

    let (loss, rows) =
        one_step(&tiny, "balanced", |settings| settings.class_weights = Some("balanced".into()));
    let count = |class: usize| rows.iter().filter(|(_, own)| *own == class).count() as f64;
    // scikit-learn's: rows / (classes * rows of the class). Every class then has the same part in the loss.
    let weight = |class: usize| 72.0 / (3.0 * count(class));
    let sum: f64 = rows.iter().map(|(logits, class)| -weight(*class) * log_softmax(logits)[*class]).sum();
    let expected = sum / rows.iter().map(|(_, class)| weight(*class)).sum::<f64>();
    assert!((loss - expected).abs() < 1e-5, "{loss} {expected}");
}

#[test]
fn the_order_of_the_file_is_kept_where_that_is_wanted() {
    let tiny = Tiny::new();
    let run = |shuffle, seed, output| {
        let settings = TrainSettings {
            shuffle: Some(shuffle),
            seed: Some(seed),
            model_dropout: Some(0.0),
            ..settings(&tiny, "bitfit", output)
        };
        train(&settings).unwrap().1.losses()
    };
    let [one, two, three] = [(true, 1, "a"), (false, 1, "b"), (false, 2, "c")].map(|(s, n, o)| run(s, n, o));
    assert_ne!(one, two);
    // Another seed draws another head, and leaves the order: the first losses are near, not equal.
    assert_ne!(two, three);
}

#[test]
fn what_was_chosen_is_said_and_on_the_card() {
    let tiny = Tiny::new();
    let mut plain = settings(&tiny, "", "result");
    (plain.method, plain.learning_rate, plain.epochs) = (None, None, Some(1.0));
    let (report, ear) = train(&plain).unwrap();
    assert_eq!((report.method, report.task), ("full", "text-classification"));
    for words in
        ["method full: ", "learning rate 0.0001", "text column `text`: by its name", "label column `label`"]
    {
        assert!(ear.heard(words), "{words}: {:?}", ear.said);
    }
    assert!(ear.heard("new weights, trained from scratch: classifier"), "{:?}", ear.said);
    let card = Card::open(&tiny.path("result")).unwrap().unwrap();
    assert_eq!((card.columns.text.as_str(), card.columns.label.as_deref()), ("text", Some("label")));
    assert_eq!((&card.settings["seed"], &card.settings["schedule"]), (&1.into(), &"linear".into()));
    let hash = |hash: &str| hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(hash(&card.base.sha256) && hash(&card.train.sha256) && card.base.path.is_absolute());
}

#[test]
fn rows_that_cannot_be_parted_are_all_trained_on() {
    let tiny = Tiny::new();
    tiny.write("same.csv", format!("text,label\n{}", "pay,pay\nmy card is lost,lost\n".repeat(30)));
    let same = |share| TrainSettings {
        train: Some(vec![tiny.path("same.csv")]),
        eval: None,
        eval_split: share,
        ..settings(&tiny, "head", "result")
    };
    assert!(refused(&same(Some(0.1))).contains("got 0.1 of 60 rows"));
    let (report, ear) = train(&same(None)).unwrap();
    assert_eq!((report.train_rows, report.eval_rows, report.metrics), (60, 0, None));
    assert!(
        ear.heard("evaluation: no row can be held back") && ear.heard("no evaluation rows"),
        "{:?}",
        ear.said
    );
}

#[test]
fn a_new_head_has_a_rate_of_its_own_and_the_pooler_with_it() {
    let tiny = Tiny::new();
    let card = |output: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(tiny.path(output).join("retune.json")).unwrap()).unwrap()
    };
    let saved = |output: &str| -> serde_json::Value {
        let config = std::fs::read(tiny.path(output).join("adapter_config.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&config).unwrap()["modules_to_save"].clone()
    };
    let slow =
        |method, output| TrainSettings { learning_rate: Some(1e-4), ..settings(&tiny, method, output) };
    let (usual, ear) = train(&slow("lora", "usual")).unwrap();
    assert!(ear.heard("learning rate of the head 0.003: it is new"), "{:?}", ear.said);
    assert!(ear.heard("the pooler is trained with the head"), "{:?}", ear.said);
    assert_eq!(
        (&card("usual")["settings"]["head_learning_rate"], saved("usual")),
        (&0.003.into(), serde_json::json!(["classifier", "pooler"]))
    );

    let as_peft =
        TrainSettings { train_pooler: Some(false), head_learning_rate: Some(1e-4), ..slow("lora", "peft") };
    let (left, ear) = train(&as_peft).unwrap();
    assert!(!ear.heard("of the head") && !ear.heard("pooler"), "{:?}", ear.said);
    assert_eq!(saved("peft"), serde_json::json!(["classifier"]));
    let width = usual.trainable_parameters - left.trainable_parameters;
    assert!((1..64).any(|n| n * n + n == width), "{width} is no pooler");
    let one_rate = TrainSettings { head_learning_rate: Some(1e-4), ..slow("lora", "one-rate") };
    assert_ne!(train(&one_rate).unwrap().1.losses(), train(&slow("lora", "again")).unwrap().1.losses());

    // An adapter goes on as it is, at one rate.
    let onward = TrainSettings { model: model(tiny.path("peft")), ..slow("lora", "onward") };
    let (report, ear) = train(&onward).unwrap();
    assert!(!ear.heard("of the head"), "{:?}", ear.said);
    assert_eq!((report.trainable_parameters, saved("onward")), (left.trainable_parameters, saved("peft")));
    // Where nothing else is trained, the rate is the head's.
    train(&slow("head", "head")).unwrap();
    assert_eq!(card("head")["settings"]["head_learning_rate"], 1e-4);
}

#[test]
fn parameters_are_trained_beside_a_method_and_saved_with_it() {
    let tiny = Tiny::new();
    let plain = train(&settings(&tiny, "lora", "plain")).unwrap().0;
    let with = |output, names: &str| TrainSettings {
        train_also: Some(names.into()),
        ..settings(&tiny, "lora", output)
    };
    let (report, ear) = train(&with("norms", "norms, word_embeddings")).unwrap();
    let more = report.trainable_parameters - plain.trainable_parameters;
    assert!(ear.heard(&format!("trained beside: {more} parameters in ")), "{:?}", ear.said);
    // What was trained comes back.
    let evaluation = score(&model(tiny.path("norms")), &tiny, "test.csv").unwrap();
    let bits = |value: f64| value.to_bits();
    assert_eq!(bits(report.metrics.unwrap()["accuracy"]), bits(evaluation.metrics.values["accuracy"]));
    let error = refused(&with("none", "nroms"));
    assert!(
        error.contains("--train-also: no parameter's name has `nroms` between dots; did you mean `norms`?"),
        "{error}"
    );
}
