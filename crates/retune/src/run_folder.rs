//! The folder of a run: what happens is written into it as it happens, and the result when all is done.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use retune_adapt::peft::Form;
use retune_model::formats::sync_folder;
use retune_model::tokenizer;
use retune_train::{Event, Observer};

use crate::artefact::Card;
use crate::checkpoints::{Checkpoints, remove};
use crate::resume::Record;
use crate::tensorboard::TensorBoard;
use crate::{Error, Listener, Result, Source, TrainSettings};

/// An output folder, held by one run.
pub(crate) struct RunFolder {
    folder: PathBuf,
    /// Locked as long as the run holds the folder. The system lets go of it when the process ends, however it ends, so
    /// that no lock can be left behind.
    events: BufWriter<File>,
    /// Begun with the training, when it is known from which step it goes on.
    tensorboard: Option<TensorBoard>,
}

pub(crate) const EVENTS: &str = "events.jsonl";
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// Whatever a run may leave behind beside its events and the tokenizer's files, so that another can replace it and touch
/// nothing else.
pub(crate) const LEFT_BEHIND: [&str; 4] = [
    // First, so that what is left of a finished run is none.
    Card::FILE,
    "config.json",
    "model.safetensors",
    CHECKPOINTS,
];

/// The output folder. Errors if it holds something, unless it is a run that may be replaced or gone on with, or if another
/// run is at work there. Writes nothing.
pub(crate) fn check(settings: &TrainSettings) -> Result<PathBuf> {
    let Some(folder) = settings.output.as_deref() else {
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
    if let Ok(events) = File::open(folder.join(EVENTS)) {
        lock(&events, folder)?;
    }
    if settings.overwrite == Some(true) || settings.resume == Some(true) {
        return Ok(folder.to_path_buf());
    }
    let (what, or) = if finished {
        ("a finished run", "")
    } else {
        ("a run that was not finished", ", or --resume to go on with it")
    };
    let message = format!("it holds {what}; give another --output, or --overwrite to replace it{or}");
    Err(Error::place(folder, message))
}

fn lock(events: &File, folder: &Path) -> Result<()> {
    match events.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let message = "another run is at work there; wait for it, stop it, or give another --output";
            Err(Error::place(folder, message))
        }
        // Some file systems know no locks; that is no reason to refuse all runs there.
        _ => Ok(()),
    }
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
    /// Makes the folder, empty of any earlier run, for the run that `record` describes.
    ///
    /// Errors if another run has come first since it was checked, unless that may be replaced.
    pub fn create(settings: &TrainSettings, record: &Record) -> Result<Self> {
        let folder = settings.output.as_deref().unwrap_or(Path::new(""));
        fs::create_dir_all(folder).map_err(|error| Error::write(folder, "make the folder", error))?;
        check(settings)?;
        let run = Self::open(folder)?;
        let another = folder.join(Card::FILE).exists() || Record::is_there(folder);
        if another && settings.overwrite != Some(true) {
            return Err(Error::place(
                folder,
                "another run has been at work there meanwhile; give another --output",
            ));
        }
        // A tokenizer of an earlier base would be read before the new one's, where it has other files.
        for name in LEFT_BEHIND.into_iter().chain(Form::FILES).chain(tokenizer::FILES) {
            remove(&folder.join(name))?;
        }
        TensorBoard::remove(folder)?;
        run.cut_events(0)?;
        let checkpoints = folder.join(CHECKPOINTS);
        fs::create_dir_all(&checkpoints)
            .map_err(|error| Error::write(&checkpoints, "make the folder", error))?;
        record.save(folder)?;
        sync_folder(folder).map_err(|error| Error::write(folder, "sync", error))?;
        Ok(run)
    }

    /// Holds the folder of a run that goes on from the newest of its `checkpoints`, or starts again. `record` has the
    /// settings that may change on the way.
    pub fn reopen(
        folder: &Path,
        record: &Record,
        checkpoints: &mut Checkpoints,
        listener: &mut dyn Listener,
    ) -> Result<Self> {
        let run = Self::open(folder)?;
        record.save(folder)?;
        let length = checkpoints.find(listener)?;
        let there = fs::metadata(folder.join(EVENTS)).map_or(0, |metadata| metadata.len());
        if there < length {
            listener.say(&format!("{EVENTS} is shorter than it was: some of its steps are missing"));
        }
        run.cut_events(length)?;
        Ok(run)
    }

    /// Removes what a process that was killed in its last moment left of a finished run.
    pub fn tidy(folder: &Path) -> Result<()> {
        Self::open(folder)?.finish()
    }

    /// Locks the folder, and removes files that were not finished.
    fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(EVENTS);
        let events = OpenOptions::new().create(true).read(true).append(true).open(&path);
        let events = events.map_err(|error| Error::write(&path, "open", error))?;
        lock(&events, folder)?;
        for entry in fs::read_dir(folder).map_err(|error| Error::write(folder, "read", error))?.flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(".retune-") && name.ends_with(".tmp")) {
                remove(&entry.path())?;
            }
        }
        Ok(RunFolder { folder: folder.to_path_buf(), events: BufWriter::new(events), tensorboard: None })
    }

    /// Leaves the first `length` bytes of the events, or as many of their lines as are whole.
    pub(crate) fn cut_events(&self, length: u64) -> Result<()> {
        let mut file = self.events.get_ref();
        let mut cut = || {
            if file.metadata()?.len() >= length {
                return file.set_len(length);
            }
            let mut text = Vec::new();
            file.seek(SeekFrom::Start(0))?;
            file.read_to_end(&mut text)?;
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            file.set_len(whole as u64)
        };
        cut().map_err(|error| Error::write(&self.folder.join(EVENTS), "cut", error))
    }

    /// Where its checkpoints are.
    pub fn checkpoints(folder: &Path, card: &Card, keep: usize) -> Checkpoints {
        Checkpoints::new(folder.join(CHECKPOINTS), folder.join(EVENTS), card, keep)
    }

    /// The command that goes on with it.
    pub fn go_on(&self) -> String {
        let folder = self.folder.display().to_string();
        // As a shell takes it.
        let plain = |c: char| c.is_alphanumeric() || "/._-+:,=@%".contains(c);
        let folder = if !folder.is_empty() && folder.chars().all(plain) {
            folder
        } else {
            format!("'{}'", folder.replace('\'', r"'\''"))
        };
        format!("retune train --resume --output {folder}")
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
        remove(&self.folder.join(CHECKPOINTS))
    }
}

