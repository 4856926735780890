//! Going on with a run: what it was begun with, and that it is the same now.

use std::fs;
use std::path::{Path, PathBuf};

use retune_adapt::{peft, tasks};
use retune_data::named_files;
use retune_model::formats::write_atomic;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::located::Located;
use crate::run_folder::{CHECKPOINTS, EVENTS};
use crate::{Card, Error, Report, Result, TrainSettings, artefact, inputs};

/// What a run was begun with: `checkpoints/run.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    format_version: u32,
    /// The folder that relative paths are meant from.
    folder: PathBuf,
    settings: TrainSettings,
    /// What the result will say of itself.
    pub card: Card,
}

impl Record {
    const FILE: &'static str = "run.json";
    const VERSION: u32 = 1;

    pub fn new(settings: &TrainSettings, card: &Card) -> Self {
        let mut settings = settings.clone();
        // Where nothing is said it is chosen by the memory that is free, which may be other the next time.
        settings.method = Some(card.method.clone());
        // A branch may be at another commit by then.
        if settings.model.model.as_ref() == Some(&card.base.path) && card.base.revision.is_some() {
            settings.model.revision = card.base.revision.clone();
        }
        (settings.resume, settings.overwrite) = (None, None);
        let folder = std::env::current_dir().unwrap_or_default();
        Record { format_version: Self::VERSION, folder, settings, card: card.clone() }
    }

    fn path(output: &Path) -> PathBuf {
        output.join(CHECKPOINTS).join(Self::FILE)
    }

    pub fn save(&self, output: &Path) -> Result<()> {
        Ok(write_atomic(Self::path(output), |writer| {
            serde_json::to_writer_pretty(&mut *writer, self)?;
            writer.write_all(b"\n")
        })?)
    }

    /// Whether a run has begun in `output`.
    pub fn is_there(output: &Path) -> bool {
        Self::path(output).exists()
    }

    /// None where no run has begun.
    fn open(output: &Path) -> Result<Option<Self>> {
        let path = Self::path(output);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::place(&path, format!("cannot read: {error}"))),
        };
        let record: Record = serde_json::from_slice(&text).map_err(|error| {
            Error::place(&path, format!("{error}; without it the run cannot go on: --overwrite begins anew"))
        })?;
        if record.format_version > Self::VERSION {
            let message = format!(
                "it is of form {}, and this retune reads up to {}",
                record.format_version,
                Self::VERSION
            );
            return Err(Error::place(&path, message));
        }
        Ok(Some(record))
    }

    /// Its settings, with relative paths meant from here.
    fn settings(&self) -> TrainSettings {
        let mut settings = self.settings.clone();
        if std::env::current_dir().is_ok_and(|here| here == self.folder) {
            return settings;
        }
        let models = [&mut settings.model.model, &mut settings.model.base].into_iter().flatten();
        let rows = [&mut settings.train, &mut settings.eval].into_iter().flatten().flatten();
        for path in models.chain(rows) {
            let from_there = self.folder.join(&path);
            // What is no path, such as a name in a hub, stays.
            if from_there.exists() || !path.exists() && named_files(std::slice::from_ref(&from_there)).is_ok()
            {
                *path = from_there;
            }
        }
        settings
    }

    /// Errors, with the names of all that differs, if `card` is not that of the run.
    pub fn check(&self, card: &Card, output: &Path) -> Result<()> {
        for (flag, what, then, now) in [
            ("model", "the weights of the base", Some(&self.card.base), Some(&card.base)),
            ("train", "the training rows", Some(&self.card.train), Some(&card.train)),
            ("eval", "the evaluation rows", self.card.eval.as_ref(), card.eval.as_ref()),
        ] {
            let (Some(then), Some(now)) = (then, now) else { continue };
            if then.sha256 == now.sha256 {
                continue;
            }
            let (run, was, is) = (output.display(), &then.sha256, &now.sha256);
            let message = if then.path == now.path {
                format!(
                    "{what} have changed since the run in {run} began: they had sha256 {was} and have {is}; bring them \
                     back, or begin anew with --overwrite"
                )
            } else {
                format!(
                    "they are not {what} of the run in {run}, which are those of {} with sha256 {was}, and these have \
                     {is}; leave --{flag} out to go on, or begin anew in another --output",
                    then.path.display()
                )
            };
            return Err(Error::place(&now.path, message));
        }
        let mut differences = differences(&comparable(&self.card), &comparable(card));
        if let (Some(then), Some(now)) = (rewinds_to(&self.card), rewinds_to(card)) {
            differences.extend(difference("save-every", &plain(then), &plain(now)));
        }
        refuse(&differences, output)
    }
}

