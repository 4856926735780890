//! A linear classifier: the smallest thing that the trainer can train, and the same training in f64 to compare with.

use std::collections::BTreeMap;
use std::sync::Arc;

use retune_tensor::backend::Layout;
use retune_tensor::random::Key;
use retune_tensor::{Device, Parameters, Sink, Tape, Tensor, Var, ops};
use retune_train::{
    AdamWSettings, Checkpoint, EvalEvery, Evaluated, MomentKind, OnSpike, Optimiser, SaveEvery, Settings,
    Shape, State, Workshop,
};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) const FEATURES: usize = 5;
pub(crate) const CLASSES: usize = 3;

/// What happens to one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Its features are no numbers, and so is the loss.
    Loss(usize),
    /// Its loss is a number, and the gradient that comes back is none.
    Gradient(usize),
    /// Of its gradients that of the weight is none, that of the bias is one.
    Weight(usize),
    /// Its features, and so its loss, are far above the others', in this epoch counted from 0.
    Large(usize, u64),
    /// The gradient of the bias is 0.
    DeadBias,
}

/// The rows, and what was asked of the workshop.
pub(crate) struct Linear {
    pub(crate) rows: Vec<[f32; FEATURES]>,
    pub(crate) targets: Vec<u32>,
    pub(crate) lengths: Vec<usize>,
    pub(crate) class_weights: Option<[f32; CLASSES]>,
    pub(crate) fault: Fault,
    /// The scores of the evaluations to come; none evaluates nothing.
    pub(crate) scores: Vec<f64>,
    /// What the parameters were at each evaluation.
    pub(crate) seen: Vec<Vec<f32>>,
    pub(crate) kept: Option<Parameters>,
    /// Scores are made of the weights instead, up and down.
    pub(crate) scores_of_weights: bool,
    /// The losses of the evaluations; what a score lacks to 1 where there are none.
    pub(crate) losses: Vec<f64>,
    /// What was saved after which step: JSON of the state, trained weights and moments, what was kept.
    pub(crate) saved: BTreeMap<u64, Saved>,
    /// The share of the learning rate that the bias gets.
    pub(crate) bias_rate: f64,
    /// Whether it wants to see all gradients after an update: they are then all there.
    pub(crate) reads_gradients: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Saved {
    pub(crate) state: String,
    pub(crate) tensors: Vec<Vec<f32>>,
    kept: Option<Vec<f32>>,
}

impl Linear {
    pub(crate) fn new(rows: usize) -> Self {
        let mut stream = Key::new(11).stream();
        let mut draw = || std::array::from_fn(|_| stream.normal());
        Linear {
            rows: (0..rows).map(|_| draw()).collect(),
            targets: (0..rows).map(|row| (row * row % 7 % CLASSES) as u32).collect(),
            lengths: (0..rows).map(|row| 1 + row * 5 % 11).collect(),
            class_weights: None,
            fault: Fault::None,
            scores: Vec::new(),
            seen: Vec::new(),
            kept: None,
            scores_of_weights: false,
            losses: Vec::new(),
            saved: BTreeMap::new(),
            bias_rate: 1.0,
            reads_gradients: false,
        }
    }

    /// Trained weight and bias, and a frozen bystander.
    pub(crate) fn parameters() -> Parameters {
        let mut parameters = Parameters::new();
        let mut stream = Key::new(12).stream();
        let shapes: [(&str, &[usize]); 3] =
            [("bystander.weight", &[4]), ("weight", &[CLASSES, FEATURES]), ("bias", &[CLASSES])];
        for (name, shape) in shapes {
            let values: Vec<f32> = (0..shape.iter().product()).map(|_| 0.5 * stream.normal()).collect();
            let id = parameters
                .add(format!("layer.{name}"), Tensor::from_slice(Device::Cpu, shape, &values).unwrap())
                .unwrap();
            parameters.get_mut(id).trainable = name != "bystander.weight";
        }
        parameters
    }

    fn weight_of(&self, row: usize) -> f32 {
        self.class_weights.map_or(1.0, |weights| weights[self.targets[row] as usize])
    }
}

/// All values, one after the other.
pub(crate) fn values(parameters: &Parameters) -> Vec<f32> {
    parameters.iter().flat_map(|(_, parameter)| parameter.value.f32().to_vec()).collect()
}

impl Workshop for Linear {
    fn denominator(&self, rows: &[usize]) -> f32 {
        rows.iter().map(|row| self.weight_of(*row)).sum()
    }

    fn tokens(&self, rows: &[usize]) -> usize {
        rows.iter().map(|row| self.lengths[*row]).sum()
    }