impl Observer for RunFolder {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        let done = match event {
            Event::Start { .. } => Some(0),
            Event::Resume { step, .. } => Some(*step),
            _ => None,
        };
        if let Some(done) = done {
            let board = TensorBoard::create(&self.folder, done).map_err(std::io::Error::other)?;
            self.tensorboard = Some(board);
        }
        match event {
            // The events of a run are the same however often it was interrupted.
            Event::Resume { .. } => return Ok(()),
            // What was told until a checkpoint lies on the disk before it does.
            Event::Checkpoint { .. } => {
                self.events.flush()?;
                return self.events.get_ref().sync_data();
            }
            _ => {}
        }
        serde_json::to_writer(&mut self.events, event)?;
        self.events.write_all(b"\n")?;
        if let Some(board) = &mut self.tensorboard {
            board.event(event)?;
        }
        // What happened must be readable while it happens, but a flush a step would cost more than the line is worth.
        match event {
            Event::Step { step, .. } if !step.is_multiple_of(10) => Ok(()),
            _ => self.events.flush(),
        }
    }
}

/// Who is told of a training: its folder first, then whoever listens.
pub(crate) struct Told<'a> {
    pub run: &'a mut RunFolder,
    pub listener: &'a mut dyn Listener,
}

impl Observer for Told<'_> {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        self.run.event(event)?;
        self.listener.event(event)
    }

    fn interrupted(&self) -> bool {
        self.listener.interrupted()
    }
}
