//! However often a training is interrupted, it is the training that was not.

use retune_tensor::random::Key;
use retune_train::{
    Batching, EvalEvery, Event, OnSpike, Outcome, Plan, SaveEvery, Settings, Shape, TrainError,
};

use crate::linear::{Fault, Linear, settings};
use crate::run::Run;

const ROWS: usize = 13;

fn plan() -> Plan {
    Plan::new(Linear::new(ROWS).lengths, Batching::Rows(5), 1, Some(Key::new(9))).unwrap()
}

fn workshop() -> Linear {
    Linear { scores_of_weights: true, ..Linear::new(ROWS) }
}

/// Nine steps, evaluated after every second, saved after every third.
fn usual() -> Settings {
    Settings {
        eval_every: EvalEvery::Steps(2),
        save_every: SaveEvery::Steps(3),
        max_grad_norm: Some(1.2),
        warmup: 2.0,
        ..settings()
    }
}

fn without_time(outcome: &Outcome) -> Outcome {
    Outcome { seconds: 0.0, ..outcome.clone() }
}

fn same_bits(run: &Run, whole: &Run) {
    let bits = |run: &Run| run.values().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(run), bits(whole));
    assert_eq!(without_time(run.outcome()), without_time(whole.outcome()));
}

#[test]
fn an_interruption_after_any_step_changes_no_bit() {
    for (keep_best, save_every) in
        [(true, SaveEvery::Steps(3)), (false, SaveEvery::Steps(1)), (true, SaveEvery::Never)]
    {
        let settings = Settings { keep_best, save_every, ..usual() };
        let whole = Run::of(&mut workshop(), &plan(), &settings);
        assert_eq!(whole.outcome().steps, 9);
        for after in 0..=8 {
            let mut shop = workshop();
            let first = Run::until(Some(after), &mut shop, &plan(), &settings);
            let Err(TrainError::Interrupted { step }) = first.outcome else { panic!("not interrupted") };
            assert_eq!((step, shop.saved.keys().next_back()), (after, Some(&after)));
            let second = Run::of(&mut shop, &plan(), &settings);
            assert!(matches!(second.events[0], Event::Resume { step, total_steps: 9, .. } if step == after));
            same_bits(&second, &whole);
            let both = [first.told(), second.told()].concat();
            assert_eq!(both, whole.told(), "after {after}");
        }
    }
}

#[test]
fn an_interruption_after_every_step_changes_no_bit() {
    let mut straight = workshop();
    let settings = Settings { save_every: SaveEvery::Steps(1), ..usual() };
    let whole = Run::of(&mut straight, &plan(), &settings);
    let mut shop = workshop();
    let mut events = Vec::new();
    for after in 1..=9 {
        let run = Run::until(Some(after), &mut shop, &plan(), &settings);
        assert!(matches!(run.outcome, Err(TrainError::Interrupted { step }) if step == after));
        events.extend(run.told());
    }
    let last = Run::of(&mut shop, &plan(), &settings);
    events.extend(last.told());
    same_bits(&last, &whole);
    assert_eq!(events, whole.told());
    // Moments and weights of each checkpoint are those of the run that went straight on.
    for (step, saved) in &straight.saved {
        assert_eq!(saved.tensors, shop.saved[step].tensors, "step {step}");
    }
}

