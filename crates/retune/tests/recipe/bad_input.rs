//! What cannot be is refused before anything is written, with words that say what to do.

use retune::{FileSettings, ModelSettings, TrainSettings};
use serde_json::json;

use crate::run::{model, refused, settings};
use crate::tiny::{Tiny, csv};

type Change = fn(&mut TrainSettings, &Tiny);

/// Each change makes a training impossible: it is refused with these words, and leaves no file.
fn all_refused(cases: &[(Change, &str)]) {
    let tiny = Tiny::new();
    for (change, words) in cases {
        let mut settings = settings(&tiny, "lora", "result");
        change(&mut settings, &tiny);
        let before = tiny.names("");
        let error = refused(&settings);
        assert!(error.contains(words), "expected `{words}`: {error}");
        assert!(!tiny.path("result").exists(), "{words}: a folder was left behind");
        assert_eq!(tiny.names(""), before, "{words}: files were left behind");
    }
}

#[test]
fn a_setting_that_cannot_be() {
    all_refused(&[
        (|s, _| s.train = None, "--train: which rows?"),
        (|s, _| s.output = None, "--output: where should the result go?"),
        (|s, _| s.model.model = None, "--model: which model?"),
        (|s, _| s.task = Some("text-clasification".into()), "did you mean `text-classification`?"),
        (|s, _| s.method = Some("lroa".into()), "method `lroa` is not known, did you mean `lora`?"),
        (|s, _| s.learning_rate = Some(0.0), "--learning-rate: expected a number above 0, got 0"),
        (|s, _| s.learning_rate = Some(f64::NAN), "--learning-rate: expected a number above 0, got NaN"),
        (|s, _| s.epochs = Some(-1.0), "--epochs: expected a number above 0"),
        (|s, _| s.batch_size = Some(0), "--batch-size: expected at least 1, got 0"),
        (|s, _| s.batch_tokens = Some(64), "--batch-tokens: batches are gathered by"),
        (|s, _| s.accumulation = Some(0), "--accumulation: expected at least 1, got 0"),
        (|s, _| s.warmup = Some(-0.1), "--warmup: expected a number from 0 on"),
        (|s, _| s.weight_decay = Some(1.5), "--weight-decay: expected a number at least 0 and below 1"),
        (|s, _| s.max_grad_norm = Some(-1.0), "--max-grad-norm: expected a number from 0 on"),
        (|s, _| s.label_smoothing = Some(1.0), "--label-smoothing: expected a number at least 0 and below 1"),
        (|s, _| s.model_dropout = Some(1.0), "--model-dropout: expected"),
        (|s, _| s.eval_split = Some(0.2), "--eval-split: it holds training rows back, and --eval names rows"),
        (|s, _| (s.eval, s.eval_split) = (None, Some(1.0)), "--eval-split: expected a number at least 0"),
        (
            |s, _| s.keep = Some("bset".into()),
            "--keep: expected best or last, got `bset`; did you mean best?",
        ),
        (|s, _| s.keep = Some("3".into()), "how many checkpoints stay says --keep-checkpoints"),
        (|s, _| s.keep_checkpoints = Some(0), "--keep-checkpoints: expected at least 1, got 0"),
        (|s, _| s.save_every = Some("0".into()), "--save-every: expected steps, such as 500, a time"),
        (|s, _| s.save_every = Some("-1m".into()), "--save-every: expected steps, such as 500, a time"),
        (|s, _| s.save_every = Some("10 parsecs".into()), "got `10 parsecs`"),
        (|s, _| s.layer_decay = Some(0.0), "--layer-decay: expected a number above 0 and up to 1, got 0"),
        (|s, _| s.layer_decay = Some(1.1), "--layer-decay: expected a number above 0 and up to 1"),
        (|s, _| s.on_spike = Some("skp".into()), "did you mean skip?"),
        (|s, _| s.on_spike = Some("rewind".into()), "give --save-every 100, for example"),
        (
            |s, _| (s.resume, s.overwrite) = (Some(true), Some(true)),
            "--overwrite: --resume goes on with what is there",
        ),
        (|s, _| s.schedule = Some("cosin".into()), "did you mean cosine?"),
        (
            |s, _| s.optimizer = Some("adamw8bit".into()),
            "--optimizer: expected adamw or adamw-8bit, got `adamw8bit`; did you mean adamw-8bit?",
        ),
        (|s, _| s.class_weights = Some("balance".into()), "did you mean balanced?"),
        (|s, _| s.eval_every = Some("often".into()), "--eval-every: expected epoch or a number of steps"),
        (
            |s, _| s.eval_every = Some("0".into()),
            "--eval-every: expected epoch or a number of steps, got `0`",
        ),
        (|s, _| s.early_stopping = Some(0), "--early-stopping: expected at least 1"),
        (|s, _| s.limit = Some(0), "--limit: expected at least 1, got 0"),
        (|s, _| s.max_length = Some(25), "--max-length: expected 3 to 24 tokens for this model, got 25"),
        (|s, _| s.max_length = Some(2), "--max-length: expected 3 to 24 tokens for this model, got 2"),
        (
            |s, _| drop(s.method_options.insert("rnak".into(), 3.into())),
            "--rnak: the method `lora` has no such",
        ),
        (|s, _| drop(s.method_options.insert("rank".into(), "x".into())), "--rank: expected a whole number"),
        (
            |s, _| drop(s.method_options.insert("target-modules".into(), json!(["keys"]))),
            "no linear layer's name ends with `keys`; did you mean `key`?",
        ),
        (
            |s, _| {
                s.method = Some("bitfit".into());
                s.method_options.insert("rank".into(), 3.into());
            },
            "--rank: is an option of lora; give --method lora",
        ),
    ]);
}

