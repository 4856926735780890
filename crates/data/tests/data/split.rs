//! Splits and samples.

use retune_data::{Example, Random, duplicate_groups, stratified_sample, stratified_split};

fn alone(rows: usize) -> Vec<u32> {
    (0..rows as u32).collect()
}

fn counts(rows: &[u32], labels: &[u32], classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    for &row in rows {
        counts[labels[row as usize] as usize] += 1;
    }
    counts
}

/// 50, 30, 15, 4 and 1 rows, sorted by class as files often are.
fn labels() -> Vec<u32> {
    [50, 30, 15, 4, 1].iter().zip(0..).flat_map(|(&rows, class)| vec![class; rows]).collect()
}

#[test]
fn each_class_gives_its_share() {
    let labels = labels();
    let split = stratified_split(&labels, &alone(100), 5, 0.1, 42).unwrap();
    // Shares of 5, 3, 1.5, 0.4 and 0.1: the tenth row is the largest remainder's.
    assert_eq!(counts(&split.eval, &labels, 5), [5, 3, 2, 0, 0]);
    let mut all = [split.train.clone(), split.eval.clone()].concat();
    all.sort_unstable();
    assert_eq!(all, alone(100));
    assert!(split.train.is_sorted() && split.eval.is_sorted());

    assert_eq!(split, stratified_split(&labels, &alone(100), 5, 0.1, 42).unwrap());
    assert_ne!(split, stratified_split(&labels, &alone(100), 5, 0.1, 43).unwrap());
}

#[test]
fn a_seed_means_the_same_rows_for_ever() {
    // The rows that an independent SplitMix64 with Fisher and Yates, in Python, puts first: see the crate's
    // `Random`.
    let labels = vec![0; 10];
    let split = stratified_split(&labels, &alone(10), 1, 0.3, 1_234_567).unwrap();
    assert_eq!(split.eval, [0, 2, 6]);
}

#[test]
fn every_class_keeps_a_row_in_training_and_the_total_is_the_rounded_fraction() {
    let mut random = Random::new(5);
    for case in 0..300 {
        let classes = 1 + random.below(9) as usize;
        let rows = 2 + random.below(200) as usize;
        let labels: Vec<u32> = (0..rows).map(|_| random.below(classes as u64) as u32).collect();
        let fraction = 0.01 + random.below(98) as f64 / 100.0;
        let total = counts(&alone(rows), &labels, classes);
        let spare: usize = total.iter().map(|count| count.saturating_sub(1)).sum();
        let wanted = ((fraction * rows as f64).round() as usize).min(spare);
        match stratified_split(&labels, &alone(rows), classes, fraction, case) {
            Err(_) => assert_eq!(wanted, 0),
            Ok(split) => {
                assert_eq!(split.eval.len(), wanted);
                let train = counts(&split.train, &labels, classes);
                assert!(train.iter().zip(&total).all(|(train, total)| *train >= 1.min(*total)));
                for (eval, total) in counts(&split.eval, &labels, classes).into_iter().zip(total) {
                    let share = wanted as f64 * total as f64 / rows as f64;
                    assert!(
                        (eval as f64 - share).abs() < 2.0 || eval + 1 == total,
                        "{eval} of {total}, {share}"
                    );
                }
            }
        }
    }
}

#[test]
fn equal_texts_stay_together() {
    let example = |text: &str, pair: Option<&str>| Example {
        row: 0,
        line: 2,
        text: text.to_owned(),
        pair: pair.map(str::to_owned),
        label: None,
    };
    let examples =
        vec![example("a", None), example("b", None), example(" a\n", None), example("a", Some("b"))];
    assert_eq!(duplicate_groups(&examples.into()).unwrap(), [0, 1, 0, 3]);

    // 60 rows in 20 groups of 1 to 5; some groups hold two labels.
    let mut random = Random::new(9);
    for seed in 0..200 {
        let groups: Vec<u32> = (0..20).flat_map(|group| vec![group; 1 + group as usize % 5]).collect();
        let labels: Vec<u32> =
            groups.iter().map(|group| if random.below(10) == 0 { 2 } else { group % 3 }).collect();
        let split = stratified_split(&labels, &groups, 3, 0.2, seed).unwrap();
        let sides = |rows: &[u32]| {
            rows.iter().map(|&row| groups[row as usize]).collect::<std::collections::BTreeSet<_>>()
        };
        assert!(sides(&split.train).is_disjoint(&sides(&split.eval)));
        assert!((10..=12).contains(&split.eval.len()), "{}", split.eval.len());
    }
    // A class that is one text alone is never held back, whatever the fraction.
    let split = stratified_split(&[0, 0, 0, 0, 1, 1, 1], &[0, 1, 2, 3, 4, 4, 4], 2, 0.6, 1).unwrap();
    assert!(split.eval.iter().all(|&row| row < 4));
}

#[test]
fn senseless_requests_are_errors() {
    for fraction in [0.0, 1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
        let error = stratified_split(&[0, 0, 1, 1], &alone(4), 2, fraction, 0).unwrap_err();
        assert!(error.message.contains("between 0 and 1"), "{error}");
    }
    assert!(
        stratified_split(&[0, 0, 1, 1], &alone(4), 2, 0.01, 0).unwrap_err().message.contains("leaves none")
    );
    assert!(stratified_split(&[0, 1], &alone(2), 2, 0.5, 0).is_err());
    assert!(stratified_split(&[], &[], 0, 0.5, 0).is_err());
    assert!(stratified_split(&[0, 7], &alone(2), 2, 0.5, 0).is_err());
    assert!(stratified_split(&[0, 0], &alone(3), 1, 0.5, 0).is_err());
    assert!(stratified_sample(&[0, 1], 2, 0, 0).is_err());
}

#[test]
fn a_sample_keeps_the_shares_and_the_classes() {
    let labels = labels();
    let sample = stratified_sample(&labels, 5, 20, 1).unwrap();
    assert!(sample.is_sorted());
    // Shares of 10, 6, 3, 0.8 and 0.2; the class of one row is kept at the largest's cost.
    assert_eq!(counts(&sample, &labels, 5), [9, 6, 3, 1, 1]);
    assert_eq!(stratified_sample(&labels, 5, 20, 1).unwrap(), sample);
    assert_ne!(stratified_sample(&labels, 5, 20, 2).unwrap(), sample);
    assert_eq!(stratified_sample(&labels, 5, 500, 1).unwrap(), alone(100));
    assert_eq!(stratified_sample(&labels, 5, 3, 1).unwrap().len(), 3);
    assert_eq!(counts(&stratified_sample(&labels, 5, 5, 1).unwrap(), &labels, 5), [1, 1, 1, 1, 1]);
}
