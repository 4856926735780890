//! Steps against the same in f64, accumulation, what is kept, when it stops.

use retune_tensor::random::Key;
use retune_train::{
    Batching, EvalEvery, Event, OnSpike, Plan, SaveEvery, Settings, Shape, TrainError, Workshop, train,
};

use crate::linear::{Fault, Linear, reference, settings, values};
use crate::run::Run;

/// 13 rows: no batch size divides them.
const ROWS: usize = 13;

fn plan(batching: Batching, accumulation: usize) -> Plan {
    Plan::new(Linear::new(ROWS).lengths, batching, accumulation, Some(Key::new(9))).unwrap()
}

fn close(got: &[f32], expected: &[f64], within: f64) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let difference = (f64::from(*got) - expected).abs();
        assert!(difference < within, "value {index}: {got} and {expected}");
    }
}

/// Trains as `settings` say, in batches of 5, and compares each step with the same in f64.
fn check(linear: &mut Linear, settings: &Settings, learning_rates: &[f64]) -> Run {
    let plan = plan(Batching::Rows(5), 1);
    let run = Run::of(linear, &plan, settings);
    let steps: Vec<Vec<usize>> =
        (0..).flat_map(|epoch| plan.epoch(epoch)).map(|s| s.concat()).take(9).collect();
    let (expected, told) = reference(linear, &steps, settings, learning_rates);
    close(&run.values(), &expected, 2e-5);
    assert_eq!(run.steps().len(), told.len());
    for (got, (expected, rate)) in run.steps().iter().zip(told.iter().zip(learning_rates)) {
        let [loss, learning_rate, norm] = got;
        assert!(
            (loss - expected[0]).abs() < 1e-5 && (norm - expected[1]).abs() < 1e-5,
            "{got:?} {expected:?}"
        );
        assert!((learning_rate - rate).abs() < 1e-12, "{learning_rate} {rate}");
    }
    assert!((run.outcome().last_loss - told[8][0]).abs() < 1e-5);
    run
}

/// 0.05 down to 0 over nine steps.
fn straight_down() -> Vec<f64> {
    (0..9).map(|step| 0.05 * f64::from(9 - step) / 9.0).collect()
}

#[test]
fn steps_are_those_of_adamw() {
    let run = check(&mut Linear::new(ROWS), &settings(), &straight_down());
    let frozen = &values(&Linear::parameters())[..4];
    assert_eq!(&run.values()[..4], frozen, "what is frozen does not move, nor decay");
    let Event::Start { total_steps, rows, trainable_parameters, total_parameters } = run.events[0] else {
        panic!("no start")
    };
    assert_eq!((total_steps, rows, trainable_parameters, total_parameters), (9, ROWS, 18, 22));
    let lengths: usize = Linear::new(ROWS).lengths.iter().sum();
    assert_eq!((run.outcome().steps, run.outcome().tokens), (9, 3 * lengths as u64));
}

#[test]
fn warm_up_and_schedule_are_wired_in() {
    // Three of nine steps, said as a share and as a number.
    let linear = [0.0, 1.0, 2.0, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5].map(|part| 0.05 * part / 3.0);
    for warmup in [0.3, 3.0] {
        check(&mut Linear::new(ROWS), &Settings { warmup, ..settings() }, &linear);
    }
    let constant = [0.0, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0].map(|part| 0.05 * part / 3.0);
    let wanted = Settings { warmup: 3.0, schedule: Shape::Constant, ..settings() };
    check(&mut Linear::new(ROWS), &wanted, &constant);
    let cosine: Vec<f64> =
        (0..9).map(|step| 0.025 * (1.0 + (std::f64::consts::PI * f64::from(step) / 9.0).cos())).collect();
    check(&mut Linear::new(ROWS), &Settings { schedule: Shape::Cosine, ..settings() }, &cosine);
}

#[test]
fn long_gradients_are_cut() {
    let cut =
        check(&mut Linear::new(ROWS), &Settings { max_grad_norm: Some(1.2), ..settings() }, &straight_down());
    let norms: Vec<_> = cut.steps().iter().map(|[_, _, norm]| *norm).collect();
    assert!(norms.iter().any(|norm| *norm > 1.2) && norms.iter().any(|norm| *norm < 1.2), "{norms:?}");
    let whole = check(&mut Linear::new(ROWS), &settings(), &straight_down());
    assert_ne!(cut.values(), whole.values());
    // A limit that no gradient reaches changes no bit.
    let wide = Settings { max_grad_norm: Some(1e3), ..settings() };
    assert_eq!(check(&mut Linear::new(ROWS), &wide, &straight_down()).values(), whole.values());
}

