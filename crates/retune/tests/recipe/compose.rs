//! Adapters after the training: merged into their base, added to each other, mixed in one batch.

use retune::combine::{Request, combine};
use retune::merge::merge;
use retune::mixed::{self, Mixed};
use retune::predict::{self, Prediction, Writing};
use retune::{Card, Combination, Error, FileSettings, METHODS, ModelSettings, TextModel};

use crate::run::{answers, difference, model, settings, train};
use crate::tiny::Tiny;

const PLAIN: Writing = Writing { logits: true, overwrite: false };

fn trained(tiny: &Tiny, method: &str, output: &str, seed: u64) {
    let mut settings = settings(tiny, method, output);
    settings.seed = Some(seed);
    train(&settings).unwrap();
}

fn merged(tiny: &Tiny, from: &str, to: &str) -> Result<retune::merge::Merged, Error> {
    merge(&model(tiny.path(from)), &tiny.path(to), false, &[], &FileSettings::default())
}

#[test]
fn what_merges_is_one_model_with_the_same_answers_and_what_does_not_says_why() {
    let tiny = Tiny::new();
    for method in METHODS.iter().filter(|method| method.name() != "full") {
        let name = method.name();
        trained(&tiny, name, name, 1);
        let to = format!("{name}-merged");
        let done = match (merged(&tiny, name, &to), method.merges()) {
            (Ok(done), Ok(())) => done,
            (Err(error), Err(why)) => {
                let whole = TextModel::open(&model(tiny.path(name))).unwrap().source.adapter.is_none();
                let why = if whole { "it is a whole model: there is no adapter to merge" } else { why };
                assert_eq!(error.exit_code(), 2);
                assert!(error.to_string().ends_with(why), "{error}");
                assert!(!tiny.path(&to).exists(), "{name} left something behind");
                continue;
            }
            (got, _) => panic!("{name}: {got:?}"),
        };
        assert!(done.max_logit_difference < 1e-5, "{name}: {}", done.max_logit_difference);
        assert_eq!((done.method, done.measured_on.as_str()), (name, "64 rows of random tokens"));
        // It needs neither the adapter nor the base, and knows its labels.
        let (before, after) = (answers(&model(tiny.path(name))), answers(&model(tiny.path(&to))));
        assert!(difference(&before, &after) < 1e-5, "{name}");
        let inspected = retune::inspect::inspect(&tiny.path(&to), None).unwrap();
        let base = retune::inspect::inspect(&tiny.path("base"), None).unwrap();
        assert_eq!(inspected.parameters, base.parameters + 18 * 3 + 3, "{name}: only the head is more");
        assert_eq!(inspected.what, "model");
        assert_eq!(inspected.card.unwrap().receipt, Card::open(&tiny.path(name)).unwrap().unwrap().receipt);
    }
}

#[test]
fn a_merge_is_measured_on_rows_and_leaves_other_folders_alone() {
    let tiny = Tiny::new();
    trained(&tiny, "lora", "lora", 1);
    let run = |output: &str, overwrite: bool, data: &str| {
        let (lora, data) = (model(tiny.path("lora")), tiny.path(data));
        merge(&lora, &tiny.path(output), overwrite, &[data], &FileSettings::default())
    };
    let done = run("merged", false, "test.csv").unwrap();
    assert_eq!(done.measured_on, format!("31 rows of {}", tiny.path("test.csv").display()));
    let error = run("merged", false, "test.csv").unwrap_err().to_string();
    assert!(
        error.ends_with("it holds a result; give another --output, or --overwrite to replace it"),
        "{error}"
    );
    run("merged", true, "train.csv").unwrap();
    // Its own folder is a run's, and may be replaced by nothing that is made of it.
    let before = tiny.files("lora");
    assert!(run("lora", false, "test.csv").is_err());
    tiny.write("lora/notes.txt", "mine");
    assert!(run("lora", true, "test.csv").unwrap_err().to_string().contains("`notes.txt`"));
    std::fs::remove_file(tiny.path("lora/notes.txt")).unwrap();
    assert_eq!(tiny.files("lora"), before);
    let error = run("other", false, "nowhere.csv").unwrap_err();
    assert_eq!((error.exit_code(), tiny.path("other").exists()), (2, false));
}

