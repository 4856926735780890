use retune_tensor::{EightBit, Parameter, Result, Tensor};

/// How AdamW keeps its moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MomentKind {
    /// As `f32`: 8 bytes a trained value.
    #[default]
    Full,
    /// In a byte each (Dettmers et al. 2022), but for tables of embeddings and small tensors: about 2 bytes a value.
    EightBit,
}

impl MomentKind {
    /// The optimisers that differ in it, by the names that users give.
    pub const NAMES: [&str; 2] = ["adamw", "adamw-8bit"];

    /// That of one of [`MomentKind::NAMES`].
    pub fn of(name: &str) -> Option<Self> {
        [MomentKind::Full, MomentKind::EightBit].into_iter().find(|kind| kind.name() == name)
    }

    /// Its place in [`MomentKind::NAMES`].
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// The means of a parameter's gradients and of their squares.
#[derive(Debug)]
pub(crate) enum Moments {
    Full([Tensor; 2]),
    EightBit([EightBit; 2]),
}

/// Tensors of fewer values are kept whole, as in `bitsandbytes`: norms and biases are sensitive, and small.
const LEAST: usize = 4096;

impl Moments {
    /// All 0.
    pub(crate) fn new(parameter: &Parameter, kind: MomentKind) -> Result<Self> {
        let value = &parameter.value;
        if kind == MomentKind::EightBit && value.len() >= LEAST && !is_table(&parameter.name) {
            let zeros = || EightBit::zeros(value.device(), value.len());
            return Ok(Moments::EightBit([zeros()?, zeros()?]));
        }
        let zeros = || Tensor::zeros(value.device(), value.shape());
        Ok(Moments::Full([zeros()?, zeros()?]))
    }

    /// All that has to be kept of them, by what it is. The first two are named as in PyTorch.
    pub(crate) fn tensors(&self) -> Vec<(&'static str, &Tensor)> {
        match self {
            Moments::Full([first, second]) => vec![("exp_avg", first), ("exp_avg_sq", second)],
            Moments::EightBit(moments) => {
                let tensors = moments.iter().flat_map(EightBit::tensors);
                BYTES.into_iter().zip(tensors).collect()
            }
        }
    }

    pub(crate) fn tensors_mut(&mut self) -> Vec<(&'static str, &mut Tensor)> {
        match self {
            Moments::Full([first, second]) => vec![("exp_avg", first), ("exp_avg_sq", second)],
            Moments::EightBit(moments) => {
                let tensors = moments.iter_mut().flat_map(EightBit::tensors_mut);
                BYTES.into_iter().zip(tensors).collect()
            }
        }
    }
}

const BYTES: [&str; 4] = ["exp_avg_codes", "exp_avg_largest", "exp_avg_sq_codes", "exp_avg_sq_largest"];

/// Whether a parameter is a table that tokens are looked up in, by its name in a checkpoint. Most of its rows have no gradient
/// in most steps, which the authors found too much for eight bits.
fn is_table(name: &str) -> bool {
    let module = name.strip_suffix(".weight").map(|name| name.rsplit('.').next().unwrap_or(name));
    module.is_some_and(|module| {
        module.ends_with("embeddings") || ["embed_tokens", "wte", "wpe"].contains(&module)
    })
}

#[cfg(test)]
mod tests {
    use super::is_table;

    #[test]
    fn tables_are_known_by_their_names() {
        for table in [
            "bert.embeddings.word_embeddings.weight",
            "bert.embeddings.token_type_embeddings.weight",
            "model.embeddings.tok_embeddings.weight",
            "model.embed_tokens.weight",
            "transformer.wte.weight",
        ] {
            assert!(is_table(table), "{table}");
        }
        for other in [
            "bert.embeddings.LayerNorm.weight",
            "electra.embeddings_project.weight",
            "bert.encoder.layer.0.output.dense.weight",
            "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight",
            "prompt_embeddings",
        ] {
            assert!(!is_table(other), "{other}");
        }
    }
}