/// The settings with those of the run in their output folder laid under them, where they ask to resume one.
pub(crate) fn settings(given: &TrainSettings) -> Result<TrainSettings> {
    let Some(output) = given.output.as_deref().filter(|_| given.resume == Some(true)) else {
        return Ok(given.clone());
    };
    if given.overwrite == Some(true) {
        let message = "--resume goes on with what is there and --overwrite removes it; give one of them";
        return Err(Error::Setting { flag: "overwrite", message: message.into() });
    }
    let Some(record) = Record::open(output)? else {
        if given.model.model.is_none() && !output.join(Card::FILE).is_file() {
            let message =
                "there is no run to go on with; check the name, or give --model and --train to begin one";
            return Err(Error::place(output, message));
        }
        return Ok(given.clone());
    };
    let mut begun = record.settings();
    if given.model.model.as_ref().is_some_and(|model| Some(model) != begun.model.model.as_ref()) {
        // It was that of another model.
        begun.model.revision = None;
    }
    let mut layers = as_map(&begun);
    layers.extend(as_map(given));
    let mut settings: TrainSettings = serde_json::from_value(Value::Object(layers))
        .map_err(|error| Error::place(&Record::path(output), error.to_string()))?;
    settings.model.hub = given.model.hub.clone();
    Ok(settings)
}

/// The settings that are there.
fn as_map(settings: &TrainSettings) -> Map<String, Value> {
    let mut map = match serde_json::to_value(settings) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    map.retain(|_, value| !value.is_null());
    map
}

/// What the run in `output` was begun with, if one is there.
pub(crate) fn record(settings: &TrainSettings, output: &Path) -> Result<Option<Record>> {
    if settings.resume == Some(true) { Record::open(output) } else { Ok(None) }
}

/// A hash of all that decides a run's bits.
pub(crate) fn fingerprint(card: &Card) -> String {
    artefact::hash_bytes(comparable(card).to_string().as_bytes())
}

/// What must be the same when a run goes on. Paths may change, and so may what is done about spikes: one that stopped a
/// run would else stop it for ever. When checkpoints are made matters where both rewind to them: see [`rewinds_to`].
fn comparable(card: &Card) -> Value {
    let mut settings = card.settings.clone();
    if let Some(settings) = settings.as_object_mut() {
        settings.remove("on_spike");
        settings.remove("save_every");
        // A flag gives a text where a run file gives a number.
        let options = settings.get_mut("method_options").and_then(Value::as_object_mut);
        options.into_iter().flat_map(Map::values_mut).for_each(|value| *value = Value::from(plain(value)));
    }
    json!({
        "task": card.task,
        "method": card.method,
        "labels": card.labels,
        "columns": card.columns,
        "base": card.base.sha256,
        "train": [json!(card.train.sha256), json!(card.train.rows)],
        "eval": card.eval.as_ref().map(|eval| (&eval.sha256, eval.rows)),
        "settings": settings,
    })
}

/// After how many steps there is a checkpoint to rewind to, in a run that rewinds.
fn rewinds_to(card: &Card) -> Option<&Value> {
    card.settings.get("save_every").filter(|steps| !steps.is_null())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// Each setting that is not the same in both, in words.
fn differences(then: &Value, now: &Value) -> Vec<String> {
    let (none, empty) = (Value::Null, Map::new());
    let [flat_then, flat_now] = [then, now].map(|value| {
        let mut flat = value.as_object().cloned().unwrap_or_default();
        for part in ["settings", "method_options"] {
            let inner = flat.remove(part);
            flat.extend(inner.as_ref().and_then(Value::as_object).unwrap_or(&empty).clone());
        }
        flat
    });
    let names = flat_then.keys().chain(flat_now.keys().filter(|name| !flat_then.contains_key(*name)));
    names
        .filter_map(|name| {
            let [then, now] = [&flat_then, &flat_now].map(|flat| flat.get(name).unwrap_or(&none));
            (then != now).then(|| difference(&name.replace('_', "-"), &said(then), &said(now))).flatten()
        })
        .collect()
}

fn difference(flag: &str, then: &str, now: &str) -> Option<String> {
    (then != now).then(|| format!("--{flag} was {then} and is {now}"))
}

fn said(value: &Value) -> String {
    if value.is_null() { "not given".into() } else { plain(value) }
}

fn refuse(differences: &[String], output: &Path) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the run in {} was begun with other settings: {}; leave them out, or begin anew in another --output",
        output.display(),
        differences.join(", ")
    );
    Err(Error::Setting { flag: "resume", message })
}

