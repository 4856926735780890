//! Where a method of linear layers sits: the layers that a user names, and what `peft` is told of them.

use retune_model::Merged;
use retune_model::layers::Linear;

use super::Model;
use crate::{AdaptError, nearest};

/// The option that names the layers.
pub(super) const TARGET_MODULES: &str = "target-modules";

/// `peft`'s word for all of them, in the place of names.
const ALL_LINEAR: &str = "all-linear";

/// The names that choose among the layers: none where all are meant.
fn names(wanted: &[String]) -> &[String] {
    if wanted.iter().any(|name| name == ALL_LINEAR) { &[] } else { wanted }
}

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

/// The layers that `wanted` names; all of the encoder's where it names none, or says `all-linear`.
pub(super) fn targets(model: &Model<'_>, wanted: &[String]) -> Result<Vec<Linear>, AdaptError> {
    let wanted = names(wanted);
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
            return Err(AdaptError::Option { option: TARGET_MODULES.into(), message });
        }
    }
    let chosen =
        |linear: &&Linear| wanted.is_empty() || wanted.iter().any(|name| matches(&linear.name, name));
    Ok(all.into_iter().filter(chosen).cloned().collect())
}

/// What `peft` is told of the layers `chosen`: whether they keep their weights as `[in, out]`.
pub(super) fn fan_in_fan_out(chosen: &[Linear]) -> bool {
    !chosen.is_empty() && chosen.iter().all(|linear| linear.transposed)
}

/// What `peft` is told for the layers `chosen` by the names `wanted`. Its own word for all layers, `all-linear`, means
/// the pooler too, and so may a name such as `dense`: it is told the names within a block then.
pub(super) fn told_targets(model: &Model<'_>, chosen: &[Linear], wanted: &[String]) -> Vec<String> {
    let wanted = names(wanted);
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

/// Puts what the hooks at linear layers do into the layers' own weights. Errors if a hook has no such weights; nothing
/// is changed then.
pub(super) fn merge(method: &str, model: &mut Model<'_>) -> Result<(), AdaptError> {
    let mut merged = Vec::new();
    for linear in model.all_linears() {
        let Some(hook) = model.hooks.linear(&linear.name) else { continue };
        match hook.merged(model.parameters, linear)? {
            Some(weights) => merged.push((linear.clone(), weights)),
            None => {
                let why = format!("what it does at `{}` is no weight", linear.name);
                return Err(AdaptError::Merge { method: method.to_string(), why });
            }
        }
    }
    for (linear, Merged { weight, bias }) in merged {
        linear.set_matrix(model.parameters, weight)?;
        if let (Some(id), Some(bias)) = (linear.bias, bias) {
            model.parameters.get_mut(id).value = bias;
        }
        model.hooks.leave_linear(&linear.name);
    }
    Ok(())
}

/// What `peft` is told for the layers `chosen` where nobody named them: names within a block that mean no other layer,
/// or their whole names.
pub(super) fn told(model: &Model<'_>, chosen: &[Linear]) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for linear in chosen {
        let within = within_block([linear]).pop().unwrap_or_default();
        let is_chosen = |other: &Linear| chosen.iter().any(|linear| linear.name == other.name);
        let alone =
            model.all_linears().into_iter().all(|other| is_chosen(other) || !matches(&other.name, &within));
        let name = if alone { within } else { linear.name.clone() };
        if !told.contains(&name) {
            told.push(name);
        }
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
