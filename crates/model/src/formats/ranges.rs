//! Values of a configuration that must lie in a range, or be one of several: what encoders of all families ask for.

use retune_tensor::backend::Activation;

use super::HfConfig;
use crate::ModelError;
use crate::error::{nearest, quoted};

/// Names that transformers gives to these functions. Several are one formula in different kernels.
const ACTIVATIONS: [(&str, Activation); 11] = [
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("tanh", Activation::Tanh),
];

impl HfConfig {
    /// A size of at least 1.
    pub fn size(&self, key: &str, default: usize) -> Result<usize, ModelError> {
        match self.optional_usize(key)? {
            Some(0) => Err(self.wrong(key, "at least 1", "0")),
            size => Ok(size.unwrap_or(default)),
        }
    }

    /// Errors if attention's heads, as many as the second key says, cannot share the width, which the first says.
    pub fn check_heads(&self, width: (&str, usize), heads: (&str, usize)) -> Result<(), ModelError> {
        if width.1.is_multiple_of(heads.1) {
            return Ok(());
        }
        let expected = format!("a multiple of `{}`, which is {}", heads.0, heads.1);
        Err(self.wrong(width.0, expected, width.1.to_string()))
    }

    /// A dropout probability. At 1 nothing would be left to scale up.
    pub fn rate(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.within(key, "at least 0 and below 1", |x| (0.0..1.0).contains(&x))
    }

    /// What a norm adds to the variance.
    pub fn epsilon(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.within(key, "above 0 and below 1", |x| x > 0.0 && x < 1.0)
    }

    /// The standard deviation of newly made weights.
    pub fn initializer_range(&self) -> Result<f64, ModelError> {
        let range = self.within("initializer_range", "from 0 to 1", |x| (0.0..=1.0).contains(&x))?;
        Ok(range.unwrap_or(0.02))
    }

    fn within(
        &self,
        key: &str,
        expected: &str,
        holds: impl Fn(f64) -> bool,
    ) -> Result<Option<f64>, ModelError> {
        match self.optional_f64(key)? {
            // The model computes in f32, where 0.99999999 is 1: that is what has to hold.
            Some(value) if !holds(f64::from(value as f32)) => {
                Err(self.wrong(key, format!("a number {expected}"), value.to_string()))
            }
            value => Ok(value),
        }
    }

    /// The padding token. Absent is the family's default and null is none: transformers tells these apart.
    pub fn pad_token_id(&self, vocab_size: usize, default: usize) -> Result<Option<usize>, ModelError> {
        let id = if self.raw.contains_key("pad_token_id") {
            self.optional_usize("pad_token_id")?
        } else {
            Some(default)
        };
        match id {
            Some(id) if id >= vocab_size => {
                let expected = format!("a token below `vocab_size`, which is {vocab_size}");
                Err(self.wrong("pad_token_id", expected, id.to_string()))
            }
            id => Ok(id),
        }
    }

    /// The padding token of a model that need not have one.
    pub fn optional_pad_token_id(&self, vocab_size: usize) -> Result<Option<usize>, ModelError> {
        if self.raw.contains_key("pad_token_id") { self.pad_token_id(vocab_size, 0) } else { Ok(None) }
    }

    /// The function that `key` names; `gelu` if it is absent.
    pub fn activation(&self, key: &str) -> Result<Activation, ModelError> {
        self.activation_or(key, "gelu")
    }

    /// The same with a default of its own.
    pub fn activation_or(&self, key: &str, default: &str) -> Result<Activation, ModelError> {
        let name = self.optional_str(key)?.unwrap_or(default);
        if let Some((_, activation)) = ACTIVATIONS.iter().find(|(known, _)| *known == name) {
            return Ok(*activation);
        }
        let known = ACTIVATIONS.map(|(known, _)| known);
        let near =
            nearest(name, known).map(|near| format!("; near is {}", quoted(&near))).unwrap_or_default();
        Err(self.wrong(key, format!("one of {}", known.join(", ")), format!("{}{near}", quoted(name))))
    }

    /// Errors if it is the configuration of a decoder.
    pub fn refuse_decoder(&self) -> Result<(), ModelError> {
        for key in ["is_decoder", "add_cross_attention"] {
            if self.optional_bool(key)? == Some(true) {
                return Err(self.wrong(key, "false, as only encoders are built", "true"));
            }
        }
        Ok(())
    }

    /// Errors if positions are other than a learned vector each.
    pub fn refuse_relative_positions(&self) -> Result<(), ModelError> {
        match self.optional_str("position_embedding_type")? {
            None | Some("absolute") => Ok(()),
            Some(other) => Err(self.wrong("position_embedding_type", "`absolute`", quoted(other))),
        }
    }
}