#[test]
fn rows_that_cannot_be_learnt_from() {
    all_refused(&[
        (|s, t| s.train = Some(vec![t.path("no.csv")]), "no.csv: "),
        (|s, t| s.train = Some(vec![t.write("empty.csv", "")]), "empty.csv: "),
        (|s, t| s.train = Some(vec![t.write("header.csv", "text,label\n")]), "header.csv: "),
        (
            |s, _| s.file.label_column = Some("lable".into()),
            "train.csv: no column `lable` for the label (did you mean `label`?): the columns are `text`, `label`",
        ),
        (
            |s, t| s.train = Some(vec![t.write("one.csv", "text,label\na,pay\nb,pay\nc,pay\n")]),
            "expected at least two classes in column `label`, got only `pay` in all 3 rows",
        ),
        (
            |s, t| s.train = Some(vec![t.write("gaps.csv", "text,label\na,x\nb,\n,y\nd,y\n")]),
            "1 row has nothing in column `label` (line 3); 1 row has nothing in column `text` (line 4)",
        ),
        (
            |s, t| s.eval = Some(vec![t.write("other.csv", "text,label\nmy card,pay\nlost,verloren\n")]),
            "other.csv: line 3: expected one of training's 3 labels, got `verloren` (1 row, first on line 3, nearest \
             known `verloren é`)",
        ),
        (
            |s, t| s.eval = Some(vec![t.write("short.csv", "sentence,label\na,pay\n")]),
            "no column `text` for the text",
        ),
        (
            |s, t| {
                s.train = Some(vec![t.write("latin.csv", b"text,label\nmy card,pay\nverloren \xe9,lost\n")])
            },
            "latin.csv: line 3, byte 32: ",
        ),
        (|s, _| s.file.encoding = Some("klingon".into()), "klingon"),
        (|s, _| s.file.format = Some("xls".into()), "xls"),
    ]);
}

/// Another model in `odd`.
fn odd(settings: &mut TrainSettings, tiny: &Tiny, change: impl FnOnce(&std::path::Path)) {
    change(&tiny.model("odd", 1, |_| ()));
    settings.model = model(tiny.path("odd"));
}

