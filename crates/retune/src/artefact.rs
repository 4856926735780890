//! What a run leaves behind: a Hugging Face folder or an adapter, and `retune.json`, which says all about it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

use retune_adapt::peft::{Adapter, AdapterFile, Applied, BaseCard};
use retune_adapt::tasks::{ColumnNames, LanguageSettings, QuestionSettings};
use retune_data::ProblemType;
use retune_model::families::HeadKind;
use retune_model::formats::{Weights, write_atomic, write_safetensors};
use retune_model::tokenizer;
use retune_tensor::{ParamId, Parameters, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::recipe::Prepared;
use crate::{Error, Origin, Result, Source, TextModel, inputs};

/// `retune.json`: what the result is, what it was made of and how good it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Of this file's form; a reader takes those it knows and those below.
    pub format_version: u32,
    /// The program that wrote it.
    pub retune_version: String,
    /// Its task.
    pub task: String,
    /// The method that made it.
    pub method: String,
    /// What a label is, where a task has several kinds; cards of before there were others are of one class a row.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem_type: Option<ProblemType>,
    /// The labels, in the order of the logits.
    pub labels: Vec<String>,
    /// From which probability on each label is given, where a row may have several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub thresholds: Option<Vec<f32>>,
    /// Longer texts are cut to this many tokens.
    pub max_length: usize,
    /// The columns that it was trained on.
    pub columns: ColumnNames,
    /// What it was made of.
    pub base: DataCard,
    /// The training rows.
    pub train: DataCard,
    /// The evaluation rows, where they were a file of their own.
    pub eval: Option<DataCard>,
    /// Every setting, resolved.
    pub settings: Value,
    /// The evaluation, as a receipt.
    pub receipt: Option<Receipt>,
}

/// A file or a folder's weights, and what was in them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataCard {
    /// Where it was: a path, or the id of a model on the hub.
    pub path: PathBuf,
    /// The files with rows, where they are not one.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub files: Vec<PathBuf>,
    /// The commit of a model on the hub.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<String>,
    /// Of its bytes.
    pub sha256: String,
    /// How many rows were used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rows: Option<usize>,
}

/// How good the saved weights are, and on what that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The step whose weights these are.
    pub step: u64,
    /// What they were measured on.
    pub on: String,
    /// How many rows that are.
    #[serde(default)]
    pub rows: Option<usize>,
    /// The mean loss.
    pub loss: f64,
    /// By name.
    pub metrics: BTreeMap<String, f64>,
}

impl Card {
    /// The file's name.
    pub const FILE: &'static str = "retune.json";
    /// The newest form that is known here.
    pub const VERSION: u32 = 1;

    /// What is known of the result before it is there: taken before the training, as the files may change meanwhile.
    /// `base_hash` is that of the base's weights.
    pub(crate) fn of(prepared: &Prepared<'_>, base_hash: String) -> Result<Self> {
        let Prepared { task, resolved, examples, model, max_length, .. } = prepared;
        let rows = |named: &[PathBuf], rows| {
            let (mut files, sha256) = inputs::hash(named)?;
            // One file is its own path; of several, what was named is said, and which files that was.
            let path = if files.len() == 1 { files.remove(0) } else { inputs::together(named) };
            Ok::<_, Error>(DataCard { path, files, revision: None, sha256, rows: Some(rows) })
        };
        let (path, revision) = named(&model.source);
        Ok(Card {
            format_version: Self::VERSION,
            retune_version: env!("CARGO_PKG_VERSION").into(),
            task: task.name().into(),
            method: resolved.method.name().into(),
            problem_type: model.form.spec().problem_type,
            labels: model.labels().names().to_vec(),
            thresholds: resolved.set_thresholds(examples)?,
            max_length: *max_length,
            columns: examples.columns.clone(),
            base: DataCard { path, files: Vec::new(), revision, sha256: base_hash, rows: None },
            train: rows(resolved.train(), examples.train.len())?,
            eval: resolved.eval().map(|named| rows(named, examples.eval.len())).transpose()?,
            settings: resolved.as_json(*max_length),
            receipt: None,
        })
    }

