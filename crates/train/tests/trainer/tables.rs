//! Tables whose rows are updated when they are read: the training of all rows in every step, bit for bit.

use std::collections::BTreeMap;
use std::sync::Arc;

use retune_tensor::backend::Layout;
use retune_tensor::random::Key;
use retune_tensor::{DType, Device, Gradient, Gradients, Parameters, Result, Tape, Tensor, Var, ops};
use retune_train::{
    Batching, Checkpoint, EvalEvery, Evaluated, Event, Observer, OnSpike, Optimiser, Plan, SaveEvery,
    Settings, State, TrainError, Workshop, rehearse, train,
};

use crate::linear::{settings, values};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

const WORDS: usize = 60;
const WIDTH: usize = 9;
const CLASSES: usize = 3;
const ROWS: usize = 24;

/// Texts of a few words, most of them rare, and of two types.
struct Words {
    texts: Vec<Vec<u32>>,
    /// What the parameters were at each evaluation.
    seen: Vec<Vec<u32>>,
    /// State, weights and moments after each step that was saved.
    saved: BTreeMap<u64, (State, Vec<Vec<f32>>)>,
    reads_gradients: bool,
}

impl Words {
    fn new() -> Self {
        let stream = &mut Key::new(3).stream();
        let mut text = || (0..4).map(|_| stream.below(8) * stream.below(8)).collect();
        Words {
            texts: (0..ROWS).map(|_| text()).collect(),
            seen: Vec::new(),
            saved: BTreeMap::new(),
            reads_gradients: false,
        }
    }

    fn parameters() -> Parameters {
        let mut parameters = Parameters::new();
        let stream = &mut Key::new(4).stream();
        for (name, shape) in [("words", [WORDS, WIDTH]), ("types", [2, WIDTH]), ("head", [CLASSES, WIDTH])] {
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| stream.normal()).collect();
            let value = Tensor::from_slice(Device::Cpu, &shape, &values).unwrap();
            let id = parameters.add(format!("{name}.weight"), value).unwrap();
            parameters.get_mut(id).trainable = true;
        }
        parameters
    }
}

fn bits(parameters: &Parameters) -> Vec<u32> {
    values(parameters).into_iter().map(f32::to_bits).collect()
}

impl Workshop for Words {
    fn denominator(&self, rows: &[usize]) -> f32 {
        rows.len() as f32
    }

    fn tokens(&self, rows: &[usize]) -> usize {
        4 * rows.len()
    }

    fn loss(
        &self,
        tape: &Tape,
        parameters: &Parameters,
        rows: &[usize],
        denominator: f32,
        _: Key,
    ) -> Result<Var> {
        let [words, types, head] = ["words.weight", "types.weight", "head.weight"]
            .map(|name| tape.parameter(parameters, parameters.find(name).unwrap()));
        let ids: Vec<u32> = rows.iter().flat_map(|row| self.texts[*row].clone()).collect();
        let sides: Vec<u32> = rows.iter().flat_map(|row| [(row % 2) as u32; 4]).collect();
        let lookups = [
            ops::Lookup { table: &words, ids: ids.into(), padding_idx: Some(0) },
            ops::Lookup { table: &types, ids: sides.into(), padding_idx: None },
        ];
        let x = ops::embedding(tape, &lookups, DType::F32)?;
        let layout = Arc::new(Layout::new(&vec![4; rows.len()], &vec![0; rows.len()]));
        let x = ops::mean_rows(tape, &x, &layout)?;
        let layer = ops::Linear::plain(&head, None);
        let rows_of_one = Arc::new(Layout::new(&vec![1; rows.len()], &vec![0; rows.len()]));
        let logits = ops::linear(tape, &x, &rows_of_one, layer)?;
        let targets: Vec<u32> = rows.iter().map(|row| (row * row % 7 % CLASSES) as u32).collect();
        let options = ops::CrossEntropyOptions { class_weights: None, label_smoothing: 0.0, denominator };
        ops::cross_entropy(tape, &logits, &targets, options)
    }

