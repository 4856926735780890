use retune_tensor::backend::AdamW;
use retune_tensor::{Result, RowGradient, Tensor};

/// Which updates the rows of a table have still to make up for: those in which nobody looked them up.
///
/// A row without a gradient is changed by AdamW too, as its moments fade and the weights decay. But nobody sees it until the
/// row is read again, so it is left for then, and the steps that were missed are made one after another, by the same
/// operations and so with the same bits. In registers that costs a fraction of what each would have cost in memory.
#[derive(Debug, Default)]
pub(crate) struct LazyTable {
    /// The updates that some row may still have to make.
    steps: Vec<AdamW>,
    /// How many of them each row has made.
    made: Vec<u32>,
}

/// From so many updates on all rows make up for them, which by then costs next to nothing for each.
const MOST: usize = 1024;

impl LazyTable {
    /// Whether some row has missed an update.
    pub(crate) fn is_behind(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Brings rows that will be read up to date.
    pub(crate) fn refresh(
        &mut self,
        ids: &[u32],
        weight: &mut Tensor,
        moments: &mut [Tensor; 2],
    ) -> Result<()> {
        let now = self.steps.len() as u32;
        let mut rows: Vec<u32> = ids.iter().copied().filter(|id| self.made[*id as usize] < now).collect();
        rows.sort_unstable();
        rows.dedup();
        self.run(&rows, None, weight, moments)
    }

    /// Brings all rows up to date.
    pub(crate) fn flush(&mut self, weight: &mut Tensor, moments: &mut [Tensor; 2]) -> Result<()> {
        let rows: Vec<u32> = (0..weight.rows() as u32).collect();
        if self.is_behind() {
            self.run(&rows, None, weight, moments)?;
        }
        self.steps.clear();
        self.made.fill(0);
        Ok(())
    }

    /// The update `step` of the rows that have a gradient. Gives back whether all of them were up to date before: a pass
    /// has read other values else, and nothing is changed.
    pub(crate) fn update(
        &mut self,
        step: AdamW,
        gradient: &RowGradient,
        weight: &mut Tensor,
        moments: &mut [Tensor; 2],
    ) -> Result<bool> {
        if self.steps.len() == MOST {
            self.flush(weight, moments)?;
        }
        self.made.resize(weight.rows(), 0);
        let now = self.steps.len() as u32;
        if gradient.rows().iter().any(|row| self.made[*row as usize] < now) {
            return Ok(false);
        }
        self.steps.push(step);
        self.run(gradient.rows(), Some(gradient.values().f32()), weight, moments)?;
        Ok(true)
    }

    /// All steps that `rows` have not made.
    fn run(
        &mut self,
        rows: &[u32],
        gradient: Option<&[f32]>,
        weight: &mut Tensor,
        [first, second]: &mut [Tensor; 2],
    ) -> Result<()> {
        let made: Vec<u32> = rows.iter().map(|row| self.made[*row as usize]).collect();
        // Most have missed few.
        let seen = made.iter().min().map_or(self.steps.len(), |least| *least as usize);
        let from: Vec<u32> = made.iter().map(|made| made - seen as u32).collect();
        let columns = weight.columns();
        let backend = weight.device().backend();
        let moments = [first.f32_mut()?, second.f32_mut()?];
        backend.adamw_rows(&self.steps[seen..], (rows, &from), gradient, columns, weight.f32_mut()?, moments);
        for row in rows {
            self.made[*row as usize] = self.steps.len() as u32;
        }
        Ok(())
    }
}
