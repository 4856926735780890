//! A disk that goes away under a run: what was written before is there, and from it the run goes on.

use std::fs;
use std::path::PathBuf;

use retune::{Event, Listener, Observer, TrainSettings};

use crate::run::{Ear, settings, train};
use crate::tiny::Tiny;

/// Takes the folder of the checkpoints away after a step; a file stands there then.
struct Thief {
    folder: PathBuf,
    after: u64,
}

impl Observer for Thief {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        if matches!(event, Event::Step { step, .. } if *step == self.after) {
            fs::rename(&self.folder, self.folder.with_extension("gone"))?;
            fs::write(&self.folder, "no folder")?;
        }
        Ok(())
    }
}

impl Listener for Thief {
    fn say(&mut self, _: &str) {}
}

#[test]
fn a_folder_that_vanishes_is_an_error_and_what_was_there_goes_on() {
    let tiny = Tiny::new();
    let saved = |output: &str| TrainSettings {
        eval_every: Some("4".into()),
        save_every: Some("3".into()),
        ..settings(&tiny, "lora", output)
    };
    train(&saved("whole")).unwrap();
    let whole = tiny.files("whole");
    // Before the best weights are kept, before a checkpoint is written, before the best are brought back.
    for after in [7, 8, 22] {
        let output = format!("robbed-{after}");
        let folder = tiny.path(&output).join("checkpoints");
        let mut thief = Thief { folder: folder.clone(), after };
        let error = retune::train(&saved(&output), &mut thief).unwrap_err();
        assert_eq!(error.exit_code(), 1, "{error}");
        assert!(error.to_string().contains("checkpoints"), "{error}");
        assert!(!tiny.path(&output).join("retune.json").exists());
        fs::remove_file(&folder).unwrap();
        fs::rename(folder.with_extension("gone"), &folder).unwrap();
        let mut ear = Ear::default();
        let resume = TrainSettings { resume: Some(true), ..saved(&output) };
        retune::train(&resume, &mut ear).unwrap();
        assert!(ear.heard("going on from the checkpoint of step "), "{:?}", ear.said);
        assert!(tiny.files(&output) == whole, "{output}");
    }
}
