//! Where a run keeps what it needs to go on: `checkpoints/step-N/`, each whole or not there, and the best weights so far.
//!
//! A checkpoint is written under a temporary name, its files are synced, its manifest with their hashes is written last,
//! and the folder is renamed. A process may be killed at any moment: what it leaves is the checkpoint before, whole.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use retune_model::formats::{Weights, sync_folder, write_atomic, write_safetensors};
use retune_tensor::{Parameters, Tensor};
use retune_train::{Checkpoint, Optimiser, State};
use serde::{Deserialize, Serialize};

use crate::artefact::{self, save_tensors};
use crate::{Card, Error, Listener, Result, manifest, resume, workshop};

const WEIGHTS: &str = "weights.safetensors";
const MOMENTS: &str = "optimiser.safetensors";
/// What the method remembers, where it remembers anything.
const METHOD: &str = "method.safetensors";
const BEST: &str = "best.safetensors";
const STATE: &str = "state.json";

/// The checkpoints of one run.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    folder: PathBuf,
    events: PathBuf,
    keep: usize,
    fingerprint: String,
    base_sha256: String,
    /// Steps of those that can be gone back to, the newest last.
    whole: Vec<u64>,
}

/// `state.json`: all of a checkpoint but its tensors.
#[derive(Serialize, Deserialize)]
struct Saved {
    format_version: u32,
    /// Of the run that it belongs to.
    fingerprint: String,
    /// Of the weights that are not trained, or were not yet.
    base_sha256: String,
    /// What is trained: names and shapes. All else is frozen.
    trained: BTreeMap<String, Vec<usize>>,
    /// The length of `events.jsonl` when it was written.
    events_bytes: u64,
    state: State,
}

const VERSION: u32 = 1;

impl Checkpoints {
    /// Those in `folder`, of the run that `card` describes and whose events go to `events`; `keep` of them stay.
    pub fn new(folder: PathBuf, events: PathBuf, card: &Card, keep: usize) -> Self {
        let (fingerprint, base_sha256) = (resume::fingerprint(card), card.base.sha256.clone());
        Checkpoints { folder, events, keep, fingerprint, base_sha256, whole: Vec::new() }
    }

    /// Where the best weights are kept while training.
    pub fn best(&self) -> PathBuf {
        self.folder.join(BEST)
    }

    fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step}"))
    }

    /// Looks for the newest checkpoint that is whole, brings back the best weights that belong to it, and says what it
    /// found. The length that the events had then; 0 where the training starts again.
    pub fn find(&mut self, listener: &mut dyn Listener) -> Result<u64> {
        let mut steps: Vec<u64> = self.entries()?.into_iter().filter_map(|(_, step)| step).collect();
        steps.sort_unstable();
        let any = !steps.is_empty();
        while let Some(step) = steps.pop() {
            let path = self.path(step);
            match self.verify(step) {
                Ok(saved) => {
                    listener.say(&format!("going on from the checkpoint of step {step}"));
                    let best = path.join(BEST);
                    remove(&self.best())?;
                    if best.is_file() {
                        link(&best, &self.best())?;
                    }
                    steps.push(step);
                    self.whole = steps;
                    return Ok(saved.events_bytes);
                }
                Err(problem) => {
                    listener.say(&format!("{} is damaged and not used: {problem}", path.display()))
                }
            }
        }
        remove(&self.best())?;
        listener.say(match any {
            true => "no checkpoint is whole: the training starts again",
            false => "no checkpoint was written yet: the training starts again",
        });
        Ok(0)
    }

    /// Writes one with the `method`'s own tensors, then removes those that are too old.
    pub fn save(&mut self, checkpoint: &Checkpoint<'_>, method: &[(&str, &mut Tensor)]) -> Result<()> {
        let state = checkpoint.state;
        let temporary = self.folder.join(format!(".step-{}.tmp", state.step));
        remove(&temporary)?;
        if let Err(error) = self.write(checkpoint, method, &temporary) {
            // A full disk would stay full of it. That it cannot be removed says less than why it could not be written.
            let _ = remove(&temporary);
            return Err(error);
        }
        let path = self.path(state.step);
        // One of this step is damaged, or the training would have gone on from it.
        remove(&path)?;
        fs::rename(&temporary, &path).map_err(|error| Error::write(&path, "rename the finished", error))?;
        sync_folder(&self.folder).map_err(|error| Error::write(&self.folder, "sync", error))?;
        self.whole.retain(|step| *step != state.step);
        self.whole.push(state.step);
        self.prune(state.rewind_to)
    }

    fn write(
        &self,
        checkpoint: &Checkpoint<'_>,
        method: &[(&str, &mut Tensor)],
        temporary: &Path,
    ) -> Result<()> {
        let Checkpoint { state, parameters, optimiser } = *checkpoint;
        fs::create_dir_all(temporary).map_err(|error| Error::write(temporary, "make the folder", error))?;
        save_tensors(parameters, &workshop::trained(parameters), &temporary.join(WEIGHTS))?;
        save_moments(parameters, optimiser, &temporary.join(MOMENTS))?;
        if !method.is_empty() {
            let tensors: Vec<_> = method
                .iter()
                .map(|(name, tensor)| ((*name).to_string(), tensor.shape().to_vec(), Tensor::f32(tensor)))
                .collect();
            write_safetensors(temporary.join(METHOD), &tensors, &artefact::metadata())?;
        }
        if self.best().is_file() {
            link(&self.best(), &temporary.join(BEST))?;
        }
        let saved = Saved {
            format_version: VERSION,
            fingerprint: self.fingerprint.clone(),
            base_sha256: self.base_sha256.clone(),
            trained: trained_shapes(parameters),
            events_bytes: fs::metadata(&self.events).map_or(0, |metadata| metadata.len()),
            state: state.clone(),
        };
        write_atomic(temporary.join(STATE), |writer| {
            serde_json::to_writer_pretty(&mut *writer, &saved)?;
            writer.write_all(b"\n")
        })?;
        manifest::write(temporary)
    }

    /// Brings one back: weights into `parameters`, moments into `optimiser`, and the `method`'s own tensors. The newest
    /// where no step is named.
    pub fn load(
        &self,
        step: Option<u64>,
        parameters: &mut Parameters,
        optimiser: &mut Optimiser,
        method: Vec<(&str, &mut Tensor)>,
    ) -> Result<Option<State>> {
        let Some(step) = step.or(self.whole.last().copied()) else { return Ok(None) };
        let path = self.path(step);
        let saved = self.verify(step).map_err(|problem| Error::place(&path, problem))?;
        let now = trained_shapes(parameters);
        if let Some(name) = differing(&saved.trained, &now) {
            let message = format!("`{name}` was trained or frozen then, and is not now");
            return Err(Error::place(&path, message));
        }
        workshop::restore(parameters, &path.join(WEIGHTS))?;
        let moments = Weights::open(path.join(MOMENTS))?;
        for (id, what, tensor) in optimiser.resume_at(saved.state.updates) {
            let name = format!("{what}.{}", parameters.get(id).name);
            moments.read_f32_into(&name, tensor.f32_mut()?)?;
        }
        if !method.is_empty() {
            let tensors = Weights::open(path.join(METHOD))?;
            for (name, tensor) in method {
                tensors.read_f32_into(name, tensor.f32_mut()?)?;
            }
        }
        Ok(Some(saved.state))
    }

    /// The checkpoint of `step`, if it is whole and of this run; else what is wrong with it.
    fn verify(&self, step: u64) -> std::result::Result<Saved, String> {
        let path = self.path(step);
        manifest::verify(&path)?;
        let text = fs::read(path.join(STATE)).map_err(|error| format!("{STATE}: cannot read: {error}"))?;
        let saved: Saved = serde_json::from_slice(&text).map_err(|error| format!("{STATE}: {error}"))?;
        if saved.format_version > VERSION {
            return Err(format!("it is of form {}, and up to {VERSION} is read", saved.format_version));
        }
        if saved.fingerprint != self.fingerprint {
            return Err("it belongs to a run with other settings, rows or weights".into());
        }
        if saved.state.step != step {
            return Err(format!("it is the checkpoint of step {}", saved.state.step));
        }
        Ok(saved)
    }

    /// Removes all but the newest, the one to rewind to, and whatever else is no checkpoint that can be used.
    fn prune(&mut self, rewind_to: Option<u64>) -> Result<()> {
        self.whole.sort_unstable();
        let old = self.whole.len().saturating_sub(self.keep);
        let mut place = 0;
        self.whole.retain(|step| {
            place += 1;
            place > old || Some(*step) == rewind_to
        });
        for (path, step) in self.entries()? {
            if step.is_none_or(|step| !self.whole.contains(&step)) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// The folders of checkpoints with their steps, those under a temporary name without.
    fn entries(&self) -> Result<Vec<(PathBuf, Option<u64>)>> {
        let entries =
            fs::read_dir(&self.folder).map_err(|error| Error::write(&self.folder, "read", error))?;
        let entries = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let step = name.strip_prefix("step-").and_then(|step| step.parse().ok());
            let temporary = name.starts_with(".step-") || name.starts_with(".retune-");
            (step.is_some() || temporary).then(|| (path.clone(), step))
        });
        Ok(entries.collect())
    }
}

fn save_moments(parameters: &Parameters, optimiser: &Optimiser, path: &Path) -> Result<()> {
    let moments = optimiser.moments().map(|(id, what, tensor)| {
        let name = format!("{what}.{}", parameters.get(id).name);
        (name, tensor.shape().to_vec(), Tensor::f32(tensor))
    });
    let tensors: Vec<_> = moments.collect();
    Ok(write_safetensors(path, &tensors, &artefact::metadata())?)
}

fn trained_shapes(parameters: &Parameters) -> BTreeMap<String, Vec<usize>> {
    let shape = |value: &Tensor| value.shape().to_vec();
    parameters.trainable().map(|(_, parameter)| (parameter.name.clone(), shape(&parameter.value))).collect()
}

/// A name that is in one of the two only, or has another shape there.
fn differing<'a>(
    left: &'a BTreeMap<String, Vec<usize>>,
    right: &'a BTreeMap<String, Vec<usize>>,
) -> Option<&'a String> {
    let missing = left.iter().find(|(name, shape)| right.get(*name) != Some(shape));
    missing.or_else(|| right.iter().find(|(name, _)| !left.contains_key(*name))).map(|(name, _)| name)
}

/// The same file under another name: the best weights do not change once they are written, so a checkpoint need not have
/// its own copy of them. Where the file system knows no links it has.
fn link(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    Ok(write_atomic(to, |writer| io::copy(&mut fs::File::open(from)?, writer).map(|_| ()))?)
}

/// Removes a file or a folder that may not be there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::write(path, "remove", error)),
        _ => Ok(()),
    }
}
