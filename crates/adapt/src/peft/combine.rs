//! Weighted sums of LoRAs as one LoRA, as `add_weighted_adapter` of `peft` makes them: task arithmetic (Ilharco et al.
//! 2023), TIES (Yadav et al. 2023) and DARE (Yu et al. 2024). The papers add whole changes of weights; as in `peft` it is the
//! factors that are added, `A` and `B` by themselves, each with the root of its weight, and the whole changes where the name
//! ends with `-svd`, which are then cut to a rank. `cat` is the sum itself, of as many directions as all have together.

mod rule;

use std::collections::{BTreeMap, BTreeSet};

use retune_tensor::random::Key;
use retune_tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::files::{AdapterFiles, PREFIX, part};
use super::form::Form;
use super::lora::{A, B, SavedConfig, dense, is_dora, scale};
use super::svd::Top;
use super::{AdapterFile, ranges};
use crate::{AdaptError, nearest};
pub use rule::{MajoritySign, Prune, Rule};

/// How LoRAs are added.
#[derive(Debug, Clone, PartialEq)]
pub struct Combination {
    /// What becomes of the numbers.
    pub rule: Rule,
    /// What is added.
    pub what: What,
    /// The rank of the result where whole changes are cut: the largest of the adapters' where none is given.
    pub rank: Option<usize>,
    /// Draws what DARE drops.
    pub seed: u64,
}

/// What of the adapters is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// `A` and `B`, each by itself.
    Factors,
    /// `B A`, then cut to a rank by its singular values.
    Changes,
    /// Nothing: all directions stay beside each other.
    Directions,
}

/// By the names of `peft`: which rule, and whether whole changes are added.
const NAMES: [(&str, Prune, bool, What); 11] = [
    ("linear", Prune::None, false, What::Factors),
    ("cat", Prune::None, false, What::Directions),
    ("svd", Prune::None, false, What::Changes),
    ("ties", Prune::Magnitude, true, What::Factors),
    ("ties-svd", Prune::Magnitude, true, What::Changes),
    ("dare-linear", Prune::Random, false, What::Factors),
    ("dare-linear-svd", Prune::Random, false, What::Changes),
    ("dare-ties", Prune::Random, true, What::Factors),
    ("dare-ties-svd", Prune::Random, true, What::Changes),
    ("magnitude-prune", Prune::Magnitude, false, What::Factors),
    ("magnitude-prune-svd", Prune::Magnitude, false, What::Changes),
];