    fn loss(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        rows: &[usize],
        denominator: f32,
        dropout: Key,
    ) -> retune_tensor::Result<Var> {
        let mut x: Vec<f32> = rows.iter().flat_map(|row| self.rows[*row]).collect();
        if let Fault::Loss(bad) = self.fault
            && let Some(place) = rows.iter().position(|row| *row == bad)
        {
            x[place * FEATURES + 2] = f32::NAN;
        }
        if let Fault::Large(large, epoch) = self.fault
            && let Some(place) = rows.iter().position(|row| *row == large)
            && dropout == Key::new(settings().seed).with_name("dropout").with(epoch)
        {
            x[place * FEATURES..][..FEATURES].iter_mut().for_each(|x| *x *= 300.0);
        }
        let x = Var::constant(Tensor::from_slice(Device::Cpu, &[rows.len(), FEATURES], &x)?);
        let layout = Arc::new(Layout::new(&vec![1; rows.len()], &vec![0; rows.len()]));
        let [weight, bias] = ["layer.weight", "layer.bias"]
            .map(|name| tape.parameter(parameters, parameters.find(name).unwrap()));
        // Beside the tape it is a constant.
        let constant = Var::constant(bias.value().clone());
        let bias = if self.fault == Fault::DeadBias { &constant } else { &bias };
        let weight = match self.fault {
            Fault::Weight(bad) if rows.contains(&bad) => spoilt(tape, &weight),
            _ => weight,
        };
        let logits = ops::linear(tape, &x, &layout, ops::Linear::plain(&weight, Some(bias)))?;
        let targets: Vec<u32> = rows.iter().map(|row| self.targets[*row]).collect();
        let options = ops::CrossEntropyOptions {
            class_weights: self.class_weights.as_ref().map(<[f32; CLASSES]>::as_slice),
            label_smoothing: 0.0,
            denominator,
        };
        let loss = ops::cross_entropy(tape, &logits, &targets, options)?;
        match self.fault {
            Fault::Gradient(bad) if rows.contains(&bad) => Ok(spoilt(tape, &loss)),
            _ => Ok(loss),
        }
    }

    fn evaluate(&mut self, parameters: &Parameters) -> Result<Option<Evaluated>, AnyError> {
        if self.scores.is_empty() && !self.scores_of_weights {
            return Ok(None);
        }
        self.seen.push(values(parameters));
        let score = if self.scores_of_weights {
            values(parameters).into_iter().map(|value| 100.0 * f64::from(value)).sum::<f64>().sin()
        } else {
            self.scores.remove(0)
        };
        let loss = if self.losses.is_empty() { 1.0 - score } else { self.losses.remove(0) };
        Ok(Some(Evaluated { loss, score, metrics: [("accuracy".to_string(), score)].into() }))
    }

    fn keep(&mut self, parameters: &Parameters) -> Result<(), AnyError> {
        let mut copy = Parameters::new();
        for (_, parameter) in parameters.iter() {
            let value = &parameter.value;
            copy.add(&parameter.name, Tensor::from_slice(Device::Cpu, value.shape(), value.f32())?)?;
        }
        self.kept = Some(copy);
        Ok(())
    }

    fn restore(&mut self, parameters: &mut Parameters) -> Result<(), AnyError> {
        let kept = self.kept.as_ref().ok_or("nothing was kept")?;
        for (id, parameter) in kept.iter() {
            parameters.get_mut(id).value.f32_mut()?.copy_from_slice(parameter.value.f32());
        }
        Ok(())
    }

    fn rate(&self, name: &str) -> f64 {
        if name.ends_with(".bias") { self.bias_rate } else { 1.0 }
    }

    fn reads_gradients(&self) -> bool {
        self.reads_gradients
    }

    fn save(&mut self, checkpoint: &Checkpoint<'_>) -> Result<(), AnyError> {
        let trained = checkpoint.parameters.trainable().map(|(_, parameter)| &parameter.value);
        let moments = checkpoint.optimiser.moments().map(|(_, _, tensor)| tensor);
        let saved = Saved {
            state: serde_json::to_string(checkpoint.state)?,
            tensors: trained.chain(moments).map(|tensor| tensor.f32().to_vec()).collect(),
            kept: self.kept.as_ref().map(values),
        };
        self.saved.insert(checkpoint.state.step, saved);
        Ok(())
    }

