//! A training that met a loss which is no number: what is still good is kept.

use std::path::PathBuf;

use retune_train::TrainError;

use crate::dataset::Examples;
use crate::run_folder::RunFolder;
use crate::{Card, Error, Result, TextModel, artefact, workshop};

/// A loss that is no number: the rows are named by their lines, and the last weights that are known to be good are kept
/// as a model that opens again. Those are the best evaluated ones; without an evaluation, those before the step, unless an
/// update has broken them.
pub(crate) fn keep_last_good(
    error: TrainError,
    mut model: TextModel,
    unsound: usize,
    run: &RunFolder,
    examples: &Examples,
    card: &Card,
) -> Error {
    let TrainError::NotFinite { step, what, value, rows } = error else { return error.into() };
    let keep = |model: &mut TextModel| -> Result<Option<PathBuf>> {
        if run.best().is_file() {
            workshop::restore(&mut model.parameters, &run.best())?;
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
    let lines: Vec<_> =
        rows.iter().take(8).map(|row| format!("line {}", examples.train[*row].line)).collect();
    let more = if rows.len() > lines.len() {
        format!(" and {} more", rows.len() - lines.len())
    } else {
        String::new()
    };
    let kept = match kept {
        Some(folder) => format!("the last good weights are in {}", folder.display()),
        None => "no good weights were left: an earlier update broke them".into(),
    };
    Error::NotFinite {
        data: card.train.path.clone(),
        step,
        what,
        value,
        rows: format!("{}{more}", lines.join(", ")),
        kept,
    }
}