    /// What was learnt of text.
    pub(crate) fn language(&self) -> LanguageSettings {
        let usual = LanguageSettings::default();
        let setting = |name| self.settings.get(name).and_then(Value::as_str);
        LanguageSettings {
            loss_on: setting("loss_on").and_then(|name| name.parse().ok()).unwrap_or(usual.loss_on),
            chat_template: setting("chat_template").map_or(usual.chat_template, |name| name != "none"),
        }
    }

    /// How questions were read and their answers looked for.
    pub(crate) fn questions(&self) -> QuestionSettings {
        let mut questions = QuestionSettings::default();
        let setting = |name| self.settings.get(name).and_then(Value::as_u64)?.try_into().ok();
        questions.doc_stride = setting("doc_stride").unwrap_or(questions.doc_stride);
        let length = &mut questions.search.max_answer_length;
        *length = setting("max_answer_length").unwrap_or(*length);
        questions
    }

    /// Reads the card in `folder`; none where there is none. Errors if it is of a newer form or no card.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(Self::FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::place(&path, format!("cannot read: {error}"))),
        };
        let value: Value = serde_json::from_slice(&text)
            .map_err(|e| Error::place(&path, format!("line {}, column {}: {e}", e.line(), e.column())))?;
        match value.get("format_version").and_then(Value::as_u64) {
            Some(version) if version <= u64::from(Self::VERSION) => {}
            Some(version) => {
                let message = format!(
                    "it is of form {version}, and this retune reads up to {}; update it",
                    Self::VERSION
                );
                return Err(Error::place(&path, message));
            }
            None => return Err(Error::place(&path, "`format_version` is missing: not written by retune")),
        }
        serde_json::from_value(value).map(Some).map_err(|e| Error::place(&path, e.to_string()))
    }

    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        Ok(write_atomic(folder.join(Self::FILE), |writer| {
            serde_json::to_writer_pretty(&mut *writer, self)?;
            writer.write_all(b"\n")
        })?)
    }
}

/// Writes the model into `folder`: whole, or its adapter beside the name of its base.
pub(crate) fn save_model(model: &TextModel, folder: &Path) -> Result<()> {
    match &model.applied {
        Applied::Model => save_whole(model, folder)?,
        Applied::Adapter(adapter) => save_adapter(model, adapter, folder)?,
    }
    Ok(tokenizer::copy_files(&model.source.base, folder)?)
}

/// Writes a model whose `adapter` is merged into it: all of it but the adapter's own tensors.
pub(crate) fn save_merged(model: &TextModel, adapter: &Adapter, folder: &Path) -> Result<()> {
    save_weights(model, folder, |id| !adapter.owns(id, &model.parameters))?;
    Ok(tokenizer::copy_files(&model.source.base, folder)?)
}

fn save_whole(model: &TextModel, folder: &Path) -> Result<()> {
    save_weights(model, folder, |_| true)
}

fn save_weights(model: &TextModel, folder: &Path, wanted: impl Fn(ParamId) -> bool) -> Result<()> {
    let all = model.parameters.iter().filter(|(id, _)| wanted(*id));
    let ids: Vec<_> = all.map(|(id, parameter)| (parameter.name.clone(), id)).collect();
    save_tensors(&model.parameters, &ids, &folder.join("model.safetensors"))?;
    let mut config = model.config.clone();
    // A vocabulary's words are the tokenizer's matter.
    let labels = match model.task.head() {
        HeadKind::Language => &[],
        _ => model.labels().names(),
    };
    let by_id: Map<String, Value> =
        labels.iter().enumerate().map(|(id, name)| (id.to_string(), json!(name))).collect();
    let by_label: Map<String, Value> =
        labels.iter().enumerate().map(|(id, name)| (name.clone(), json!(id))).collect();
    for (key, value) in [
        ("architectures", json!([model.family.class(model.task.head())])),
        ("id2label", Value::Object(by_id)),
        ("label2id", Value::Object(by_label)),
        // Everything is saved in full precision, whatever the base was stored in.
        ("dtype", json!("float32")),
    ] {
        match &value {
            Value::Object(names) if names.is_empty() => config.raw.shift_remove(key),
            _ => config.raw.insert(key.into(), value),
        };
    }
    match model.form.spec().problem_type {
        Some(problem_type) => config.raw.insert("problem_type".into(), json!(problem_type)),
        None => config.raw.shift_remove("problem_type"),
    };
    config.raw.shift_remove("torch_dtype");
    config.raw.shift_remove("num_labels");
    Ok(config.save(folder)?)
}

