//! Which files of a model are fetched, and which a snapshot lacks.

use std::path::Path;

use super::HubId;
use super::answer::Listing;
use crate::ModelError;
use crate::error::nearest;
use crate::formats::{architecture, shard_names};
use crate::tokenizer;

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const ADAPTER: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
const BOTTLENECK_WEIGHTS: [&str; 2] = ["adapter.safetensors", "model_head.safetensors"];
const HEAD: &str = "head_config.json";
/// One of these makes a tokenizer.
const VOCABULARIES: [&str; 4] = ["tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model"];

/// Everything small, and so all that tells which weights are needed. Errors if it is no model.
pub(super) fn first(id: &HubId, listing: &Listing, also: &[&str]) -> Result<Vec<String>, ModelError> {
    if !listing.has(ADAPTER) && !listing.has(CONFIG) {
        let near = nearest(CONFIG, listing.files.iter().map(String::as_str));
        let near = near.map(|near| format!(" (but {near})")).unwrap_or_default();
        return Err(id.error(format!(
            "it has no {CONFIG}{near}, so it is no model of transformers: it has {}",
            listing.shown()
        )));
    }
    let names = [ADAPTER, HEAD, CONFIG].into_iter().chain(tokenizer::FILES).chain(also.iter().copied());
    let index = (!listing.has(SINGLE) && !listing.has(ADAPTER)).then_some(INDEX);
    Ok(names.chain(index).filter(|name| listing.has(name)).map(str::to_string).collect())
}

/// The weights. `folder` has all that is small. Errors if there are only weights that run code when loaded.
pub(super) fn weights(id: &HubId, listing: &Listing, folder: &Path) -> Result<Vec<String>, ModelError> {
    if listing.has(ADAPTER) {
        // Those of `peft`, or those of the `adapters` library, whose head lies apart.
        let [first, head] = BOTTLENECK_WEIGHTS;
        return match (listing.has(ADAPTER_WEIGHTS), listing.has(first)) {
            (true, _) => Ok(vec![ADAPTER_WEIGHTS.into()]),
            (false, true) => {
                let names = [first, head].into_iter().filter(|name| listing.has(name));
                Ok(names.map(str::to_string).collect())
            }
            (false, false) => Err(id.error(no_weights(id, listing, ADAPTER_WEIGHTS, None))),
        };
    }
    if listing.has(SINGLE) {
        return Ok(vec![SINGLE.into()]);
    }
    if !listing.has(INDEX) {
        return Err(id.error(no_weights(id, listing, SINGLE, Some(folder))));
    }
    let shards = shard_names(&folder.join(INDEX))?;
    match shards.iter().find(|shard| !listing.has(shard)) {
        Some(shard) => Err(id.error(format!("its {INDEX} names {shard}, which it does not have"))),
        None => Ok(shards),
    }
}

fn no_weights(id: &HubId, listing: &Listing, expected: &str, model: Option<&Path>) -> String {
    let pickle = listing.files.iter().find(|name| name.ends_with(".bin") || name.ends_with(".pt"));
    let Some(pickle) = pickle else {
        return format!("it has no {expected}: it has {}", listing.shown());
    };
    let folder = id.id().rsplit('/').next().unwrap_or_default();
    let (id, revision) = (id.id(), &listing.commit);
    let command = match model {
        Some(config) => {
            let class = architecture(config).unwrap_or_else(|| "AutoModel".into());
            format!(
                "from transformers import {class} as M, AutoTokenizer as T; a = dict(pretrained_model_name_or_path=\"{id}\", \
                 revision=\"{revision}\"); M.from_pretrained(**a).save_pretrained(\"{folder}\", safe_serialization=True); \
                 T.from_pretrained(**a).save_pretrained(\"{folder}\")"
            )
        }
        None => format!(
            "from huggingface_hub import snapshot_download as get; import os, torch; from safetensors.torch import \
             save_file; d = get(\"{id}\", revision=\"{revision}\", local_dir=\"{folder}\"); \
             save_file(torch.load(os.path.join(d, \"{pickle}\"), weights_only=True), os.path.join(d, \"{expected}\"))"
        ),
    };
    format!(
        "it has no {expected}, only {pickle}: a pickle, which can run any code when it is loaded, and so is never \
         loaded here. if you trust where it came from, convert it once and give the folder `{folder}` as --model:\n    \
         python -c '{command}'"
    )
}

/// What a snapshot needs to be used and does not have.
pub(super) fn lacks(folder: &Path) -> Vec<String> {
    let there = |name: &str| folder.join(name).is_file();
    let missing =
        |names: &[&str]| names.iter().filter(|name| !there(name)).map(|name| name.to_string()).collect();
    if there(ADAPTER) {
        return match (there(BOTTLENECK_WEIGHTS[0]), there(HEAD)) {
            (false, _) => missing(&[ADAPTER_WEIGHTS]),
            (true, true) => missing(&BOTTLENECK_WEIGHTS),
            (true, false) => Vec::new(),
        };
    }
    let mut lacks: Vec<String> = missing(&[CONFIG]);
    if !VOCABULARIES.iter().any(|name| there(name)) {
        lacks.push("tokenizer.json".into());
    }
    match (there(SINGLE), there(INDEX)) {
        (true, _) => {}
        (false, false) => lacks.push(SINGLE.into()),
        // An index that cannot be read is an error of its own when the model is opened.
        (false, true) => lacks.extend(
            shard_names(&folder.join(INDEX)).unwrap_or_default().into_iter().filter(|name| !there(name)),
        ),
    }
    lacks
}
