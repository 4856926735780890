use std::path::PathBuf;
use std::time::Instant;

use retune_adapt::Options;
use retune_adapt::peft::{self, Method};
use retune_adapt::tasks::EncoderWithHead;
use retune_model::families::{self, HeadKind};
use retune_model::formats::HfConfig;
use retune_model::{Batch, BatchRow, Checkpoint, Forward, Hooks};
use retune_tensor::backend::meta::take_flops;
use retune_tensor::backend::profile;
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Parameters, Tape, Var, memory, ops};
use retune_train::{AdamWSettings, Optimiser};
use serde::Serialize;
use serde_json::{Value, json};

use super::Shape;
use super::profile::{OpCost, by_kernel, write_trace};
use crate::Result;
use crate::resolved::moments;

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSettings {
    /// One of [`super::SHAPES`].
    pub shape: String,
    /// One of [`crate::METHODS`]; `lora` has rank 8 and alpha 16 here, on the layers that its paper chose.
    pub method: String,
    /// What activations and frozen matrices are kept as.
    pub precision: DType,
    /// Whether blocks are computed once more on the way back.
    pub recompute: bool,
    /// `adamw` or `adamw-8bit`.
    pub optimizer: String,
    /// Rows a step.
    pub batch: usize,
    /// Tokens a row.
    pub length: usize,
    /// How many steps are timed, after one that is not.
    pub steps: usize,
    /// Whether the kernels are timed, one by one.
    pub profile: bool,
    /// Where each of their calls is written for a trace viewer.
    pub trace: Option<PathBuf>,
}

/// What a step costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepCost {
    /// The shape's name.
    pub shape: String,
    /// The method's name.
    pub method: String,
    /// What activations and frozen matrices are kept as.
    pub precision: &'static str,
    /// Whether blocks were computed once more on the way back.
    pub recompute: bool,
    /// The optimiser's.
    pub optimizer: String,
    /// Rows a step.
    pub batch: usize,
    /// Tokens a row.
    pub length: usize,
    /// Threads that computed.
    pub threads: usize,
    /// The median of the timed steps.
    pub seconds_per_step: f64,
    /// Each of them.
    pub seconds: Vec<f64>,
    /// By the median.
    pub tokens_per_second: f64,
    /// Of the products of a step, by the median; what is recomputed is not counted twice.
    pub flops_per_second: f64,
    /// Multiplications with additions in registers alone, all threads: no step can be faster.
    pub ceiling_flops_per_second: f64,
    /// The most that tensors held.
    pub peak_memory_bytes: usize,
    /// The most that the process held, as the system counts it.
    pub peak_rss_bytes: usize,
    /// Values that are trained.
    pub trainable_parameters: usize,
    /// The loss of the last step.
    pub loss: f64,
    /// What each kernel takes in a step, where that was asked for: the slowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<OpCost>,
}

/// A model of random weights, to be trained on random rows.
pub(super) struct Bench {
    pub task: Task,
    pub parameters: Parameters,
}

pub(super) struct Task {
    classifier: EncoderWithHead,
    hooks: Hooks,
    rows: Vec<Vec<u32>>,
    labels: Vec<u32>,
    dtype: DType,
    recompute: bool,
}

