//! The configuration of the `adapters` library, as it is written and as it is read.

use retune_tensor::backend::Activation;
use serde_json::{Map, Value, json};

use super::super::files::AdapterFiles;
use super::{Design, Layers, Residual, activation};
use crate::AdaptError;

/// The form of the files: the library looks here for what older ones meant by their names.
pub(super) const VERSION: &str = "adapters.1.3.0";

/// Every key of the library, so that a file says all of what it is.
pub(super) fn config(design: &Design, reduction: f64, non_linearity: &str) -> Value {
    let (phm, dim, rank) = match design.layers {
        Layers::Hypercomplex { dim, rank } => (true, dim, rank),
        _ => (false, 4, 1),
    };
    json!({
        "mh_adapter": design.attention,
        "output_adapter": design.feed_forward,
        "cross_adapter": false,
        "is_parallel": design.parallel,
        "original_ln_before": design.behind_norm,
        "original_ln_after": true,
        "residual_before_ln": match design.residual {
            Residual::Made => json!(true),
            Residual::Added => json!("post_add"),
            Residual::Normed => json!(false),
        },
        "adapter_residual_before_ln": design.norm_after == Some(true),
        "ln_before": false,
        "ln_after": design.norm_after.is_some(),
        "reduction_factor": if reduction.fract() == 0.0 { json!(reduction as u64) } else { json!(reduction) },
        "non_linearity": non_linearity,
        "scaling": design.scaling,
        "dropout": design.dropout,
        "init_weights": if design.layers == Layers::MixAndMatch { "mam_adapter" } else { "bert" },
        "init_weights_seed": null,
        "inv_adapter": null,
        "inv_adapter_reduction_factor": null,
        "leave_out": [],
        "use_gating": false,
        "stochastic_depth": 0.0,
        "phm_layer": phm,
        "phm_dim": dim,
        "phm_rank": rank,
        "phm_bias": true,
        "phm_c_init": "normal",
        "phm_init_range": 0.0001,
        "factorized_phm_W": true,
        "factorized_phm_rule": false,
        "hypercomplex_nonlinearity": "glorot-uniform",
        "learn_phm": true,
        "shared_W_phm": false,
        "shared_phm_rule": true,
    })
}

/// Keys of its documents beside those of [`config`], whichever version of the library or of `transformers` wrote them.
const OTHERS: [&str; 7] =
    ["config", "config_id", "hidden_size", "model_class", "model_name", "model_type", "name"];

/// Keys of a document that the library does not have at version 1.3: a newer version's, or somebody's own.
pub(in super::super) fn unknown_keys(document: &Map<String, Value>) -> Vec<String> {
    let design = super::super::houlsby::DESIGN;
    let known = config(&design, 1.0, "relu");
    let inner = document.get("config").and_then(Value::as_object);
    let own = document.keys().filter(|key| !OTHERS.contains(&key.as_str()) && *key != "version");
    let inner = inner.into_iter().flat_map(Map::keys).filter(|key| {
        // `architecture` names other kinds of adapters, which are refused where they are set.
        known.get(key.as_str()).is_none() && *key != "architecture"
    });
    own.cloned().chain(inner.map(|key| format!("config.{key}"))).collect()
}

/// What is read of an `adapter_config.json`.
pub(super) struct Saved {
    pub name: String,
    pub design: Design,
    pub reduction: f64,
    pub activation: Activation,
    pub leave_out: Vec<usize>,
}