impl Combination {
    /// The names of all, as in `peft` but for hyphens.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, ..)| *name)
    }

    /// The combination called `name`. `density` is the share of numbers that are kept where some are dropped. Errors if there
    /// is none of that name, or it has no use for what is given.
    pub fn new(
        name: &str,
        density: Option<f64>,
        majority_sign: Option<&str>,
        rank: Option<usize>,
        seed: u64,
    ) -> Result<Self, AdaptError> {
        let unknown = || AdaptError::Unknown {
            kind: "combination",
            name: name.to_string(),
            hint: nearest(name, Self::names())
                .map(|near| format!(", did you mean `{near}`?"))
                .unwrap_or_default(),
            known: Self::names().collect::<Vec<_>>().join(", "),
        };
        // `peft` has underscores.
        let name = name.replace('_', "-");
        let found = NAMES.iter().find(|(known, ..)| *known == name);
        let (_, prune, elects, what) = *found.ok_or_else(unknown)?;
        let unused = |option: &str, whose: &str| {
            let message = format!("`{name}` has no use for it; it is an option of {whose}");
            Err(AdaptError::Option { option: option.into(), message })
        };
        let density = match (density, prune) {
            (Some(_), Prune::None) => return unused("density", "ties, dare-linear and their like"),
            (Some(density), _) => {
                let right = density > 0.0 && density <= 1.0;
                ranges::expect("density", right, "a share above 0 and up to 1", density)?;
                density
            }
            (None, Prune::None) => 1.0,
            (None, _) => 0.5,
        };
        let majority_sign = match (majority_sign, elects) {
            (Some(_), false) => return unused("majority-sign", "ties and its like"),
            (None | Some("total"), _) => MajoritySign::Total,
            (Some("frequency"), _) => MajoritySign::Frequency,
            (Some(other), _) => {
                ranges::expect("majority-sign", false, "total or frequency", format!("`{other}`"))?;
                MajoritySign::Total
            }
        };
        match rank {
            Some(_) if what != What::Changes => return unused("rank", "svd and its like"),
            Some(rank) => ranges::rank("rank", rank)?,
            None => {}
        }
        let elect = elects.then_some(majority_sign);
        Ok(Combination { rule: Rule { prune, density, elect }, what, rank, seed })
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Combined {
    /// The LoRA, with the head of one of the adapters.
    pub file: AdapterFile,
    /// Its rank.
    pub rank: usize,
    /// Tensors of the other adapters that are not in it: their heads above all.
    pub left_out: BTreeSet<String>,
}

/// An adapter's branch at a layer.
struct Branch {
    /// Which adapter's.
    adapter: usize,
    a: Tensor,
    b: Tensor,
    /// Its scale at this layer.
    scale: f64,
    /// How much it counts.
    weight: f64,
}

/// Adds `adapters`, each with its weight; the head is that of the adapter with the number `head`. Errors if one is no plain
/// LoRA, or they do not fit each other.
pub fn combine(
    adapters: &[(AdapterFiles, f64)],
    combination: &Combination,
    head: usize,
) -> Result<Combined, AdaptError> {
    let Some((leader, _)) = adapters.get(head).or(adapters.first()) else {
        let message = "expected adapters, got none".to_string();
        return Err(AdaptError::Option { option: "adapter".into(), message });
    };
    let (mut sites, mut largest) = (BTreeMap::<String, Vec<Branch>>::new(), Vec::new());
    let (mut tensors, mut left_out) = (Vec::new(), BTreeSet::new());
    for (number, (files, weight)) in adapters.iter().enumerate() {
        largest.push(read(files, number, *weight, &mut sites)?);
        for name in files.weights().flat_map(|weights| weights.names()).filter(|name| !is_branch(name)) {
            if std::ptr::eq(files, leader) {
                let shape = files.shape(name).unwrap_or_default().to_vec();
                tensors.push((name.to_string(), files.take(name, &shape, Device::Cpu)?));
            } else {
                left_out.insert(name.to_string());
            }
        }
        files.finish_taken()?;
    }
    let rank = match (combination.what, combination.rank) {
        (What::Directions, _) => largest.iter().sum(),
        (What::Changes, Some(rank)) => rank,
        (..) => largest.iter().copied().max().unwrap_or(1),
    };
    let mut branches = Vec::new();
    for (site, own) in &sites {
        let first = own.first().map(|branch| (branch.a.columns(), branch.b.rows()));
        if let Some(other) = own.iter().find(|branch| first != Some((branch.a.columns(), branch.b.rows()))) {
            let (files, _) = &adapters[other.adapter];
            return Err(files.error(format!(
                "`{site}` has other sizes than in {}: were they made for different models?",
                adapters[own[0].adapter].0.folder().display()
            )));
        }
        let [a, b] = match combination.what {
            What::Directions => beside(own, rank)?,
            What::Factors => added_factors(own, combination, site, rank, adapters)?,
            What::Changes => added_changes(own, combination, site, rank)?,
        };
        branches.extend([(part(site, A), a), (part(site, B), b)]);
    }
    branches.append(&mut tensors);
    let mut config = leader.config.clone();
    for (key, value) in [
        ("r", json!(rank)),
        // So that the scale is 1: it is in the numbers.
        ("lora_alpha", json!(rank)),
        ("use_rslora", json!(false)),
        ("rank_pattern", json!({})),
        ("alpha_pattern", json!({})),
        ("target_modules", json!(targets(adapters, &sites))),
    ] {
        config.insert(key.into(), value);
    }
    // Layers are named one by one where these chose among them.
    for key in ["layers_to_transform", "layers_pattern", "exclude_modules"] {
        config.shift_remove(key);
    }
    Ok(Combined { file: AdapterFile { form: Form::Peft, config, tensors: branches }, rank, left_out })
}

/// Whether a tensor of this name is of a branch.
fn is_branch(name: &str) -> bool {
    [A, B].iter().any(|end| name.strip_suffix(end).is_some_and(|site| site.ends_with('.')))
}

/// Puts the branches of an adapter among those of its layers, and gives its largest rank.
fn read(
    files: &AdapterFiles,
    adapter: usize,
    weight: f64,
    sites: &mut BTreeMap<String, Vec<Branch>>,
) -> Result<usize, AdaptError> {
    if !files.is("LORA") || is_dora(files) {
        let kind = if is_dora(files) { "a DoRA".into() } else { format!("one of type {}", files.kind()) };
        return Err(files.error(format!("expected a LoRA, got {kind}: only plain LoRAs are added")));
    }
    let saved = SavedConfig::read(files)?;
    let (mut largest, mut adapted) = (0, Vec::new());
    let names: Vec<String> = files.weights().flat_map(|weights| weights.names()).map(String::from).collect();
    for name in names.iter().filter(|name| name.ends_with(A)) {
        let site = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(A)).unwrap_or_default();
        let Some(site) = site.strip_suffix('.') else {
            return Err(files.error(format!("`{name}`: expected a name that begins with {PREFIX}")));
        };
        let (rank, width) = (files.size(name, 0), files.size(name, 1));
        let out = files.size(&part(site, B), 0);
        let a = files.take(name, &[rank, width], Device::Cpu)?;
        let b = files.take(&part(site, B), &[out, rank], Device::Cpu)?;
        let scale = f64::from(scale(saved.alpha.of(site), rank, saved.rslora));
        sites.entry(site.to_string()).or_default().push(Branch { adapter, a, b, scale, weight });
        (largest, _) = (largest.max(rank), adapted.push(site.to_string()));
    }
    if adapted.is_empty() {
        return Err(files.error("it has no branch"));
    }
    saved.alpha.check(files, &adapted)?;
    files.finish_taken()?;
    Ok(largest)
}

