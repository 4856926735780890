//! Rotary positions of decoders: the base of their wavelengths, and how they are stretched to rows that are longer than those
//! of the pretraining. Read by the keys of old and new versions of transformers.

use std::f64::consts::PI;

use retune_tensor::backend::Rotary;
use serde_json::{Map, Value};

use super::{HfConfig, described};
use crate::ModelError;
use crate::error::{nearest, quoted};

/// How positions are stretched: `rope_type`.
const KINDS: [&str; 4] = ["default", "linear", "llama3", "yarn"];

impl HfConfig {
    /// The rotary positions of heads of an even size: the keys `rope_theta` and `rope_scaling`, or `rope_parameters`, which
    /// has both. Errors, with the key named, if a value is out of range or the positions are of another kind.
    pub fn rotary(&self, head_size: usize, max_position_embeddings: usize) -> Result<Rotary, ModelError> {
        let empty = Map::new();
        let key =
            if self.optional_map("rope_scaling")?.is_some() { "rope_scaling" } else { "rope_parameters" };
        let map = self.optional_map(key)?.unwrap_or(&empty);
        let read = Scaling { config: self, key, map };
        if let Some((name, value)) = map.iter().find(|(_, value)| value.is_object()) {
            return Err(read.wrong(name, "one kind of positions for all blocks, not an object", value));
        }
        let theta = match read.number("rope_theta", 1.0)? {
            Some(theta) => theta,
            None => match self.optional_f64("rope_theta")? {
                Some(theta) if theta > 1.0 && (theta as f32).is_finite() => theta,
                Some(other) => return Err(self.wrong("rope_theta", "a number above 1", other.to_string())),
                None => 10_000.0,
            },
        };
        if let Some(share) = read.number("partial_rotary_factor", 0.0)?
            && share.to_bits() != 1.0f64.to_bits()
        {
            return Err(read.wrong("partial_rotary_factor", "1, as whole heads are turned", &share.into()));
        }
        let plain = Rotary::new(head_size, theta as f32);
        let kind =
            ["rope_type", "type"].iter().find_map(|name| map.get(*name)).filter(|kind| !kind.is_null());
        let pretrained = || match self.optional_usize("original_max_position_embeddings")? {
            Some(length) => Ok(length as f64),
            None => read.require("original_max_position_embeddings", Some(max_position_embeddings as f64)),
        };
        match kind.map_or(Some("default"), Value::as_str) {
            Some("default") => Ok(plain),
            Some("linear") => {
                let factor = read.require("factor", None)? as f32;
                Ok(with(&plain, |frequency| frequency / factor))
            }
            Some("llama3") => llama3(&read, &plain, pretrained()?),
            Some("yarn") => yarn(&read, &plain, theta, pretrained()?),
            _ => {
                let kind = kind.unwrap_or(&Value::Null);
                let near = kind.as_str().and_then(|name| nearest(name, KINDS));
                let near = near.map(|near| format!("; near is {}", quoted(&near))).unwrap_or_default();
                let expected = format!("one of {} for `rope_type`{near}", KINDS.join(", "));
                Err(self.wrong(key, expected, described(kind)))
            }
        }
    }
}

/// The object that says how positions are stretched.
struct Scaling<'a> {
    config: &'a HfConfig,
    key: &'static str,
    map: &'a Map<String, Value>,
}

impl Scaling<'_> {
    fn wrong(&self, name: &str, expected: &str, got: &Value) -> ModelError {
        self.config.wrong(self.key, format!("{expected} for `{name}`"), described(got))
    }

    /// A finite number above `least`, if it is there.
    fn number(&self, name: &str, least: f64) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.map.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
        let number = value.as_f64().filter(|number| *number > least && (*number as f32).is_finite());
        number.map(Some).ok_or_else(|| self.wrong(name, &format!("a number above {least}"), value))
    }

    /// A number above 0 that must be there, or has this value where it is not.
    fn require(&self, name: &str, default: Option<f64>) -> Result<f64, ModelError> {
        self.number(name, 0.0)?.or(default).ok_or_else(|| self.wrong(name, "a number above 0", &Value::Null))
    }
}

/// Other frequencies, each of one.
fn with(plain: &Rotary, change: impl Fn(f32) -> f32) -> Rotary {
    Rotary {
        frequencies: plain.frequencies.iter().map(|frequency| change(*frequency)).collect(),
        scale: plain.scale,
    }
}

