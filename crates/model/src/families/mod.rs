//! The model families: one file each, one line in [`FAMILIES`].

pub mod bert;
mod bert_body;
mod decoder_body;
pub mod distilbert;
pub mod electra;
pub mod gpt2;
mod head;
pub mod llama;
mod llama_body;
pub mod modernbert;
pub mod qwen2;
pub mod qwen3;
pub mod roberta;

use std::path::Path;

pub use head::{HeadDefaults, HeadKind, Vocabulary};
use retune_tensor::random::Key;
use retune_tensor::{Device, ParamId, Result, Var};

use crate::error::quoted;
use crate::formats::HfConfig;
use crate::layers::{Linear, SubLayer, VirtualTokenSizes};
use crate::{Aliases, Checkpoint, Forward, ModelError};

/// Every family, by the `model_type` of its configurations.
pub static FAMILIES: &[&dyn Family] = &[
    &bert::Bert,
    &roberta::ROBERTA,
    &roberta::XLM_ROBERTA,
    &roberta::CAMEMBERT,
    &distilbert::DistilBert,
    &electra::Electra,
    &modernbert::ModernBert,
    &gpt2::Gpt2,
    &llama::LLAMA,
    &llama::MISTRAL,
    &qwen2::Qwen2,
    &qwen3::Qwen3,
];

/// A kind of model: how its configuration is read and its layers are built.
pub trait Family: Send + Sync {
    /// The `model_type` in `config.json`.
    fn model_type(&self) -> &'static str;

    /// What it is, in one line.
    fn summary(&self) -> &'static str;

    /// What the names of its classes in transformers begin with.
    fn class_prefix(&self) -> &'static str;

    /// The class of transformers that holds it with a head of this kind.
    fn class(&self, kind: HeadKind) -> String {
        format!("{}{}", self.class_prefix(), kind.class_suffix())
    }

    /// The kinds of head that it may have.
    fn heads(&self) -> &'static [HeadKind] {
        &[HeadKind::Sequence, HeadKind::Token, HeadKind::Question]
    }

    /// The site of the layer that gives the logits: the last of the head.
    fn head_name(&self, kind: HeadKind) -> &'static str {
        match kind {
            HeadKind::Sequence | HeadKind::Token => "classifier",
            HeadKind::Question => "qa_outputs",
            HeadKind::Language => "lm_head",
        }
    }

    /// Other names that checkpoints have for its tensors.
    fn aliases(&self) -> Aliases;

    /// Builds the model, and of a head of this kind all but its last layer, taking tensors from `checkpoint`.
    fn build(
        &self,
        config: &HfConfig,
        checkpoint: &mut Checkpoint,
        kind: HeadKind,
    ) -> std::result::Result<Box<dyn Encoder>, ModelError>;
}

/// The kinds of head that decoders have.
static DECODER_HEADS: [HeadKind; 3] = [HeadKind::Language, HeadKind::Sequence, HeadKind::Token];

