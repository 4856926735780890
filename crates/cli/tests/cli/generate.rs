//! Text from a decoder, and conversations with one, from the command line.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::command::{Done, command, done, retune};
use crate::tiny::{Tiny, chats};

/// A Llama that learnt chats, as an adapter.
fn tiny() -> Tiny {
    let tiny = Tiny::new();
    tiny.language_model("llama");
    tiny.write("chats.jsonl", chats(0..40));
    let path = |name: &str| tiny.path(name).display().to_string();
    let (model, rows, output) = (path("llama"), path("chats.jsonl"), path("lora"));
    let given = ["--method", "lora", "--epochs", "12", "--learning-rate", "0.05", "--batch-size", "8"];
    let first = ["train", "--model", &model, "--train", &rows, "--output", &output];
    retune(&[&first[..], &given[..]].concat()).succeeded();
    tiny
}

fn piped(arguments: &[&str], input: &str) -> Done {
    let mut child = command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who refuses a request reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    done(child.wait_with_output().unwrap())
}

fn texts(document: &Value) -> Vec<String> {
    let generations = document["generations"].as_array().unwrap();
    generations.iter().map(|one| one["text"].as_str().unwrap().to_string()).collect()
}

#[test]
fn prompts_go_on_the_same_way_wherever_they_come_from() {
    let tiny = tiny();
    let path = |name: &str| tiny.path(name).display().to_string();
    let (base, lora) = (path("llama"), path("lora"));
    let ask = |more: &[&str]| retune(&[&["generate", "--max-new-tokens", "6"], more].concat());

    // What it learnt, with its adapter; the base does not know it.
    let asked = ["--chat", "--prompt", "hi where is my card"];
    let with = ask(&[&["--model", &lora], &asked[..]].concat()).succeeded();
    assert_eq!(with.stdout, "it is lost\n", "{}", with.stderr);
    assert!(with.stderr.contains("tokens/s"), "{}", with.stderr);
    let also = ask(&[&["--model", &base, "--adapter", &lora], &asked[..]].concat()).succeeded();
    assert_eq!(also.stdout, with.stdout);
    assert_ne!(ask(&[&["--model", &base], &asked[..]].concat()).succeeded().stdout, with.stdout);
    let document = ask(&[&["--model", &lora, "--json"], &asked[..]].concat()).succeeded().json();
    assert_eq!(document["text"], "it is lost");
    // With the mark of its end.
    assert_eq!((&document["tokens"], &document["generations"][0]["finish"]), (&4.into(), &"stop".into()));
    assert!(document["tokens_per_second"].as_f64().unwrap() > 0.0);

    // A file of conversations, up to their last answers, in batches of any size.
    tiny.write("test.jsonl", chats(100..105));
    let (input, output) = (path("test.jsonl"), path("out.jsonl"));
    let file = |rows: &str, threads: &str, more: &[&str]| {
        let given =
            ["--model", &lora, "--input", &input, "--batch-size", rows, "--threads", threads, "--json"];
        ask(&[&given[..], more].concat()).succeeded().json()
    };
    let all = file("16", "2", &[]);
    let expected = all["generations"][1]["expected"].as_str().unwrap();
    assert_eq!(texts(&all)[1], expected);
    let drawn = ["--temperature", "2", "--top-k", "20", "--seed", "5"];
    let once = texts(&file("16", "2", &drawn));
    for (rows, threads) in [("1", "1"), ("2", "3"), ("5", "2")] {
        assert_eq!(texts(&file(rows, threads, &[])), texts(&all));
        assert_eq!(texts(&file(rows, threads, &drawn)), once);
    }
    assert_ne!(texts(&file("16", "2", &["--temperature", "2", "--top-k", "20", "--seed", "6"])), once);
    assert_ne!(once, texts(&all));

    let write = ["--model", &lora, "--input", &input, "--output", &output];
    let said = ask(&write).succeeded();
    assert!(said.stderr.contains("5 answers, written to"), "{}", said.stderr);
    let lines = std::fs::read_to_string(&output).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, *all["generations"].as_array().unwrap());
    ask(&write).refused("there is such a file");
    ask(&[&write[..4], &["--output", &input]].concat()).refused("which it would replace");

    // A text as it is, by flag and from stdin; a stop text ends it.
    let raw = ask(&["--model", &base, "--prompt", "my card is"]).succeeded();
    assert!(raw.stderr.contains("--chat asks it as a turn"), "{}", raw.stderr);
    let stdin = piped(&["generate", "--model", &base, "--max-tokens", "6"], "my card is\n").succeeded();
    assert_eq!(stdin.stdout, raw.stdout);
    let words: Vec<&str> = raw.stdout.split_whitespace().collect();
    let stopped =
        ask(&["--model", &base, "--prompt", "my card is", "--stop", words[2], "--json"]).succeeded();
    let (whole, found) = (raw.stdout.trim_end(), stopped.json());
    assert_eq!(found["text"].as_str().unwrap(), &whole[..whole.find(words[2]).unwrap()]);
    assert_eq!(found["generations"][0]["finish"], "stop");
}