impl Saved {
    pub fn read(files: &AdapterFiles) -> Result<Self, AdaptError> {
        let Some(config) = files.config.get("config").and_then(Value::as_object) else {
            return Err(
                files.error(format!("`config`: expected an object, got {}", files.describe("config")))
            );
        };
        let wrong = |key: &str, expected: &str| {
            let got = config.get(key).map_or_else(|| "nothing".to_string(), Value::to_string);
            files.error(format!("`config.{key}`: expected {expected}, got {got}"))
        };
        let flag = |key: &str, default: bool| match config.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(wrong(key, "true or false")),
        };
        let number = |key: &str, default: f64| match config.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|number| (*number as f32).is_finite())
                .ok_or_else(|| wrong(key, "a number; others are not read")),
        };
        let count = |key: &str, default: usize| match config.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
                Some(count) if (1..=65_536).contains(&count) => Ok(count),
                _ => Err(wrong(key, "a whole number from 1 on")),
            },
        };
        let hypercomplex = flag("phm_layer", false)?;
        // Each of these changes what an adapter computes or where it sits: to leave it out would be silently wrong.
        let mut only = vec![("original_ln_after", true), ("ln_before", false), ("use_gating", false)];
        if hypercomplex {
            only.extend([
                ("shared_phm_rule", true),
                ("factorized_phm_W", true),
                ("factorized_phm_rule", false),
                ("shared_W_phm", false),
                ("learn_phm", true),
                ("phm_bias", true),
            ]);
        }
        for (key, value) in only {
            if flag(key, value)? != value {
                return Err(files.error(format!("`config.{key}` is {}, and that is not read", !value)));
            }
        }
        if !matches!(config.get("inv_adapter"), None | Some(Value::Null)) {
            return Err(files.error("`config.inv_adapter` is set, and invertible adapters are not read"));
        }
        if number("stochastic_depth", 0.0)? != 0.0 {
            return Err(files.error("`config.stochastic_depth` is set, and that is not read"));
        }
        let residual = match config.get("residual_before_ln") {
            None | Some(Value::Null | Value::Bool(true)) => Residual::Made,
            Some(Value::Bool(false)) => Residual::Normed,
            Some(Value::String(word)) if word == "post_add" => Residual::Added,
            Some(_) => return Err(wrong("residual_before_ln", "true, false or \"post_add\"")),
        };
        let dropout = number("dropout", 0.0)?;
        if !(0.0..1.0).contains(&(dropout as f32)) {
            return Err(wrong("dropout", "at least 0 and below 1"));
        }
        let reduction = match config.get("reduction_factor") {
            // Another factor for each block: the tensors tell.
            Some(Value::Object(_)) => 1.0,
            _ => number("reduction_factor", 16.0)?,
        };
        if reduction <= 0.0 {
            return Err(wrong("reduction_factor", "a number above 0"));
        }
        let leave_out = config.get("leave_out").and_then(Value::as_array).into_iter().flatten();
        let non_linearity = config.get("non_linearity").and_then(Value::as_str);
        let Some(non_linearity) = non_linearity else { return Err(wrong("non_linearity", "a name")) };
        // Before there was a version, these two names meant each other's functions.
        let non_linearity = match (files.config.contains_key("version"), non_linearity) {
            (false, "gelu") => "gelu_new",
            (false, "gelu_orig") => "gelu",
            (_, name) => name,
        };
        let design = Design {
            attention: flag("mh_adapter", false)?,
            feed_forward: flag("output_adapter", false)?,
            parallel: flag("is_parallel", false)?,
            behind_norm: flag("original_ln_before", false)?,
            residual,
            norm_after: match flag("ln_after", false)? {
                true => Some(flag("adapter_residual_before_ln", false)?),
                false => None,
            },
            scaling: number("scaling", 1.0)?,
            dropout,
            layers: match (hypercomplex, config.get("init_weights").and_then(Value::as_str)) {
                (true, _) => Layers::Hypercomplex { dim: count("phm_dim", 4)?, rank: count("phm_rank", 1)? },
                (false, Some("mam_adapter")) => Layers::MixAndMatch,
                (false, _) => Layers::Bert,
            },
        };
        Ok(Saved {
            name: files.config.get("name").and_then(Value::as_str).unwrap_or_default().to_string(),
            design,
            reduction,
            activation: activation(non_linearity)
                .map_err(|message| files.error(format!("`config.non_linearity`: {message}")))?,
            leave_out: leave_out.filter_map(|block| usize::try_from(block.as_u64()?).ok()).collect(),
        })
    }
}