fn rewrite(path: &std::path::Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_model_that_cannot_be_read() {
    all_refused(&[
        (|s, t| s.model = model(t.path("nowhere")), "nowhere: there is no such folder"),
        (
            |s, t| s.model = ModelSettings { hub: Some(t.offline()), ..model("some-org/some-model") },
            "some-org/some-model: HF_HUB_OFFLINE is set, and nothing of revision `main` is",
        ),
        (|s, t| s.model = model(t.path("bsae")), "bsae: there is no such folder; did you mean `"),
        (|s, _| s.model = model("bert"), "the id of a model on the hub has two parts, owner/name"),
        (
            |s, t| s.model = ModelSettings { revision: Some("main".into()), ..model(t.path("base")) },
            "is a folder here, which has no revisions",
        ),
        (
            |s, t| s.model = model(t.path("train.csv")),
            "expected a model's folder or a GGUF file, got another file",
        ),
        (
            |s, t| odd(s, t, |at| std::fs::remove_file(at.join("config.json")).unwrap()),
            "config.json is missing",
        ),
        (
            |s, t| odd(s, t, |at| std::fs::remove_file(at.join("model.safetensors")).unwrap()),
            "model.safetensors",
        ),
        (|s, t| odd(s, t, |at| std::fs::remove_file(at.join("tokenizer.json")).unwrap()), "tokenizer.json"),
        (
            |s, t| odd(s, t, |at| rewrite(&at.join("model.safetensors"), |bytes| bytes.truncate(9000))),
            "model.safetensors",
        ),
        (
            |s, t| odd(s, t, |at| rewrite(&at.join("model.safetensors"), |bytes| bytes[6] = 200)),
            "model.safetensors",
        ),
        (
            |s, t| odd(s, t, |at| rewrite(&at.join("config.json"), |bytes| bytes.truncate(30))),
            "config.json: line 1, column ",
        ),
        (
            |s, t| {
                let config = std::fs::read_to_string(t.path("base/config.json")).unwrap();
                odd(s, t, |at| {
                    std::fs::write(at.join("config.json"), config.replace("bert", "brt")).unwrap()
                });
            },
            "`model_type`: expected one of bert, roberta, xlm-roberta, camembert, distilbert, electra, modernbert, gpt2, llama, mistral, \
             qwen2, qwen3, got `brt`",
        ),
        (
            |s, t| {
                s.model =
                    model(t.model("small", 1, |config| drop(config.insert("vocab_size".into(), 70.into()))));
            },
            "line 3 of the data has the token `,` with the number 94, and the model knows only 70",
        ),
        (
            |s, t| {
                let change = |config: &mut serde_json::Map<_, _>| {
                    drop(config.insert("type_vocab_size".into(), 1.into()))
                };
                s.model = model(t.model("single", 1, change));
                s.train =
                    Some(vec![t.write("pairs.csv", csv(0..72).replacen("text,label", "premise,label", 1))]);
                let pairs: String =
                    csv(0..72).lines().enumerate().fold(String::new(), |all, (row, line)| match row {
                        0 => "premise,label,hypothesis\n".to_string(),
                        _ => format!("{all}{line},my card\n"),
                    });
                s.train = Some(vec![t.write("pairs.csv", pairs)]);
                s.eval = None;
            },
            "line 2 of the data has two texts, and the model was made for one",
        ),
    ]);
}

#[test]
fn a_configuration_that_does_not_match_names_every_tensor() {
    let tiny = Tiny::new();
    let config = std::fs::read_to_string(tiny.path("base/config.json")).unwrap();
    tiny.write("base/config.json", config.replace("\"intermediate_size\":29", "\"intermediate_size\":31"));
    let error = refused(&settings(&tiny, "full", "result"));
    assert!(error.contains("6 of the tensors do not fit:"), "{error}");
    for layer in [0, 1] {
        for (part, expected, got) in [
            ("intermediate.dense.weight", "[31, 18]", "[29, 18]"),
            ("intermediate.dense.bias", "[31]", "[29]"),
            ("output.dense.weight", "[18, 31]", "[18, 29]"),
        ] {
            let line = format!("`bert.encoder.layer.{layer}.{part}` should have shape {expected}, has {got}");
            assert!(error.contains(&line), "{line}: {error}");
        }
    }
    // A third layer that is not there: all sixteen of its tensors.
    tiny.write("base/config.json", config.replace("\"num_hidden_layers\":2", "\"num_hidden_layers\":3"));
    let error = refused(&settings(&tiny, "full", "result"));
    assert!(error.contains("16 of the tensors do not fit:"), "{error}");
    assert!(error.contains("`bert.encoder.layer.2.attention.self.query.weight` is missing"), "{error}");
    assert!(!tiny.path("result").exists());
}

#[test]
fn files_in_other_encodings_are_read_when_told() {
    let tiny = Tiny::new();
    let rows = csv(0..72).replace("转账", "weiß");
    let latin: Vec<u8> = rows.chars().filter(|c| u32::from(*c) < 256).map(|c| u32::from(c) as u8).collect();
    tiny.write("latin.csv", latin);
    let told = TrainSettings {
        train: Some(vec![tiny.path("latin.csv")]),
        eval: None,
        file: FileSettings { encoding: Some("latin1".into()), ..FileSettings::default() },
        ..settings(&tiny, "full", "result")
    };
    let (report, _) = crate::run::train(&told).unwrap();
    assert_eq!(report.labels, ["pay", "verloren é", "weiß"]);
}
