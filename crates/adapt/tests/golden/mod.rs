//! The tiny random BERTs of the model crate's tests, with a method on them, as the recipe builds them.

#![expect(dead_code, reason = "each test uses its own part of it")]

use std::path::{Path, PathBuf};

use retune_adapt::peft::{Applied, DuringTraining, Method, Model, Update};
use retune_adapt::tasks::EncoderWithHead;
use retune_adapt::{AdaptError, Options};
use retune_model::families::{self, HeadKind};
use retune_model::{Batch, BatchRow, Forward, Hooks};
use retune_tensor::backend::AdamW;
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Gradients, Parameters, Tape, Tensor, Var, ops};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
pub(crate) struct Rows {
    input_ids: Vec<Vec<u32>>,
    token_type_ids: Vec<Vec<u32>>,
    pub(crate) labels: Vec<u32>,
    pub(crate) num_labels: usize,
}

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden").join(name)
}

/// The largest difference, as a share of the largest reference value.
pub(crate) fn relative(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    got.iter().zip(expected).fold(0.0f32, |max, (a, b)| max.max((a - b).abs())) / scale.max(1e-12)
}

/// Options as a command line gives them.
pub(crate) fn options(given: &[(&str, &str)]) -> Options {
    Options(given.iter().map(|(name, value)| ((*name).to_string(), Value::from(*value))).collect())
}

/// What a method is given: a tiny model is too narrow for a sixteenth of its width, no multiple of four, and too short for
/// twenty virtual tokens.
pub(crate) fn given(method: &dyn Method) -> Vec<(&'static str, &'static str)> {
    let has = |name: &str| method.options().iter().any(|option| option.name == name);
    let all = [("bottleneck-size", "4"), ("phm-dim", "2"), ("num-virtual-tokens", "5")];
    all.into_iter().filter(|(name, _)| has(name)).collect()
}

/// Whether it puts rows before the texts' own: it does not start at the pretrained model, whose attention it changes.
pub(crate) fn is_virtual(method: &dyn Method) -> bool {
    method.options().iter().any(|option| option.name == "num-virtual-tokens")
}

/// Whether it starts near the pretrained model, not at it.
pub(crate) fn starts_near(method: &dyn Method) -> bool {
    ["houlsby", "pfeiffer", "compacter"].contains(&method.name())
}

/// A classifier with a method on it.
pub(crate) struct Case {
    pub(crate) parameters: Parameters,
    pub(crate) hooks: Hooks,
    pub(crate) classifier: EncoderWithHead,
    pub(crate) fresh: Vec<String>,
    pub(crate) rows: Rows,
    pub(crate) applied: Applied,
}

