use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::AdaptError;
use crate::peft::METHODS;

/// One setting of a method: what the command line, the help and the docs know of it.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// Its name, on the command line and in a run file.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What it is if nobody says.
    pub default: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
}

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// true or false.
    Flag,
    /// A name.
    Name,
    /// Names with commas between.
    List,
    /// Any words.
    Text,
}

/// The options that were given, by name. Values may be texts from a command line or typed ones from a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options(pub Map<String, Value>);

impl Options {
    /// The options as a method's configuration. `specs` are those that `method` has: any other is an error, with the
    /// near miss.
    pub fn parse<T: DeserializeOwned>(&self, method: &str, specs: &[OptionSpec]) -> Result<T, AdaptError> {
        let mut typed = Map::new();
        for (name, value) in &self.0 {
            let Some(spec) = specs.iter().find(|spec| spec.name == name) else {
                let known: Vec<_> = specs.iter().map(|spec| spec.name).collect();
                let owner = METHODS.iter().find(|other| other.options().iter().any(|spec| spec.name == name));
                let message = match (owner, nearest(name, known.iter().copied())) {
                    (Some(owner), _) => {
                        format!("is an option of {0}; give --method {0}", owner.name())
                    }
                    (None, Some(near)) => {
                        format!("the method `{method}` has no such option; did you mean --{near}?")
                    }
                    (None, None) if known.is_empty() => format!("the method `{method}` has no options"),
                    (None, None) => format!("the method `{method}` has only --{}", known.join(", --")),
                };
                return Err(AdaptError::Option { option: name.clone(), message });
            };
            typed.insert(name.clone(), spec.typed(value)?);
        }
        serde_json::from_value(Value::Object(typed))
            .map_err(|error| AdaptError::Option { option: method.to_string(), message: error.to_string() })
    }
}

impl OptionSpec {
    fn typed(&self, value: &Value) -> Result<Value, AdaptError> {
        let parsed = match (self.kind, value) {
            (Kind::Integer, Value::String(text)) => text.parse::<u64>().ok().map(Value::from),
            (Kind::Integer, Value::Number(number)) if number.is_u64() => Some(value.clone()),
            (Kind::Number, Value::String(text)) => {
                text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from)
            }
            (Kind::Number, Value::Number(_)) | (Kind::Flag, Value::Bool(_)) => Some(value.clone()),
            (Kind::Flag, Value::String(text)) => text.parse::<bool>().ok().map(Value::from),
            (Kind::Name, Value::String(_)) => Some(value.clone()),
            (Kind::List, Value::String(text)) => {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                Some(names.map(Value::from).collect::<Vec<_>>().into())
            }
            (Kind::Text, Value::String(_)) => Some(value.clone()),
            (Kind::List, Value::Array(names)) if names.iter().all(Value::is_string) => Some(value.clone()),
            _ => None,
        };
        parsed.ok_or_else(|| AdaptError::Option {
            option: self.name.to_string(),
            message: format!("expected {}, got {value}", self.kind.words()),
        })
    }
}

impl Kind {
    /// What it takes, in words.
    pub fn words(self) -> &'static str {
        match self {
            Kind::Integer => "a whole number",
            Kind::Number => "a number",
            Kind::Flag => "true or false",
            Kind::Name => "a name",
            Kind::List => "names with commas between",
            Kind::Text => "a text",
        }
    }
}

/// The name most like `name`, if one is near enough to be what was meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}
