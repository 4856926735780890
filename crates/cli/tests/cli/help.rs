//! What the binary says of itself.

use crate::command::retune;

const VERBS: [&str; 11] = [
    "train", "plan", "doctor", "evaluate", "predict", "generate", "chat", "merge", "combine", "inspect",
    "methods",
];

#[test]
fn every_help_has_examples() {
    let whole = retune(&["--help"]).succeeded().stdout;
    assert!(whole.contains("examples:"), "{whole}");
    for verb in VERBS {
        assert!(whole.contains(&format!("  {verb} ")), "{verb}: {whole}");
        let help = retune(&[verb, "--help"]).succeeded().stdout;
        let examples = help.split("examples:").nth(1).unwrap_or_else(|| panic!("{verb} has none: {help}"));
        assert!(examples.contains(&format!("retune {verb}")), "{verb}: {examples}");
        assert!(help.contains("--json"), "{verb}");
    }
}

#[test]
fn every_setting_of_a_method_is_a_flag_that_names_it() {
    let help = retune(&["train", "--help"]).succeeded().stdout;
    let document = retune(&["methods", "--json"]).succeeded().json();
    let methods = document["methods"].as_array().unwrap();
    for method in methods {
        for option in method["options"].as_array().unwrap() {
            let flag = format!("--{} <", option["name"].as_str().unwrap());
            let line = help.lines().position(|line| line.trim_start().starts_with(&flag));
            let line = line.unwrap_or_else(|| panic!("no {flag}"));
            let words: String = help.lines().skip(line).take(6).collect();
            let name = method["name"].as_str().unwrap();
            let mut brackets = words.split('(').skip(1).filter_map(|after| after.split(')').next());
            let named = brackets.any(|inside| inside.split(',').any(|word| word.trim() == name));
            assert!(named, "{name}: {words}");
        }
    }
    let text = retune(&["methods"]).succeeded().stdout;
    for method in methods {
        assert!(text.contains(method["when"].as_str().unwrap()), "{text}");
    }
}

#[test]
fn flags_are_in_groups_and_the_short_help_is_short() {
    let long = retune(&["train", "--help"]).succeeded().stdout;
    for group in ["Model:", "Data:", "Method:", "Training:", "Evaluation:", "Run:"] {
        assert_eq!(long.lines().filter(|line| *line == group).count(), 1, "{group}: {long}");
    }
    let short = retune(&["train", "-h"]).succeeded().stdout;
    assert!(
        short.lines().count() < 60 && short.contains("--epochs") && !short.contains("--warmup"),
        "{short}"
    );
}

#[test]
fn flags_as_peft_calls_them_are_told_their_names_here() {
    retune(&["train", "--lora-rank", "4"]).refused("--lora-rank: no such flag");
    retune(&["train", "--lora_alpha", "4"]).refused("`--alpha`");
}

#[test]
fn what_is_no_number_is_told_what_is_expected() {
    for (flag, value, expected) in [
        ("--epochs", "two", "a number, such as 3 or 0.5"),
        ("--batch-size", "32.5", "a whole number from 0 on, such as 3"),
        ("--seed", "99999999999999999999999", "a whole number from 0 on, such as 3"),
    ] {
        let words = format!("error: {flag}: expected {expected}, got `{value}`");
        retune(&["train", flag, value]).refused(&words);
        let document = retune(&["train", flag, value, "--json"]).json();
        assert_eq!(document["error"].as_str(), words.strip_prefix("error: "));
    }
    retune(&["train", "--lr", "1e-4x"]).refused("--learning-rate: expected a number, such as 3 or 0.5");
    retune(&["train", "--set", "batch-size=\"many\""])
        .refused("`batch-size`: expected a whole number, such as 3");
}

#[test]
fn near_misses_are_told() {
    retune(&["trian"]).refused("similar subcommand exists: 'train'");
    retune(&["train", "--epocs", "3"]).refused("a similar argument exists: '--epochs'");
    retune(&["train", "--rnk", "3"]).refused("a similar argument exists: '--rank'");
    retune(&["train", "--set", "epocs=3"]).refused("--set: `epocs` is no setting; did you mean `epochs`?");
    retune(&["train", "--set", "epochs"]).refused("--set: expected key=value, got `epochs`");
    retune(&["train", "--set", "epochs=many"]).refused("--set: `epochs`: ");
    retune(&["train", "--threads", "0"]).refused("--threads: expected 1 to 1024, got 0");
    assert!(retune(&["--version"]).succeeded().stdout.starts_with("retune "));
    assert_eq!(retune::<&str>(&[]).code, 2);
}
