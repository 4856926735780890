//! One class, several labels, a number: found from the column, read, counted, divided.

use std::path::Path;

use crate::files::table_of;
use retune_data::{
    DataError, DataProfile, Example, Examples, Keys, Label, LabelMap, LabelReading, ProblemType, Strata,
    Table, Wanted, choose_columns, choose_wanted_columns, labelled_examples, stratified_split,
};

fn form(file: &str, separator: Option<&str>) -> Result<(ProblemType, Option<String>), DataError> {
    let table = table_of(file)?;
    let columns = choose_columns(&table, None, None, None)?;
    let found = ProblemType::of_column(&table, &columns, separator)?;
    Ok((found.problem_type, found.why))
}

fn csv(labels: &[&str]) -> String {
    let rows = labels
        .iter()
        .enumerate()
        .map(|(row, label)| format!("text number {row},\"{}\"\n", label.replace('"', "\"\"")));
    format!("text,label\n{}", rows.collect::<String>())
}

fn read(file: &str, reading: &LabelReading) -> Result<(Table, Vec<Example>, LabelMap), DataError> {
    let table = table_of(file)?;
    let columns = choose_columns(&table, None, None, None)?;
    let examples = labelled_examples(&table, &columns, reading)?;
    let labels = LabelMap::from_examples(&examples.clone().into(), &table, &columns)?;
    Ok((table, examples, labels))
}

fn reading(problem_type: ProblemType, separator: Option<&str>) -> LabelReading {
    LabelReading { problem_type, separator: separator.map(str::to_owned) }
}

#[test]
fn the_form_is_found_from_the_values() {
    use ProblemType::{MultiLabel, Regression, SingleLabel};
    let cases: [(&[&str], ProblemType, Option<&str>); 11] = [
        (&["a", "b", "a"], SingleLabel, None),
        (&["0", "1", "1", "0"], SingleLabel, None),
        (
            &["1", "2", "3", "1", "2", "3"],
            SingleLabel,
            Some("3 different whole numbers, which are taken for classes"),
        ),
        (&["1.0", "2.0", "3.0", "1.0", "2.0", "3.0"], SingleLabel, Some("taken for classes")),
        (&["1.0", "2.5", "1.0", "2.5"], Regression, Some("numbers with decimals, 2 of them different")),
        // A typing error among many numbers is one, and no class.
        (
            [&["0.5", "1e-1"].repeat(19)[..], &["n/a"]].concat().leak(),
            Regression,
            Some("--problem-type decides otherwise"),
        ),
        (&["0.5", "1.5", "other"], SingleLabel, None),
        // Many amounts that hardly repeat; all different is an identifier.
        (&["17", "18", "17", "250", "9"], Regression, Some("4 different numbers in 5 rows")),
        (&["17", "18", "19", "250", "9"], SingleLabel, Some("taken for classes")),
        (
            &["[\"a\"]", "[]", "[\"a\", \"b\"]"],
            MultiLabel,
            Some("holds lists of labels: problem type multi-label"),
        ),
        // Also where one is no good list: the error then names its line.
        (&["[\"a\"]", "['b']", "a"], MultiLabel, Some("lists")),
    ];
    for (values, expected, words) in cases {
        let (found, why) = form(&csv(values), None).unwrap();
        assert_eq!(found, expected, "{values:?}");
        assert_eq!(why.is_some(), words.is_some(), "{values:?} {why:?}");
        assert!(words.is_none_or(|words| why.as_deref().unwrap_or_default().contains(words)), "{why:?}");
    }
    // Several labels a row are suspected where the values are made of fewer names.
    let parted = [&["a | b", "b", "a", "a|c", "c|b", "c"][..], &["a;b", "b;a", "a", "b"]];
    for (values, separator) in parted.into_iter().zip(["|", ";"]) {
        let (found, why) = form(&csv(values), None).unwrap();
        let why = why.unwrap();
        assert!(found == SingleLabel && why.contains(&format!("--label-separator \"{separator}\"")), "{why}");
    }
    for values in [&["Home, Garden", "Toys", "Toys"][..], &["a;b", "c;d"], &["a,,b", "a", "b", "b,a"]] {
        assert_eq!(form(&csv(values), None).unwrap(), (SingleLabel, None), "{values:?}");
    }
    let (found, why) = form(&csv(&["a;b", "b", ""]), Some(";")).unwrap();
    assert_eq!(found, MultiLabel);
    assert!(why.unwrap().contains("split at `;`"));
}

#[test]
fn decimal_commas_are_no_classes() {
    for values in [&["0,5", "1,25", "2"][..], &["3.5", "0,5", "1,5", "7"], &["-1,0", "+2,0", "-1,0"]] {
        let error = form(&csv(values), None).unwrap_err();
        let first = values.iter().position(|value| value.contains(',')).unwrap();
        assert_eq!(error.line, Some(first as u64 + 2), "{error}");
        assert!(error.message.contains(&format!("got `{}`: write the decimals", values[first])), "{error}");
    }
    for values in [&["a, b", "b, a"][..], &["1, 2", "1, 2"], &["1,2,3", "1,2,3"], &["x", "0,5", "x"]] {
        assert!(form(&csv(values), None).is_ok(), "{values:?}");
    }
    assert_eq!(form(&csv(&["1,2", "2", "1"]), Some(",")).unwrap().0, ProblemType::MultiLabel);
}

