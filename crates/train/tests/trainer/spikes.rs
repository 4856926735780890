//! Losses far above the others, numbers that are none, parameters without a gradient: told, and acted on as asked.

use retune_train::{Batching, Event, OnSpike, Plan, SaveEvery, Settings, Shape, TrainError};

use crate::linear::{Fault, Linear, settings, values};
use crate::run::Run;

const ROWS: usize = 13;
/// In the order of the file row 7 is the eighth of each epoch, and only that of the third is far off.
const SPIKE: u64 = 2 * 13 + 8;

fn plan() -> Plan {
    Plan::new(Linear::new(ROWS).lengths, Batching::Rows(1), 1, None).unwrap()
}

fn run(on_spike: OnSpike) -> (Run, Linear) {
    let mut shop = Linear { fault: Fault::Large(7, 2), ..Linear::new(ROWS) };
    let settings = Settings { on_spike, save_every: SaveEvery::Steps(5), ..flat() };
    let run = Run::of(&mut shop, &plan(), &settings);
    (run, shop)
}

fn flat() -> Settings {
    Settings { schedule: Shape::Constant, ..settings() }
}

fn spikes(run: &Run) -> Vec<(u64, OnSpike, Option<u64>, Vec<usize>)> {
    let told = |event: &Event| match event {
        Event::Spike { step, action, rewound_to, rows, .. } => {
            Some((*step, *action, *rewound_to, rows.clone()))
        }
        _ => None,
    };
    run.events.iter().filter_map(told).collect()
}

#[test]
fn a_spike_is_told() {
    let (run, _) = run(OnSpike::Tell);
    assert_eq!(spikes(&run)[0], (SPIKE, OnSpike::Tell, None, vec![7]));
    assert_eq!(run.steps().len(), 39);
    // Without one nothing is told.
    let calm = Run::of(&mut Linear::new(ROWS), &plan(), &flat());
    assert!(spikes(&calm).is_empty());
    assert!(run.values() != calm.values());
}

#[test]
fn a_skipped_step_leaves_weights_and_moments() {
    let (run, shop) = run(OnSpike::Skip);
    assert_eq!(spikes(&run), [(SPIKE, OnSpike::Skip, None, vec![7])]);
    // The same without this row in the third epoch: another order of the same steps.
    assert_eq!(run.outcome().steps, 39);
    assert_eq!(run.steps().len(), 39);
    let state: retune_train::State = serde_json::from_str(&shop.saved[&35].state).unwrap();
    assert_eq!((state.step, state.updates), (35, 34));
    // Step 34 changed nothing: the weights after it are those before.
    let until = |after| {
        let mut shop = Linear { fault: Fault::Large(7, 2), ..Linear::new(ROWS) };
        let settings = Settings { on_spike: OnSpike::Skip, ..flat() };
        Run::until(Some(after), &mut shop, &plan(), &settings).outcome.unwrap_err();
        shop.saved[&after].tensors.clone()
    };
    assert_eq!(until(SPIKE - 1), until(SPIKE));
    assert_ne!(until(SPIKE), until(SPIKE + 1));
}

#[test]
fn a_rewind_goes_back_to_the_last_checkpoint_and_on_in_the_data() {
    let (run, shop) = run(OnSpike::Rewind);
    assert_eq!(spikes(&run), [(SPIKE, OnSpike::Rewind, Some(30), vec![7])]);
    assert_eq!(run.outcome().steps, 39);
    let mut then = Linear { saved: shop.saved, fault: Fault::Large(7, 2), ..Linear::new(ROWS) };
    then.saved.retain(|step, _| *step <= 30);
    let settings = Settings { on_spike: OnSpike::Rewind, save_every: SaveEvery::Steps(5), ..flat() };
    Run::until(Some(SPIKE), &mut then, &plan(), &settings).outcome.unwrap_err();
    assert_eq!(then.saved[&SPIKE].tensors, then.saved[&30].tensors);
    let state: retune_train::State = serde_json::from_str(&then.saved[&SPIKE].state).unwrap();
    assert_eq!((state.step, state.index, state.updates, state.rewind_to), (SPIKE, 8, 30, Some(30)));
}

#[test]
fn a_rewind_before_the_first_checkpoint_goes_to_the_start() {
    let mut shop = Linear { fault: Fault::Large(7, 2), ..Linear::new(ROWS) };
    let settings = Settings { on_spike: OnSpike::Rewind, save_every: SaveEvery::Steps(500), ..flat() };
    let run = Run::of(&mut shop, &plan(), &settings);
    assert_eq!(spikes(&run), [(SPIKE, OnSpike::Rewind, Some(0), vec![7])]);
    let mut again = Linear { fault: Fault::Large(7, 2), ..Linear::new(ROWS) };
    let run = Run::until(Some(SPIKE), &mut again, &plan(), &settings);
    assert_eq!(run.values(), values(&Linear::parameters()));
}

