//! GGUF (v2 and v3): a model in one file. Its metadata hold what a folder has as files (configuration, tokenizer, chat
//! template), and are read as these; its tensors are called and shaped as those of the family's checkpoints.

mod config;
mod header;
mod names;
mod pieces;
mod vocabulary;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

pub(super) use header::{Gguf, Tensor};
pub(super) use names::Order;

use crate::ModelError;

/// What the file begins with.
const MAGIC: &[u8; 4] = b"GGUF";

/// Whether this is a file that begins as GGUF does.
pub fn is_gguf(path: &Path) -> bool {
    let mut start = [0; 4];
    // Before it is opened: a pipe would wait for somebody who writes.
    path.is_file()
        && File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok())
        && start == *MAGIC
}

/// What a model's folder would hold as the file `name`; none where it would not be there.
pub(super) fn file(path: &Path, name: &str) -> Result<Option<Vec<u8>>, ModelError> {
    let gguf = Gguf::open(path)?;
    let text = |value: Value| serde_json::to_vec_pretty(&value).unwrap_or_default();
    Ok(match name {
        "config.json" => Some(text(Value::Object(config::config(&gguf)?))),
        "tokenizer.json" => Some(text(vocabulary::tokenizer(&gguf)?)),
        "tokenizer_config.json" => Some(text(vocabulary::settings(&gguf)?)),
        "generation_config.json" => Some(text(vocabulary::generation(&gguf)?)),
        "chat_template.jinja" => gguf.text("tokenizer.chat_template")?.map(|text| text.as_bytes().to_vec()),
        _ => None,
    })
}
