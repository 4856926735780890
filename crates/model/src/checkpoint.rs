use std::collections::BTreeSet;
use std::path::Path;

use retune_tensor::random::Key;
use retune_tensor::{DType, Device, ParamId, Parameters, Tensor};

use crate::formats::{TensorInfo, Weights};
use crate::{ModelError, TensorProblem};

/// How a tensor is drawn that the checkpoint lacks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Normal around 0 with this standard deviation.
    Normal(f64),
    /// Uniform between minus this and this.
    Uniform(f64),
}

impl Init {
    /// A tensor drawn from the stream that `key` and `name` give.
    pub fn draw(
        self,
        device: Device,
        shape: &[usize],
        key: Key,
        name: &str,
    ) -> retune_tensor::Result<Tensor> {
        let mut tensor = Tensor::zeros(device, shape)?;
        let stream = &mut key.with_name(name).stream();
        match self {
            Init::Zeros => {}
            Init::Ones => tensor.f32_mut()?.fill(1.0),
            Init::Normal(deviation) => {
                tensor.f32_mut()?.iter_mut().for_each(|x| *x = stream.normal() * deviation as f32);
            }
            Init::Uniform(bound) => {
                let draw = |x: &mut f32| *x = (2.0 * stream.uniform() - 1.0) * bound as f32;
                tensor.f32_mut()?.iter_mut().for_each(draw);
            }
        }
        Ok(tensor)
    }
}

/// Other names that a checkpoint may have for a tensor, in the order in which they are tried.
pub type Aliases = fn(&str) -> Vec<String>;

/// A checkpoint on its way into a model: layers take the tensors they need, and what does not fit is collected, so
/// that one error names all of it.
#[derive(Debug)]
pub struct Checkpoint {
    /// None where every tensor is drawn.
    weights: Option<Weights>,
    device: Device,
    aliases: Aliases,
    as_it_lies: bool,
    seed: Key,
    parameters: Parameters,
    problems: Vec<TensorProblem>,
    taken: BTreeSet<String>,
    fresh: Vec<String>,
}

/// A checkpoint whose tensors have all found their places.
#[derive(Debug)]
pub struct Loaded {
    /// The weights, all frozen.
    pub parameters: Parameters,
    /// The names of those that the checkpoint lacked: drawn anew, and worth nothing until they are trained.
    pub fresh: Vec<String>,
    /// The checkpoint's tensors that no layer asked for.
    pub unused: Vec<String>,
}

impl Checkpoint {
    /// Opens the weights of `folder`. `seed` draws what is not there.
    pub fn open(folder: &Path, device: Device, aliases: Aliases, seed: Key) -> Result<Self, ModelError> {
        Ok(Self::new(Some(Weights::open(folder)?), device, aliases, seed))
    }

    /// Keeps matrices as they lie in the file, in blocks, halves or bf16, where they can be: to be frozen, or widened later.
    pub fn as_it_lies(self, as_it_lies: bool) -> Self {
        Checkpoint { as_it_lies, ..self }
    }

    /// Weights of any shape that a layer asks for, none of them trained: to measure, not to use.
    pub fn random(device: Device, seed: Key) -> Self {
        Self::new(None, device, |_| Vec::new(), seed)
    }

    fn new(weights: Option<Weights>, device: Device, aliases: Aliases, seed: Key) -> Self {
        Checkpoint {
            weights,
            device,
            aliases,
            as_it_lies: false,
            seed,
            parameters: Parameters::new(),
            problems: Vec::new(),
            taken: BTreeSet::new(),
            fresh: Vec::new(),
        }
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.weights.as_ref()?.info(name)
    }

