//! A run file in TOML: the same settings as the flags, under the same names.

use std::path::Path;

use retune::{TrainSettings, nearest};
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Settings as names and values, so that a file, flags and `--set` can be laid over each other.
pub(crate) type Layer = Map<String, Value>;

/// Reads the settings in `path`. Errors with line and column if it is no TOML, and for a key that is no setting.
pub(crate) fn read(path: &Path) -> Result<Layer, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::request(format!("{}: cannot read: {error}", path.display())))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or_default());
        let (line, column) =
            (before.lines().count().max(1), before.lines().last().map_or(1, |line| line.chars().count() + 1));
        Failure::request(format!("{}: line {line}, column {column}: {}", path.display(), error.message()))
    })?;
    let value = serde_json::to_value(table)
        .map_err(|error| Failure::request(format!("{}: {error}", path.display())))?;
    let layer = value.as_object().cloned().unwrap_or_default();
    for name in layer.keys() {
        known(name).map_err(|failure| Failure::request(format!("{}: {failure}", path.display())))?;
    }
    Ok(layer)
}

/// One `--set name=value`; the value is TOML where it can be read so, else a text.
pub(crate) fn set(text: &str) -> Result<(String, Value), Failure> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(Failure::request(format!("--set: expected key=value, got `{text}`")));
    };
    let name = name.trim();
    known(name)?;
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    let parsed = parsed.and_then(|table| serde_json::to_value(table.get("value")?).ok());
    Ok((name.to_string(), parsed.unwrap_or_else(|| Value::from(value))))
}

/// The settings that all layers together make.
pub(crate) fn settings(layer: Layer) -> Result<TrainSettings, Failure> {
    serde_json::from_value(Value::Object(layer)).map_err(|error| Failure::request(error.to_string()))
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
        assert_eq!(set("epocs=2").unwrap_err().to_string(), "`epocs` is no setting; did you mean `epochs`?");
    }
}
