//! Text to learn: which columns it stands in, and what becomes of conversations.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use retune_data::{DataError, Example, Label, Lesson, LessonColumns, Table, Turns, Wanted, parse_table};
use serde_json::{Value, json};

fn table(text: &str) -> Arc<Table> {
    Arc::new(parse_table(Path::new("file"), text, None).unwrap())
}

/// The first row.
fn first(columns: &LessonColumns, table: &Arc<Table>) -> Result<Example, DataError> {
    Ok(columns.lessons(table.clone())?.get(0)?.unwrap())
}

fn only(text: &str) -> Result<Example, DataError> {
    let table = table(text);
    let columns = LessonColumns::choose(&table, &Wanted::default())?;
    first(&columns, &table)
}

fn turns(example: Example) -> Turns {
    let Some(Label::Lesson(Lesson::Turns(turns))) = example.label else { panic!("{example:?}") };
    *turns
}

fn named<'a>(text: Option<&'a str>, label: Option<&'a str>) -> Wanted<'a> {
    let named = |name| retune_data::Named { name, why: "as asked" };
    Wanted { text: text.map(named), label: label.map(named), ..Wanted::default() }
}

#[test]
fn a_completion_that_is_named_alone_is_that_of_the_prompt_that_is_there() {
    let named = |columns: &str, label| {
        let table = table(
            &format!("{columns}\na,b,c\n")
                .replace(",c\n", if columns.matches(',').count() == 2 { ",c\n" } else { "\n" }),
        );
        let chosen = LessonColumns::choose(&table, &named(None, Some(label)));
        chosen.map(|columns| columns.names().0.to_string()).map_err(|error| error.to_string())
    };
    assert_eq!(named("prompt,completion,better", "better").unwrap(), "prompt");
    assert_eq!(named("asked,told", "told").unwrap(), "asked");
    assert_eq!(named("asked,told", "asked").unwrap(), "told");
    let error = named("prompt,completion,better", "beter").unwrap_err();
    assert!(error.contains("`beter`") && error.contains("did you mean `better`"), "{error}");
    assert!(named("one,two,three", "three").unwrap_err().contains("name the prompt's with --text-column"));
}

#[test]
fn what_is_asked_needs_no_answers() {
    let asked = |text: &str, wanted: &Wanted<'_>, on_prompts| {
        let table = table(text);
        let columns = LessonColumns::asked(&table, wanted, on_prompts)?;
        let example = first(&columns, &table)?;
        let Some(Label::Lesson(lesson)) = example.label else { panic!("no lesson") };
        Ok::<_, DataError>((example.text, lesson))
    };
    let prompt = |text: &str| Lesson::Completion { user: text.into(), completion: String::new() };
    let usual = Wanted::default();
    assert_eq!(asked("prompt\nhow?\n", &usual, false).unwrap(), ("how?".into(), prompt("how?")));
    assert_eq!(asked("id,question\n1,how?\n", &usual, false).unwrap(), ("how?".into(), prompt("how?")));
    let (text, lesson) = asked("instruction,input\ntell,it\n", &usual, false).unwrap();
    assert!(text.ends_with("### Response:\n") && text.contains("### Input:\nit"), "{text}");
    assert_eq!(lesson, prompt("tell\n\nit"));
    // A text goes on as it is, unless the model was trained on prompts.
    assert_eq!(asked("text\nonce\n", &usual, false).unwrap().1, Lesson::Text);
    assert_eq!(asked("text\nonce\n", &named(Some("text"), None), true).unwrap().1, prompt("once"));
    // With an answer it is what it is in training.
    let with = asked("prompt,completion\nhow?,so\n", &usual, false).unwrap().1;
    assert_eq!(with, Lesson::Completion { user: "how?".into(), completion: "so".into() });
}

#[test]
fn prompts_that_are_conversations_are_given_and_not_learnt() {
    let text = r#"{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
                   "completion": [{"role": "assistant", "content": "d"}]}"#
        .replace('\n', " ");
    let learnt: Vec<bool> = turns(only(&text).unwrap()).messages.iter().map(retune_data::is_answer).collect();
    assert_eq!(learnt, [false, false, false, true]);
    let text = r#"{"prompt": [{"role": "user", "content": "a"}], "completion": "d"}"#;
    let read = turns(only(text).unwrap());
    assert_eq!(read.messages[1], json!({ "role": "assistant", "content": "d" }));
}

#[test]
fn roles_systems_and_tools_are_read_as_they_are_meant() {
    let text = r#"{"system": "be kind", "messages": [{"role": "User", "content": "a"}, {"role": "ASSISTANT", "content": "b"}]}"#;
    let read = turns(only(text).unwrap());
    let roles: Vec<&str> = read.messages.iter().filter_map(retune_data::role).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    assert_eq!(read.messages[0]["content"], "be kind");
    // Its own stands.
    let text = r#"{"system": "be kind", "messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "a"}]}"#;
    assert_eq!(turns(only(text).unwrap()).messages[0]["content"], "own");

    let misspelt =
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "asistant", "content": "b"}]}"#;
    let error = only(misspelt).unwrap_err().to_string();
    assert!(error.contains("turn 2: `asistant` is no role; did you mean `assistant`?"), "{error}");

    let with =
        |tools: &str| format!(r#"{{"messages": [{{"role": "user", "content": "a"}}], "tools": {tools}}}"#);
    assert_eq!(turns(only(&with(r#"[{"name": "look"}]"#)).unwrap()).tools, Some(json!([{ "name": "look" }])));
    assert_eq!(turns(only(&with("null")).unwrap()).tools, None::<Value>);
    let error = only(&with(r#""[{broken""#)).unwrap_err().to_string();
    assert!(error.contains("column `tools`: expected a list of tools, got"), "{error}");
}

#[test]
fn columns_that_nobody_reads_are_told() {
    let table = table("instruction,input,output,history\na,b,c,d\n");
    let columns = LessonColumns::choose(&table, &Wanted::default()).unwrap();
    let said = columns.unread(&table);
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("column `history` is not read"), "{said:?}");
}
