//! LoRA (Hu et al. 2021): beside a frozen weight, a branch `scale * dropout(x) A^T B^T` of low rank. `B` starts at 0, so
//! the model starts unchanged. Files are those of `peft`.

mod saved;

use std::sync::Arc;

use retune_model::layers::Linear;
use retune_model::{Forward, Init, LinearHook};
use retune_tensor::backend::{Activation, Layout};
use retune_tensor::{ParamId, Result, Tensor, Var, ops};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::files::{AdapterFiles, PREFIX, matches};
use super::{Adapter, Applied, Method, Model};
use crate::{AdaptError, Kind, OptionSpec, Options, nearest};
use saved::SavedConfig;

/// The method.
pub(super) struct Lora;

/// What can be set. Names as in the paper and in `peft`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LoraConfig {
    /// The rank of the branch.
    pub rank: usize,
    /// The branch is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Dropout on what goes into the branch.
    pub dropout: f64,
    /// Which linear layers: a layer whose name ends with one of these. All of the encoder's where none is named.
    pub target_modules: Vec<String>,
    /// Scale by `alpha / sqrt(rank)` instead (Kalajdzievski 2023).
    pub rslora: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        LoraConfig { rank: 8, alpha: 16.0, dropout: 0.1, target_modules: Vec::new(), rslora: false }
    }
}

/// The most that a rank may be: beyond it, it is a slip.
const MOST_RANK: usize = 4096;

impl LoraConfig {
    fn check(&self) -> std::result::Result<(), AdaptError> {
        let error =
            |option: &str, message: String| Err(AdaptError::Option { option: option.into(), message });
        if self.rank == 0 || self.rank > MOST_RANK {
            return error("rank", format!("expected 1 to {MOST_RANK}, got {}", self.rank));
        }
        let alpha = self.alpha as f32;
        if !alpha.is_finite() || alpha <= 0.0 {
            return error("alpha", format!("expected a number above 0, got {}", self.alpha));
        }
        if !is_rate(self.dropout) {
            return error("dropout", format!("expected at least 0 and below 1, got {}", self.dropout));
        }
        Ok(())
    }
}

/// Whether it is a dropout: in f32, where 0.99999999 is 1 and nothing would be left to scale up.
fn is_rate(value: f64) -> bool {
    (0.0..1.0).contains(&(value as f32))
}

fn scale(alpha: f64, rank: usize, rslora: bool) -> f32 {
    let rank = rank as f64;
    (alpha / if rslora { rank.sqrt() } else { rank }) as f32
}

impl Method for Lora {
    fn name(&self) -> &'static str {
        "lora"
    }
    fn summary(&self) -> &'static str {
        "low-rank branches beside the linear layers, and the classifier"
    }
    fn when(&self) -> &'static str {
        "a large model, little memory, or many tasks on one base: the result is a small file beside it"
    }
    fn paper(&self) -> &'static str {
        "Hu et al. 2021, LoRA"
    }
    fn options(&self) -> &'static [OptionSpec] {
        &[
            OptionSpec { name: "rank", kind: Kind::Integer, default: "8", help: "rank of the branches" },
            OptionSpec {
                name: "alpha",
                kind: Kind::Number,
                default: "16",
                help: "branches are scaled by alpha / rank",
            },
            OptionSpec {
                name: "dropout",
                kind: Kind::Number,
                default: "0.1",
                help: "dropout on what goes into a branch",
            },
            OptionSpec {
                name: "target-modules",
                kind: Kind::List,
                default: "all linear layers",
                help: "which linear layers, by the ends of their names, such as query,value",
            },
            OptionSpec {
                name: "rslora",
                kind: Kind::Flag,
                default: "false",
                help: "scale by alpha / sqrt(rank), for high ranks",
            },
        ]
    }
    fn learning_rate(&self) -> f64 {
        2e-3
    }

    fn apply(&self, model: &mut Model<'_>, options: &Options) -> std::result::Result<Applied, AdaptError> {
        let config: LoraConfig = options.parse(self.name(), self.options())?;
        config.check()?;
        let targets = targets(model, &config.target_modules)?;
        let scale = scale(config.alpha, config.rank, config.rslora);
        let mut tensors = Vec::new();
        let modules = told_targets(model, &targets, &config.target_modules);
        for site in targets {
            // As `peft` draws them: Kaiming uniform with a = sqrt(5), which is 1 / sqrt(in).
            let bound = Init::Uniform(1.0 / (site.in_features as f64).sqrt());
            let [a_name, b_name] = names(&site.name);
            let a = bound.draw(model.device(), &[config.rank, site.in_features], model.seed, &a_name)?;
            let b = Tensor::zeros(model.device(), &[site.out_features, config.rank])?;
            branch(
                model,
                &site.name,
                [(a_name, a), (b_name, b)],
                scale,
                config.dropout as f32,
                &mut tensors,
            )?;
        }
        model.train_head();
        save_head(model, &mut tensors);
        let config = peft_config(&config, &modules, &modules_to_save(model));
        Ok(Applied::Adapter(Adapter { config, tensors }))
    }

    fn reads(&self, files: &AdapterFiles) -> bool {
        files.config.get("peft_type").and_then(Value::as_str) == Some("LORA")
    }

    fn load(&self, model: &mut Model<'_>, files: &AdapterFiles) -> std::result::Result<Applied, AdaptError> {
        let saved = SavedConfig::read(files)?;
        let (mut tensors, mut adapted) = (Vec::new(), Vec::new());
        let sites: Vec<(String, usize, usize)> = model
            .all_linears()
            .into_iter()
            .map(|linear| (linear.name.clone(), linear.in_features, linear.out_features))
            .collect();
        for (site, in_features, out_features) in sites {
            let [a_name, b_name] = names(&site);
            let Some(a_shape) = files.shape(&a_name) else {
                files.absent(&b_name, &format!("`{a_name}`, which belongs to it, is missing"));
                continue;
            };
            let rank = a_shape.first().copied().unwrap_or(0).max(1);
            let a = files.take(&a_name, &[rank, in_features], model.device())?;
            let b = files.take(&b_name, &[out_features, rank], model.device())?;
            let scale = scale(saved.alpha_of(&site), rank, saved.rslora);
            branch(model, &site, [(a_name, a), (b_name, b)], scale, saved.dropout, &mut tensors)?;
            adapted.push(site);
        }
        if tensors.is_empty() {
            return Err(
                files.error("no tensor of it fits a layer of the base: was it made for another model?")
            );
        }
        files.take_saved_modules(model, &mut tensors)?;
        files.finish()?;
        saved.check_patterns(files, &adapted)?;
        model.train_head();
        save_head(model, &mut tensors);
        let mut config = files.config.clone();
        // Names of the file stay: whatever they mean in the model is saved again.
        let named = config.get("modules_to_save").and_then(Value::as_array).cloned().unwrap_or_default();
        let own = modules_to_save(model).into_iter().map(Value::from).filter(|own| !named.contains(own));
        let modules: Vec<Value> = named.iter().cloned().chain(own).collect();
        config.insert("modules_to_save".into(), modules.into());
        Ok(Applied::Adapter(Adapter { config, tensors }))
    }
}