#[test]
fn class_weights_weigh_in_the_denominator_too() {
    let weights = Some([0.2, 3.0, 1.5]);
    let mut weighted = Linear { class_weights: weights, ..Linear::new(ROWS) };
    check(&mut weighted, &settings(), &straight_down());
    // A factor in all of them is none.
    let mut tenfold = Linear { class_weights: weights.map(|w| w.map(|w| 10.0 * w)), ..Linear::new(ROWS) };
    check(&mut tenfold, &settings(), &straight_down());
}

#[test]
fn a_step_in_parts_is_the_step_in_one() {
    for class_weights in [None, Some([0.2, 3.0, 1.5])] {
        let run = |batching, accumulation| {
            let mut linear = Linear { class_weights, ..Linear::new(ROWS) };
            let settings = Settings { max_grad_norm: Some(1.2), ..settings() };
            Run::of(&mut linear, &plan(batching, accumulation), &settings)
        };
        let whole = run(Batching::Rows(6), 1);
        for (size, parts) in [(1, 6), (2, 3), (3, 2)] {
            let parted = run(Batching::Rows(size), parts);
            let expected: Vec<f64> = whole.values().into_iter().map(f64::from).collect();
            close(&parted.values(), &expected, 1e-6);
            for ([a, _, b], [c, _, d]) in parted.steps().iter().zip(whole.steps()) {
                assert!((a - c).abs() < 1e-6 && (b - d).abs() < 1e-6, "{parts} parts: {a} {c}, {b} {d}");
            }
            assert_eq!(parted.outcome().steps, whole.outcome().steps);
        }
    }
}

#[test]
fn parts_of_uneven_size_share_one_denominator() {
    // By tokens: the parts of a step have different numbers of rows, and the mean of their means would be wrong.
    let plan = plan(Batching::Tokens(14), 3);
    let first = &plan.epoch(0)[0];
    assert!(first.iter().any(|part| part.len() != first[0].len()), "{first:?}");
    let steps: Vec<Vec<usize>> = (0..2).flat_map(|epoch| plan.epoch(epoch)).map(|s| s.concat()).collect();
    let settings = Settings { epochs: 2.0, schedule: Shape::Constant, ..settings() };
    let mut linear = Linear { class_weights: Some([0.2, 3.0, 1.5]), ..Linear::new(ROWS) };
    let run = Run::of(&mut linear, &plan, &settings);
    let (expected, _) = reference(&linear, &steps, &settings, &vec![0.05; steps.len()]);
    close(&run.values(), &expected, 2e-5);
    assert_eq!(run.outcome().steps, steps.len() as u64);
}

#[test]
fn the_best_weights_are_the_result() {
    let mut linear = Linear { scores: vec![0.2, 0.9, 0.5], ..Linear::new(ROWS) };
    let run = Run::of(&mut linear, &plan(Batching::Rows(5), 1), &settings());
    assert_eq!(run.evaluations(), [(3, true), (6, true), (9, false)]);
    let outcome = run.outcome();
    assert_eq!((outcome.steps, outcome.kept_step, outcome.stopped_early), (9, 6, false));
    assert!((outcome.evaluated.as_ref().unwrap().score - 0.9).abs() < 1e-12);
    assert_eq!(run.values(), linear.seen[1], "the weights of step 6");
    assert_ne!(run.values(), linear.seen[2]);
    assert!(matches!(run.events.last(), Some(Event::End { steps: 9, kept_step: 6, .. })));
}

#[test]
fn of_equal_evaluations_the_first_is_the_best() {
    let mut linear = Linear { scores: vec![0.5, 0.9, 0.9], ..Linear::new(ROWS) };
    let run = Run::of(&mut linear, &plan(Batching::Rows(5), 1), &settings());
    assert_eq!((run.outcome().kept_step, run.evaluations()[2].1), (6, false));
}

#[test]
fn of_equal_scores_the_one_with_less_loss_is_the_best_and_nothing_got_better() {
    let scores = vec![0.0, 0.0, 0.0, 0.0, 0.0];
    let mut linear = Linear { scores, losses: vec![3.0, 2.0, 2.5, 1.0, 1.0], ..Linear::new(ROWS) };
    let settings = Settings { eval_every: EvalEvery::Steps(2), patience: Some(3), ..settings() };
    let run = Run::of(&mut linear, &plan(Batching::Rows(5), 1), &settings);
    assert_eq!(run.evaluations(), [(2, true), (4, true), (6, false), (8, true)]);
    assert_eq!((run.outcome().kept_step, run.outcome().stopped_early), (8, true));
}