    fn load(
        &mut self,
        step: Option<u64>,
        parameters: &mut Parameters,
        optimiser: &mut Optimiser,
    ) -> Result<Option<State>, AnyError> {
        let Some(step) = step.or(self.saved.keys().next_back().copied()) else { return Ok(None) };
        let Some(saved) = self.saved.get(&step).cloned() else { return Ok(None) };
        let state: State = serde_json::from_str(&saved.state)?;
        let mut tensors = saved.tensors.iter();
        let trained = parameters.iter_mut().filter(|(_, parameter)| parameter.trainable);
        let trained = trained.map(|(_, parameter)| &mut parameter.value);
        let moments = optimiser.resume_at(state.updates).map(|(_, _, tensor)| tensor);
        for tensor in trained.chain(moments) {
            tensor.f32_mut()?.copy_from_slice(tensors.next().ok_or("too few tensors")?);
        }
        if let Some(kept) = saved.kept {
            let mut copy = Linear::parameters();
            let places = copy.iter_mut().flat_map(|(_, parameter)| parameter.value.f32_mut().unwrap());
            places.zip(kept).for_each(|(place, value)| *place = value);
            self.kept = Some(copy);
        }
        Ok(Some(state))
    }
}

/// The same value, whose gradient is infinite.
fn spoilt(tape: &Tape, var: &Var) -> Var {
    tape.record(var.value().clone(), &[var], || {
        let node = var.node();
        move |gradient: Tensor, sink: &mut Sink<'_>| {
            let values = vec![f32::INFINITY; gradient.len()];
            let infinite = Tensor::from_slice(gradient.device(), gradient.shape(), &values)?;
            sink.add(node, infinite)
        }
    })
}

/// Settings in which every number is said.
pub(crate) fn settings() -> Settings {
    Settings {
        epochs: 3.0,
        learning_rate: 0.05,
        schedule: Shape::Linear,
        warmup: 0.0,
        adamw: AdamWSettings {
            betas: [0.8, 0.95],
            epsilon: 1e-6,
            weight_decay: 0.1,
            moments: MomentKind::Full,
        },
        max_grad_norm: None,
        seed: 5,
        eval_every: EvalEvery::Epoch,
        patience: None,
        keep_best: true,
        save_every: SaveEvery::Never,
        on_spike: OnSpike::Tell,
    }
}

/// What the same training gives in f64: all values, as [`values`] has them, and each step's loss and gradient's norm.
/// `learning_rates` has one a step.
pub(crate) fn reference(
    linear: &Linear,
    steps: &[Vec<usize>],
    settings: &Settings,
    learning_rates: &[f64],
) -> (Vec<f64>, Vec<[f64; 2]>) {
    let start: Vec<f64> = values(&Linear::parameters()).into_iter().map(f64::from).collect();
    let (bystander, mut p) = (start[..4].to_vec(), start[4..].to_vec());
    let (mut first, mut second) = (vec![0.0; p.len()], vec![0.0; p.len()]);
    let mut told = Vec::new();
    for (step, (rows, learning_rate)) in steps.iter().zip(learning_rates).enumerate() {
        let (mut gradient, mut loss) = (vec![0.0; p.len()], 0.0);
        let total: f64 = rows.iter().map(|row| f64::from(linear.weight_of(*row))).sum();
        for row in rows {
            let (x, target) = (linear.rows[*row].map(f64::from), linear.targets[*row] as usize);
            let share = f64::from(linear.weight_of(*row)) / total;
            let logits: [f64; CLASSES] = std::array::from_fn(|class| {
                let weights = &p[class * FEATURES..][..FEATURES];
                p[CLASSES * FEATURES + class] + weights.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()
            });
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            loss += share * (sum.ln() - logits[target]);
            for (class, logit) in logits.iter().enumerate() {
                let d = share * (logit.exp() / sum - f64::from(u8::from(class == target)));
                gradient[CLASSES * FEATURES + class] += d;
                gradient[class * FEATURES..][..FEATURES].iter_mut().zip(x).for_each(|(g, x)| *g += d * x);
            }
        }
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let clip = settings.max_grad_norm.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
        let [beta1, beta2] = settings.adamw.betas.map(f64::from);
        let t = step as i32 + 1;
        for (index, value) in p.iter_mut().enumerate() {
            let g = gradient[index] * clip;
            first[index] = beta1 * first[index] + (1.0 - beta1) * g;
            second[index] = beta2 * second[index] + (1.0 - beta2) * g * g;
            // The bias does not decay.
            let decay = if index < CLASSES * FEATURES { f64::from(settings.adamw.weight_decay) } else { 0.0 };
            let (m, v) = (first[index] / (1.0 - beta1.powi(t)), second[index] / (1.0 - beta2.powi(t)));
            *value -= learning_rate * decay * *value;
            *value -= learning_rate * m / (v.sqrt() + f64::from(settings.adamw.epsilon));
        }
        told.push([loss, norm]);
    }
    ([bystander, p].concat(), told)
}
