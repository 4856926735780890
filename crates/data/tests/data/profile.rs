//! What is said about the data before training.

use retune_data::{DataProfile, Example, Examples, Keys, Label, LabelMap, Overlap};

fn examples(rows: &[(&str, &str)]) -> Examples {
    let rows = rows.iter().zip(0_u64..);
    let example = |((text, label), row): (&(&str, &str), u64)| Example {
        row,
        line: row + 2,
        text: (*text).to_owned(),
        pair: None,
        label: Some(Label::Class((*label).to_owned())),
    };
    rows.map(example).collect::<Vec<_>>().into()
}

fn keys(examples: &Examples) -> Keys {
    Keys::of(examples).expect("rows in memory")
}

fn profile_of(examples: &Examples, labels: Option<&LabelMap>) -> DataProfile {
    DataProfile::new(examples, &keys(examples), labels).expect("rows in memory")
}

fn map(names: &[&str]) -> LabelMap {
    LabelMap::new(names.iter().map(|name| (*name).to_owned()).collect()).expect("different names")
}

#[test]
fn classes_duplicates_conflicts_and_overlaps_are_counted() {
    let train = examples(&[
        ("one", "a"),
        ("two", "b"),
        (" one ", "a"),
        ("two\n", "a"),
        ("three", "a"),
        ("two", "b"),
        ("four", "a"),
    ]);
    let eval = examples(&[("four ", "a"), ("five", "b"), ("two", "a")]);
    let labels = map(&["b", "a", "never"]);
    let profile = profile_of(&train, Some(&labels)).with_eval(&keys(&train), &keys(&eval));
    assert_eq!(profile.rows, 7);
    let largest = profile.largest().map(|class| (class.name.as_str(), class.rows));
    assert_eq!(largest, Some(("a", 5)));
    assert_eq!(profile.smallest().map(|class| (class.name.as_str(), class.rows)), Some(("b", 2)));
    assert_eq!(profile.imbalance, Some(2.5));
    assert_eq!((profile.duplicates.rows, profile.duplicates.conflicts), (3, 1));
    assert_eq!(profile.duplicates.first_conflict_lines, [3, 5]);
    assert_eq!(profile.overlap, Some(Overlap { rows: 2, eval_rows: 3 }));
    assert_eq!(
        profile.lines(),
        [
            "7 rows in 2 classes: from 2 of `b` to 5 of `a`",
            "3 rows repeat the text of an earlier row",
            "1 text has different labels in different rows, such as on lines 3, 5: no model can be right \
             about all of them",
            "2 of 3 evaluation rows have a text that training holds too: their scores flatter",
        ]
    );
}

#[test]
fn quantiles_are_by_nearest_rank() {
    let texts: Vec<String> = (0..200).map(|row| format!("text {row}")).collect();
    let rows: Vec<(&str, &str)> = texts.iter().map(|text| (text.as_str(), "a")).collect();
    let train = examples(&rows);
    // 1 to 200, in no order. numpy.quantile(..., method="inverted_cdf") gives 100, 180 and 198.
    let lengths: Vec<u32> = (0..200).map(|row| 1 + row * 77 % 200).collect();
    let profile = profile_of(&train, None).with_lengths(lengths, 190).unwrap();
    let lengths = profile.lengths.clone().unwrap();
    assert_eq!((lengths.min, lengths.median, lengths.p90, lengths.p99, lengths.max), (1, 100, 180, 198, 200));
    assert_eq!((lengths.tokens, lengths.truncated_rows, lengths.truncated_tokens), (20_100, 10, 55));
    assert_eq!(
        profile.lines(),
        [
            "200 rows",
            "tokens a row: median 100, 90% up to 180, 99% up to 198, from 1 to 200; 20,100 together",
            "10 of 200 rows are longer than 190 tokens and lose their ends, 55 tokens in all: raise \
             --max-length if it matters",
        ]
    );
    assert!(profile_of(&train, None).with_lengths(vec![1, 2], 10).is_err());
    let json = serde_json::to_value(&profile).unwrap();
    assert_eq!(json["lengths"]["p90"], 180);
}

#[test]
fn an_empty_set_has_a_profile() {
    let profile = profile_of(&Vec::new().into(), None).with_lengths(Vec::new(), 10).unwrap();
    assert_eq!((profile.lengths.clone(), profile.lines()), (None, vec!["0 rows".to_owned()]));
}

#[test]
fn a_strong_imbalance_is_said() {
    let rows: Vec<(&str, &str)> =
        std::iter::repeat_n(("x", "a"), 25).chain(std::iter::once(("y", "b"))).collect();
    let profile = profile_of(&examples(&rows), Some(&map(&["a", "b"])));
    assert!(profile.lines()[1].starts_with("the largest class has 25 times the rows of the smallest"));
}
