//! Where a method of linear layers sits: the layers that a user names, and what `peft` is told of them.

use retune_model::layers::Linear;

use super::Model;
use crate::{AdaptError, nearest};

/// Whether the layer `site` is meant by `name`: its whole name, or the end of it after a dot.
pub(super) fn matches(site: &str, name: &str) -> bool {
    site == name || site.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// The group of a trained parameter called `SITE` + `part` + anything: all parts at a site, of which some have no gradient
/// as long as another is 0. Any other parameter is grouped by its layer.
pub(super) fn group<'n>(name: &'n str, part: &str) -> &'n str {
    name.split_once(part).map_or_else(|| layer(name), |(site, _)| site)
}

/// The layer of a parameter: its name without the last part.
pub(super) fn layer(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(layer, _)| layer)
}

/// The layers that `wanted` names; all of the encoder's where it names none.
pub(super) fn targets(model: &Model<'_>, wanted: &[String]) -> Result<Vec<Linear>, AdaptError> {
    let all = model.encoder.linears();
    for name in wanted {
        if !all.iter().any(|linear| matches(&linear.name, name)) {
            let mut ends: Vec<&str> =
                all.iter().filter_map(|linear| linear.name.rsplit('.').next()).collect();
            ends.extend(all.iter().filter_map(|linear| {
                let start = linear.name.rmatch_indices('.').nth(1)?.0;
                Some(&linear.name[start + 1..])
            }));
            ends.sort_unstable();
            ends.dedup();
            let near = nearest(name, ends.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
            let message = format!(
                "no linear layer's name ends with `{name}`{}; there are: {}",
                near.unwrap_or_default(),
                ends.join(", ")
            );
            return Err(AdaptError::Option { option: "target-modules".into(), message });
        }
    }
    let chosen =
        |linear: &&Linear| wanted.is_empty() || wanted.iter().any(|name| matches(&linear.name, name));
    Ok(all.into_iter().filter(chosen).cloned().collect())
}

/// What `peft` is told for the layers `chosen` by the names `wanted`. Its own word for all layers, `all-linear`, means
/// the pooler too, and so may a name such as `dense`: it is told the names within a block then.
pub(super) fn told_targets(model: &Model<'_>, chosen: &[Linear], wanted: &[String]) -> Vec<String> {
    if wanted.is_empty() {
        return within_block(chosen);
    }
    let others = || model.encoder.head_linears().into_iter().chain([model.classifier]);
    let mut told: Vec<String> = Vec::new();
    for name in wanted {
        let names = if others().any(|other| matches(&other.name, name)) {
            within_block(chosen.iter().filter(|linear| matches(&linear.name, name)))
        } else {
            vec![name.clone()]
        };
        told.extend(names.into_iter().filter(|name| !told.contains(name)).collect::<Vec<_>>());
    }
    told
}

/// The layers' names within their block, each once.
fn within_block<'a>(layers: impl IntoIterator<Item = &'a Linear>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for layer in layers {
        let parts: Vec<&str> = layer.name.split('.').collect();
        let block = parts.iter().rposition(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let name = parts[block.map_or(0, |index| index + 1)..].join(".");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