/// All directions beside each other, and zeros up to the rank.
fn beside(branches: &[Branch], rank: usize) -> Result<[Tensor; 2], AdaptError> {
    let (width, out) = (branches[0].a.columns(), branches[0].b.rows());
    let (mut a, mut b) = (vec![0.0; rank * width], vec![0.0; out * rank]);
    let mut first = 0;
    for branch in branches {
        let own = branch.a.rows();
        let scaled = branch.a.f32().iter().map(|x| (f64::from(*x) * branch.weight * branch.scale) as f32);
        a[first * width..].iter_mut().zip(scaled).for_each(|(to, x)| *to = x);
        for (to, row) in b.chunks_mut(rank).zip(branch.b.f32().chunks(own)) {
            to[first..first + own].copy_from_slice(row);
        }
        first += own;
    }
    tensors(&a, &b, [rank, width, out])
}

/// `A` and `B` by themselves, each with the root of the weight; its sign goes with `A`.
fn added_factors(
    branches: &[Branch],
    combination: &Combination,
    site: &str,
    rank: usize,
    adapters: &[(AdapterFiles, f64)],
) -> Result<[Tensor; 2], AdaptError> {
    if let Some(other) = branches.iter().find(|branch| branch.a.rows() != rank) {
        return Err(adapters[other.adapter].0.error(format!(
            "`{site}` is of rank {}, and another adapter's of {rank}: numbers of factors are added only where ranks are equal; \
             cat and svd take any",
            other.a.rows()
        )));
    }
    let (width, out) = (branches[0].a.columns(), branches[0].b.rows());
    let add = |end: &str, values: fn(&Branch) -> &Tensor, sign: fn(f64) -> f64| {
        let parts: Vec<&[f32]> = branches.iter().map(|branch| values(branch).f32()).collect();
        let weights = branches.iter().map(|branch| branch.weight * branch.scale);
        let weights: Vec<f32> = weights.map(|weight| (weight.abs().sqrt() * sign(weight)) as f32).collect();
        combination.rule.add(&parts, &weights, &keys(branches, combination, &part(site, end)))
    };
    let signum = |weight: f64| if weight < 0.0 { -1.0 } else { 1.0 };
    tensors(&add(A, |branch| &branch.a, signum), &add(B, |branch| &branch.b, |_| 1.0), [rank, width, out])
}