fn save_adapter(model: &TextModel, adapter: &Adapter, folder: &Path) -> Result<()> {
    save_adapter_file(&model.method.file(adapter, &model.hooks, &model.parameters)?, model, folder)
}

/// Writes an adapter of the base of `model`, with its labels.
pub(crate) fn save_adapter_file(file: &AdapterFile, model: &TextModel, folder: &Path) -> Result<()> {
    for (name, tensors) in file.weights() {
        let views: Vec<_> = tensors.into_iter().map(|(name, value)| view(name.clone(), value)).collect();
        write_safetensors(folder.join(name), &views, &metadata())?;
    }
    let (path, revision) = named(&model.source);
    let base = BaseCard {
        path: &path,
        revision: revision.as_deref(),
        model_type: model.family.model_type(),
        class: &model.family.class(model.task.head()),
        task_type: model.task.head().peft_task_type(),
        hidden_size: model.network.encoder().hidden_size(),
        labels: model.labels().names(),
    };
    for (name, document) in file.documents(&base) {
        write_atomic(folder.join(name), |writer| {
            serde_json::to_writer_pretty(&mut *writer, &document)?;
            writer.write_all(b"\n")
        })?;
    }
    Ok(())
}

/// Writes some parameters, each under a name of its own.
pub(crate) fn save_tensors(parameters: &Parameters, named: &[(String, ParamId)], path: &Path) -> Result<()> {
    Ok(write_safetensors(path, &views(parameters, named), &metadata())?)
}

/// A tensor as it is written: its name, its shape, its values.
type View<'a> = (String, Vec<usize>, &'a [f32]);

fn views<'a>(parameters: &'a Parameters, named: &[(String, ParamId)]) -> Vec<View<'a>> {
    named.iter().map(|(name, id)| view(name.clone(), &parameters.get(*id).value)).collect()
}

fn view(name: String, value: &Tensor) -> View<'_> {
    (name, value.shape().to_vec(), value.f32())
}

/// Loaders of the Hugging Face libraries ask for it.
pub(crate) fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_string(), "pt".to_string())])
}

/// The hash of a model's weights: of its one file, or of all its shards in the order of their names.
pub(crate) fn hash_weights(folder: &Path) -> Result<String> {
    let weights = Weights::open(folder)?;
    let mut hash = Sha256::new();
    for file in weights.files() {
        add_file(&mut hash, file)?;
    }
    Ok(hex(hash))
}

/// Whether two folders have the same weights.
pub(crate) fn same_base(one: &Path, other: &Path) -> Result<bool> {
    let same_place = one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other));
    Ok(same_place || hash_weights(one)? == hash_weights(other)?)
}

/// The hash of a file.
pub(crate) fn hash_file(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    add_file(&mut hash, path)?;
    Ok(hex(hash))
}

fn add_file(hash: &mut Sha256, path: &Path) -> Result<()> {
    let mut file = File::open(path).map_err(|error| Error::place(path, format!("cannot open: {error}")))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer)
            .map_err(|error| Error::place(path, format!("cannot read: {error}")))?;
        if read == 0 {
            return Ok(());
        }
        hash.update(&buffer[..read]);
    }
}

/// The hash of some bytes.
pub(crate) fn hash_bytes(bytes: &[u8]) -> String {
    hex(Sha256::new().chain_update(bytes))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// How a result names its base: by the hub's id and commit, which hold on any machine, or else by its path.
pub(crate) fn named(source: &Source) -> (PathBuf, Option<String>) {
    match &source.origin {
        Some(Origin { id, commit }) => (PathBuf::from(id), Some(commit.clone())),
        None => (absolute(&source.base), None),
    }
}

/// The path from the root, so that it holds wherever the next command is run.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_of_a_newer_form_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Card::open(folder.path()).unwrap().is_none());
        for (text, words) in [
            (
                r#"{"format_version": 4294967297, "labels": 7}"#,
                "it is of form 4294967297, and this retune reads up to ",
            ),
            (r#"{"labels": []}"#, "`format_version` is missing: not written by retune"),
        ] {
            std::fs::write(folder.path().join(Card::FILE), text).unwrap();
            let error = Card::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
