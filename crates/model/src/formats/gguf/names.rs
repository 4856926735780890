//! What llama.cpp calls and how it turns the tensors of each architecture (`gguf-py/gguf/tensor_mapping.py` and
//! `convert_hf_to_gguf.py`), taken back.

use std::collections::BTreeSet;

use super::config::Architecture;
use super::header::Gguf;
use crate::ModelError;
use crate::error::quoted;

/// How the values of a tensor lie, other than in the family's checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::formats) enum Order {
    /// Not otherwise.
    AsItIs,
    /// Rows of so many heads, those of a head's two halves in turns: llama.cpp turns neighbouring channels by a token's
    /// position, and transformers those of two halves.
    Interleaved { heads: usize },
    /// `[out, in]` of what is kept as `[in, out]`.
    Transposed,
}

impl Order {
    /// The shape of the tensor, of the shape in the file.
    pub(in crate::formats) fn shape(self, mut shape: Vec<usize>) -> Vec<usize> {
        if self == Order::Transposed {
            shape.reverse();
        }
        shape
    }

    /// Which row of the file row `row` of so many is.
    pub(in crate::formats) fn row(self, row: usize, rows: usize) -> usize {
        match self {
            Order::Interleaved { heads } => {
                let channels = rows / heads;
                let (head, channel) = (row / channels, row % channels);
                let (half, within) = (channel / (channels / 2), channel % (channels / 2));
                head * channels + 2 * within + half
            }
            _ => row,
        }
    }

    /// The values as a tensor of `shape` has them; none where they lie so already.
    pub(in crate::formats) fn ordered(self, shape: &[usize], values: &[f32]) -> Option<Vec<f32>> {
        match self {
            Order::AsItIs => None,
            Order::Interleaved { .. } => {
                let (rows, columns) = (shape.first()?, shape.iter().skip(1).product::<usize>());
                let row = |row| values.chunks(columns).nth(self.row(row, *rows)).unwrap_or_default();
                Some((0..*rows).flat_map(|index| row(index).iter().copied()).collect())
            }
            Order::Transposed => {
                let [rows, columns] = shape else { return None };
                let at = |row: usize, column: usize| values.get(column * rows + row).copied();
                (0..rows * columns).map(|place| at(place / columns, place % columns)).collect()
            }
        }
    }
}

impl Gguf {
    /// What each tensor is called in the family's checkpoints, and how it lies; one that has no place there keeps its name.
    /// Errors if two would have one name, or heads do not share the rows.
    pub(in crate::formats) fn named(&self) -> Result<Vec<(String, Order)>, ModelError> {
        let architecture = Architecture::of(self)?;
        let heads = architecture.heads(self)?;
        let mut seen = BTreeSet::new();
        let name = |tensor: &super::Tensor| {
            let (name, order) = match architecture {
                Architecture::Gpt2 => gpt2(&tensor.name),
                Architecture::Llama => llama(&tensor.name, Some(heads)),
                Architecture::Qwen2 | Architecture::Qwen3 => llama(&tensor.name, None),
            }
            .unwrap_or_else(|| (tensor.name.clone(), Order::AsItIs));
            let wrong = |expected: String, got: String| ModelError::Format {
                path: self.path.clone(),
                place: format!("tensor {}", quoted(&tensor.name)),
                expected,
                got,
            };
            if !seen.insert(name.clone()) {
                return Err(wrong(
                    "each tensor once".into(),
                    format!("a second one that is {}", quoted(&name)),
                ));
            }
            let rows = tensor.shape.first().copied().unwrap_or(1);
            if let Order::Interleaved { heads } = order
                && !rows.is_multiple_of(2 * heads)
            {
                let expected = format!("rows of {heads} heads, of an even number each");
                return Err(wrong(expected, format!("{rows} rows")));
            }
            if order == Order::Transposed && tensor.shape.len() != 2 {
                return Err(wrong("a matrix".into(), format!("the shape {:?}", tensor.shape)));
            }
            Ok((name, order))
        };
        self.tensors.iter().map(name).collect()
    }
}

/// The block of `blk.BLOCK.PART`, and the part.
fn in_block(name: &str) -> Option<(usize, &str)> {
    let (block, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((block.parse().ok()?, part))
}

/// Llama, and with no heads to be turned Qwen.
fn llama(name: &str, heads: Option<[usize; 2]>) -> Option<(String, Order)> {
    let plain = |name: &str| Some((name.to_string(), Order::AsItIs));
    match name {
        "token_embd.weight" => return plain("model.embed_tokens.weight"),
        "output_norm.weight" => return plain("model.norm.weight"),
        "output.weight" => return plain("lm_head.weight"),
        _ => {}
    }
    let (block, part) = in_block(name)?;
    let (part, kind) = part.rsplit_once('.')?;
    let turned = |which: usize| {
        heads
            .and_then(|heads| Some(Order::Interleaved { heads: *heads.get(which)? }))
            .unwrap_or(Order::AsItIs)
    };
    let (part, order) = match part {
        "attn_norm" => ("input_layernorm", Order::AsItIs),
        "attn_q" => ("self_attn.q_proj", turned(0)),
        "attn_k" => ("self_attn.k_proj", turned(1)),
        "attn_v" => ("self_attn.v_proj", Order::AsItIs),
        "attn_output" => ("self_attn.o_proj", Order::AsItIs),
        "attn_q_norm" => ("self_attn.q_norm", Order::AsItIs),
        "attn_k_norm" => ("self_attn.k_norm", Order::AsItIs),
        "ffn_norm" => ("post_attention_layernorm", Order::AsItIs),
        "ffn_gate" => ("mlp.gate_proj", Order::AsItIs),
        "ffn_up" => ("mlp.up_proj", Order::AsItIs),
        "ffn_down" => ("mlp.down_proj", Order::AsItIs),
        _ => return None,
    };
    Some((format!("model.layers.{block}.{part}.{kind}"), order))
}

fn gpt2(name: &str) -> Option<(String, Order)> {
    let plain = |name: String| Some((name, Order::AsItIs));
    match name {
        "token_embd.weight" => return plain("transformer.wte.weight".into()),
        "position_embd.weight" => return plain("transformer.wpe.weight".into()),
        "output.weight" => return plain("lm_head.weight".into()),
        _ => {}
    }
    if let Some(kind) = name.strip_prefix("output_norm.") {
        return plain(format!("transformer.ln_f.{kind}"));
    }
    let (block, part) = in_block(name)?;
    let (part, kind) = part.rsplit_once('.')?;
    let (part, matrix) = match part {
        "attn_norm" => ("ln_1", false),
        "attn_qkv" => ("attn.c_attn", true),
        "attn_output" => ("attn.c_proj", true),
        "ffn_norm" => ("ln_2", false),
        "ffn_up" => ("mlp.c_fc", true),
        "ffn_down" => ("mlp.c_proj", true),
        _ => return None,
    };
    let order = if matrix && kind == "weight" { Order::Transposed } else { Order::AsItIs };
    Some((format!("transformer.h.{block}.{part}.{kind}"), order))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_heads_are_brought_back_into_halves() {
        // Two heads of four channels and one column; the file has 0, 2 | 1, 3 of each head side by side.
        let file = [0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0];
        let order = Order::Interleaved { heads: 2 };
        assert_eq!(order.ordered(&[8, 1], &file).unwrap(), [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]);
        let turned = Order::Transposed.ordered(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert_eq!(turned, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