#[test]
fn a_process_that_is_gone_without_a_word_is_repeated_from_its_checkpoint() {
    let whole = Run::of(&mut workshop(), &plan(), &usual());
    let mut shop = workshop();
    Run::until(Some(8), &mut shop, &plan(), &usual());
    // As if it had been killed in step 8, then in step 5, then before any checkpoint.
    for (last, next) in [(6, Some(6)), (3, Some(3)), (0, None)] {
        let mut left = Linear { saved: shop.saved.clone(), ..workshop() };
        left.saved.retain(|step, _| *step <= last);
        let run = Run::of(&mut left, &plan(), &usual());
        same_bits(&run, &whole);
        match (&run.events[0], next) {
            (Event::Resume { step, .. }, Some(next)) => assert_eq!(*step, next),
            (Event::Start { .. }, None) => {}
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_checkpoint_that_does_not_fit_is_refused() {
    let mut shop = workshop();
    Run::until(Some(8), &mut shop, &plan(), &usual()).outcome.unwrap_err();
    let shorter = Settings { epochs: 2.0, ..usual() };
    let error = Run::of(&mut shop, &plan(), &shorter).outcome.unwrap_err().to_string();
    assert!(error.contains("the checkpoint is of step 8") && error.contains("there are 6"), "{error}");
    let few = Plan::new(Linear::new(4).lengths, Batching::Rows(4), 1, None).unwrap();
    let long = Settings { epochs: 20.0, ..usual() };
    let error = Run::of(&mut shop, &few, &long).outcome.unwrap_err().to_string();
    assert!(error.contains("step 2 of its epoch, and there are 20 and 1"), "{error}");
}

#[test]
fn patience_is_part_of_it() {
    let scores = vec![0.1, 0.6, 0.5, 0.55, 0.9, 0.9];
    let settings = Settings { patience: Some(2), ..usual() };
    let whole = Run::of(&mut Linear { scores: scores.clone(), ..Linear::new(ROWS) }, &plan(), &settings);
    assert!(whole.outcome().stopped_early);
    for after in [4, 6, 7] {
        let mut shop = Linear { scores: scores.clone(), ..Linear::new(ROWS) };
        Run::until(Some(after), &mut shop, &plan(), &settings).outcome.unwrap_err();
        let second = Run::of(&mut shop, &plan(), &settings);
        same_bits(&second, &whole);
    }
}

#[test]
fn evaluations_that_are_no_numbers_survive() {
    let scores = vec![f64::NAN, 0.3, f64::NAN, f64::NAN, 0.2];
    let settings = Settings { keep_best: false, ..usual() };
    let mut shop = Linear { scores, ..Linear::new(ROWS) };
    Run::until(Some(7), &mut shop, &plan(), &settings).outcome.unwrap_err();
    let state: retune_train::State = serde_json::from_str(&shop.saved[&7].state).unwrap();
    let kept = state.kept.unwrap();
    assert_eq!((kept.step, kept.evaluated.score.is_nan()), (6, true));
    assert!(kept.evaluated.metrics["accuracy"].is_nan());
    assert_eq!(state.best, Some(0.3));
    assert_eq!(Run::of(&mut shop, &plan(), &settings).outcome().kept_step, 9);
}

#[test]
fn checkpoints_come_when_they_are_due() {
    let saved = |save_every| {
        let mut shop = workshop();
        let run = Run::of(&mut shop, &plan(), &Settings { save_every, ..usual() });
        let told: Vec<u64> = run
            .events
            .iter()
            .filter_map(|event| if let Event::Checkpoint { step } = event { Some(*step) } else { None })
            .collect();
        assert_eq!(told, shop.saved.keys().copied().collect::<Vec<_>>());
        told
    };
    // After the last step the result itself is written.
    assert_eq!(saved(SaveEvery::Steps(3)), [3, 6]);
    assert_eq!(saved(SaveEvery::Steps(100)), [0; 0]);
    assert_eq!(saved(SaveEvery::Never), [0; 0]);
    assert_eq!(saved(SaveEvery::Time(std::time::Duration::ZERO)), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(saved(SaveEvery::Time(std::time::Duration::from_secs(600))), [0; 0]);
}

#[test]
fn spikes_and_their_consequences_are_part_of_it() {
    // 39 steps of one row; the spike comes in the third epoch.
    let plan = Plan::new(Linear::new(ROWS).lengths, Batching::Rows(1), 1, None).unwrap();
    for on_spike in [OnSpike::Tell, OnSpike::Skip, OnSpike::Rewind] {
        let settings = Settings { on_spike, save_every: SaveEvery::Steps(4), ..usual() };
        let settings = Settings { schedule: Shape::Constant, warmup: 0.0, max_grad_norm: None, ..settings };
        let shop = || Linear { fault: Fault::Large(7, 2), ..workshop() };
        let whole = Run::of(&mut shop(), &plan, &settings);
        let spike = whole.events.iter().find_map(|event| match event {
            Event::Spike { step, .. } => Some(*step),
            _ => None,
        });
        let spike = spike.unwrap();
        for after in [1, 21, spike - 2, spike - 1, spike, spike + 1, 38] {
            let mut shop = shop();
            let first = Run::until(Some(after), &mut shop, &plan, &settings);
            let second = Run::of(&mut shop, &plan, &settings);
            same_bits(&second, &whole);
            assert_eq!([first.told(), second.told()].concat(), whole.told());
        }
    }
}
