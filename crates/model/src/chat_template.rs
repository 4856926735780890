//! A model's own chat template: Jinja that makes one text of the turns of a conversation, rendered as transformers does
//! (`apply_chat_template`).

use std::fmt::{self, Debug};
use std::io;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, Value as Jinja};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use serde_json::{Map, Value};

use crate::ModelError;
use crate::formats::{file_of, is_gguf};

const FILE: &str = "chat_template.jinja";
const SETTINGS: &str = "tokenizer_config.json";
/// Steps that a template may take: many times what long conversations need, and an end for one that would have none.
const FUEL: u64 = 20_000_000;

/// A chat template with the special tokens of its tokenizer.
pub struct ChatTemplate {
    path: PathBuf,
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` ... as the template knows them.
    special: Map<String, Value>,
    /// Whether there is one for conversations with tools.
    has_tools: bool,
}

impl ChatTemplate {
    /// The template of a model folder: `chat_template.jinja`, or the key `chat_template` of `tokenizer_config.json`; none
    /// where it has none. Errors with the place if it is no Jinja.
    pub fn open(folder: &Path) -> Result<Option<Self>, ModelError> {
        let settings = crate::tokenizer::read_object(folder, SETTINGS)?.unwrap_or_default();
        let special = special_tokens(&settings);
        if let Some(source) = file_of(folder, FILE)? {
            let path = if is_gguf(folder) { folder.to_path_buf() } else { folder.join(FILE) };
            let source = String::from_utf8(source)
                .map_err(|_| failed(&path, "expected a template in UTF-8, got other bytes".into()))?;
            return Self::new(path, &[("default", source)], special).map(Some);
        }
        let path = folder.join(SETTINGS);
        let named: Vec<(&str, String)> = match settings.get("chat_template") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(source)) => vec![("default", source.clone())],
            Some(Value::Array(list)) => {
                let text = |entry: &Value, key| Some(entry.get(key)?.as_str()?.to_string());
                let wanted = ["default", "tool_use"].into_iter().filter_map(|name| {
                    let entry = list.iter().find(|entry| text(entry, "name").as_deref() == Some(name))?;
                    Some((name, text(entry, "template")?))
                });
                wanted.collect()
            }
            Some(_) => Vec::new(),
        };
        if named.first().is_none_or(|(name, _)| *name != "default") {
            let expected = "a template, or a list of named ones with `default` among them";
            return Err(failed(&path, format!("`chat_template`: expected {expected}")));
        }
        Self::new(path, &named, special).map(Some)
    }

    /// Templates in memory, by name: `default`, and `tool_use` for conversations with tools if there is one. `path` is what
    /// errors will call them.
    pub fn new(
        path: PathBuf,
        named: &[(&str, String)],
        special: Map<String, Value>,
    ) -> Result<Self, ModelError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| failed(&path, told(&e)))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", tojson);
        for (name, source) in named {
            let added = environment.add_template_owned((*name).to_string(), without_generation(source));
            added.map_err(|e| failed(&path, told(&e)))?;
        }
        let has_tools = named.iter().any(|(name, _)| *name == "tool_use");
        Ok(ChatTemplate { path, environment, special, has_tools })
    }

    /// The text of a conversation: `messages` are objects with `role` and `content`. With `add_generation_prompt` it ends with
    /// what an answer begins with. Errors as the template does, such as for roles that it does not know.
    ///
    /// There is no `strftime_now`: templates that would write today's date have a fixed one for that case, and a text does not
    /// change from day to day.
    pub fn render(
        &self,
        messages: &[Value],
        tools: Option<&Value>,
        add_generation_prompt: bool,
    ) -> Result<String, ModelError> {
        let name = if self.has_tools && tools.is_some() { "tool_use" } else { "default" };
        let mut context = self.special.clone();
        context.insert("messages".into(), messages.into());
        context.insert("tools".into(), tools.cloned().unwrap_or_default());
        context.insert("documents".into(), Value::Null);
        context.insert("add_generation_prompt".into(), add_generation_prompt.into());
        let template = self.environment.get_template(name).map_err(|e| failed(&self.path, told(&e)))?;
        template.render(Serde(context)).map_err(|e| failed(&self.path, told(&e)))
    }
}

impl Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The special tokens that a template may name; a token is a text, or an object with its content.
pub(crate) fn special_tokens(settings: &Map<String, Value>) -> Map<String, Value> {
    const NAMES: [&str; 7] =
        ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
    let content = |name: &str| {
        let token = settings.get(name)?;
        Some(token.as_str().or_else(|| token.get("content")?.as_str())?.into())
    };
    NAMES.into_iter().filter_map(|name| Some((name.to_string(), content(name)?))).collect()
}

/// Without the tags that only mark what a model writes: they print nothing. As conditions they keep what they do to the white
/// space around them.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let inner = &tag[2..tag.len() - 2];
        match inner.trim_matches(['-', '+', ' ', '\t', '\n']) {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn raise_exception(message: String) -> Result<Jinja, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// As Python's `json.dumps` writes it.
#[expect(clippy::needless_pass_by_value, reason = "filters are given their options so")]
fn tojson(value: &Jinja, options: Kwargs) -> Result<Jinja, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    // What else there is has in transformers the value that is written here.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let bad = |e: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut out = Vec::new();
    match indent {
        None => {
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)).map_err(bad)?
        }
        Some(indent) => {
            let indent = " ".repeat(indent.min(64));
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).map_err(bad)?;
        }
    }
    Ok(Jinja::from_safe_string(String::from_utf8_lossy(&out).into_owned()))
}

/// JSON with a space behind each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// An error of a template in a line, with its place.
fn told(error: &minijinja::Error) -> String {
    let line = error.line().map(|line| format!(", line {line} of the template")).unwrap_or_default();
    let words = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    format!("the chat template does not take this conversation: {words}{line}")
}

fn failed(path: &Path, message: String) -> ModelError {
    ModelError::Tokenizer { path: path.to_path_buf(), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(source: &str) -> ChatTemplate {
        let special = special_tokens(
            json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}}).as_object().unwrap(),
        );
        ChatTemplate::new("there".into(), &[("default", source.to_string())], special).unwrap()
    }

    fn render(source: &str, messages: &Value) -> Result<String, String> {
        template(source).render(messages.as_array().unwrap(), None, true).map_err(|e| e.to_string())
    }

    #[test]
    fn what_templates_of_python_do_is_done() {
        let messages = json!([{"role": "user", "content": "  Größe <b> "}, {"role": "tool", "content": {"b": 1.5, "a": [true, null]}}]);
        let source = "{{ bos_token }}{% for m in messages %}\n    {%- if m.content is string %}[{{ m['content'].strip() }}]{% else %}\
                      {{ m.content | tojson }}{% endif %}\n{% generation %}{{ loop.index0 }}{% endgeneration %}{% endfor %}{{ eos_token }}";
        let expected = "<s>[Größe <b>]0{\"b\": 1.5, \"a\": [true, null]}1</s>";
        assert_eq!(render(source, &messages).unwrap(), expected);
        let tools = json!({"x": [1]});
        let indented = template("{{ tools | tojson(indent=2) }}").render(&[], Some(&tools), false).unwrap();
        assert_eq!(indented, "{\n  \"x\": [\n    1\n  ]\n}");
    }

    #[test]
    fn errors_are_those_of_the_template() {
        let messages = json!([{"role": "system", "content": "x"}]);
        let source = "{% if messages[0]['role'] == 'system' %}\n{{ raise_exception('System role not supported') }}{% endif %}";
        let error = render(source, &messages).unwrap_err();
        assert!(
            error.contains("does not take this conversation: System role not supported, line 2"),
            "{error}"
        );
        // One without an end.
        let source = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
        assert!(render(source, &messages).unwrap_err().contains("fuel"));
        let source = "{% if %}".to_string();
        assert!(ChatTemplate::new("there".into(), &[("default", source)], Map::new()).is_err());
    }
}
