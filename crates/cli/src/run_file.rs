//! A run file in TOML: the same settings as the flags, under the same names.

use std::collections::BTreeMap;
use std::path::Path;

use retune::{TrainSettings, nearest};
use serde_json::{Map, Value};
use toml::Spanned;

use crate::failure::Failure;

/// Settings as names and values, so that a file, flags and `--set` can be laid over each other.
pub(crate) type Layer = Map<String, Value>;

/// Reads the settings in `path`. Errors with line and column if it is no TOML, and for a key that is no setting.
pub(crate) fn read(path: &Path) -> Result<Layer, Failure> {
    if let Some(instead) = instead(path) {
        let path = path.display();
        return Err(Failure::request(format!("{path}: expected a run file in TOML, got {instead} {path}")));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::request(format!("{}: cannot read: {error}", path.display())))?;
    let failure = |at: Option<usize>, message: &str| {
        let before = at.and_then(|at| text.get(..at)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Failure::request(format!("{}: line {line}, column {column}: {message}", path.display()))
    };
    let table: BTreeMap<Spanned<String>, toml::Value> = toml::from_str(&text)
        .map_err(|error| failure(error.span().map(|span| span.start), error.message()))?;
    let mut settings: Vec<_> = table.into_iter().collect();
    // The first error of the file is the one that is told.
    settings.sort_by_key(|(name, _)| name.span().start);
    let mut layer = Layer::new();
    for (name, value) in settings {
        let value = serde_json::to_value(value).unwrap_or_default();
        let value = fitting(name.get_ref(), value)
            .map_err(|error| failure(Some(name.span().start), &error.message))?;
        layer.insert(name.into_inner(), value);
    }
    Ok(layer)
}

/// What was probably meant by a path that is no run file's, and what to type for it.
fn instead(path: &Path) -> Option<&'static str> {
    const ROWS: [&str; 9] = ["csv", "tsv", "jsonl", "ndjson", "json", "txt", "parquet", "xlsx", "gz"];
    if path.is_dir() {
        return Some("a folder; a model is given as --model");
    }
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    ROWS.contains(&extension.as_str()).then_some("a name of a file with rows; give it as --train")
}

/// One `--set name=value`; the value is TOML where it can be read so, else a text.
pub(crate) fn set(text: &str) -> Result<(String, Value), Failure> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(Failure::request(format!("--set: expected key=value, got `{text}`")));
    };
    let name = name.trim();
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    let parsed = parsed.and_then(|table| serde_json::to_value(table.get("value")?).ok());
    let value = fitting(name, parsed.unwrap_or_else(|| Value::from(value)));
    Ok((name.to_string(), value.map_err(|error| Failure::request(format!("--set: {error}")))?))
}

/// The settings that all layers together make.
pub(crate) fn settings(layer: Layer) -> Result<TrainSettings, Failure> {
    serde_json::from_value(Value::Object(layer)).map_err(|error| Failure::request(error.to_string()))
}

/// The value as the setting `name` takes it. Errors if there is no such setting, or it cannot take it.
fn fitting(name: &str, value: Value) -> Result<Value, Failure> {
    known(name)?;
    let taken = |value: &Value| settings(Layer::from_iter([(name.to_string(), value.clone())]));
    let Err(error) = taken(&value) else { return Ok(value) };
    // Some settings are words or numbers, such as when to evaluate, and a column may be called 2024.
    let word = Value::from(value.to_string());
    if value.is_number() && taken(&word).is_ok() {
        return Ok(word);
    }
    Err(Failure::request(format!("`{name}`: {}", in_words(&error.message))))
}

/// What serde expected, in the words of people who write no Rust.
fn in_words(message: &str) -> String {
    const TYPES: [(&str, &str); 5] = [
        ("f64", "a number, such as 3 or 0.5"),
        ("u64", "a whole number, such as 3"),
        ("usize", "a whole number, such as 3"),
        ("a boolean", "true or false"),
        ("a string", "a text in quotes"),
    ];
    let Some((got, expected)) = message.rsplit_once(", expected ") else { return message.to_string() };
    let expected = TYPES.iter().find(|(rust, _)| *rust == expected).map_or(expected, |(_, words)| words);
    let got = got.split_once(": ").map_or(got, |(_, got)| got);
    format!("expected {expected}, got {got}")
}

/// Every setting there is: those of a training, and those of all methods.
fn names() -> Vec<String> {
    let all = serde_json::to_value(TrainSettings::default()).unwrap_or_default();
    let mut names: Vec<String> = all.as_object().into_iter().flat_map(Map::keys).cloned().collect();
    for method in retune::METHODS {
        names.extend(method.options().iter().map(|option| option.name.to_string()));
    }
    names
}

fn known(name: &str) -> Result<(), Failure> {
    let names = names();
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    let near = nearest(name, names.iter().map(String::as_str));
    let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    Err(Failure::request(format!("`{name}` is no setting{near}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_toml_or_as_text() {
        assert_eq!(set("epochs=2").unwrap(), ("epochs".into(), Value::from(2)));
        assert_eq!(set("schedule=cosine").unwrap(), ("schedule".into(), Value::from("cosine")));
        assert_eq!(set("target-modules=[\"query\"]").unwrap().1, serde_json::json!(["query"]));
        assert_eq!(set("eval-every=50").unwrap().1, Value::from("50"));
        assert_eq!(
            set("epocs=2").unwrap_err().to_string(),
            "--set: `epocs` is no setting; did you mean `epochs`?"
        );
        let error = set("epochs=many").unwrap_err().to_string();
        assert_eq!(error, "--set: `epochs`: expected a number, such as 3 or 0.5, got string \"many\"");
    }

    #[test]
    fn a_file_is_read_and_its_errors_have_a_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            super::read(&path).map_err(|failure| failure.message)
        };
        let layer = read("epochs = 2\neval-every = 50\ntarget-modules = [\"query\"]\nrank = 4\n").unwrap();
        assert_eq!((&layer["epochs"], &layer["eval-every"]), (&Value::from(2), &Value::from("50")));
        for (text, place) in [
            ("epochs = 2\n= 3\n", "line 2, column 1: "),
            ("epochs = 2\n\nseed = [1,\n", "line 3, "),
            ("seed = 1\nepocs = 2\n", "line 2, column 1: `epocs` is no setting; did you mean `epochs`?"),
            (
                "seed = \"é\" # é\n  epochs = 1",
                "line 1, column 1: `seed`: expected a whole number, such as 3, got string \"é\"",
            ),
            ("seed = 1\n[model]\nname = 1\n", "line 2, column 2: `model`: expected path string, got map"),
            ("seed = 1\nseed = 2\n", "line 2, column 1: duplicate key"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(&format!("{}: {place}", path.display())), "{text:?}: {error}");
        }
    }
}
