//! The configuration of a Hugging Face folder, `config.json`, with errors that say what is wrong with which key.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{file_of, is_gguf, write_atomic};
use crate::ModelError;
use crate::error::{nearest, quoted};

/// No size of a model comes near this; larger ones are typing errors or attacks.
const LARGEST_SIZE: u64 = 1 << 31;

/// A model's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct HfConfig {
    /// The file, for errors.
    path: PathBuf,
    /// All keys as they stand in the file, in its order: what is not understood here is still written back.
    pub raw: Map<String, Value>,
}

/// The names of a classifier's classes, from `id2label`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelNames {
    /// Class `i` is called `names[i]`.
    pub names: Vec<String>,
    /// The names are transformers' `LABEL_0`, `LABEL_1` ...: nobody named them.
    pub placeholder: bool,
    /// How `label2id` or the names contradict themselves, if they do. It is no error in a base whose head is
    /// trained anew; it is one where the labels are about to be used.
    pub conflict: Option<String>,
}

impl HfConfig {
    /// Reads `config.json` in `folder` (or the file itself, if that is named; or what a GGUF file says in its place).
    /// Errors with line and column if it is no JSON object.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, ModelError> {
        let folder = folder.as_ref();
        let (path, text) = if is_gguf(folder) {
            (folder.to_path_buf(), file_of(folder, "config.json")?.unwrap_or_default())
        } else {
            let path = if folder.is_file() { folder.to_path_buf() } else { folder.join("config.json") };
            let text = fs::read(&path).map_err(|e| ModelError::io(&path, "read", e))?;
            (path, text)
        };
        let raw = serde_json::from_slice(&text).map_err(|e| ModelError::Format {
            path: path.clone(),
            place: format!("line {}, column {}", e.line(), e.column()),
            expected: "a JSON object".into(),
            got: e.to_string(),
        })?;
        Ok(Self { path, raw })
    }

    /// A configuration made in memory; `path` is what errors will call it.
    pub fn from_map(path: impl Into<PathBuf>, raw: Map<String, Value>) -> Self {
        Self { path: path.into(), raw }
    }

    /// Writes all keys to `config.json` in `folder`, whole or not at all.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<(), ModelError> {
        write_atomic(folder.as_ref().join("config.json"), |writer| {
            serde_json::to_writer_pretty(&mut *writer, &self.raw)?;
            writer.write_all(b"\n")
        })
    }

    /// The file that this was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The model's family, as transformers calls it. Errors if it is not told.
    pub fn model_type(&self) -> Result<&str, ModelError> {
        self.require_str("model_type")
    }

    /// A text that must be there.
    pub fn require_str(&self, key: &str) -> Result<&str, ModelError> {
        self.optional_str(key)?.ok_or_else(|| self.missing(key, "a text"))
    }

    /// A text, if the key is there and not null.
    pub fn optional_str(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.typed(key, "a text", Value::as_str)
    }

    /// A size that must be there.
    pub fn require_usize(&self, key: &str) -> Result<usize, ModelError> {
        self.optional_usize(key)?.ok_or_else(|| self.missing(key, SIZE))
    }

    /// A size, if the key is there and not null. Errors if it is negative, has a fraction, or is 2^31 or more.
    pub fn optional_usize(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.typed(key, SIZE, |value| {
            value.as_u64().filter(|&size| size < LARGEST_SIZE).and_then(|size| usize::try_from(size).ok())
        })
    }

    /// A number, if the key is there and not null.
    pub fn optional_f64(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// True or false, if the key is there and not null.
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// The names of the classes, if `id2label` is there. Errors if it is no map from 0, 1, 2 ... to texts.
    pub fn label_names(&self) -> Result<Option<LabelNames>, ModelError> {
        let expected = "a map from 0, 1, 2 ... to the labels' names";
        let Some(map) = self.typed("id2label", expected, Value::as_object)? else {
            return Ok(None);
        };
        let mut names = vec![None; map.len()];
        for (id, name) in map {
            let place = id.parse().ok().and_then(|id: usize| names.get_mut(id));
            match (place, name.as_str()) {
                (Some(place @ None), Some(name)) => *place = Some(name.to_string()),
                _ => {
                    let got = format!("{} for {}", described(name), quoted(id));
                    return Err(self.wrong("id2label", expected, got));
                }
            }
        }
        // As many distinct places below the length as entries: all are filled.
        let names: Vec<String> = names.into_iter().flatten().collect();
        let placeholder = names.iter().enumerate().all(|(id, name)| *name == format!("LABEL_{id}"));
        let conflict = self.label_conflict(&names);
        Ok(Some(LabelNames { names, placeholder, conflict }))
    }

    fn label_conflict(&self, names: &[String]) -> Option<String> {
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort();
        if let Some(twice) =
            sorted.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first())
        {
            return Some(format!("`id2label` has {} twice", quoted(twice)));
        }
        let label2id = self.raw.get("label2id").and_then(Value::as_object)?;
        let wrong = |(id, name): (usize, &String)| {
            let told = label2id.get(name);
            (told.and_then(Value::as_u64) != Some(id as u64)).then(|| {
                let told = told.map_or("nothing".to_string(), described);
                format!("`id2label` calls {id} {}, for which `label2id` has {told}", quoted(name))
            })
        };
        names.iter().enumerate().find_map(wrong)
    }

    /// The tokens that end a text, `eos_token_id`: one or several, of `generation_config.json` where there is one that says so,
    /// as in transformers.
    pub fn end_tokens(&self) -> Result<Vec<u32>, ModelError> {
        let beside = self.path.with_file_name("generation_config.json");
        let generation = match self.path.ends_with("config.json") && beside.is_file() {
            true => Some(Self::open(&beside)?),
            false => None,
        };
        let generation = generation
            .filter(|generation| generation.raw.get("eos_token_id").is_some_and(|value| !value.is_null()));
        let told = generation.as_ref().unwrap_or(self);
        let ids = told.typed("eos_token_id", "a token's number, or a list of such", |value| {
            let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
            match value {
                Value::Array(ids) => ids.iter().map(id).collect(),
                one => Some(vec![id(one)?]),
            }
        });
        Ok(ids?.unwrap_or_default())
    }

    /// An object, if the key is there and not null.
    pub fn optional_map(&self, key: &str) -> Result<Option<&Map<String, Value>>, ModelError> {
        self.typed(key, "an object", Value::as_object)
    }

    /// A list, if the key is there and not null.
    pub fn optional_list(&self, key: &str) -> Result<Option<&[Value]>, ModelError> {
        self.typed(key, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// The value under `key` through `read`; none if the key is absent or null.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        match self.raw.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.wrong(key, expected, described(value))),
        }
    }

    fn missing(&self, key: &str, expected: &str) -> ModelError {
        let near = nearest(key, self.raw.keys().map(String::as_str));
        let got = match (self.raw.contains_key(key), near) {
            (true, _) => "null".to_string(),
            (false, Some(near)) => format!("no such key, but {}", quoted(&near)),
            (false, None) => "no such key".to_string(),
        };
        self.wrong(key, expected, got)
    }

    /// The error that `key` has `got` where `expected` was needed.
    pub fn wrong(&self, key: &str, expected: impl Into<String>, got: impl Into<String>) -> ModelError {
        ModelError::Config {
            path: self.path.clone(),
            key: key.to_string(),
            expected: expected.into(),
            got: got.into(),
        }
    }
}