impl Case {
    /// The model `name`, its head kept or drawn anew, and what `adjust` makes of it.
    pub(crate) fn open(
        name: &str,
        keep_head: bool,
        adjust: impl FnOnce(&mut Model<'_>) -> Result<Applied, AdaptError>,
    ) -> Result<Self, AdaptError> {
        let folder = folder(name);
        let rows: Rows =
            serde_json::from_str(&std::fs::read_to_string(folder.join("expected.json")).unwrap()).unwrap();
        let seed = Key::new(3);
        let mut opened = families::open(&folder, HeadKind::Sequence, Device::Cpu, seed)?;
        let classifier =
            EncoderWithHead::build(opened.encoder, &mut opened.checkpoint, keep_head, rows.num_labels)?;
        let loaded = opened.checkpoint.finish()?;
        let (mut parameters, mut hooks) = (loaded.parameters, Hooks::new());
        let applied = adjust(&mut Model {
            parameters: &mut parameters,
            hooks: &mut hooks,
            encoder: classifier.encoder(),
            classifier: classifier.classifier(),
            fresh: &loaded.fresh,
            trains_pooler: false,
            tokenizer: None,
            seed,
        })?;
        Ok(Case { parameters, hooks, classifier, fresh: loaded.fresh, rows, applied })
    }

    /// Does something to the model.
    pub(crate) fn adjust<T>(&mut self, adjust: impl FnOnce(&mut Model<'_>) -> T) -> T {
        adjust(&mut Model {
            parameters: &mut self.parameters,
            hooks: &mut self.hooks,
            encoder: self.classifier.encoder(),
            classifier: self.classifier.classifier(),
            fresh: &self.fresh,
            trains_pooler: false,
            tokenizer: None,
            seed: Key::new(3),
        })
    }

    /// The same, as it was pretrained.
    pub(crate) fn base(name: &str, keep_head: bool) -> Self {
        Case::open(name, keep_head, |_| Ok(Applied::Model)).unwrap()
    }

    fn var(&self, tape: &Tape) -> Var {
        self.var_of(tape, &(0..self.rows.labels.len()).collect::<Vec<_>>())
    }

    /// Of some of the rows, cut to what fits behind virtual tokens.
    fn var_of(&self, tape: &Tape, rows: &[usize]) -> Var {
        let batch = &self.batch(rows, 0);
        let (parameters, hooks) = (&self.parameters, &self.hooks);
        let forward = Forward {
            tape,
            parameters,
            hooks,
            batch,
            dropout: None,
            mixture: None,
            dtype: DType::F32,
            recompute: false,
            cache: None,
        };
        self.classifier.logits(&forward).unwrap()
    }

    /// Some of the rows, cut to what fits behind virtual tokens and `more` others.
    pub(crate) fn batch(&self, rows: &[usize], more: usize) -> Batch {
        let longest = self.classifier.encoder().max_length() - self.hooks.virtual_tokens() - more;
        let cut = |row: &'_ [u32]| row.len().min(longest);
        Batch::new(rows.iter().map(|row| {
            let (ids, types) = (&self.rows.input_ids[*row], &self.rows.token_type_ids[*row]);
            BatchRow { id: *row as u64, input_ids: &ids[..cut(ids)], token_type_ids: &types[..cut(types)] }
        }))
    }

    pub(crate) fn logits(&self) -> Vec<f32> {
        self.var(&Tape::inference()).value().f32().to_vec()
    }

    /// Those of some rows in a batch of their own.
    pub(crate) fn logits_of(&self, rows: &[usize]) -> Vec<f32> {
        self.var_of(&Tape::inference(), rows).value().f32().to_vec()
    }

    fn loss_on(&self, tape: &Tape) -> Var {
        let denominator = self.rows.labels.len() as f32;
        let options = ops::CrossEntropyOptions { class_weights: None, label_smoothing: 0.0, denominator };
        ops::cross_entropy(tape, &self.var(tape), &self.rows.labels, options).unwrap()
    }

    pub(crate) fn loss(&self) -> f32 {
        self.loss_on(&Tape::inference()).value().item().unwrap()
    }

    pub(crate) fn gradients(&self) -> Gradients {
        let tape = Tape::recording();
        let loss = self.loss_on(&tape);
        let mut gradients = Gradients::new();
        tape.backward(&loss, &mut gradients).unwrap();
        gradients
    }

    /// Steps of AdamW over all rows, without decay; the loss before each.
    pub(crate) fn train(
        &mut self,
        steps: u64,
        learning_rate: f32,
        mut during: Option<Box<dyn DuringTraining>>,
    ) -> Vec<f32> {
        let zeros = |shape: &[usize]| Tensor::zeros(Device::Cpu, shape).unwrap();
        let trained: Vec<_> =
            self.parameters.trainable().map(|(id, p)| (id, p.value.shape().to_vec())).collect();
        let mut moments: Vec<_> = trained.iter().map(|(_, shape)| [zeros(shape), zeros(shape)]).collect();
        (1..=steps)
            .map(|step| {
                let tape = Tape::recording();
                let own = self.loss_on(&tape);
                let loss = own.value().item().unwrap();
                let penalty = during.as_ref().and_then(|d| d.penalty(&tape, &self.parameters).unwrap());
                let terms: Vec<_> =
                    [Some(own), penalty].into_iter().flatten().map(|var| (var, 1.0)).collect();
                let mut gradients = Gradients::new();
                let total = ops::weighted_sum(&tape, &terms).unwrap();
                tape.backward(&total, &mut gradients).unwrap();
                for ((id, _), [first, second]) in trained.iter().zip(&mut moments) {
                    let adamw = AdamW {
                        learning_rate,
                        betas: [0.9, 0.999],
                        epsilon: 1e-8,
                        weight_decay: 0.0,
                        step,
                        gradient_scale: 1.0,
                    };
                    let weight = &mut self.parameters.get_mut(*id).value;
                    let moments = [first.f32_mut().unwrap(), second.f32_mut().unwrap()];
                    let gradient = gradients.get(*id).unwrap().f32();
                    Device::Cpu.backend().adamw(adamw, &gradient, weight.f32_mut().unwrap(), moments);
                }
                let update = Update { step, gradients: &gradients, gradient_scale: 1.0 };
                if let Some(during) = &mut during {
                    during.after_update(&mut self.parameters, update).unwrap();
                }
                loss
            })
            .collect()
    }

    /// The values of a parameter.
    pub(crate) fn values(&self, name: &str) -> Vec<f32> {
        self.parameters.get(self.parameters.find(name).unwrap()).value.f32().to_vec()
    }

    /// The names of what is trained.
    pub(crate) fn trained(&self) -> Vec<&str> {
        self.parameters.trainable().map(|(_, parameter)| parameter.name.as_str()).collect()
    }

    /// Names of the adapter's tensors in its file.
    pub(crate) fn saved(&self) -> Vec<&str> {
        match &self.applied {
            Applied::Model => Vec::new(),
            Applied::Adapter(adapter) => adapter.tensors.iter().map(|(name, _)| name.as_str()).collect(),
        }
    }

    /// Puts other values into a parameter.
    pub(crate) fn set(&mut self, name: &str, value: impl Fn(usize) -> f32) {
        let id = self.parameters.find(name).unwrap_or_else(|| panic!("no parameter {name}"));
        let shape = self.parameters.get(id).value.shape().to_vec();
        let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
        self.parameters.get_mut(id).value = Tensor::from_slice(Device::Cpu, &shape, &values).unwrap();
    }
}
