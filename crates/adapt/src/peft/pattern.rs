use serde_json::Value;

use super::files::AdapterFiles;
use super::sites::matches;
use crate::AdaptError;

/// A number of an `adapter_config.json` that is another for some layers: `alpha_pattern`, `rank_pattern`.
pub(super) struct Pattern {
    key: &'static str,
    usual: f64,
    others: Vec<(String, f64)>,
}

impl Pattern {
    /// Reads the object `key`; `usual` is the number of a layer that it does not name. Errors if it is no such object.
    pub(super) fn read(files: &AdapterFiles, key: &'static str, usual: f64) -> Result<Self, AdaptError> {
        let others = match files.config.get(key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(pattern)) => pattern
                .iter()
                .map(|(name, value)| match value.as_f64().filter(|value| (*value as f32).is_finite()) {
                    // `peft` takes the keys for regular expressions.
                    _ if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) => {
                        let message =
                            "expected the end of a layer's name, got a pattern, and these are not read";
                        Err(files.error(format!("`{key}.{name}`: {message}")))
                    }
                    Some(value) => Ok((name.clone(), value)),
                    None => Err(files.error(format!("`{key}.{name}`: expected a number, got {value}"))),
                })
                .collect::<Result<_, _>>()?,
            Some(other) => {
                return Err(files.error(format!("`{key}`: expected an object, got {other}")));
            }
        };
        Ok(Pattern { key, usual, others })
    }

    /// The number of the layer `site`.
    pub(super) fn of(&self, site: &str) -> f64 {
        self.others.iter().find(|(name, _)| matches(site, name)).map_or(self.usual, |(_, value)| *value)
    }

    /// Errors if a key means none of the `adapted` layers: whatever it was to do is not done.
    pub(super) fn check(&self, files: &AdapterFiles, adapted: &[String]) -> Result<(), AdaptError> {
        match self.others.iter().find(|(name, _)| !adapted.iter().any(|site| matches(site, name))) {
            Some((name, _)) => {
                let message = "no layer with a branch has a name that ends so";
                Err(files.error(format!("`{}.{name}`: {message}", self.key)))
            }
            None => Ok(()),
        }
    }
}
