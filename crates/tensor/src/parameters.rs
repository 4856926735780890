use std::collections::HashMap;

use crate::{DType, Error, Result, Tensor};

/// A parameter's place in its [`Parameters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(usize);

/// One weight of a model: its checkpoint key, its values, and whether training changes it.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// The full key of the checkpoint, such as `bert.encoder.layer.0.output.dense.weight`.
    pub name: String,
    /// The values.
    pub value: Tensor,
    /// Whether training changes it. Loaded weights start frozen: a method says what is trained.
    pub trainable: bool,
}

/// Every weight of a model, in the order in which the model asked for them. Layers hold [`ParamId`]s only, so the
/// optimiser can write the values while the model stays as it is.
#[derive(Debug, Default, Clone)]
pub struct Parameters {
    items: Vec<Parameter>,
    by_name: HashMap<String, ParamId>,
}

impl Parameters {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a frozen parameter. Errors if the name is taken.
    pub fn add(&mut self, name: impl Into<String>, value: Tensor) -> Result<ParamId> {
        let name = name.into();
        let id = ParamId(self.items.len());
        if self.by_name.contains_key(&name) {
            return Err(Error::Parameter { name, problem: "is there already" });
        }
        self.by_name.insert(name.clone(), id);
        self.items.push(Parameter { name, value, trainable: false });
        Ok(id)
    }

    /// The parameter of an id that this store gave.
    pub fn get(&self, id: ParamId) -> &Parameter {
        &self.items[id.0]
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: ParamId) -> &mut Parameter {
        &mut self.items[id.0]
    }

    /// The id of a name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.by_name.get(name).copied()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Parameter)> {
        self.items.iter().enumerate().map(|(index, item)| (ParamId(index), item))
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ParamId, &mut Parameter)> {
        self.items.iter_mut().enumerate().map(|(index, item)| (ParamId(index), item))
    }

    /// Those that training changes, in order.
    pub fn trainable(&self) -> impl Iterator<Item = (ParamId, &Parameter)> {
        self.iter().filter(|(_, item)| item.trainable)
    }

    /// Makes what lies in blocks f32 where training changes it, and where `wanted`. Errors if there is no memory.
    pub fn widen(&mut self, wanted: impl Fn(ParamId) -> bool) -> Result<()> {
        for (index, item) in self.items.iter_mut().enumerate() {
            if matches!(item.value.dtype(), DType::Blocks(_)) && (item.trainable || wanted(ParamId(index))) {
                item.value = item.value.to(DType::F32)?;
            }
        }
        Ok(())
    }

    /// Keeps the matrices that training does not change as `dtype`, but for those of `except`; vectors are small, and stay
    /// f32. What lies in blocks stays so, unless they are to be other blocks. Errors if there is no memory.
    pub fn keep_frozen_as(&mut self, dtype: DType, except: &[ParamId]) -> Result<()> {
        for (index, item) in self.items.iter_mut().enumerate() {
            let blocks = matches!((item.value.dtype(), dtype), (DType::Blocks(_), DType::F32 | DType::Bf16));
            let frozen = !item.trainable && !except.contains(&ParamId(index));
            if frozen && !blocks && item.value.shape().len() > 1 {
                item.value = item.value.to(dtype)?;
            }
        }
        Ok(())
    }

    /// How many values there are, and how many of them are trained.
    pub fn count(&self) -> (usize, usize) {
        let total = self.items.iter().map(|item| item.value.len()).sum();
        let trained = self.items.iter().filter(|item| item.trainable).map(|item| item.value.len()).sum();
        (total, trained)
    }
}