/// The names of a branch's tensors in the file, which are their names here too.
fn names(site: &str) -> [String; 2] {
    ["A", "B"].map(|part| format!("{PREFIX}{site}.lora_{part}.weight"))
}

/// Puts a branch at `site`: both tensors trained, both in the file.
fn branch(
    model: &mut Model<'_>,
    site: &str,
    named: [(String, Tensor); 2],
    scale: f32,
    dropout: f32,
    tensors: &mut Vec<(String, ParamId)>,
) -> std::result::Result<(), AdaptError> {
    let mut ids = Vec::new();
    for (name, value) in named {
        let id = model.parameters.add(name.clone(), value)?;
        model.train(id);
        tensors.push((name, id));
        ids.push(id);
    }
    if let [a, b] = ids[..] {
        model.hooks.at_linear(site, Box::new(Branch { a, b, scale, dropout }));
    }
    Ok(())
}

struct Branch {
    a: ParamId,
    b: ParamId,
    scale: f32,
    dropout: f32,
}

impl LinearHook for Branch {
    fn linear(
        &self,
        forward: &Forward<'_>,
        base: &Linear,
        x: &Var,
        layout: &Arc<Layout>,
        activation: Activation,
    ) -> Result<Var> {
        let (a, b) = (&forward.parameter(self.a), &forward.parameter(self.b));
        let dropout = forward.dropout(&format!("{}.lora", base.name), self.dropout);
        let low_rank = ops::LowRank { a, b, scale: self.scale, dropout };
        base.with_branch(forward, x, layout, Some(low_rank), activation)
    }
}

/// The layers that `wanted` names; all of the encoder's where it names none.
fn targets(model: &Model<'_>, wanted: &[String]) -> std::result::Result<Vec<Linear>, AdaptError> {
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

/// Everything else that is trained goes into the adapter too: the head above all.
fn save_head(model: &Model<'_>, tensors: &mut Vec<(String, ParamId)>) {
    for (id, parameter) in model.parameters.trainable() {
        if !tensors.iter().any(|(_, known)| *known == id) {
            tensors.push((format!("{PREFIX}{}", parameter.name), id));
        }
    }
}

/// The modules whose own weights are trained, as `peft` names them: by the ends of their names.
fn modules_to_save(model: &Model<'_>) -> Vec<String> {
    let mut modules = vec![model.module(model.classifier.weight)];
    for id in model.encoder.head_parameters() {
        let module = model.module(id);
        if model.parameters.get(id).trainable && !modules.contains(&module) {
            modules.push(module);
        }
    }
    modules
}

/// What `peft` is told for the layers `chosen` by the names `wanted`. Its own word for all layers, `all-linear`, means
/// the pooler too, and so may a name such as `dense`: it is told the names within a block then.
fn told_targets(model: &Model<'_>, chosen: &[Linear], wanted: &[String]) -> Vec<String> {
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

fn peft_config(config: &LoraConfig, targets: &[String], modules: &[String]) -> Map<String, Value> {
    let fields = json!({
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "r": config.rank,
        "lora_alpha": whole(config.alpha),
        "lora_dropout": config.dropout,
        "target_modules": targets,
        "use_rslora": config.rslora,
        "modules_to_save": modules,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "use_dora": false,
    });
    fields.as_object().cloned().unwrap_or_default()
}

/// 16.0 is written as 16, as `peft` writes it.
fn whole(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}
