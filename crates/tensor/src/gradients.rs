use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::ops::owned;
use crate::{Device, ParamId, Result, Tensor};

/// The gradient of the loss by one parameter.
#[derive(Debug, Clone)]
pub enum Gradient {
    /// As many values as the parameter has.
    Dense(Tensor),
    /// That of a table which was only looked up in: of all other rows it is 0.
    Rows(RowGradient),
}

impl Gradient {
    /// The parameter's shape.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            Gradient::Dense(tensor) => tensor.shape().to_vec(),
            Gradient::Rows(rows) => vec![rows.entries, rows.values.columns()],
        }
    }

    /// As many values as the parameter has; none on [`Device::Meta`].
    pub fn f32(&self) -> Cow<'_, [f32]> {
        match self {
            Gradient::Dense(tensor) => Cow::Borrowed(tensor.f32()),
            Gradient::Rows(rows) if rows.values.device() == Device::Meta => Cow::Borrowed(&[]),
            Gradient::Rows(rows) => {
                let mut table = vec![0.0; rows.entries * rows.values.columns()];
                rows.add_to(&mut table);
                Cow::Owned(table)
            }
        }
    }

    /// The same in the parameter's shape.
    pub fn to_dense(&self) -> Result<Tensor> {
        match self {
            Gradient::Dense(tensor) => Ok(tensor.clone()),
            Gradient::Rows(rows) => rows.to_dense(),
        }
    }

    /// Whether it has no value other than 0.
    pub fn is_zero(&self) -> bool {
        self.values().f32().iter().all(|x| *x == 0.0)
    }

    /// The sum of all squares, the same bits in either form.
    pub fn sum_of_squares(&self) -> f64 {
        let values = self.values();
        let backend = values.device().backend();
        match self {
            Gradient::Dense(_) => backend.sum_of_squares(values.f32()),
            Gradient::Rows(rows) => {
                backend.sum_of_squares_of_rows(values.f32(), &rows.rows, [rows.entries, values.columns()])
            }
        }
    }

    /// Those that may be other than 0.
    fn values(&self) -> &Tensor {
        match self {
            Gradient::Dense(tensor) => tensor,
            Gradient::Rows(rows) => &rows.values,
        }
    }

    fn scaled(self, factor: f32) -> Result<Self> {
        let scale = |tensor: Tensor| {
            // Two parameters that were added hold one gradient between them.
            let mut tensor = owned(tensor)?;
            tensor.device().backend().scale(tensor.values_mut()?, factor);
            Ok(tensor)
        };
        Ok(match self {
            Gradient::Dense(tensor) => Gradient::Dense(scale(tensor)?),
            Gradient::Rows(rows) => Gradient::Rows(RowGradient { values: scale(rows.values)?, ..rows }),
        })
    }
}

/// The rows of a table that were looked up, and their gradients.
#[derive(Debug, Clone)]
pub struct RowGradient {
    /// Rising, each once.
    rows: Vec<u32>,
    values: Tensor,
    /// Rows of the whole table.
    entries: usize,
}

impl RowGradient {
    /// Zeros for the rows `ids` of a table `[entries, columns]`.
    pub(crate) fn zeros(device: Device, ids: &[u32], [entries, columns]: [usize; 2]) -> Result<Self> {
        let mut rows = ids.to_vec();
        rows.sort_unstable();
        rows.dedup();
        let mut values = Tensor::empty(device, &[rows.len(), columns])?;
        device.backend().zero(values.values_mut()?);
        Ok(RowGradient { rows, values, entries })
    }

    /// The rows that it has: rising, each once.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Their gradients: `[rows, columns]`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// The same with zeros for those of `ids` that it does not have.
    pub(crate) fn with(self, ids: &[u32]) -> Result<Self> {
        if ids.iter().all(|id| self.rows.binary_search(id).is_ok()) {
            return Ok(self);
        }
        let (device, columns) = (self.values.device(), self.values.columns());
        let mut all = Self::zeros(device, &[&self.rows, ids].concat(), [self.entries, columns])?;
        all.add(&self.values, &self.rows, None)?;
        Ok(all)
    }

    /// Adds `gradient[t]` to the row `ids[t]`, for each token but those of `padding_idx`, token by token.
    pub(crate) fn add(&mut self, gradient: &Tensor, ids: &[u32], padding_idx: Option<u32>) -> Result<()> {
        let place = |id: u32| self.rows.partition_point(|row| *row < id) as u32;
        let places: Vec<u32> = ids.iter().map(|id| place(*id)).collect();
        let padding = padding_idx.filter(|id| self.rows.binary_search(id).is_ok()).map(place);
        let columns = self.values.columns();
        let backend = self.values.device().backend();
        backend.embedding_backward(gradient.values(), &places, columns, padding, self.values.f32_mut()?);
        Ok(())
    }

    pub(crate) fn to_dense(&self) -> Result<Tensor> {
        let mut table = Tensor::empty(self.values.device(), &[self.entries, self.values.columns()])?;
        let backend = table.device().backend();
        backend.zero(table.values_mut()?);
        self.add_to(table.f32_mut()?);
        Ok(table)
    }

    fn add_to(&self, table: &mut [f32]) {
        let backend = self.values.device().backend();
        backend.embedding_backward(self.values.values(), &self.rows, self.values.columns(), None, table);
    }
}

/// The gradient of the loss by each trained parameter, summed over the backward passes since it was made.
#[derive(Debug, Default)]
pub struct Gradients {
    pub(crate) by_parameter: BTreeMap<ParamId, Option<Gradient>>,
}

impl Gradients {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The gradient of one parameter, if any reached it.
    pub fn get(&self, id: ParamId) -> Option<&Gradient> {
        self.by_parameter.get(&id)?.as_ref()
    }

    /// All of them, in the order of the parameters.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Gradient)> {
        self.by_parameter.iter().filter_map(|(id, gradient)| Some((*id, gradient.as_ref()?)))
    }

    /// The Euclidean norm over all of them: f64 sums over blocks of fixed size, so that threads do not matter.
    pub fn norm(&self) -> f64 {
        self.iter().map(|(_, gradient)| gradient.sum_of_squares()).sum::<f64>().sqrt()
    }

    /// Multiplies all of them.
    pub fn scale(&mut self, factor: f32) -> Result<()> {
        for slot in self.by_parameter.values_mut() {
            *slot = slot.take().map(|gradient| gradient.scaled(factor)).transpose()?;
        }
        Ok(())
    }
}