    fn evaluate(&mut self, parameters: &Parameters) -> std::result::Result<Option<Evaluated>, AnyError> {
        self.seen.push(bits(parameters));
        Ok(Some(Evaluated { loss: 1.0, score: self.seen.len() as f64, metrics: BTreeMap::new() }))
    }

    fn keep(&mut self, _: &Parameters) -> std::result::Result<(), AnyError> {
        Ok(())
    }

    fn restore(&mut self, _: &mut Parameters) -> std::result::Result<(), AnyError> {
        Ok(())
    }

    fn reads_gradients(&self) -> bool {
        self.reads_gradients
    }

    fn save(&mut self, checkpoint: &Checkpoint<'_>) -> std::result::Result<(), AnyError> {
        let weights = checkpoint.parameters.iter().map(|(_, parameter)| &parameter.value);
        let moments = checkpoint.optimiser.moments().map(|(_, _, tensor)| tensor);
        let tensors = weights.chain(moments).map(|tensor| tensor.f32().to_vec()).collect();
        self.saved.insert(checkpoint.state.step, (checkpoint.state.clone(), tensors));
        Ok(())
    }

    fn load(
        &mut self,
        step: Option<u64>,
        parameters: &mut Parameters,
        optimiser: &mut Optimiser,
    ) -> std::result::Result<Option<State>, AnyError> {
        let Some(step) = step.or(self.saved.keys().next_back().copied()) else { return Ok(None) };
        let (state, tensors) = self.saved[&step].clone();
        let weights = parameters.iter_mut().map(|(_, parameter)| &mut parameter.value);
        let moments = optimiser.resume_at(state.updates).map(|(_, _, tensor)| tensor);
        for (tensor, values) in weights.chain(moments).zip(tensors) {
            tensor.f32_mut()?.copy_from_slice(&values);
        }
        Ok(Some(state))
    }
}

/// Stops after a step.
struct Until(Option<u64>);

impl Observer for Until {
    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        if let (Event::Step { step, .. }, Some(last)) = (event, &mut self.0) {
            *last = if step >= last { 0 } else { *last };
        }
        Ok(())
    }

    fn interrupted(&self) -> bool {
        self.0 == Some(0)
    }
}

fn plan(accumulation: usize) -> Plan {
    Plan::new(vec![4; ROWS], Batching::Rows(2), accumulation, Some(Key::new(9))).unwrap()
}

fn usual() -> Settings {
    Settings { epochs: 2.0, eval_every: EvalEvery::Steps(5), save_every: SaveEvery::Steps(7), ..settings() }
}

/// The same training, every row of every table in every step: the bits after each.
fn every_row(plan: &Plan, settings: &Settings) -> Vec<Vec<u32>> {
    let shop = Words::new();
    let mut parameters = Words::parameters();
    let mut optimiser = Optimiser::new(&parameters, settings.adamw).unwrap();
    let mut after = vec![bits(&parameters)];
    let steps = plan.total_steps(settings.epochs);
    for (step, batches) in plan.steps().take(steps as usize).enumerate() {
        let mut gradients = Gradients::new();
        for batch in &batches {
            let tape = Tape::recording();
            let denominator = shop.denominator(&batches.concat());
            let loss = shop.loss(&tape, &parameters, batch, denominator, Key::new(0)).unwrap();
            tape.backward(&loss, &mut gradients).unwrap();
        }
        let scale = settings.max_grad_norm.map_or(1.0, |most| (most / (gradients.norm() + 1e-6)).min(1.0));
        let rate = settings.learning_rate * (steps - step as u64) as f64 / steps as f64;
        let mut update = optimiser.begin(rate, scale as f32);
        for (id, gradient) in gradients.iter() {
            let dense = Gradient::Dense(gradient.to_dense().unwrap());
            update.apply(&mut parameters, id, &dense).unwrap();
        }
        after.push(bits(&parameters));
    }
    after
}