#[test]
fn loras_are_added_to_one_that_opens_again() {
    let tiny = Tiny::new();
    for (seed, name) in [(1, "a"), (2, "b")] {
        trained(&tiny, "lora", name, seed);
    }
    let adapters = [(model(tiny.path("a")), 0.75), (model(tiny.path("b")), 0.5)];
    let run = |name: &str, head: usize, output: &str| {
        let combination = Combination::new(name, None, None, None, 1).unwrap();
        let output = tiny.path(output);
        let request = Request {
            adapters: &adapters,
            combination: &combination,
            name,
            head,
            output: &output,
            overwrite: false,
        };
        combine(&request, &[tiny.path("test.csv")], &FileSettings::default())
    };
    for name in Combination::names() {
        let done = run(name, 0, name).unwrap();
        // Rank 16 is that of the sum of two, and 8 is half of it.
        assert_eq!(done.rank, if name == "cat" { 16 } else { 8 });
        assert!(
            (done.max_logit_difference < 1e-5) == (name == "cat"),
            "{name}: {}",
            done.max_logit_difference
        );
        assert_eq!(done.head, tiny.path("a"));
        let card = Card::open(&tiny.path(name)).unwrap().unwrap();
        assert_eq!((card.method.as_str(), card.receipt), ("lora", None));
        assert_eq!(card.settings["combination"], name);
        assert_eq!(card.settings["adapters"][1]["weight"], 0.5);
        assert!(answers(&model(tiny.path(name))).len() == 5);
    }
    // The same twice is the same, and the other head is another model.
    let again = run("dare-ties", 0, "again").unwrap();
    assert_eq!(tiny.files("again"), tiny.files("dare-ties"), "{again:?}");
    run("cat", 1, "other-head").unwrap();
    assert!(difference(&answers(&model(tiny.path("cat"))), &answers(&model(tiny.path("other-head")))) > 1e-3);
    let error = run("cat", 2, "none").unwrap_err().to_string();
    assert!(error.starts_with("--head: expected one of the 2 adapters"), "{error}");

    // It goes on as any LoRA.
    let mut next = settings(&tiny, "lora", "next");
    next.model = model(tiny.path("svd"));
    train(&next).unwrap();
}

#[test]
fn adapters_of_another_base_are_not_added_and_not_mixed() {
    let tiny = Tiny::new();
    trained(&tiny, "lora", "a", 1);
    let other = tiny.model("other", 9, |_| ());
    let mut of_other = settings(&tiny, "lora", "b");
    of_other.model = model(other);
    train(&of_other).unwrap();
    trained(&tiny, "head", "whole", 1);
    let combination = Combination::new("cat", None, None, None, 1).unwrap();
    for (second, expected) in
        [("b", "only LoRAs of one base are added"), ("whole", "expected an adapter, got a whole model")]
    {
        let adapters = [(model(tiny.path("a")), 1.0), (model(tiny.path(second)), 1.0)];
        let output = tiny.path("out");
        let request = Request {
            adapters: &adapters,
            combination: &combination,
            name: "cat",
            head: 0,
            output: &output,
            overwrite: false,
        };
        let error = combine(&request, &[], &FileSettings::default()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(expected), "{error}");
        let named = [("a".into(), adapters[0].0.clone()), ("b".into(), adapters[1].0.clone())];
        let error = Mixed::open(&named).err().unwrap().to_string();
        assert!(error.contains("rows of one batch share their base"), "{error}");
        assert!(!output.exists());
    }
}

/// Adapters of different methods, forms of labels and lengths on one base.
fn several(tiny: &Tiny) -> Vec<(String, ModelSettings)> {
    for (seed, method) in ["lora", "pfeiffer", "p-tuning-v2", "prompt-tuning"].into_iter().enumerate() {
        trained(tiny, method, method, seed as u64);
    }
    let rows = (0..40).map(|row| format!("pay {row} now,{}.5\n", row % 7)).collect::<String>();
    tiny.write("numbers.csv", format!("text,score\n{rows}"));
    let mut numbers = settings(tiny, "ia3", "numbers");
    (numbers.train, numbers.eval) = (Some(vec![tiny.path("numbers.csv")]), None);
    numbers.file.label_column = Some("score".into());
    train(&numbers).unwrap();
    ["lora", "pfeiffer", "p-tuning-v2", "prompt-tuning", "numbers"]
        .map(|name| (name.to_string(), model(tiny.path(name))))
        .to_vec()
}