/// Trains a model of random weights and a real shape, every row full, and says what a step takes: forward, backward and
/// AdamW (in the backward, as no clipping is asked for), with the dropouts of the shape. Errors if shape or method is
/// unknown, or where the memory is too small.
pub fn step(settings: &StepSettings) -> Result<StepCost> {
    let adamw = AdamWSettings { moments: moments(Some(&settings.optimizer))?, ..AdamWSettings::default() };
    let flops = {
        let mut bench = Bench::new(settings, Device::Meta)?;
        let mut optimiser = Optimiser::new(&bench.parameters, adamw)?.lazy();
        take_flops();
        bench.step(&mut optimiser, 0)?;
        take_flops()
    };
    let ceiling = super::gemm::ceiling(settings.precision);
    let mut bench = Bench::new(settings, Device::Cpu)?;
    let mut optimiser = Optimiser::new(&bench.parameters, adamw)?.lazy();
    let mut loss = bench.step(&mut optimiser, 0)?;
    let mut seconds = Vec::new();
    if settings.profile {
        profile::start();
    }
    for step in 0..settings.steps.max(1) {
        let start = Instant::now();
        loss = bench.step(&mut optimiser, step as u64 + 1)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    // What rows that nobody looked up have missed belongs to the steps.
    let start = Instant::now();
    optimiser.flush(&mut bench.parameters)?;
    let missed = start.elapsed().as_secs_f64() / seconds.len() as f64;
    seconds.iter_mut().for_each(|seconds| *seconds += missed);
    let spans = profile::stop();
    if let Some(path) = &settings.trace {
        write_trace(&spans, path)?;
    }
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    Ok(StepCost {
        shape: settings.shape.clone(),
        method: settings.method.clone(),
        precision: settings.precision.name(),
        recompute: settings.recompute,
        optimizer: settings.optimizer.clone(),
        batch: settings.batch,
        length: settings.length,
        threads: rayon::current_num_threads(),
        seconds_per_step: median,
        seconds,
        tokens_per_second: (settings.batch * settings.length) as f64 / median,
        flops_per_second: flops as f64 / median,
        ceiling_flops_per_second: ceiling,
        peak_memory_bytes: memory::usage(Device::Cpu).peak,
        peak_rss_bytes: memory::resident().map_or(0, |resident| resident.peak),
        trainable_parameters: bench.parameters.count().1,
        loss,
        kernels: by_kernel(&spans, settings.steps.max(1)),
    })
}

impl Bench {
    fn new(settings: &StepSettings, device: Device) -> Result<Self> {
        let shape = Shape::find(&settings.shape)?;
        let method = peft::find(&settings.method)?;
        let mut options = Options::default();
        if method.options().iter().any(|option| option.name == "target-modules") {
            let targets: Vec<Value> = shape.targets.split(',').map(Value::from).collect();
            options.0.insert("target-modules".into(), targets.into());
        }
        if method.name() == "lora" {
            options.0.insert("dropout".into(), json!(0.0));
        }
        let mut bench = Self::with(
            shape,
            method,
            &options,
            [settings.batch, settings.length],
            settings.precision,
            device,
        )?;
        bench.task.recompute = settings.recompute;
        Ok(bench)
    }

    /// Random rows of a number and a length, on a model of a shape with a method.
    pub fn with(
        shape: &Shape,
        method: &dyn Method,
        options: &Options,
        [batch, length]: [usize; 2],
        precision: DType,
        device: Device,
    ) -> Result<Self> {
        let key = Key::new(0).with_name("bench");
        let config = HfConfig::from_map(shape.name, shape.config());
        let mut checkpoint = Checkpoint::random(device, key);
        let encoder = families::find(&config)?.build(&config, &mut checkpoint, shape.head)?;
        let vocabulary = config.require_usize("vocab_size")? as u32;
        let classifier = EncoderWithHead::build(encoder, &mut checkpoint, false, 2)?;
        let loaded = checkpoint.finish()?;
        let (mut parameters, mut hooks) = (loaded.parameters, Hooks::new());
        // A base lacks no tensor, but for the head, which language models have.
        let head = classifier.classifier().parameters().filter(|_| shape.head != HeadKind::Language);
        let fresh: Vec<String> = head.map(|id| parameters.get(id).name.clone()).collect();
        let mut model = peft::Model {
            parameters: &mut parameters,
            hooks: &mut hooks,
            encoder: classifier.encoder(),
            classifier: classifier.classifier(),
            fresh: &fresh,
            trains_pooler: false,
            tokenizer: None,
            seed: key,
        };
        method.apply(&mut model, options)?;
        parameters.keep_frozen_as(precision, &[])?;
        let stream = &mut key.with_name("rows").stream();
        let rows = (0..batch).map(|_| (0..length).map(|_| stream.below(vocabulary)).collect()).collect();
        let labels = (0..batch).map(|_| stream.below(2)).collect();
        Ok(Bench {
            task: Task { classifier, hooks, rows, labels, dtype: precision, recompute: false },
            parameters,
        })
    }

    fn step(&mut self, optimiser: &mut Optimiser, step: u64) -> Result<f64> {
        let dropout = Key::new(0).with_name("dropout").with(step);
        let Bench { task, parameters } = self;
        optimiser.refresh(parameters, |tape, parameters| task.loss(tape, parameters, dropout))?;
        let tape = Tape::recording();
        let loss = task.loss(&tape, parameters, dropout)?;
        let value = loss.value().item().map_or(f64::NAN, f64::from);
        let mut update = optimiser.begin(1e-4, 1.0);
        tape.backward_each(&loss, |id, gradient| update.apply(parameters, id, &gradient))?;
        Ok(value)
    }
}

impl Task {
    /// The mean loss of all rows.
    pub fn loss(&self, tape: &Tape, parameters: &Parameters, dropout: Key) -> retune_tensor::Result<Var> {
        let rows = self.rows.iter().zip(0..);
        let batch = Batch::new(rows.map(|(ids, id)| BatchRow { id, input_ids: ids, token_type_ids: &[] }));
        let forward = Forward {
            tape,
            parameters,
            hooks: &self.hooks,
            batch: &batch,
            dropout: Some(dropout),
            mixture: None,
            dtype: self.dtype,
            recompute: self.recompute,
            cache: None,
        };
        if self.classifier.encoder().head().kind == HeadKind::Language {
            // Each token tells the next of its row.
            let ends = batch.layout.cu_seqlens().windows(2);
            let tokens: Vec<usize> = ends.flat_map(|ends| ends[0]..ends[1].saturating_sub(1)).collect();
            let targets: Vec<u32> = tokens.iter().map(|token| batch.input_ids[token + 1]).collect();
            let output = self.classifier.output(&forward)?;
            return output.vocabulary_loss(&tokens, &targets, targets.len() as f32);
        }
        let logits = self.classifier.logits(&forward)?;
        let options = ops::CrossEntropyOptions {
            class_weights: None,
            label_smoothing: 0.0,
            denominator: self.rows.len() as f32,
        };
        ops::cross_entropy(tape, &logits, &self.labels, options)
    }
}