#[test]
fn generated_answers_are_held_to_the_right_ones() {
    let tiny = tiny();
    let path = |name: &str| tiny.path(name).display().to_string();
    let lora = path("lora");
    tiny.write("test.jsonl", chats(100..109));
    let data = path("test.jsonl");
    let generate = ["generate", "--model", &lora, "--input", &data, "--max-new-tokens", "6", "--json"];
    let answers = retune(&generate).succeeded().json();
    let answers = answers["generations"].as_array().unwrap();
    let last =
        |one: &Value, key: &str| one[key].as_str().unwrap().split(' ').next_back().unwrap().to_string();
    let same = answers.iter().filter(|one| last(one, "text") == last(one, "expected")).count();
    let evaluate = |pattern: &str| {
        let given = ["--exact-match", pattern, "--max-new-tokens", "6", "--json"];
        retune(&[&["evaluate", "--model", &lora, "--data", &data], &given[..]].concat())
    };
    let document = evaluate(r"(\w+)$").succeeded().json();
    let share = document["metrics"]["exact_match"].as_f64().unwrap();
    assert!((share - same as f64 / 9.0).abs() < 1e-9 && same > 2, "{share}: {same} of {answers:?}");
    assert!(document["metrics"]["intervals"].to_string().contains("exact_match"), "{document}");
    assert!(document["metrics"]["perplexity"].is_number());
    // A pattern without a group is all of what it finds.
    let any = evaluate(r"\w+ ").succeeded();
    assert!(any.json()["metrics"]["exact_match"].as_f64().unwrap() > 0.0);
    evaluate("(").refused("--exact-match: expected a pattern");
    evaluate("#### (.+)").refused("row 1: expected a right answer in which `#### (.+)` is found, got `");
}

