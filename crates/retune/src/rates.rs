//! Which share of the learning rate each parameter gets: a new head learns at a rate of its own, and what lies deeper is
//! more general, and is changed less.

use std::collections::BTreeSet;

/// The rate of a head that was drawn anew, where nobody says: it begins as noise, whatever the method, and at the rate of
/// pretrained weights a few hundred steps hardly move it.
pub(crate) const NEW_HEAD: f64 = 0.003;

/// The shares of all parameters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rates {
    /// The names of the head's parameters, and their share.
    pub head: BTreeSet<String>,
    pub head_share: f64,
    pub layers: Option<LayerRates>,
}

impl Rates {
    /// The share of the parameter `name`.
    pub fn of(&self, name: &str) -> f64 {
        let head = if self.head.contains(name) { self.head_share } else { 1.0 };
        self.layers.as_ref().map_or(1.0, |layers| layers.of(name)) * head
    }
}

/// How much of the learning rate each parameter gets: `decay` to the power of its depth (Clark et al. 2020, ELECTRA; the
/// depths are those of Bao et al. 2021, BEiT).
///
/// The head, the pooler and a last norm have depth 0, the last layer 1, the first one `layers`, the embeddings one
/// more. A parameter belongs to a layer if its name has a part `layer`, `layers` or `h` before a number, as in
/// `bert.encoder.layer.11.output.dense.weight`, and to the embeddings if a part of it holds `embed`. An adapter's
/// parameters have the depth of the layer that they sit at.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerRates {
    decay: f64,
    layers: usize,
}

impl LayerRates {
    /// For a model whose parameters are `names`.
    pub fn new<'n>(decay: f64, names: impl Iterator<Item = &'n str>) -> Self {
        let layers = names.filter_map(layer).map(|layer| layer + 1).max().unwrap_or(0);
        LayerRates { decay, layers }
    }

    /// The share of the parameter `name`.
    pub fn of(&self, name: &str) -> f64 {
        let depth = match layer(name) {
            Some(layer) => self.layers.saturating_sub(layer),
            None if name.split('.').any(is_embedding) => self.layers + 1,
            None => 0,
        };
        self.decay.powi(i32::try_from(depth).unwrap_or(i32::MAX))
    }
}

fn is_embedding(part: &str) -> bool {
    part.contains("embed") || matches!(part, "wte" | "wpe")
}

fn layer(name: &str) -> Option<usize> {
    let mut parts = name.split('.').skip_while(|part| !matches!(*part, "layer" | "layers" | "h"));
    parts.nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_its_own_share() {
        let layers = LayerRates::new(0.5, ["layer.1.bias", "bert.pooler.dense.bias"].into_iter());
        let head = BTreeSet::from(["bert.pooler.dense.bias".to_string()]);
        let rates = Rates { head, head_share: 30.0, layers: Some(layers) };
        let bits = |rates: [f64; 3]| rates.map(f64::to_bits);
        let found = ["layer.1.bias", "bert.pooler.dense.bias", "other"].map(|name| rates.of(name));
        assert_eq!(bits(found), bits([0.5, 30.0, 1.0]));
    }

    #[test]
    fn rates_fall_from_the_head_to_the_embeddings() {
        let names = [
            "bert.embeddings.word_embeddings.weight",
            "bert.embeddings.LayerNorm.bias",
            "bert.encoder.layer.0.attention.self.query.weight",
            "base_model.model.bert.encoder.layer.0.output.dense.lora_A.weight",
            "bert.encoder.layer.2.output.dense.bias",
            "bert.pooler.dense.weight",
            "classifier.weight",
        ];
        let rates = LayerRates::new(0.5, names.iter().copied());
        let bits = |rates: &[f64]| rates.iter().map(|rate| rate.to_bits()).collect::<Vec<_>>();
        let expected = [0.0625, 0.0625, 0.125, 0.125, 0.5, 1.0, 1.0];
        assert_eq!(bits(&names.map(|name| rates.of(name))), bits(&expected));
        let others = [
            "model.layers.11.mlp.Wi.weight",
            "model.embeddings.tok_embeddings.weight",
            "model.final_norm.weight",
            "electra.embeddings_project.bias",
            "distilbert.transformer.layer.5.ffn.lin1.weight",
        ];
        let rates = LayerRates::new(0.5, others.iter().copied());
        assert_eq!(
            bits(&others.map(|name| rates.of(name))),
            bits(&[0.5, 0.5f64.powi(13), 1.0, 0.5f64.powi(13), 0.5f64.powi(7)])
        );
        // A sentence of nobody's making.
        assert_eq!(LayerRates::new(0.5, ["layer", "layer.x", "h."].into_iter()).layers, 0);
    }
}