/// Long wavelengths are stretched, short ones stay, and those between are in between (Llama 3.1).
fn llama3(read: &Scaling<'_>, plain: &Rotary, pretrained: f64) -> Result<Rotary, ModelError> {
    let [factor, low, high] =
        ["factor", "low_freq_factor", "high_freq_factor"].map(|name| read.require(name, None));
    let (factor, low, high) = (factor?, low?, high?);
    if high <= low {
        let message = "more than `low_freq_factor`";
        return Err(read.wrong("high_freq_factor", message, &high.into()));
    }
    let [long, short] = [low, high].map(|turns| (pretrained / turns) as f32);
    let [factor, low, high, pretrained] = [factor, low, high, pretrained].map(|x| x as f32);
    Ok(with(plain, |frequency| {
        let wavelength = 2.0 * std::f32::consts::PI / frequency;
        if wavelength > long {
            frequency / factor
        } else if wavelength < short {
            frequency
        } else {
            let smooth = (pretrained / wavelength - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    }))
}

/// Channels that turn often stay, those that turn seldom are stretched, with a ramp between, and all are made larger (Peng et
/// al. 2023, section 3).
fn yarn(read: &Scaling<'_>, plain: &Rotary, theta: f64, pretrained: f64) -> Result<Rotary, ModelError> {
    let factor = read.require("factor", None)?;
    let (fast, slow) = (read.require("beta_fast", Some(32.0))?, read.require("beta_slow", Some(1.0))?);
    let larger = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
    let scale = match (
        read.number("attention_factor", 0.0)?,
        read.number("mscale", 0.0)?,
        read.number("mscale_all_dim", 0.0)?,
    ) {
        (Some(given), ..) => given,
        (None, Some(one), Some(all)) => larger(one) / larger(all),
        _ => larger(1.0),
    };
    let size = plain.head_size() as f64;
    // Which channel turns so often over a row of the pretraining.
    let channel = |turns: f64| size * (pretrained / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let whole = read.map.get("truncate").and_then(Value::as_bool).unwrap_or(true);
    let (mut first, mut last) = (channel(fast), channel(slow));
    if whole {
        (first, last) = (first.floor(), last.ceil());
    }
    let (first, mut last) = (first.max(0.0), last.min(size - 1.0));
    if first.to_bits() == last.to_bits() {
        last += 0.001;
    }
    let each = plain.frequencies.iter().enumerate().map(|(pair, frequency)| {
        let ramp = ((pair as f32 - first as f32) / (last - first) as f32).clamp(0.0, 1.0);
        let keep = 1.0 - ramp;
        let stretched = 1.0 / (factor as f32 * (1.0 / frequency));
        stretched * (1.0 - keep) + frequency * keep
    });
    Ok(Rotary { frequencies: each.collect(), scale: scale as f32 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<Rotary, String> {
        let raw = value.as_object().unwrap().clone();
        HfConfig::from_map("config.json", raw).rotary(8, 64).map_err(|e| e.to_string())
    }

    #[test]
    fn old_keys_and_new_say_the_same() {
        assert_eq!(read(&json!({})).unwrap(), Rotary::new(8, 1e4));
        assert_eq!(read(&json!({"rope_theta": 500, "rope_scaling": null})).unwrap(), Rotary::new(8, 500.0));
        let new = json!({"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}});
        let old = json!({"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}});
        assert_eq!(read(&new).unwrap(), read(&old).unwrap());
        assert_eq!(read(&new).unwrap().frequencies[0].to_bits(), 0.25f32.to_bits());
    }

    #[test]
    fn what_cannot_be_computed_is_refused_by_its_key() {
        for (value, expected) in [
            (json!({"rope_theta": 0.5}), "`rope_theta`: expected a number above 1, got 0.5"),
            (
                json!({"rope_scaling": {"type": "dynamic", "factor": 2}}),
                "`rope_scaling`: expected one of default, linear, llama3, yarn for `rope_type`",
            ),
            (json!({"rope_scaling": {"type": "linear"}}), "expected a number above 0 for `factor`, got null"),
            (json!({"rope_scaling": {"rope_type": "yarn", "factor": "4"}}), "for `factor`, got the text `4`"),
            (
                json!({"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
                       "high_freq_factor": 1}}),
                "`rope_parameters`: expected more than `low_freq_factor` for `high_freq_factor`, got 1",
            ),
            (
                json!({"rope_parameters": {"partial_rotary_factor": 0.5}}),
                "expected 1, as whole heads are turned",
            ),
        ] {
            let error = read(&value).unwrap_err();
            assert!(error.contains(expected), "{value}: {error}");
        }
    }
}