#[test]
fn the_last_weights_are_the_result_where_that_is_wanted() {
    let mut linear = Linear { scores: vec![0.9, 0.2, 0.5], ..Linear::new(ROWS) };
    let run = Run::of(&mut linear, &plan(Batching::Rows(5), 1), &Settings { keep_best: false, ..settings() });
    assert_eq!(run.outcome().kept_step, 9);
    assert!((run.outcome().evaluated.as_ref().unwrap().score - 0.5).abs() < 1e-12);
    assert_eq!(run.values(), linear.seen[2]);
    // Better than the one before is not the best.
    assert_eq!(run.evaluations(), [(3, true), (6, false), (9, false)]);
}

#[test]
fn it_stops_early_when_nothing_gets_better() {
    for (keep_best, kept_step) in [(true, 4), (false, 8)] {
        let scores = vec![0.1, 0.6, 0.5, 0.55, 0.9, 0.9, 0.9];
        let mut linear = Linear { scores, ..Linear::new(ROWS) };
        let settings =
            Settings { eval_every: EvalEvery::Steps(2), patience: Some(2), keep_best, ..settings() };
        let run = Run::of(&mut linear, &plan(Batching::Rows(5), 1), &settings);
        let outcome = run.outcome();
        assert_eq!((outcome.steps, outcome.kept_step, outcome.stopped_early), (8, kept_step, true));
        assert_eq!(
            run.evaluations(),
            [(2, true), (4, true), (6, false), (8, false)],
            "keep best: {keep_best}"
        );
        assert!(run.events.contains(&Event::EarlyStop { step: 8, evaluations: 2 }));
        assert_eq!(run.values(), linear.seen[if keep_best { 1 } else { 3 }]);
    }
}

#[test]
fn the_end_of_all_steps_is_no_early_stop() {
    let mut linear = Linear { scores: vec![0.9, 0.1, 0.1], ..Linear::new(ROWS) };
    let run =
        Run::of(&mut linear, &plan(Batching::Rows(5), 1), &Settings { patience: Some(2), ..settings() });
    assert!(!run.outcome().stopped_early);
    assert_eq!(run.outcome().kept_step, 3);
}

#[test]
fn evaluations_come_when_they_are_due() {
    let at = |eval_every, epochs| {
        let mut linear = Linear { scores: vec![0.5; 20], ..Linear::new(ROWS) };
        let settings = Settings { eval_every, epochs, ..settings() };
        let run = Run::of(&mut linear, &plan(Batching::Rows(5), 1), &settings);
        run.evaluations().into_iter().map(|(step, _)| step).collect::<Vec<_>>()
    };
    assert_eq!(at(EvalEvery::Never, 3.0), [0; 0]);
    assert_eq!(at(EvalEvery::Epoch, 3.0), [3, 6, 9]);
    // Half an epoch is two of its three steps.
    assert_eq!(at(EvalEvery::Epoch, 1.5), [3, 5]);
    assert_eq!(at(EvalEvery::Steps(4), 3.0), [4, 8, 9]);
    assert_eq!(at(EvalEvery::Steps(100), 3.0), [9]);
}

#[test]
fn without_an_evaluation_the_last_weights_are_the_result() {
    let mut linear = Linear::new(ROWS);
    let run = Run::of(&mut linear, &plan(Batching::Rows(5), 1), &settings());
    assert_eq!((run.outcome().kept_step, &run.outcome().evaluated), (9, &None));
}

#[test]
fn what_is_no_number_stops_it_with_the_weights_before() {
    // In the order of the file row 7 is in step 4, whose second batch it opens.
    let in_order = |lengths| Plan::new(lengths, Batching::Rows(1), 2, None).unwrap();
    let settings = Settings { schedule: Shape::Constant, epochs: 1.0, ..settings() };
    let mut sound = Linear::new(6);
    let lengths = sound.lengths.clone();
    let before = Run::of(&mut sound, &in_order(lengths), &settings);
    for (fault, what) in [(Fault::Loss(7), "loss"), (Fault::Gradient(7), "norm of the gradient")] {
        let mut linear = Linear { fault, ..Linear::new(ROWS) };
        let lengths = linear.lengths.clone();
        let run = Run::of(&mut linear, &in_order(lengths), &settings);
        let error = run.outcome.as_ref().unwrap_err();
        let TrainError::NotFinite { step, what: said, value, rows, changed: 0 } = error else {
            panic!("{error}")
        };
        assert_eq!((*step, *said, rows.as_slice()), (4, what, &[6, 7][..]));
        assert!(!value.is_finite());
        assert_eq!(run.values(), before.values(), "{what}: the weights of step 3");
        assert!(run.values().iter().all(|x| x.is_finite()));
        assert_eq!(run.steps().len(), 3);
        let error = error.to_string();
        assert!(error.starts_with(&format!("step 4: the {what} is ")) && error.contains("[6, 7]"), "{error}");
    }
}

