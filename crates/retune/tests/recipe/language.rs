//! Language models on a tiny random Llama and GPT-2: from chats to a result that opens again.

use retune::{METHODS, ModelSettings, TrainSettings, doctor, plan, predict};
use serde_json::{Value, json};

use crate::run::{Ear, model, refused, score, settings, train};
use crate::tiny::{Tiny, chats};

/// A folder with language models, `llama` and `gpt2`, and chats.
fn tiny() -> Tiny {
    let tiny = Tiny::new();
    for name in ["llama", "gpt2"] {
        tiny.language_model(name);
    }
    tiny.write("chats.jsonl", chats(0..40));
    tiny.write("test.jsonl", chats(100..116));
    tiny
}

fn chat(tiny: &Tiny, base: &str, method: &str, output: &str) -> TrainSettings {
    TrainSettings {
        model: model(tiny.path(base)),
        train: Some(vec![tiny.path("chats.jsonl")]),
        eval: Some(vec![tiny.path("test.jsonl")]),
        ..settings(tiny, method, output)
    }
}

#[test]
fn every_method_learns_chats_and_says_what_was_counted() {
    let tiny = tiny();
    for base in ["llama", "gpt2"] {
        for method in METHODS.iter().map(|method| method.name()) {
            if (base, method) == ("llama", "bitfit") {
                continue;
            }
            let output = format!("{base}-{method}");
            let (report, ear) = train(&chat(&tiny, base, method, &output)).unwrap();
            assert!(ear.heard("task causal-lm: the training file has conversations"), "{:?}", ear.said);
            assert_eq!((report.task, report.train_rows, report.eval_rows), ("causal-lm", 40, 16), "{output}");
            let losses = ear.losses();
            assert!(losses.iter().all(|loss| loss.is_finite()), "{output}: {losses:?}");
            let result = model(tiny.path(&output));
            let evaluation = score(&result, &tiny, "test.jsonl").unwrap();
            let metrics = report.metrics.as_ref().unwrap();
            for name in ["loss", "perplexity", "log_likelihood", "tokens"] {
                let (trained, loaded) = (metrics[name], evaluation.metrics.values[name]);
                assert_eq!(trained.to_bits(), loaded.to_bits(), "{output}: {name}");
            }
            assert!((metrics["perplexity"] - metrics["loss"].exp()).abs() < 1e-9, "{output}");
            // Of each answer its words and the mark of its end, which the template writes.
            assert!((metrics["tokens"] - 65.0).abs() < 0.5, "{output}: {metrics:?}");
            let adapter = tiny.path(&output).join("adapter_config.json");
            if adapter.exists() {
                let config: Value = serde_json::from_slice(&std::fs::read(adapter).unwrap()).unwrap();
                let kind = config.get("task_type").map_or("CAUSAL_LM", |kind| kind.as_str().unwrap());
                assert_eq!(kind, "CAUSAL_LM", "{output}");
            } else {
                let config = std::fs::read(tiny.path(&output).join("config.json")).unwrap();
                let config: Value = serde_json::from_slice(&config).unwrap();
                let class = if base == "gpt2" { "GPT2LMHeadModel" } else { "LlamaForCausalLM" };
                assert_eq!(config["architectures"], json!([class]), "{output}");
                assert!(config.get("id2label").is_none(), "{output}");
            }
        }
    }
}

#[test]
fn blocks_computed_once_more_give_the_same_bytes() {
    let tiny = tiny();
    for (base, method) in [("llama", "lora"), ("gpt2", "full"), ("gpt2", "p-tuning-v2")] {
        let run = |recompute: bool| {
            let output = format!("{base}-{method}-{recompute}");
            let settings = chat(&tiny, base, method, &output);
            train(&TrainSettings { recompute: Some(recompute), ..settings }).unwrap();
            let files = tiny.files(&output).into_iter();
            files.filter(|(name, _)| name.ends_with(".safetensors")).collect::<Vec<_>>()
        };
        let (kept, again) = (run(false), run(true));
        assert!(kept == again && !kept.is_empty(), "{base} {method}");
    }
}