    /// The shape that the checkpoint has for `name` or one of its aliases.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.info(&self.stored_as(name)?)?.shape)
    }

    /// Takes the tensor `name`. If it is missing, of another shape or of a type that is not read,
    /// [`Checkpoint::finish`] will say so.
    pub fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<ParamId, ModelError> {
        let stored = self.stored_as(name).unwrap_or_else(|| name.to_string());
        self.take(name, &stored, shape)
    }

    /// Takes the tensor `name`, or draws it anew if it is missing.
    pub fn tensor_or_init(&mut self, name: &str, shape: &[usize], init: Init) -> Result<ParamId, ModelError> {
        match self.stored_as(name) {
            Some(stored) => self.take(name, &stored, shape),
            None => self.init(name, shape, init),
        }
    }

    /// Draws the tensor `name` anew, whatever the checkpoint holds.
    pub fn init(&mut self, name: &str, shape: &[usize], init: Init) -> Result<ParamId, ModelError> {
        self.fresh.push(name.to_string());
        if !self.problems.is_empty() {
            // Nothing comes of this model, and a configuration that lies about sizes could ask for any memory.
            return self.placeholder(name);
        }
        let value = init.draw(self.device, shape, self.seed, name)?;
        Ok(self.parameters.add(name, value)?)
    }

    /// The weights, or one error that names every tensor which is missing, misshapen or of a type that is not read.
    pub fn finish(self) -> Result<Loaded, ModelError> {
        if !self.problems.is_empty() {
            return Err(self.error());
        }
        let names = self.weights.iter().flat_map(Weights::names);
        let unused = names.filter(|name| !self.taken.contains(*name)).map(str::to_string).collect();
        Ok(Loaded { parameters: self.parameters, fresh: self.fresh, unused })
    }

    fn stored_as(&self, name: &str) -> Option<String> {
        let known = |name: &String| self.info(name).is_some();
        Some(name.to_string()).filter(known).or_else(|| (self.aliases)(name).into_iter().find(known))
    }

    fn take(&mut self, name: &str, stored: &str, shape: &[usize]) -> Result<ParamId, ModelError> {
        let Some(weights) = &self.weights else {
            return self.init(name, shape, Init::Normal(0.02));
        };
        self.taken.insert(stored.to_string());
        if let Err(problem) = weights.check(stored, shape) {
            return self.problem(problem, name);
        }
        let kept = weights.kept_as(stored).filter(|_| self.as_it_lies && shape.len() > 1);
        let mut value = match kept {
            Some(blocks @ DType::Blocks(_)) => Tensor::empty_as(self.device, blocks, shape)?,
            _ => Tensor::empty(self.device, shape)?,
        };
        if self.device != Device::Meta {
            match value.dtype() {
                DType::Blocks(_) => weights.read_blocks_into(stored, value.bytes_mut()?)?,
                _ => weights.read_f32_into(stored, value.f32_mut()?)?,
            }
        }
        if let Some(dtype) = kept {
            value = value.to(dtype)?;
        }
        Ok(self.parameters.add(name, value)?)
    }

    /// Notes a problem and goes on with an empty tensor, to find the others; but not with a lying config's millions.
    fn problem(&mut self, problem: TensorProblem, name: &str) -> Result<ParamId, ModelError> {
        const MOST: usize = 200;
        self.problems.push(problem);
        if self.problems.len() > MOST {
            return Err(self.error());
        }
        self.placeholder(name)
    }

    fn placeholder(&mut self, name: &str) -> Result<ParamId, ModelError> {
        Ok(self.parameters.add(name, Tensor::zeros(self.device, &[0])?)?)
    }

    fn error(&self) -> ModelError {
        let file = self.weights.as_ref().and_then(|weights| weights.files().next());
        let path = file.map(Path::to_path_buf).unwrap_or_default();
        ModelError::Tensors { path, problems: self.problems.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, tensor::TensorView};

    #[test]
    fn every_bad_tensor_is_named_and_nothing_is_drawn_for_a_model_that_will_not_be() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = [0; 24];
        let view = |dtype, shape: &[usize]| TensorView::new(dtype, shape.to_vec(), &bytes).unwrap();
        let tensors = [
            ("counts", view(Dtype::I32, &[2, 3])),
            ("floats", view(Dtype::F32, &[2, 3])),
            ("narrow", view(Dtype::F32, &[3, 2])),
        ];
        safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors")).unwrap();
        let aliases: Aliases = |_| Vec::new();
        let mut checkpoint = Checkpoint::open(folder.path(), Device::Cpu, aliases, Key::new(1)).unwrap();
        for name in ["counts", "floats", "narrow", "nowhere"] {
            checkpoint.tensor(name, &[2, 3]).unwrap();
        }
        // 14 GB, if they were drawn.
        checkpoint.init("head", &[60_000, 60_000], Init::Normal(0.02)).unwrap();
        let error = checkpoint.finish().unwrap_err().to_string();
        assert!(error.contains("3 of the tensors do not fit"), "{error}");
        for expected in [
            "\n  `counts` is of type I32, which counts or flags",
            "\n  `narrow` should have shape [2, 3], has [3, 2]",
            "\n  `nowhere` is missing",
        ] {
            assert!(error.contains(expected), "{error}");
        }
    }
}
