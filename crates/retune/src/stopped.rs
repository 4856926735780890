//! A training that did not come to its end: what is still good is kept, and said is how to go on.

use std::path::{Path, PathBuf};

use retune_data::Tokens;
use retune_train::TrainError;

use crate::run_folder::RunFolder;
use crate::{Card, Error, Result, TextModel, artefact, workshop};

/// Rows are named by their lines. If a loss was no number, the last weights that are known to be good are kept as a model
/// that opens again. Those are the best evaluated ones; without an evaluation, those before the step, unless an update
/// has broken them.
pub(crate) fn explain(
    error: TrainError,
    mut model: TextModel,
    unsound: usize,
    run: &RunFolder,
    best: &Path,
    tokens: &Tokens,
    card: &Card,
) -> Error {
    let data = card.train.path.clone();
    let (step, what, value, rows, changed) = match error {
        TrainError::NotFinite { step, what, value, rows, changed } => (step, what, value, rows, changed),
        TrainError::Spike { step, loss, usual, rows } => {
            let rows = lines(&rows, tokens);
            return Error::Spike { data, step, loss, usual, rows, go_on: run.go_on() };
        }
        TrainError::Interrupted { step } => return Error::Interrupted { step, go_on: run.go_on() },
        error => return error.into(),
    };
    let keep = |model: &mut TextModel| -> Result<Option<PathBuf>> {
        if best.is_file() {
            workshop::restore(&mut model.parameters, best)?;
        } else if workshop::not_finite(&model.parameters) > unsound {
            return Ok(None);
        }
        let folder = run.last_good()?;
        artefact::save_model(model, &folder)?;
        card.save(&folder)?;
        Ok(Some(folder))
    };
    let kept = match keep(&mut model) {
        Ok(kept) => kept,
        Err(error) => return error,
    };
    let kept = match kept {
        Some(folder) if changed > 0 && !best.is_file() => format!(
            "the last good weights are in {}; {changed} tensors of them have this step's update already",
            folder.display()
        ),
        Some(folder) => format!("the last good weights are in {}", folder.display()),
        None => "no good weights were left: an earlier update broke them".into(),
    };
    Error::NotFinite { data, step, what, value, rows: lines(&rows, tokens), kept }
}

/// The lines of training rows, the first few of them.
fn lines(rows: &[usize], tokens: &Tokens) -> String {
    let mut lines: Vec<_> = rows.iter().map(|row| tokens.line(*row)).collect();
    // Windows of one text are on one line.
    lines.dedup();
    let first: Vec<_> = lines.iter().take(8).map(|line| format!("line {line}")).collect();
    let more = match lines.len() - first.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", first.join(", "))
}
