//! The folder of a run: what happens is written into it as it happens, and the result when all is done.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use retune_model::tokenizer;
use retune_train::{Event, Observer};

use crate::artefact::Card;
use crate::tensorboard::TensorBoard;
use crate::{Error, Result, Source};

/// An output folder, held by one run.
pub(crate) struct RunFolder {
    folder: PathBuf,
    events: BufWriter<File>,
    tensorboard: TensorBoard,
}

const EVENTS: &str = "events.jsonl";
const CHECKPOINTS: &str = "checkpoints";

/// Whatever a run may leave behind beside the tokenizer's files, so that another can replace it and touch nothing else.
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

/// Errors if the result would replace the model that it is made from, which an interrupted training would then lose.
pub(crate) fn check_apart(output: &Path, source: &Source) -> Result<()> {
    let Ok(output) = output.canonicalize() else { return Ok(()) };
    for folder in [&source.folder, &source.base] {
        if folder.canonicalize().is_ok_and(|folder| folder == output) {
            let message =
                format!("{} is the model that training starts from; give another folder", folder.display());
            return Err(Error::Setting { flag: "output", message });
        }
    }
    Ok(())
}

impl RunFolder {
    /// Makes the folder, empty of any earlier run.
    ///
    /// Errors if another run has come first since it was checked, unless that may be replaced.
    pub fn create(folder: &Path, overwrite: bool) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| Error::write(folder, "make the folder", error))?;
        if !overwrite {
            check(Some(folder), overwrite)?;
        }
        // A tokenizer of an earlier base would be read before the new one's, where it has other files.
        for name in LEFT_BEHIND.into_iter().chain(tokenizer::FILES) {
            let path = folder.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::write(&path, "replace it", error));
                }
                _ => {}
            }
        }
        TensorBoard::remove(folder)?;
        fs::create_dir_all(folder.join(CHECKPOINTS))
            .map_err(|error| Error::write(folder, "make the folder", error))?;
        let path = folder.join(EVENTS);
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let events = BufWriter::new(file.map_err(|error| Error::write(&path, "create", error))?);
        let tensorboard = TensorBoard::create(folder, 0)?;
        Ok(RunFolder { folder: folder.to_path_buf(), events, tensorboard })
    }

    /// Where the best weights are kept while training.
    pub fn best(&self) -> PathBuf {
        self.folder.join(CHECKPOINTS).join("best.safetensors")
    }

    /// A folder for the last good weights, if a loss is no number.
    pub fn last_good(&self) -> Result<PathBuf> {
        let folder = self.folder.join(CHECKPOINTS).join("last-good");
        fs::create_dir_all(&folder).map_err(|error| Error::write(&folder, "make the folder", error))?;
        Ok(folder)
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
        self.tensorboard.event(event)?;
        // What happened must be readable while it happens, but a flush a step would cost more than the line is worth.
        match event {
            Event::Step { step, .. } if !step.is_multiple_of(10) => Ok(()),
            _ => self.events.flush(),
        }
    }
}