/// The report of the run in `output`, if it is asked to be resumed and is finished. Errors if it was made with other
/// settings, rows or weights than those that are given now.
pub(crate) fn finished(given: &TrainSettings, output: &Path) -> Result<Option<Report>> {
    let Some(card) = (given.resume == Some(true)).then(|| Card::open(output)).transpose()?.flatten() else {
        return Ok(None);
    };
    // Only what was given and stands in the card under its own name: the rest was chosen.
    let mut known = comparable(&card);
    if let Some(known) = known.as_object_mut() {
        known.retain(|name, _| matches!(name.as_str(), "task" | "method" | "settings"));
    }
    let mut now = known.clone();
    for (name, value) in as_map(given) {
        let name = name.replace('-', "_");
        let (name, value) = match name.as_str() {
            "batch_size" => ("batching".to_string(), json!({"rows": value})),
            "batch_tokens" => ("batching".to_string(), json!({"tokens": value})),
            _ => (name, value),
        };
        for part in ["", "/settings"] {
            if let Some(place) = now.pointer_mut(part).and_then(|part| part.get_mut(&name))
                && place.as_f64().is_none_or(|old| value.as_f64() != Some(old))
            {
                *place = value.clone();
            }
        }
    }
    if let Some(options) = now.pointer_mut("/settings/method_options").and_then(Value::as_object_mut) {
        options.extend(given.method_options.iter().map(|(name, value)| (name.clone(), plain(value).into())));
    }
    let mut differences = differences(&known, &now);
    let rewinds = given.on_spike.as_deref().is_none_or(|what| what == "rewind");
    if let (Some(then), Some(now), true) = (rewinds_to(&card), &given.save_every, rewinds) {
        differences.extend(difference("save-every", &plain(then), now));
    }
    differences.extend(other_inputs(given, &card)?);
    refuse(&differences, output)?;
    report(card, output).map(Some)
}

/// Which of the inputs that are given are not those of the card, in words: by their bytes where they are there, else by
/// their names.
fn other_inputs(given: &TrainSettings, card: &Card) -> Result<Vec<String>> {
    let model = given.model.model.as_ref().map(std::slice::from_ref);
    let given_inputs = [
        ("train", given.train.as_deref(), Some(&card.train)),
        ("eval", given.eval.as_deref(), card.eval.as_ref()),
        ("model", model, Some(&card.base)),
    ];
    let mut differences = Vec::new();
    for (flag, named, then) in given_inputs {
        let Some(named) = named else { continue };
        let path = inputs::together(named);
        let now = path.display();
        let Some(then) = then else {
            differences.push(format!("--{flag} was not given and is {now}"));
            continue;
        };
        let sha256 = if flag == "model" && path.exists() {
            // Of an adapter, the card has the base.
            Some(artefact::hash_weights(&Located::find(&given.model, &mut ())?.base)?)
        } else if flag == "model" || named.iter().any(|path| named_files(std::slice::from_ref(path)).is_err())
        {
            None
        } else {
            inputs::hash(named).map(|(_, sha256)| sha256).ok()
        };
        let named = path == then.path || std::path::absolute(&path).is_ok_and(|path| path == then.path);
        match sha256 {
            Some(sha256) if sha256 == then.sha256 => {}
            None if named => {}
            Some(_) if artefact::absolute(&path) == then.path => {
                differences.push(format!("{now} of --{flag} has changed since"));
            }
            _ => differences.push(format!("--{flag} was {} and is {now}", then.path.display())),
        }
    }
    Ok(differences)
}

/// What a finished run came to: its card, and the events that it told.
fn report(card: Card, output: &Path) -> Result<Report> {
    let path = output.join(EVENTS);
    let text =
        fs::read_to_string(&path).map_err(|error| Error::place(&path, format!("cannot read: {error}")))?;
    let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let last = |name: &str| events.iter().rev().find(|event| event["event"] == name).unwrap_or(&Value::Null);
    let (start, step, end) = (last("start"), last("step"), last("end"));
    let size = |value: &Value| value.as_u64().unwrap_or_default() as usize;
    let (seconds, tokens) = (end["seconds"].as_f64().unwrap_or_default(), size(&end["tokens"]) as u64);
    let receipt = card.receipt;
    let eval_rows = receipt.as_ref().and_then(|receipt| receipt.rows).unwrap_or_default();
    Ok(Report {
        output: output.to_path_buf(),
        task: tasks::find(&card.task)?.name(),
        method: peft::find(&card.method)?.name(),
        trainable_parameters: size(&start["trainable_parameters"]),
        total_parameters: size(&start["total_parameters"]),
        train_rows: card.train.rows.unwrap_or_default(),
        eval_rows,
        problem_type: card.problem_type,
        labels: card.labels,
        pairs: card.columns.pair.is_some(),
        steps: size(&end["steps"]) as u64,
        kept_step: size(&end["kept_step"]) as u64,
        train_seconds: seconds,
        real_tokens: tokens,
        tokens_per_second: tokens as f64 / seconds.max(1e-9),
        peak_memory_bytes: None,
        peak_resident_bytes: None,
        last_loss: step["loss"].as_f64().unwrap_or(f64::NAN),
        metrics: receipt.map(|receipt| receipt.metrics),
        evaluation: None,
    })
}