#[test]
fn nested_labels_are_no_classes() {
    let file = "{\"text\": \"a\", \"label\": \"é\"}\n{\"text\": \"b\", \"label\": {\"name\": \"é\"}}\n";
    let error = read(file, &LabelReading::default()).unwrap_err();
    assert_eq!(error.line, Some(2));
    assert!(
        error.message.contains("column `label`: expected the name of a class, got a JSON object"),
        "{error}"
    );
}

#[test]
fn the_separator_finds_the_column() {
    let table =
        table_of("what,kind,lang\nhello there,é;b,de\nbye now then,c;d,de\nwhat is it,e;f,en\n").unwrap();
    let without = choose_columns(&table, Some("what"), None, None).unwrap();
    assert_eq!(without.label.unwrap().name, "lang");
    let wanted = Wanted { text: Some("what".into()), separator: Some(";"), ..Wanted::default() };
    let label = choose_wanted_columns(&table, &wanted).unwrap().label.unwrap();
    assert_eq!(label.why, "label column `kind`: the only one with `;`, as --label-separator says");
    // None of the two values that are there repeats; what may be meant is said.
    let table = table_of("text,kind,n\na,x;y,1\nb,y;x,2\nc,x,3\n").unwrap();
    let columns = choose_columns(&table, None, None, None).unwrap();
    let error = labelled_examples(&table, &columns, &LabelReading::default()).unwrap_err();
    assert!(
        error
            .message
            .ends_with("`kind` looks like several labels a row: `--label-separator \";\"` takes it for such"),
        "{error}"
    );
}

#[test]
fn names_are_taken_here_and_from_transformers() {
    for one in ProblemType::ALL {
        assert_eq!(one.name().parse(), Ok(one));
        assert_eq!(one.transformers_name().parse(), Ok(one));
        assert_eq!(serde_json::to_value(one).unwrap(), one.transformers_name());
    }
    let error = "multilabel".parse::<ProblemType>().unwrap_err();
    assert!(error.message.contains("did you mean `multi-label`?"), "{error}");
}

#[test]
fn labels_of_lists_and_splits_are_the_same() {
    let lists = "{\"text\": \"a\", \"tags\": [\"x\", \"é\"]}\n{\"text\": \"b\", \"tags\": []}\n\
                 {\"text\": \"c\", \"tags\": [\"é\"]}\n{\"text\": \"d\", \"tags\": [\"x\", \"x\"]}\n";
    let (table, examples, labels) = read(lists, &reading(ProblemType::MultiLabel, None)).unwrap();
    assert_eq!(labels.names(), ["x", "é"]);
    let rows = labels.encode_many(&examples.into(), table.path()).unwrap();
    assert_eq!(rows, [vec![0, 1], vec![], vec![1], vec![0]]);

    let split = "text,tags,kind\na,é; x,k\nb,,k\nc,é,l\nd,x;x,l\n";
    let table = table_of(split).unwrap();
    let columns = choose_columns(&table, None, Some("tags"), None).unwrap();
    let examples = labelled_examples(&table, &columns, &reading(ProblemType::MultiLabel, Some(";"))).unwrap();
    assert_eq!(LabelMap::from_examples(&examples.clone().into(), &table, &columns).unwrap(), labels);
    assert_eq!(labels.encode_many(&examples.into(), table.path()).unwrap(), rows);

    // Without a separator an empty field is a gap, since `[]` could have been written.
    let error = read(&csv(&["[\"a\"]", "", "[]"]), &reading(ProblemType::MultiLabel, None)).unwrap_err();
    assert!(error.message.contains("1 row has nothing in column `label` (line 3)"), "{error}");
    let error = read(&csv(&["[]", "[]"]), &reading(ProblemType::MultiLabel, None)).unwrap_err();
    assert!(error.message.contains("got none in all 2 rows"), "{error}");
}

#[test]
fn what_cannot_be_read_is_named_by_its_line() {
    let number = reading(ProblemType::Regression, None);
    let error = read(&csv(&["0.5", "three", "1"]), &number).unwrap_err();
    assert_eq!(error.line, Some(3));
    assert!(
        error.message.starts_with("column `label`: expected a number such as 3.5, got `three`"),
        "{error}"
    );
    let error = read(&csv(&["[\"a\"]", "['a', 'b']"]), &reading(ProblemType::MultiLabel, None)).unwrap_err();
    assert_eq!(error.line, Some(3));
    assert!(error.message.contains("got `['a', 'b']`, which is Python's way"), "{error}");
    let (table, examples, labels) = read(
        &csv(&["[\"aa\"]", "[\"bb\"]", "[\"aa\", \"bb\"]", "[\"aa\"]"]),
        &reading(ProblemType::MultiLabel, None),
    )
    .unwrap();
    let other = table_of(csv(&["[\"aa\"]", "[\"bbb\", \"aa\"]"])).unwrap();
    let columns = choose_columns(&other, None, None, None).unwrap();
    let new = labelled_examples(&other, &columns, &reading(ProblemType::MultiLabel, None)).unwrap();
    let error = labels.encode_many(&new.into(), other.path()).unwrap_err();
    assert!(error.line == Some(3) && error.message.contains("`bbb` (1 row"), "{error}");
    let error = labels.encode(&examples.into(), table.path()).unwrap_err();
    assert!(error.message.contains("expected one class as the label, got a list"), "{error}");
}

