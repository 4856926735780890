//! The smallest training that has checkpoints.

use std::path::Path;
use std::sync::Arc;

use retune_tensor::backend::Layout;
use retune_tensor::random::Key;
use retune_tensor::{Device, Parameters, Tape, Tensor, Var, ops};
use retune_train::{
    AdamWSettings, Batching, Checkpoint, EvalEvery, Evaluated, Event, Observer, OnSpike, Optimiser, Plan,
    SaveEvery, Settings, Shape, State, Workshop,
};

use super::card;
use crate::Listener;
use crate::checkpoints::Checkpoints;
use crate::workshop::{restore, trained};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

const ROWS: usize = 12;
const FEATURES: usize = 5;
const CLASSES: usize = 3;

/// A linear classifier of rows that are noise.
struct Linear(Checkpoints);

/// Who hears nothing, but interrupts after a step.
#[derive(Default)]
pub(super) struct Deaf {
    pub(super) after: Option<u64>,
    step: u64,
}

impl Observer for Deaf {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        if let Event::Step { step, .. } = event {
            self.step = *step;
        }
        Ok(())
    }

    fn interrupted(&self) -> bool {
        self.after.is_some_and(|after| self.step >= after)
    }
}

impl Listener for Deaf {
    fn say(&mut self, sentence: &str) {
        assert!(!sentence.is_empty() && sentence.len() < 100_000);
    }
}

impl Workshop for Linear {
    fn denominator(&self, rows: &[usize]) -> f32 {
        rows.len() as f32
    }

    fn tokens(&self, rows: &[usize]) -> usize {
        rows.len()
    }

    fn loss(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        rows: &[usize],
        denominator: f32,
        _: Key,
    ) -> retune_tensor::Result<Var> {
        let x: Vec<f32> = rows.iter().flat_map(|row| noise(100 + *row as u64, FEATURES)).collect();
        let x = Var::constant(Tensor::from_slice(Device::Cpu, &[rows.len(), FEATURES], &x)?);
        let layout = Arc::new(Layout::new(&vec![1; rows.len()], &vec![0; rows.len()]));
        let [weight, bias] = ["layer.weight", "layer.bias"]
            .map(|name| tape.parameter(parameters, parameters.find(name).unwrap()));
        let logits = ops::linear(tape, &x, &layout, ops::Linear::plain(&weight, Some(&bias)))?;
        let targets: Vec<u32> = rows.iter().map(|row| (row * row % 7 % CLASSES) as u32).collect();
        let options = ops::CrossEntropyOptions { class_weights: None, label_smoothing: 0.0, denominator };
        ops::cross_entropy(tape, &logits, &targets, options)
    }

    fn evaluate(&mut self, parameters: &Parameters) -> Result<Option<Evaluated>, AnyError> {
        let score = values(parameters).into_iter().map(|value| 100.0 * f64::from(value)).sum::<f64>().sin();
        Ok(Some(Evaluated { loss: 1.0 - score, score, metrics: [("accuracy".to_string(), score)].into() }))
    }

    fn keep(&mut self, parameters: &Parameters) -> Result<(), AnyError> {
        Ok(crate::artefact::save_tensors(parameters, &trained(parameters), &self.0.best())?)
    }

    fn restore(&mut self, parameters: &mut Parameters) -> Result<(), AnyError> {
        Ok(restore(parameters, &self.0.best())?)
    }

    fn save(&mut self, checkpoint: &Checkpoint<'_>) -> Result<(), AnyError> {
        Ok(self.0.save(checkpoint, &[])?)
    }

    fn load(
        &mut self,
        step: Option<u64>,
        parameters: &mut Parameters,
        optimiser: &mut Optimiser,
    ) -> Result<Option<State>, AnyError> {
        Ok(self.0.load(step, parameters, optimiser, Vec::new())?)
    }
}

fn noise(seed: u64, values: usize) -> Vec<f32> {
    let mut stream = Key::new(seed).stream();
    (0..values).map(|_| stream.normal()).collect()
}

fn values(parameters: &Parameters) -> Vec<f32> {
    parameters.iter().flat_map(|(_, parameter)| parameter.value.f32().to_vec()).collect()
}

/// The run's checkpoints in `folder`.
pub(super) fn checkpoints(folder: &Path) -> Checkpoints {
    Checkpoints::new(folder.to_path_buf(), folder.join("events.jsonl"), &card(), 2)
}

/// Trains, from the newest checkpoint in `folder` that is whole; the weights, or the error in words.
pub(super) fn train(folder: &Path, save_every: SaveEvery, after: Option<u64>) -> Result<Vec<f32>, String> {
    let mut parameters = Parameters::new();
    let shapes: [(&str, &[usize]); 3] =
        [("bystander.weight", &[4]), ("layer.weight", &[CLASSES, FEATURES]), ("layer.bias", &[CLASSES])];
    for (seed, (name, shape)) in (1..).zip(shapes) {
        let values = noise(seed, shape.iter().product());
        let id = parameters.add(name, Tensor::from_slice(Device::Cpu, shape, &values).unwrap()).unwrap();
        parameters.get_mut(id).trainable = name.starts_with("layer.");
    }
    let plan = Plan::new(vec![1; ROWS], Batching::Rows(4), 1, Some(Key::new(3))).unwrap();
    let settings = Settings {
        epochs: 3.0,
        learning_rate: 0.05,
        schedule: Shape::Linear,
        warmup: 0.0,
        adamw: AdamWSettings::default(),
        max_grad_norm: Some(1.0),
        seed: 5,
        eval_every: EvalEvery::Steps(1),
        patience: None,
        keep_best: true,
        save_every,
        on_spike: OnSpike::Tell,
    };
    let mut checkpoints = checkpoints(folder);
    let mut deaf = Deaf { after, step: 0 };
    checkpoints.find(&mut deaf).map_err(|error| error.to_string())?;
    let mut linear = Linear(checkpoints);
    let outcome = retune_train::train(&mut parameters, &plan, &mut linear, &settings, &mut deaf);
    outcome.map(|_| values(&parameters)).map_err(|error| error.to_string())
}