#[test]
fn a_rewind_needs_checkpoints_that_are_the_same_in_every_run() {
    for save_every in [SaveEvery::Never, SaveEvery::Time(std::time::Duration::ZERO)] {
        let settings = Settings { on_spike: OnSpike::Rewind, save_every, ..flat() };
        let run = Run::of(&mut Linear::new(ROWS), &plan(), &settings);
        let error = run.outcome.unwrap_err().to_string();
        assert!(error.contains("give --save-every 100"), "{error}");
    }
}

#[test]
fn a_stop_keeps_a_checkpoint_from_which_it_can_go_on_otherwise() {
    let (stopped, mut shop) = run(OnSpike::Stop);
    let Err(TrainError::Spike { step: SPIKE, loss, usual, rows }) = &stopped.outcome else {
        panic!("{:?}", stopped.outcome)
    };
    assert!(loss > &(10.0 * usual) && rows == &[7]);
    assert_eq!(stopped.steps().len() as u64, SPIKE - 1);
    assert_eq!(shop.saved.keys().next_back(), Some(&(SPIKE - 1)));
    assert_eq!(spikes(&stopped), [(SPIKE, OnSpike::Stop, None, vec![7])]);
    // It stops there again; told to skip, it is the training that skipped from the start.
    let settings = |on_spike| Settings { on_spike, save_every: SaveEvery::Steps(5), ..flat() };
    let again = Run::of(&mut shop, &plan(), &settings(OnSpike::Stop));
    assert!(matches!(again.outcome, Err(TrainError::Spike { step: SPIKE, .. })));
    let skipped = Run::of(&mut shop, &plan(), &settings(OnSpike::Skip));
    assert_eq!(skipped.values(), run(OnSpike::Skip).0.values());
}

#[test]
fn a_number_that_is_none_is_told_before_it_stops() {
    for (fault, what) in [(Fault::Loss(7), "loss"), (Fault::Gradient(7), "norm of the gradient")] {
        let run = Run::of(&mut Linear { fault, ..Linear::new(ROWS) }, &plan(), &flat());
        let Some(Event::Overflow { step: 8, what: told, rows, .. }) = run.events.last() else {
            panic!("{:?}", run.events.last())
        };
        assert_eq!((*told, rows.as_slice()), (what, &[7][..]));
    }
}

#[test]
fn what_has_no_gradient_is_told() {
    let dead = |run: &Run| {
        let told = |event: &Event| match event {
            Event::DeadGradients { step, names } => Some((*step, names.clone())),
            _ => None,
        };
        run.events.iter().filter_map(told).collect::<Vec<_>>()
    };
    // A bias alone is a part of a layer that learns: told after the epoch.
    let run = Run::of(&mut Linear { fault: Fault::DeadBias, ..Linear::new(ROWS) }, &plan(), &flat());
    let name = vec!["layer.bias".to_string()];
    assert_eq!(dead(&run), [(13, name.clone()), (26, name.clone()), (39, name)]);
    assert!(dead(&Run::of(&mut Linear::new(ROWS), &plan(), &flat())).is_empty());
    // Where nothing of a layer learns, the first step tells.
    let mut shop = Linear::new(ROWS);
    shop.rows.iter_mut().for_each(|row| *row = [0.0; 5]);
    shop.fault = Fault::DeadBias;
    let run = Run::of(&mut shop, &plan(), &flat());
    assert_eq!(dead(&run)[0], (1, vec!["layer".to_string()]));
}

#[test]
fn a_parameter_has_its_own_share_of_the_rate() {
    let bias_moves = |bias_rate| {
        let run = Run::of(
            &mut Linear { bias_rate, ..Linear::new(ROWS) },
            &plan(),
            &Settings { epochs: 1.0 / 13.0, ..flat() },
        );
        let (before, after) = (values(&Linear::parameters()), run.values());
        let moved = |range: std::ops::Range<usize>| {
            range.map(|at| f64::from((after[at] - before[at]).abs())).sum::<f64>()
        };
        (moved(4..19), moved(19..22))
    };
    let (weight, bias) = bias_moves(1.0);
    let (same, less) = bias_moves(0.25);
    assert_eq!(weight.to_bits(), same.to_bits());
    assert!((less / bias - 0.25).abs() < 1e-3 && bias > 0.0, "{less} {bias}");
    assert_eq!(bias_moves(0.0).1.to_bits(), 0.0f64.to_bits());
}