#[test]
fn rows_that_wait_are_those_that_do_not() {
    for (max_grad_norm, accumulation, reads_gradients) in
        [(None, 1, false), (None, 1, true), (Some(0.3), 1, true), (Some(0.3), 3, false), (None, 2, false)]
    {
        let (plan, settings) = (plan(accumulation), Settings { max_grad_norm, ..usual() });
        let expected = every_row(&plan, &settings);
        let mut shop = Words { reads_gradients, ..Words::new() };
        let mut parameters = Words::parameters();
        let outcome = train(&mut parameters, &plan, &mut shop, &settings, &mut Until(None)).unwrap();
        assert_eq!(outcome.steps as usize + 1, expected.len());
        assert_eq!(bits(&parameters), expected[expected.len() - 1]);
        assert_ne!(expected[0][..WIDTH], expected[1][..WIDTH], "the decay moves what nobody looks up");
        // Whoever evaluates or saves sees all rows as they are.
        for (seen, step) in shop.seen.iter().zip((5..).step_by(5)) {
            assert_eq!(seen, &expected[step.min(expected.len() - 1)], "evaluated after step {step}");
        }
        for (step, (_, tensors)) in &shop.saved {
            let weights: Vec<u32> = tensors[..3].iter().flatten().map(|x| x.to_bits()).collect();
            assert_eq!(weights, expected[*step as usize], "saved after step {step}");
        }
    }
}

#[test]
fn an_interruption_leaves_no_row_behind() {
    let settings = usual();
    let expected = every_row(&plan(1), &settings);
    for after in [1, 6, 13, 23] {
        let mut shop = Words::new();
        let mut parameters = Words::parameters();
        let stopped = train(&mut parameters, &plan(1), &mut shop, &settings, &mut Until(Some(after)));
        assert!(matches!(stopped, Err(TrainError::Interrupted { step }) if step == after));
        assert_eq!(bits(&parameters), expected[after as usize]);
        let mut parameters = Words::parameters();
        train(&mut parameters, &plan(1), &mut shop, &settings, &mut Until(None)).unwrap();
        assert_eq!(bits(&parameters), expected[expected.len() - 1]);
    }
}

#[test]
fn a_library_user_who_asks_for_nothing_has_all_rows_after_each_step() {
    let (plan, settings) = (plan(1), usual());
    let expected = every_row(&plan, &settings);
    let (shop, mut parameters) = (Words::new(), Words::parameters());
    let mut optimiser = Optimiser::new(&parameters, settings.adamw).unwrap();
    for (step, batches) in plan.steps().take(24).enumerate() {
        let (tape, mut gradients) = (Tape::recording(), Gradients::new());
        let loss = shop.loss(&tape, &parameters, &batches[0], 2.0, Key::new(0)).unwrap();
        tape.backward(&loss, &mut gradients).unwrap();
        let rate = settings.learning_rate * (24 - step) as f64 / 24.0;
        optimiser.step(&mut parameters, &gradients, rate, 1.0).unwrap();
        assert_eq!(bits(&parameters), expected[step + 1]);
    }
}

#[test]
fn reading_a_row_that_is_behind_is_an_error() {
    let (shop, mut parameters) = (Words::new(), Words::parameters());
    let mut optimiser = Optimiser::new(&parameters, settings().adamw).unwrap().lazy();
    let mut step = |row: usize, refreshes: bool| {
        let pass =
            |tape: &Tape, parameters: &Parameters| shop.loss(tape, parameters, &[row], 1.0, Key::new(0));
        if refreshes {
            optimiser.refresh(&mut parameters, pass).unwrap();
        }
        let (tape, mut gradients) = (Tape::recording(), Gradients::new());
        let loss = pass(&tape, &parameters).unwrap();
        tape.backward(&loss, &mut gradients).unwrap();
        optimiser.step(&mut parameters, &gradients, 0.1, 1.0)
    };
    step(0, true).unwrap();
    step(0, false).unwrap();
    let error = step(2, false).unwrap_err().to_string();
    assert!(error.contains("`words.weight` was read while some of its rows were behind"), "{error}");
    step(2, true).unwrap();
}

#[test]
fn a_rehearsal_changes_nothing() {
    let mut parameters = Words::parameters();
    let before = bits(&parameters);
    let steps = plan(1).steps().take(20).collect::<Vec<_>>();
    let settings = Settings { on_spike: OnSpike::Tell, ..usual() };
    rehearse(&mut parameters, steps, &Words::new(), &settings, &mut |_| {}).unwrap();
    assert_eq!(bits(&parameters), before);
}