/// A pretrained model, encoder or decoder, under its head: written once, forward only.
pub trait Encoder: Send + Sync {
    /// The last hidden states, `[tokens, hidden_size]`.
    fn encode(&self, forward: &Forward<'_>) -> Result<Var>;

    /// What the last layer of its head reads: `[rows, hidden_size]`, or `[tokens, hidden_size]` where it reads tokens.
    /// The head's other layers and the dropouts among them are the family's own. Of the last block only what this needs
    /// is computed.
    fn head_input(&self, forward: &Forward<'_>) -> Result<Var>;

    /// Its linear layers, the head's left out: the sites that methods choose from.
    fn linears(&self) -> Vec<&Linear>;

    /// The halves of its blocks, from the first block on: the sites of adapters between them.
    fn sub_layers(&self) -> Vec<&SubLayer>;

    /// The names of its blocks, from the first on: the parameters of a block are called so, and then a dot.
    fn blocks(&self) -> Vec<String> {
        let mut blocks: Vec<String> = Vec::new();
        for SubLayer { name, block, .. } in self.sub_layers() {
            let number = format!(".{block}.");
            let end = name.find(&number).map_or(name.len(), |at| at + number.len() - 1);
            let name = name.get(..end).unwrap_or_default();
            if blocks.last().is_none_or(|last| last != name) {
                blocks.push(name.to_string());
            }
        }
        blocks
    }

    /// The linear layers of the head under its last one: a pooler, or the family's own.
    fn head_linears(&self) -> Vec<&Linear>;

    /// All parameters of the head but for its last layer's.
    fn head_parameters(&self) -> Vec<ParamId> {
        self.head_linears().into_iter().flat_map(Linear::parameters).collect()
    }

    /// What virtual tokens before its texts are made like; none where it takes none.
    fn virtual_tokens(&self) -> Option<VirtualTokenSizes> {
        None
    }

    /// The width of a hidden state.
    fn hidden_size(&self) -> usize;

    /// The longest row, special tokens and virtual tokens included.
    fn max_length(&self) -> usize;

    /// What its head is made like.
    fn head(&self) -> HeadDefaults;

    /// Replaces the dropouts of its configuration (hidden states, attention's probabilities, head).
    fn set_dropout(&mut self, probability: f32);
}

/// A model on disk, opened: its configuration, its family and its weights, which layers are still to take.
pub struct Opened {
    /// Its `config.json`.
    pub config: HfConfig,
    /// What it is.
    pub family: &'static dyn Family,
    /// The encoder.
    pub encoder: Box<dyn Encoder>,
    /// What the task's head takes its tensors from.
    pub checkpoint: Checkpoint,
}

/// The family of a configuration. Errors if it is not known, naming those that are.
pub fn find(config: &HfConfig) -> std::result::Result<&'static dyn Family, ModelError> {
    let model_type = config.model_type()?;
    FAMILIES.iter().copied().find(|family| family.model_type() == model_type).ok_or_else(|| {
        let known: Vec<_> = FAMILIES.iter().map(|family| family.model_type()).collect();
        config.wrong("model_type", format!("one of {}", known.join(", ")), quoted(model_type))
    })
}

/// Opens the model in `folder` for a head of this kind. Errors if its family is not known, naming those that are.
pub fn open(
    folder: &Path,
    kind: HeadKind,
    device: Device,
    seed: Key,
) -> std::result::Result<Opened, ModelError> {
    open_as(folder, kind, device, seed, false)
}

/// The same; matrices stay as they lie in the file if `as_it_lies` (see [`Checkpoint::as_it_lies`]).
pub fn open_as(
    folder: &Path,
    kind: HeadKind,
    device: Device,
    seed: Key,
    as_it_lies: bool,
) -> std::result::Result<Opened, ModelError> {
    let config = HfConfig::open(folder)?;
    let family = find(&config)?;
    check_head(&config, family, kind)?;
    let mut checkpoint = Checkpoint::open(folder, device, family.aliases(), seed)?.as_it_lies(as_it_lies);
    let encoder = family.build(&config, &mut checkpoint, kind)?;
    Ok(Opened { config, family, encoder, checkpoint })
}

/// Errors if a family has no head of this kind, naming families that have.
pub fn check_head(
    config: &HfConfig,
    family: &dyn Family,
    kind: HeadKind,
) -> std::result::Result<(), ModelError> {
    if family.heads().contains(&kind) {
        return Ok(());
    }
    let able = FAMILIES.iter().filter(|family| family.heads().contains(&kind));
    let able: Vec<_> = able.map(|family| family.model_type()).collect();
    let expected = format!("one that can be a model {}: {}", kind.words(), able.join(", "));
    Err(config.wrong("model_type", expected, quoted(family.model_type())))
}

/// Whether a tensor of a checkpoint is none of the model's weights, but computed from its configuration and saved by older
/// versions of transformers.
pub fn is_buffer(name: &str) -> bool {
    ["position_ids", ".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Aliases of a family whose names begin with `prefix`. Bare models leave it out; those that came from TensorFlow call a
/// norm's parameters gamma and beta.
fn bare_or_old(prefix: &str, name: &str) -> Vec<String> {
    let bare = name.strip_prefix(prefix).unwrap_or(name);
    let old = |name: &str| {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    };
    vec![bare.to_string(), old(name), old(bare)]
}
