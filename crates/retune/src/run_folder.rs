//! The folder of a run: what happens is written into it as it happens, and the result when all is done.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use retune_train::{Event, Observer};

use crate::artefact::Card;
use crate::{Error, Result};

/// An output folder, held by one run.
pub(crate) struct RunFolder {
    folder: PathBuf,
    events: BufWriter<File>,
}

const EVENTS: &str = "events.jsonl";
const CHECKPOINTS: &str = "checkpoints";

/// Whatever a run may leave behind, so that another can replace it and touch nothing else.
const LEFT_BEHIND: [&str; 7] = [
    EVENTS,
    Card::FILE,
    "config.json",
    "model.safetensors",
    "adapter_config.json",
    "adapter_model.safetensors",
    CHECKPOINTS,
];

/// Errors if `folder` holds something, unless it is a run that may be replaced. Writes nothing.
pub(crate) fn check(folder: Option<&Path>, overwrite: bool) -> Result<PathBuf> {
    let Some(folder) = folder else {
        let message = "where should the result go? give a folder";
        return Err(Error::Setting { flag: "output", message: message.into() });
    };
    if folder.is_file() {
        return Err(Error::place(folder, "expected a folder for the result, got a file"));
    }
    let mut entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(folder.to_path_buf()),
        Err(error) => return Err(Error::place(folder, format!("cannot read: {error}"))),
    };
    if entries.next().is_none() {
        return Ok(folder.to_path_buf());
    }
    let finished = folder.join(Card::FILE).is_file();
    if !finished && !folder.join(EVENTS).is_file() {
        return Err(Error::place(
            folder,
            "it holds files that are no run; give an empty or new folder with --output",
        ));
    }
    if overwrite {
        return Ok(folder.to_path_buf());
    }
    let what = if finished { "a finished run" } else { "a run that was not finished" };
    Err(Error::place(folder, format!("it holds {what}; give another --output, or --overwrite to replace it")))
}

impl RunFolder {
    /// Makes the folder, empty of any earlier run.
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join(CHECKPOINTS))
            .map_err(|error| Error::write(folder, "make the folder", error))?;
        for name in LEFT_BEHIND {
            let path = folder.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::write(&path, "replace it", error));
                }
                _ => {}
            }
        }
        fs::create_dir_all(folder.join(CHECKPOINTS))
            .map_err(|error| Error::write(folder, "make the folder", error))?;
        let path = folder.join(EVENTS);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let events = BufWriter::new(file.map_err(|error| Error::write(&path, "create", error))?);
        Ok(RunFolder { folder: folder.to_path_buf(), events })
    }

    /// Where the best weights are kept while training.
    pub fn best(&self) -> PathBuf {
        self.folder.join(CHECKPOINTS).join("best.safetensors")
    }

    /// Where the last good weights are kept if a loss is no number.
    pub fn last_good(&self) -> PathBuf {
        self.folder.join(CHECKPOINTS).join("last-good.safetensors")
    }

    /// The result lies in the folder itself now: what was kept on the way goes.
    pub fn finish(mut self) -> Result<()> {
        self.events.flush().map_err(|error| Error::write(&self.folder.join(EVENTS), "write", error))?;
        let checkpoints = self.folder.join(CHECKPOINTS);
        fs::remove_dir_all(&checkpoints).map_err(|error| Error::write(&checkpoints, "remove", error))
    }
}

impl Observer for RunFolder {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        serde_json::to_writer(&mut self.events, event)?;
        self.events.write_all(b"\n")?;
        // What happened must be readable while it happens, but a flush a step would cost more than the line is worth.
        match event {
            Event::Step { step, .. } if !step.is_multiple_of(10) => Ok(()),
            _ => self.events.flush(),
        }
    }
}