fn bits(prediction: &Prediction) -> Vec<u32> {
    prediction.logits.as_ref().unwrap().iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn rows_of_a_file_are_answered_by_the_adapters_that_they_name() {
    let tiny = Tiny::new();
    let adapters = several(&tiny);
    let mixed = Mixed::open(&adapters).unwrap();
    let texts = [
        "my card is lost",
        "pay",
        "transfer the money !",
        "豈 un Ü € 丢了",
        "the the the my card 1 2 is not a",
    ];
    let texts: Vec<String> = (0..3).flat_map(|_| texts.map(String::from)).collect();

    // Each text by each adapter.
    let (together, done) = mixed.texts(&texts, &[], None, true).unwrap();
    assert_eq!((together.len(), done.rows), (texts.len() * adapters.len(), texts.len() * adapters.len()));
    for (adapter, (name, settings)) in adapters.iter().enumerate() {
        let (alone, _) = predict::texts(settings, &texts, None, true).unwrap();
        for (row, alone) in alone.iter().enumerate() {
            let one = &together[row * adapters.len() + adapter];
            assert_eq!((one.adapter.as_deref(), one.row), (Some(name.as_str()), row as u64));
            assert_eq!((bits(one), &one.answer), (bits(alone), &alone.answer), "{name}: {}", one.text);
        }
    }

    // A file whose rows name them, under a column of any name.
    let mut csv = String::from("id,ask,text\n");
    for (row, text) in texts.iter().enumerate() {
        csv.push_str(&format!("{row}, {} ,{text}\n", adapters[row * 3 % adapters.len()].0));
    }
    tiny.write("mixed.csv", csv);
    let (input, file) = ([tiny.path("mixed.csv")], FileSettings::default());
    let out = tiny.path("out.jsonl");
    let done = mixed.file((&input, &out), "ask", &file, None, PLAIN).unwrap();
    assert_eq!(done.rows, texts.len());
    let lines = std::fs::read_to_string(&out).unwrap();
    for (row, line) in lines.lines().enumerate() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let one = &together[row * adapters.len() + row * 3 % adapters.len()];
        let logits: Vec<f32> = serde_json::from_value(line["logits"].clone()).unwrap();
        assert_eq!(Some(&logits), one.logits.as_ref(), "{line}");
        assert_eq!(line.get("label").is_some(), one.adapter.as_deref() != Some("numbers"), "{line}");
    }
    // Columns of all answers, empty where an answer has none.
    let table = tiny.path("out.csv");
    mixed.file((&input, &table), "ask", &file, None, Writing { logits: false, overwrite: false }).unwrap();
    let table = std::fs::read_to_string(&table).unwrap();
    assert!(table.starts_with("id,ask,text,label,score\n"), "{table}");
    assert!(table.lines().nth(4).unwrap().contains(",,"), "{table}");
}

#[test]
fn a_row_that_names_no_adapter_is_told_with_its_line() {
    let tiny = Tiny::new();
    trained(&tiny, "lora", "lora", 1);
    let named = |name: &str| (name.to_string(), model(tiny.path("lora")));
    let mixed = Mixed::open(&[named("tone"), named("topic")]).unwrap();
    assert_eq!(mixed.models().map(|(name, _)| name).collect::<Vec<_>>(), ["tone", "topic"]);
    tiny.write("rows.csv", "text,adapter\npay,tone\npay,topik\n");
    let run = |column: &str| {
        let (input, output) = (tiny.path("rows.csv"), tiny.path("out.csv"));
        mixed
            .file((&[input], &output), column, &FileSettings::default(), None, PLAIN)
            .unwrap_err()
            .to_string()
    };
    let expected = "line 3: column `adapter`: there is no adapter `topik`, did you mean `topic`?; there are: tone, topic";
    assert!(run("adapter").ends_with(expected), "{}", run("adapter"));
    assert!(
        run("adaptor")
            .contains("no column `adaptor` that says which adapter a row uses (did you mean `adapter`?)")
    );
    assert!(!tiny.path("out.csv").exists());

    let error = |adapters: &[(String, ModelSettings)]| Mixed::open(adapters).err().unwrap().to_string();
    assert!(error(&[named("a"), named("a")]).contains("two adapters are called `a`"));
    assert!(error(&[]).contains("expected at least one adapter"));
    for text in ["", "a", "=dir", "a="] {
        assert!(
            mixed::named(text).unwrap_err().to_string().starts_with("--adapter: expected a name and"),
            "{text}"
        );
    }
    let (name, folder) = mixed::named("a=b=c").unwrap();
    assert_eq!((name.as_str(), folder.to_str()), ("a", Some("b=c")));
}