#[test]
fn enough_steps_learn_the_answers() {
    let tiny = tiny();
    let given = TrainSettings {
        epochs: Some(40.0),
        learning_rate: Some(1e-2),
        ..chat(&tiny, "llama", "full", "out")
    };
    let (report, _) = train(&given).unwrap();
    let metrics = report.metrics.unwrap();
    assert!(metrics["perplexity"] < 1.2, "{metrics:?}");
}

#[test]
fn lessons_of_all_forms_are_read_and_what_is_learnt_is_counted() {
    let tiny = tiny();
    let doctor_of = |rows: &str, change: &dyn Fn(&mut TrainSettings)| {
        tiny.write("rows.jsonl", rows.repeat(4));
        let mut given = chat(&tiny, "llama", "lora", "never");
        given.train = Some(vec![tiny.path("rows.jsonl")]);
        (given.eval, given.task) = (None, Some("causal-lm".into()));
        change(&mut given);
        let diagnosis = doctor(&given, &mut Ear::default()).unwrap();
        let token = |token: &retune::doctor::SampleToken| match token.learnt {
            true => format!("[{}]", token.token),
            false => token.token.clone(),
        };
        diagnosis.sample.iter().map(token).collect::<Vec<_>>().join(" ")
    };
    let plain = |_: &mut TrainSettings| ();
    let bare = |given: &mut TrainSettings| given.model.chat_template = Some("none".into());
    let all = |given: &mut TrainSettings| given.model.loss_on = Some("all".into());
    let short = |given: &mut TrainSettings| given.max_length = Some(12);
    let two = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi you\"}, {\"role\": \"assistant\", \"content\": \"yes\"}, \
               {\"role\": \"user\", \"content\": \"where is it\"}, {\"role\": \"assistant\", \"content\": \"here\"}]}\n";
    assert_eq!(
        doctor_of(two, &plain),
        "<|user|> hi you <|bot|> [yes] [</s>] <|user|> where is it <|bot|> [here] [</s>]"
    );
    assert_eq!(
        doctor_of(two, &all),
        "<|user|> [hi] [you] [<|bot|>] [yes] [</s>] [<|user|>] [where] [is] [it] [<|bot|>] [here] [</s>]"
    );
    // Whole turns go.
    assert_eq!(doctor_of(two, &short), "<|user|> hi you <|bot|> [yes] [</s>]");
    let share = "{\"conversations\": [{\"from\": \"human\", \"value\": \"hi\"}, {\"from\": \"gpt\", \"value\": \"yes\"}]}\n";
    assert_eq!(doctor_of(share, &plain), "<|user|> hi <|bot|> [yes] [</s>]");
    let pair = "{\"prompt\": \"where is it\", \"completion\": \"here\"}\n";
    assert_eq!(doctor_of(pair, &plain), "<|user|> where is it <|bot|> [here] [</s>]");
    assert_eq!(doctor_of(pair, &bare), "where is it [here] [</s>]");
    let alpaca = "{\"instruction\": \"help\", \"input\": \"my card\", \"output\": \"sorry\"}\n";
    assert_eq!(doctor_of(alpaca, &plain), "<|user|> help my card <|bot|> [sorry] [</s>]");
    assert_eq!(doctor_of("{\"text\": \"hi you\"}\n", &plain), "hi [you] [</s>]");
    // A template that writes no end of a turn: without one the model would not stop.
    let endless = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}";
    std::fs::write(tiny.path("llama/chat_template.jinja"), endless).unwrap();
    let learnt = doctor_of(pair, &plain);
    assert!(learnt.ends_with("[here] [</s>]"), "{learnt}");
}

fn told(given: &TrainSettings, expected: &str) {
    let error = refused(given);
    assert!(error.contains(expected), "expected `{expected}`: {error}");
}