#[test]
fn what_cannot_be_is_refused() {
    let tiny = Tiny::new();
    tiny.language_model("llama");
    let path = |name: &str| tiny.path(name).display().to_string();
    let base = path("llama");
    let ask =
        |more: &[&str]| retune(&[&["generate", "--model", &base, "--prompt", "my card"], more].concat());
    for (given, words) in [
        (["--temperature", "nan"], "--temperature: expected a number from 0 on, got NaN"),
        (["--top-p", "0"], "--top-p: expected more than 0 and at most 1, got 0"),
        (["--min-p", "2"], "--min-p: expected 0 to 1, got 2"),
        (["--repetition-penalty", "0"], "--repetition-penalty: expected a number above 0, got 0"),
        (["--max-new-tokens", "0"], "--max-new-tokens: expected at least 1, got 0"),
        (["--batch-size", "0"], "--batch-size: expected at least 1, got 0"),
        (["--stop", ""], "--stop: expected a text, got nothing"),
        (["--chat-template", "none"], "--chat: the model has no chat template"),
    ] {
        ask(&[&["--chat"], &given[..]].concat()).refused(words);
    }
    let long = "my card ".repeat(20);
    retune(&["generate", "--model", &base, "--prompt", &long])
        .refused("prompt 1: expected fewer than the 29 tokens that the model can take, got 40");
    // Of a file the line is named, before the first row is answered.
    tiny.write("long.jsonl", format!("{{\"prompt\": \"my card\"}}\n{{\"prompt\": \"{long}\"}}\n"));
    let asked = ["generate", "--model", &base, "--input", &path("long.jsonl"), "--chat-template", "none"];
    retune(&asked).refused("long.jsonl: line 2: expected fewer than the 29 tokens");
    retune(&["generate", "--model", &base]).refused("stdin: expected a prompt, got nothing");
    retune(&["generate", "--model", &path("base"), "--prompt", "x"]).refused("model_type");
    std::fs::remove_file(tiny.path("llama/chat_template.jinja")).unwrap();
    ask(&["--system", "hi"]).refused("--system: the model has no chat template");
    retune(&["chat", "--model", &base]).refused("the model has no chat template");
    tiny.write("test.jsonl", chats(0..3));
    retune(&["generate", "--model", &base, "--input", &path("test.jsonl")])
        .refused("line 1: it is a conversation");
}

#[test]
fn a_conversation_is_a_line_a_turn() {
    let tiny = tiny();
    let path = |name: &str| tiny.path(name).display().to_string();
    let (base, lora) = (path("llama"), path("lora"));
    let chat = |model: &str, lines: &str, more: &[&str]| {
        piped(&[&["chat", "--model", model, "--max-new-tokens", "6"], more].concat(), lines)
    };
    let script = "hi where is my card\n/reset\n\nno are you open\n/adapter off\n/reset\nhi where is my card\n\
                  /adapter on\n/reset\nhi where is my card\n/quit\nnever\n";
    let said = chat(&lora, script, &[]).succeeded();
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!((lines[0], lines[3]), ("it is lost", "it is lost"), "{}", said.stdout);
    assert!(lines[1].starts_with("no we "), "{}", said.stdout);
    assert_ne!(lines[2], "it is lost");
    assert_eq!(lines.len(), 4);
    assert!(said.stderr.contains("the adapter is off") && !said.stderr.contains("> "), "{}", said.stderr);
    let document = chat(&lora, script, &["--json"]).succeeded().json();
    assert_eq!(document["turns"][1]["text"], lines[1]);
    assert_eq!(document["turns"].as_array().unwrap().len(), 4);

    // Later turns go on from what is known, and say what they would with everything read anew.
    tiny.write(
        "turns.jsonl",
        r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ANSWER"}, {"role": "user", "content": "no"}]}"#,
    );
    let two = chat(&base, "hi\nno", &["--json"]).succeeded().json();
    let first = two["turns"][0]["text"].as_str().unwrap();
    let rows = std::fs::read_to_string(tiny.path("turns.jsonl")).unwrap().replace("ANSWER", first);
    let rows = tiny.write("turns.jsonl", rows).display().to_string();
    let file = retune(&["generate", "--model", &base, "--input", &rows, "--max-new-tokens", "6", "--json"]);
    assert_eq!(file.succeeded().json()["text"], two["turns"][1]["text"]);
    assert_eq!(two["turns"][1]["prompt"], "no");

    chat(&base, "/adapter off\n", &[]).refused("it is a whole model, without an adapter to switch");
    chat(&lora, "/adaptor off\n", &[]).refused("there is no `/adaptor`, did you mean `/adapter`?");
    chat(&lora, "/adapter of\n", &[]).refused("/adapter: expected on or off, got `of`");
    assert_eq!(chat(&lora, "", &[]).succeeded().stdout, "");
    // A turn that begins with a bar, another system's words, and a conversation that grows too long.
    chat(&lora, "/system closed\n//quit\n", &["--system", "open"]).succeeded();
    let long = "my card my card my card my card\n".repeat(4);
    chat(&lora, &long, &[]).refused("tokens that the model can take");
}
