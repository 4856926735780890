//! Rows by which two models are held to each other.

use std::path::PathBuf;

use retune_adapt::tasks::WantedProblemType;
use retune_model::{Batch, BatchRow};
use retune_tensor::Tape;
use retune_tensor::random::Key;

use crate::{Error, FileSettings, Result, TextModel, inputs};

/// How many rows, of a file or drawn.
const ROWS: usize = 64;
/// The longest of those that are drawn.
const LONGEST: usize = 128;

/// Some rows, one a batch, and what they are.
pub(crate) struct Sample {
    batches: Vec<Batch>,
    /// In words.
    pub is: String,
}

impl Sample {
    /// Rows of a file, from all over it; without one, rows of random tokens.
    pub fn new(model: &TextModel, data: &[PathBuf], file: &FileSettings) -> Result<Self> {
        if data.is_empty() {
            return Self::drawn(model);
        }
        let together = inputs::together(data);
        let reading = model.reading(file, WantedProblemType::default(), false)?;
        let read = model.task.read(data, &reading)?;
        model.check_columns(&read.columns, file, &together)?;
        let step = read.examples.len().div_ceil(ROWS).max(1);
        let rows = (0..u32::try_from(read.examples.len()).unwrap_or(u32::MAX)).step_by(step);
        let examples = read.examples.pick(&rows.collect::<Vec<_>>());
        if examples.is_empty() {
            return Err(Error::place(&together, "it has no row to measure the difference on"));
        }
        let tokens = model.tokens(&examples, model.max_length(None)?)?;
        let batches = (0..tokens.len()).map(|row| tokens.batch(&[row]));
        let batches: Vec<Batch> = batches.collect::<std::result::Result<_, _>>()?;
        Ok(Sample { is: format!("{} rows of {}", batches.len(), together.display()), batches })
    }

    fn drawn(model: &TextModel) -> Result<Self> {
        let words = u32::try_from(model.config.require_usize("vocab_size")?).unwrap_or(u32::MAX);
        let longest = model.max_length(None)?.clamp(1, LONGEST);
        let stream = &mut Key::new(0).with_name("sample").stream();
        let batches = (0..ROWS).map(|row| {
            let length = (row * longest).div_ceil(ROWS).max(3).min(longest);
            let input_ids: Vec<u32> = (0..length).map(|_| stream.below(words)).collect();
            Batch::new([BatchRow { id: row as u64, input_ids: &input_ids, token_type_ids: &[] }])
        });
        Ok(Sample { batches: batches.collect(), is: format!("{ROWS} rows of random tokens") })
    }

    /// The logits of all rows, one after another. Errors if they are no numbers.
    pub fn logits(&self, model: &TextModel) -> Result<Vec<f32>> {
        let mut logits = Vec::new();
        for batch in &self.batches {
            logits.extend_from_slice(model.logits(&Tape::inference(), batch, None)?.value().f32());
        }
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(Error::place(
                &model.source.folder,
                "its answers are no numbers: the weights are broken",
            ));
        }
        Ok(logits)
    }
}

/// The largest difference of two.
pub(crate) fn max_difference(one: &[f32], other: &[f32]) -> f64 {
    one.iter().zip(other).fold(0.0, |max, (one, other)| f64::max(max, f64::from((one - other).abs())))
}