const SIZE: &str = "a whole number from 0 to 2147483647";

/// A JSON value for a message, short whatever it holds.
pub(crate) fn described(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("the text {}", quoted(text)),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(map) => format!("an object of {} keys", map.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(value: &Value) -> HfConfig {
        HfConfig::from_map("config.json", value.as_object().unwrap().clone())
    }

    #[test]
    fn sizes_are_whole_and_sane() {
        let bad = json!({"a": -1, "b": 7.5, "c": "768", "d": 2_147_483_648_u64, "e": true, "f": null, "hiden_size": 4});
        let bad = config(&bad);
        for (key, got) in [
            ("a", "-1"),
            ("b", "7.5"),
            ("c", "the text `768`"),
            ("d", "2147483648"),
            ("e", "true"),
            ("f", "null"),
            ("g", "no such key"),
            ("hidden_size", "no such key, but `hiden_size`"),
        ] {
            let expected =
                format!("config.json: `{key}`: expected a whole number from 0 to 2147483647, got {got}");
            assert_eq!(bad.require_usize(key).unwrap_err().to_string(), expected);
        }
        assert_eq!(bad.optional_usize("f").unwrap(), None);
        assert_eq!(config(&json!({"n": 2_147_483_647})).require_usize("n").unwrap(), 2_147_483_647);
    }

    #[test]
    fn broken_files_tell_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let error = HfConfig::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("config.json: cannot read: "), "{error}");
        for (text, place) in [
            ("{\n  \"hidden_size\": 7,\n  \"é\": }", "line 3, column 9"),
            ("", "line 1, column 0"),
            ("[1, 2]", "line 1, column 0"),
            ("{\"a\": NaN}", "line 1, column 7"),
        ] {
            fs::write(folder.path().join("config.json"), text).unwrap();
            let error = HfConfig::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(place), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_not_understood_is_written_back() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            "{\n  \"z\": 1e-12,\n  \"a\": {\n    \"10\": \"é\",\n    \"9\": 0.30000000000000004\n  }\n}\n";
        fs::write(folder.path().join("config.json"), text).unwrap();
        let mut config = HfConfig::open(folder.path()).unwrap();
        config.save(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("config.json")).unwrap(), text);
        config.raw.insert("model_type".into(), "bert".into());
        config.save(folder.path()).unwrap();
        assert_eq!(HfConfig::open(folder.path()).unwrap().model_type().unwrap(), "bert");
    }

    #[test]
    fn labels_come_in_the_order_of_their_ids() {
        let names: Vec<String> = (0..12).map(|i| format!("класс {}", 11 - i)).collect();
        // As texts, 10 sorts before 2.
        let id2label: Map<String, Value> =
            names.iter().enumerate().rev().map(|(i, n)| (i.to_string(), n.as_str().into())).collect();
        let labels = config(&json!({"id2label": id2label})).label_names().unwrap().unwrap();
        assert_eq!(labels, LabelNames { names, placeholder: false, conflict: None });

        let labels =
            config(&json!({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}})).label_names().unwrap().unwrap();
        assert!(labels.placeholder);
        assert_eq!(config(&json!({"num_labels": 3})).label_names().unwrap(), None);
    }

    #[test]
    fn labels_that_contradict_themselves_are_told() {
        let conflict = |value: Value| config(&value).label_names().unwrap().unwrap().conflict;
        let map = json!({"0": "neg", "1": "pos"});
        assert_eq!(conflict(json!({"id2label": map, "label2id": {"pos": 1, "neg": 0}})), None);
        assert_eq!(
            conflict(json!({"id2label": map, "label2id": {"neg": 1, "pos": 0}})).unwrap(),
            "`id2label` calls 0 `neg`, for which `label2id` has 1"
        );
        assert_eq!(conflict(json!({"id2label": {"0": "a", "1": "a"}})).unwrap(), "`id2label` has `a` twice");
        for bad in [json!({"1": "a"}), json!({"0": 1}), json!({"0": "a", "00": "b"}), json!(["a"])] {
            assert!(config(&json!({"id2label": bad})).label_names().is_err(), "{bad}");
        }
    }
}
