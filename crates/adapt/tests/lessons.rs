//! Chat templates and what is learnt of conversations, held to transformers (see `oracle/chat_templates.py`).

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::path::Path;

use retune_adapt::tasks::answers_in;
use retune_model::ChatTemplate;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Golden {
    templates: BTreeMap<String, String>,
    tokens: Map<String, Value>,
    conversations: Vec<Conversation>,
}

#[derive(Deserialize)]
struct Conversation {
    template: String,
    messages: Vec<Value>,
    tools: Option<Value>,
    text: Option<String>,
    prompted: Option<String>,
    /// Characters.
    #[serde(default)]
    generated: Vec<[usize; 2]>,
    refused: Option<String>,
}

fn golden() -> (BTreeMap<String, ChatTemplate>, Vec<Conversation>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chat_templates.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let open = |(name, source): (String, String)| {
        let template = ChatTemplate::new("golden".into(), &[("default", source)], golden.tokens.clone());
        (name, template.unwrap())
    };
    (golden.templates.into_iter().map(open).collect(), golden.conversations)
}

#[test]
fn conversations_are_written_as_transformers_writes_them() {
    let (templates, conversations) = golden();
    assert_eq!(conversations.len(), 200);
    for (number, conversation) in conversations.iter().enumerate() {
        let (template, messages) = (&templates[&conversation.template], &conversation.messages);
        let tools = conversation.tools.as_ref();
        let place = format!("conversation {number}, `{}`", conversation.template);
        match (&conversation.text, &conversation.refused) {
            (Some(text), _) => {
                assert_eq!(&template.render(messages, tools, false).unwrap(), text, "{place}");
                let asked = template.render(&messages[..messages.len() - 1], tools, true).unwrap();
                assert_eq!(Some(asked), conversation.prompted, "{place}");
            }
            (None, refused) => {
                let error = template.render(messages, tools, false).unwrap_err().to_string();
                assert!(error.contains(refused.as_deref().unwrap()), "{place}: {error}");
            }
        }
    }
}

#[test]
fn what_the_assistant_wrote_is_what_templates_mark_as_its_own() {
    let (templates, conversations) = golden();
    let mut compared = 0;
    for (number, conversation) in conversations.iter().enumerate() {
        let Some(text) = &conversation.text else { continue };
        let (template, messages) = (&templates[&conversation.template], &conversation.messages);
        let found = answers_in(template, messages, conversation.tools.as_ref(), text).unwrap();
        let bytes: Vec<usize> = text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect();
        // White space at the ends belongs to nobody.
        let marked: Vec<&str> = conversation
            .generated
            .iter()
            .map(|[start, end]| text[bytes[*start]..bytes[*end]].trim())
            .collect();
        let found: Vec<&str> = found.into_iter().map(|span| text[span].trim()).collect();
        assert_eq!(found, marked, "conversation {number}, `{}`: {text}", conversation.template);
        compared += found.len();
    }
    assert!(compared > 400, "{compared}");
}

/// A template that writes thoughts of the last turn only, and calls of tools behind what is said.
const THINKS: &str = "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}\
                      {{ m.content }}{% for call in m.tool_calls or [] %}<call>{{ call.name }}</call>{% endfor %}<|end|>\n\
                      {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

#[test]
fn a_turn_that_only_calls_tools_is_found_in_a_template_that_writes_last_turns_otherwise() {
    let template = ChatTemplate::new("t".into(), &[("default", THINKS.into())], Map::new()).unwrap();
    let messages: Vec<Value> = serde_json::from_str(
        r#"[{"role": "assistant", "content": "given", "weight": 0},
            {"role": "user", "content": "weather?"},
            {"role": "assistant", "content": "", "tool_calls": [{"name": "look"}]},
            {"role": "tool", "content": "rain"},
            {"role": "assistant", "content": "It rains."}]"#,
    )
    .unwrap();
    let text = template.render(&messages, None, false).unwrap();
    let found = answers_in(&template, &messages, None, &text).unwrap();
    let found: Vec<&str> = found.into_iter().map(|span| &text[span]).collect();
    // A turn of no weight is given, and not learnt.
    assert_eq!(found, ["<call>look</call><|end|>", "<think></think>It rains.<|end|>"]);
}