#[test]
fn what_cannot_be_learnt_is_refused_with_its_place() {
    let tiny = tiny();
    for (rows, expected) in [
        ("{\"messages\": \"hi\"}", "line 1: column `messages`: expected a list of turns such as"),
        (
            "{\"messages\": [{\"role\": \"user\"}]}",
            "column `messages`: turn 1: expected a text for `content`",
        ),
        (
            "{\"messages\": [{\"content\": \"x\"}]}",
            "turn 1: expected a text for `role`, such as user or assistant",
        ),
        ("{\"prompt\": \"hi\", \"completion\": \" \"}", "column `completion`: expected a text, got nothing"),
        ("{\"a\": \"hi\", \"b\": \"c\"}", "expected a column `messages`, or `prompt` and `completion`"),
        (
            "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}",
            "expected tokens to learn, got none in any row",
        ),
    ] {
        tiny.write("rows.jsonl", format!("{rows}\n").repeat(3));
        let given = TrainSettings {
            train: Some(vec![tiny.path("rows.jsonl")]),
            eval: None,
            task: Some("causal-lm".into()),
            ..chat(&tiny, "llama", "lora", "never")
        };
        told(&given, expected);
    }
    let given = TrainSettings {
        model: ModelSettings { loss_on: Some("answer".into()), ..model(tiny.path("llama")) },
        ..chat(&tiny, "llama", "lora", "never")
    };
    told(&given, "--loss-on: expected answers or all, got `answer`");
    std::fs::remove_file(tiny.path("llama/chat_template.jinja")).unwrap();
    told(
        &chat(&tiny, "llama", "lora", "never"),
        "chats.jsonl: line 1: it is a conversation, and the model has no chat template",
    );
    // An encoder tells no next token.
    told(
        &chat(&tiny, "base", "lora", "never"),
        "expected one that can be a model of text that goes on: gpt2, llama",
    );
    train(&chat(&tiny, "gpt2", "lora", "out")).unwrap();
    let answers = predict::texts(&model(tiny.path("out")), &["hi".to_string()], None, false);
    assert!(answers.err().unwrap().to_string().contains("answers with text and not with labels"));
}

#[test]
fn a_plan_counts_what_the_training_does() {
    let tiny = tiny();
    for (base, method) in [("gpt2", "full"), ("llama", "lora")] {
        let given = chat(&tiny, base, method, &format!("planned-{base}"));
        let planned = plan(&given, None, &mut Ear::default()).unwrap();
        let (report, _) = train(&given).unwrap();
        assert_eq!((planned.train_rows, planned.eval_rows, planned.steps), (40, 16, report.steps), "{base}");
    }
}

#[test]
fn a_text_file_is_learnt_to_its_end_in_rows_that_follow_one_another() {
    let tiny = tiny();
    // Far longer than a row, so that it goes on in others; each word is a token, and the end of the text one more.
    let words = ["hi", "you", "yes", "where", "is", "it", "here"];
    let text: Vec<&str> = (0..500).map(|place| words[place * place % words.len()]).collect();
    tiny.write("tale.txt", text.join(" "));
    let given = TrainSettings {
        train: Some(vec![tiny.path("tale.txt")]),
        eval: Some(vec![tiny.path("tale.txt")]),
        max_length: Some(29),
        ..chat(&tiny, "llama", "lora", "told")
    };
    let (report, ear) = train(&given).unwrap();
    assert!(ear.heard("task causal-lm: the training file is plain text"), "{:?}", ear.said);
    assert!(!ear.heard("cut"), "{:?}", ear.said);
    // The first token has nothing before it that could tell it; 501 tokens in rows of 29 that share one.
    let metrics = report.metrics.unwrap();
    assert!((metrics["tokens"] - 500.0).abs() < 0.5, "{metrics:?}");
    assert_eq!((report.train_rows, report.eval_rows), (1, 1));
    // Eighteen rows for the model, seven a step, twice.
    assert_eq!(ear.losses().len(), 6);
}
