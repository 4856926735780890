//! Several LoRAs of one base as one LoRA: the weighted sums of `peft`.

use std::path::{Path, PathBuf};

use retune_adapt::peft::combine::{Combination, Combined, combine as add};
use retune_model::tokenizer;
use serde::Serialize;
use serde_json::json;

use crate::new_folder::NewFolder;
use crate::sample::{Sample, max_difference};
use crate::{Card, Error, FileSettings, ModelSettings, Result, Source, TextModel, artefact};

/// What a combination came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where the adapter is.
    pub output: PathBuf,
    /// Its name.
    pub combination: String,
    /// The rank of its branches.
    pub rank: usize,
    /// The adapter whose head it has.
    pub head: PathBuf,
    /// Tensors of the others that are not in it: their heads above all.
    pub left_out: Vec<String>,
    /// How far its logits are from those of the weighted sum itself, under the same head.
    pub max_logit_difference: f64,
    /// The largest of those logits.
    pub max_logit: f64,
    /// What that was measured on.
    pub measured_on: String,
}

/// What is combined, and into what.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The adapters, each with its weight.
    pub adapters: &'a [(ModelSettings, f64)],
    /// How.
    pub combination: &'a Combination,
    /// The name of that, which is written down.
    pub name: &'a str,
    /// The number of the adapter whose head the result has.
    pub head: usize,
    /// The folder of the result.
    pub output: &'a Path,
    /// Whether a result that is there may be replaced.
    pub overwrite: bool,
}

/// Adds adapters and saves the sum, with the head of one of them, as a LoRA that `peft` opens. How far it is from the weighted
/// sum itself is measured on rows of `data`, or of random tokens.
///
/// Errors if one is no plain LoRA, or they are of different bases.
pub fn combine(request: &Request<'_>, data: &[PathBuf], file: &FileSettings) -> Result<Report> {
    let Request { adapters, combination, name, head, output, overwrite } = *request;
    let Some((settings, _)) = adapters.get(head) else {
        let message =
            format!("expected one of the {} adapters, got the one with number {head}", adapters.len());
        return Err(Error::Setting { flag: "head", message });
    };
    let leader = TextModel::open(settings)?;
    let mut files = Vec::new();
    for (settings, weight) in adapters {
        let source = Source::find(settings)?;
        let Some((_, adapter)) = source.adapter else {
            let message = "expected an adapter, got a whole model: only LoRAs of one base are added";
            return Err(Error::place(&source.folder, message));
        };
        if !artefact::same_base(&leader.source.base, &source.base)? {
            let message = format!(
                "its base is {}, and that of {} is {}: only LoRAs of one base are added",
                source.base.display(),
                leader.source.folder.display(),
                leader.source.base.display()
            );
            return Err(Error::place(&source.folder, message));
        }
        files.push((adapter, *weight));
    }
    let folder = NewFolder::create(output, overwrite)?;
    let sample = Sample::new(&leader, data, file)?;
    let sum = add(&files, &Combination::new("cat", None, None, None, 0)?, head)?;
    let expected = sample.logits(&written(&sum, &leader, &folder.path().join("sum"))?)?;
    std::fs::remove_dir_all(folder.path().join("sum"))
        .map_err(|error| Error::write(folder.path(), "remove a folder in", error))?;
    let combined = add(&files, combination, head)?;
    let logits = sample.logits(&written(&combined, &leader, folder.path())?)?;
    tokenizer::copy_files(&leader.source.base, folder.path())?;
    if let Some(card) = &leader.source.card {
        let adapters = files
            .iter()
            .map(|(files, weight)| json!({"adapter": artefact::absolute(files.folder()), "weight": weight}));
        let Combination { rule, rank, seed, .. } = combination;
        let settings = json!({
            "combination": name,
            "adapters": adapters.collect::<Vec<_>>(),
            "density": rule.density,
            "rank": rank,
            "seed": seed,
        });
        // Nobody has evaluated it yet.
        Card { method: "lora".into(), settings, receipt: None, ..card.clone() }.save(folder.path())?;
    }
    folder.finish()?;
    Ok(Report {
        output: output.to_path_buf(),
        combination: name.to_string(),
        rank: combined.rank,
        head: leader.source.folder,
        left_out: combined.left_out.into_iter().collect(),
        max_logit_difference: max_difference(&expected, &logits),
        max_logit: expected.iter().fold(0.0, |max, logit| f64::max(max, f64::from(logit.abs()))),
        measured_on: sample.is,
    })
}

/// The adapter on its base, as it comes from its files in `folder`.
fn written(combined: &Combined, leader: &TextModel, folder: &Path) -> Result<TextModel> {
    std::fs::create_dir_all(folder).map_err(|error| Error::write(folder, "make the folder", error))?;
    artefact::save_adapter_file(&combined.file, leader, folder)?;
    TextModel::open(&ModelSettings {
        model: Some(folder.to_path_buf()),
        base: Some(leader.source.base.clone()),
        precision: Some("f32".into()),
        problem_type: leader.form.spec().problem_type.map(|kind| kind.name().to_string()),
        ..ModelSettings::default()
    })
}