fn profile(examples: &[Example], labels: &LabelMap) -> DataProfile {
    let examples: Examples = examples.to_vec().into();
    let keys = Keys::of(&examples).expect("rows in memory");
    DataProfile::new(&examples, &keys, Some(labels)).expect("rows in memory")
}

#[test]
fn the_profile_fits_the_form() {
    let file = csv(&["[\"a\", \"b\"]", "[]", "[\"a\"]", "[\"b\", \"a\"]"]);
    let (_, examples, labels) = read(&file, &reading(ProblemType::MultiLabel, None)).unwrap();
    let lines = profile(&examples, &labels).lines();
    assert_eq!(
        lines,
        ["4 rows in 2 labels: from 2 of `b` to 3 of `a`; 1.25 labels a row, 1 row without any"]
    );

    let (_, examples, labels) =
        read(&csv(&["1.5", "-2", "3", "0.5"]), &reading(ProblemType::Regression, None)).unwrap();
    assert_eq!(labels.names(), ["LABEL_0"]);
    assert_eq!(examples[1].label, Some(Label::Number(-2.0)));
    let profile = profile(&examples, &labels);
    // numpy.std([1.5, -2, 3, 0.5]) = 1.8200274723201295
    assert_eq!(
        profile.lines(),
        ["4 rows with numbers from -2 to 3: median 0.5, mean 0.7500, deviation 1.8200"]
    );
    assert_eq!((profile.imbalance, profile.unlabelled), (None, None));
}

#[test]
fn splits_keep_rare_labels_and_all_sizes_of_numbers() {
    // Every row has `often`; every tenth is rare too, every twentieth has nothing.
    let rows: Vec<&str> = (0..200)
        .map(|row| match row % 20 {
            0 | 10 => "[\"often\", \"rare\"]",
            5 => "[]",
            _ => "[\"often\"]",
        })
        .collect();
    let (table, examples, labels) = read(&csv(&rows), &reading(ProblemType::MultiLabel, None)).unwrap();
    let strata = Strata::of(&examples.into(), &labels, table.path()).unwrap();
    assert_eq!((strata.count, &strata.of_row[..6]), (3, &[1, 0, 0, 0, 0, 2][..]));
    let alone: Vec<u32> = (0..200).collect();
    let split = stratified_split(&strata.of_row, &alone, strata.count, 0.1, 7).unwrap();
    let count = |stratum| split.eval.iter().filter(|row| strata.of_row[**row as usize] == stratum).count();
    assert_eq!([count(0), count(1), count(2)], [17, 2, 1]);

    let numbers: Vec<String> = (0..200).map(|row| format!("{}", f64::from(row * 77 % 200) / 4.0)).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let (_, examples, labels) = read(&csv(&numbers), &reading(ProblemType::Regression, None)).unwrap();
    let strata = Strata::of(&examples.clone().into(), &labels, Path::new("x")).unwrap();
    let split = stratified_split(&strata.of_row, &alone, strata.count, 0.1, 7).unwrap();
    for tenth in 0..10 {
        let eval = split.eval.iter().filter(|row| {
            let Some(Label::Number(number)) = examples[**row as usize].label else { panic!("no number") };
            (number / 5.0) as usize == tenth
        });
        assert_eq!(eval.count(), 2, "{tenth}");
    }
    // Equal numbers stay together, however many there are.
    let (_, examples, labels) =
        read(&csv(&["0.5", "2", "2", "2", "2", "9"]), &reading(ProblemType::Regression, None)).unwrap();
    assert_eq!(Strata::of(&examples.into(), &labels, Path::new("x")).unwrap().of_row, [0, 1, 1, 1, 1, 8]);
}

#[test]
fn columns_of_lists_and_of_numbers_are_labels() {
    let table = table_of("a,b\nsome words here,[]\nother words there,\"[\"\"x\"\"]\"\n").unwrap();
    let columns = choose_columns(&table, None, None, None).unwrap();
    assert_eq!(columns.label.unwrap().why, "label column `b`: it has lists");
    let table = table_of("sentence1,sentence2,value\na b,b c,0.25\nd e,e f,1\nc d,x,3.75\n").unwrap();
    let columns = choose_columns(&table, None, None, None).unwrap();
    assert_eq!(columns.label.unwrap().name, "value");
    assert_eq!(columns.pair.unwrap().why, "pair column `sentence2`: by its name");
}