/// Whole changes, cut to the rank: `A` is orthonormal, `B` has the values.
fn added_changes(
    branches: &[Branch],
    combination: &Combination,
    site: &str,
    rank: usize,
) -> Result<[Tensor; 2], AdaptError> {
    let (width, out) = (branches[0].a.columns(), branches[0].b.rows());
    let zeros = Tensor::zeros(Device::Cpu, &[out, width])?;
    // The scale is part of a change and votes with it; the weight is not.
    let changes: Vec<Tensor> = branches
        .iter()
        .map(|branch| dense(&zeros, &branch.a, &branch.b, branch.scale as f32))
        .collect::<Result<_, _>>()?;
    let parts: Vec<&[f32]> = changes.iter().map(Tensor::f32).collect();
    let keys = keys(branches, combination, site);
    let weights: Vec<f32> = branches.iter().map(|branch| branch.weight as f32).collect();
    let sum = combination.rule.add(&parts, &weights, &keys);
    let directions: usize = branches.iter().map(|branch| branch.a.rows()).sum();
    let key = Key::new(combination.seed).with_name("svd").with_name(site);
    let top = Top::of(&sum, width, rank, directions.max(2 * rank + 10), key);
    let (mut a, mut b) = (vec![0.0; rank * width], vec![0.0; out * rank]);
    for (direction, row) in top.right.iter().zip(a.chunks_mut(width)) {
        row.iter_mut().zip(direction).for_each(|(to, x)| *to = *x as f32);
    }
    for (number, (direction, value)) in top.left.iter().zip(&top.values).enumerate() {
        for (row, x) in b.chunks_mut(rank).zip(direction) {
            row[number] = (x * value) as f32;
        }
    }
    tensors(&a, &b, [rank, width, out])
}

fn tensors(a: &[f32], b: &[f32], [rank, width, out]: [usize; 3]) -> Result<[Tensor; 2], AdaptError> {
    let tensor = |shape: [usize; 2], values: &[f32]| Tensor::from_slice(Device::Cpu, &shape, values);
    Ok([tensor([rank, width], a)?, tensor([out, rank], b)?])
}

/// What keys the draws for each adapter's numbers called `name`.
fn keys(branches: &[Branch], combination: &Combination, name: &str) -> Vec<Key> {
    let key = Key::new(combination.seed).with_name("dare").with_name(name);
    branches.iter().map(|branch| key.with(branch.adapter as u64)).collect()
}

/// The layers of the result, as `peft` is told of them: the names that the adapters gave where all did, else the layers' own.
fn targets(adapters: &[(AdapterFiles, f64)], sites: &BTreeMap<String, Vec<Branch>>) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for (files, _) in adapters {
        let chosen = ["layers_to_transform", "exclude_modules"]
            .iter()
            .any(|key| !matches!(files.config.get(*key), None | Some(Value::Null)));
        let Some(Value::Array(names)) = files.config.get("target_modules").filter(|_| !chosen) else {
            return sites.keys().map(|site| json!(site)).collect();
        };
        all.extend(names.iter().filter(|name| !all.contains(name)).cloned().collect::<Vec<_>>());
    }
    all
}
