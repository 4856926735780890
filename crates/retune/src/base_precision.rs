//! What the frozen matrices of a base are kept as.

use std::collections::BTreeSet;
use std::path::Path;

use retune_model::formats::is_gguf;
use retune_tensor::{BlockType, DType, ParamId, Parameters};

use crate::{Error, ModelSettings, Result};

/// What the frozen matrices of a base are kept as, where no result will hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BasePrecision {
    /// As they lie in its file: in blocks, halves or bf16; what is f32 there as what flows.
    AsIs,
    /// f32 or bf16.
    Whole(DType),
    /// The layers that methods choose from in blocks that are made here; tables as what flows.
    Made(BlockType),
}

impl BasePrecision {
    const ALL: [(&'static str, BasePrecision); 5] = [
        ("f32", BasePrecision::Whole(DType::F32)),
        ("bf16", BasePrecision::Whole(DType::Bf16)),
        ("int8", BasePrecision::Made(BlockType::Int8)),
        ("nf4", BasePrecision::Made(BlockType::Nf4)),
        ("as-is", BasePrecision::AsIs),
    ];

    /// `f32`, `bf16`, `int8`, `nf4` or `as-is`.
    pub fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// Brings `parameters` there, but for those of `kept`, which leave with the result, and those that are trained: they are
    /// f32. `layers` are the weights of the base's linear layers; `dtype` is what flows.
    pub(crate) fn keep(
        self,
        parameters: &mut Parameters,
        layers: &[ParamId],
        kept: &[ParamId],
        dtype: DType,
    ) -> retune_tensor::Result<()> {
        parameters.widen(|id| kept.contains(&id))?;
        match self {
            BasePrecision::AsIs => parameters.keep_frozen_as(dtype, kept),
            BasePrecision::Whole(whole) => parameters.keep_frozen_as(whole, kept),
            BasePrecision::Made(kind) => {
                for id in layers.iter().filter(|id| !kept.contains(id)) {
                    let parameter = parameters.get_mut(*id);
                    if !parameter.trainable {
                        parameter.value = parameter.value.to(DType::Blocks(kind))?;
                    }
                }
                parameters.keep_frozen_as(dtype, kept)
            }
        }
    }
}

/// What is kept in blocks, in a sentence; none where nothing is.
pub(crate) fn said(parameters: &Parameters, asked: BasePrecision) -> Option<String> {
    let in_blocks = parameters.iter().filter_map(|(_, parameter)| match parameter.value.dtype() {
        DType::Blocks(kind) => Some((kind.name(), &parameter.value)),
        _ => None,
    });
    let (names, values): (BTreeSet<_>, Vec<_>) = in_blocks.unzip();
    let count: usize = values.iter().map(|value| value.len()).sum();
    let bytes: usize =
        values.iter().filter_map(|value| value.dtype().bytes(value.len(), value.columns())).sum();
    if let (0, BasePrecision::Made(kind)) = (count, asked) {
        let name = kind.name();
        return Some(format!(
            "--base-precision {name} changes nothing: no matrix that it is for is frozen and stays behind, so the base is f32"
        ));
    }
    (count > 0).then(|| {
        format!(
            "{} frozen matrices of {:.1} M parameters are kept in blocks ({}), {:.3} bytes a parameter; --base-precision \
             changes that",
            values.len(),
            count as f64 / 1e6,
            names.into_iter().collect::<Vec<_>>().join(", "),
            bytes as f64 / count as f64
        )
    })
}

impl ModelSettings {
    /// What frozen matrices are kept as: what is said; else those of a GGUF file as they lie, and others as what flows. Errors if
    /// that is none of the known.
    pub(crate) fn asked_base_precision(&self, base: &Path) -> Result<BasePrecision> {
        let flows = self.asked_precision()?;
        let Some(asked) = self.base_precision.as_deref() else {
            return Ok(if is_gguf(base) { BasePrecision::AsIs } else { BasePrecision::Whole(flows) });
        };
        let found = BasePrecision::ALL.into_iter().find(|(name, _)| *name == asked);
        found.map(|(_, precision)| precision).ok_or_else(|| {
            let names = BasePrecision::ALL.map(|(name, _)| name);
            let near = retune_adapt::nearest(asked, names);
            let near = near.map(|near| format!("; near is {near}")).unwrap_or_default();
            let message = format!("expected one of {}, got {asked}{near}", names.join(", "));
            Error::Setting { flag: "base-precision", message }
        })
    }
}