#[test]
fn an_update_in_the_backward_stops_at_the_first_gradient_that_is_no_number() {
    // Row 7 is in step 8. The bias, which was read last, has its update before the weight's gradient comes.
    let in_order = |lengths| Plan::new(lengths, Batching::Rows(1), 1, None).unwrap();
    let settings = Settings { schedule: Shape::Constant, epochs: 1.0, ..settings() };
    let run = |rows, fault, reads_gradients| {
        let mut linear = Linear { fault, reads_gradients, ..Linear::new(rows) };
        let lengths = linear.lengths.clone();
        Run::of(&mut linear, &in_order(lengths), &settings)
    };
    let [before, after] = [7, 8].map(|rows| run(rows, Fault::None, false).values());
    for (reads_gradients, changed, end) in [(true, 0, "weights of the step before are kept"), (false, 1, "")]
    {
        let run = run(ROWS, Fault::Weight(7), reads_gradients);
        let error = run.outcome.as_ref().unwrap_err();
        assert!(matches!(error, TrainError::NotFinite { step: 8, changed: told, .. } if *told == changed));
        let bias = if changed == 1 { &after } else { &before };
        assert_eq!(run.values(), [&before[..19], &bias[19..]].concat());
        assert!(error.to_string().contains(end), "{error}");
    }
}

#[test]
fn updates_in_the_backward_change_no_bit() {
    let usual = Settings { schedule: Shape::Constant, save_every: SaveEvery::Steps(5), ..settings() };
    for on_spike in [OnSpike::Tell, OnSpike::Skip, OnSpike::Stop, OnSpike::Rewind] {
        for fault in [Fault::None, Fault::Large(7, 2), Fault::DeadBias] {
            let settings = Settings { on_spike, ..usual.clone() };
            let plan = Plan::new(Linear::new(ROWS).lengths, Batching::Rows(1), 1, None).unwrap();
            let run = |reads_gradients| {
                let mut linear = Linear { fault, reads_gradients, ..Linear::new(ROWS) };
                assert_eq!(settings.updates_in_backward(1, &linear), !reads_gradients);
                let run = Run::of(&mut linear, &plan, &settings);
                (
                    run.values(),
                    run.told(),
                    linear.saved.into_values().map(|saved| saved.tensors).collect::<Vec<_>>(),
                )
            };
            assert_eq!(run(false), run(true), "{on_spike:?} {fault:?}");
        }
    }
}

#[test]
fn an_evaluation_that_is_no_number_is_never_the_best() {
    let mut linear = Linear { scores: vec![f64::NAN, 0.3, f64::NAN], ..Linear::new(ROWS) };
    let run = Run::of(&mut linear, &plan(Batching::Rows(5), 1), &settings());
    assert_eq!(run.evaluations(), [(3, false), (6, true), (9, false)]);
    assert_eq!(run.outcome().kept_step, 6);
}

#[test]
fn who_is_told_can_stop_it() {
    let mut linear = Linear::new(ROWS);
    let mut parameters = Linear::parameters();
    let mut full_disk = |event: &Event| match event {
        Event::Step { step: 2, .. } => Err(std::io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    };
    let plan = plan(Batching::Rows(5), 1);
    let error = train(&mut parameters, &plan, &mut linear, &settings(), &mut full_disk).unwrap_err();
    assert!(matches!(error, TrainError::Workshop(_)), "{error}");
    assert!(error.to_string().contains("no storage space"), "{error}");
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_gives_others() {
    let run = |seed| {
        let plan = Plan::new(Linear::new(ROWS).lengths, Batching::Rows(5), 1, Some(Key::new(seed))).unwrap();
        Run::of(&mut Linear::new(ROWS), &plan, &settings()).values()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |lengths, batching, accumulation| {
        Plan::new(lengths, batching, accumulation, None).unwrap_err().to_string()
    };
    assert!(refused(vec![], Batching::Rows(4), 1).contains("no rows"));
    assert!(refused(vec![3], Batching::Rows(0), 1).contains("at least one row"));
    assert!(refused(vec![3], Batching::Tokens(0), 1).contains("at least one row"));
    assert!(refused(vec![3], Batching::Rows(4), 0).contains("a step one batch"));
    let mut linear = Linear::new(ROWS);
    let run = Run::of(&mut linear, &plan(Batching::Rows(5), 1), &Settings { epochs: 0.0, ..settings() });
    assert_eq!(run.outcome.unwrap_err().to_string(), "0 epochs are no step; give --epochs more");
    assert_eq!(linear.denominator(&[0, 1]).to_bits(), 2.0f32.to_bits());
}
