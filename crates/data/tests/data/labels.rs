//! Label names and their numbers.

use std::path::Path;

use crate::files::table_of;
use retune_data::{DataError, Example, LabelMap, LabelReading, choose_columns, labelled_examples};

fn read(file: &str, label: Option<&str>) -> Result<(Vec<Example>, LabelMap), DataError> {
    let table = table_of(file)?;
    let columns = choose_columns(&table, None, label, None)?;
    let examples = labelled_examples(&table, &columns, &LabelReading::default())?;
    let labels = LabelMap::from_examples(&examples.clone().into(), &table, &columns)?;
    Ok((examples, labels))
}

#[test]
fn names_are_sorted_by_bytes_or_as_integers() {
    let (examples, labels) =
        read("text,label\na,zoo\nb,Éa\nc,apple\nd,Zoo\ne,zoo\nf,apple\ng,Éa\nh,Zoo\n", None).unwrap();
    assert_eq!(labels.names(), ["Zoo", "apple", "zoo", "Éa"]);
    assert_eq!(labels.encode(&examples.into(), Path::new("x")), Ok(vec![2, 3, 1, 0, 2, 1, 3, 0]));
    assert_eq!(
        (labels.index("zoo"), labels.name(2), labels.index("?"), labels.name(4)),
        (Some(2), Some("zoo"), None, None)
    );

    let (_, labels) = read("text,label\na,10\nb,9\nc,-1\nd,9\ne,10\nf,-1\n", None).unwrap();
    assert_eq!(labels.names(), ["-1", "9", "10"]);
    let (_, labels) = read("text,label\na,10\nb,9\nc,x\nd,9\ne,10\nf,x\n", None).unwrap();
    assert_eq!(labels.names(), ["10", "9", "x"]);
}

#[test]
fn one_class_is_none_to_learn() {
    let error = read("text,label\na,spam\nb,spam\nc, spam \n", None).unwrap_err();
    assert!(error.message.contains("got only `spam` in all 3 rows"), "{error}");
    assert!(error.path.is_some());
}

#[test]
fn labels_that_hardly_repeat_point_to_another_column() {
    let file = "text,id,kind\na b,17,x\nc,18,y\nd,19.5,x\ne,20,y\n";
    let error = read(file, Some("id")).unwrap_err();
    assert!(
        error.message.contains("got 4 different ones in 4 rows: the column looks like numbers")
            && error.message.ends_with("or give `--label-column kind`"),
        "{error}"
    );
    let error =
        read("text,label\na,the card is late\nb,my card did not come\nc,give me my money back\n", None)
            .unwrap_err();
    assert!(error.message.contains("free text"), "{error}");
    // Two classes in three rows are few, but no identifier.
    assert!(read("text,label\na,x\nb,y\nc,x\n", None).is_ok());
}

#[test]
fn unseen_labels_are_named_with_the_nearest() {
    let (_, labels) = read("text,label\na,card_arrival\nb,refund\nc,refund\nd,card_arrival\n", None).unwrap();
    let table = table_of("text,label\na,refund\nb,card_arival\n\nc,zzz\nd,card_arival\n").unwrap();
    let columns = choose_columns(&table, None, None, None).unwrap();
    let examples = labelled_examples(&table, &columns, &LabelReading::default()).unwrap();
    let error = labels.encode(&examples.into(), table.path()).unwrap_err();
    assert_eq!((error.line, error.path.as_deref()), (Some(3), Some(table.path())));
    assert!(
        error.message.contains(
            "one of training's 2 labels, got `card_arival` (2 rows, first on line 3, nearest known \
             `card_arrival`), \
             `zzz` (1 row, first on line 5)"
        ),
        "{error}"
    );
}

#[test]
fn labels_that_differ_by_case_or_space_are_noticed() {
    let file = "text,label\na,Refund\nb,refund\nc,card  fee\nd,card fee\ne,other\nf,other\ng,refund\nh,Refund\n\
                i,card fee\nj,x\nk,x\nl,x\n";
    let (_, labels) = read(file, None).unwrap();
    let notices: Vec<String> = labels.notices().iter().map(ToString::to_string).collect();
    assert_eq!(notices.len(), 2);
    assert!(notices[0].contains("`card  fee` and `card fee`"), "{notices:?}");
    assert!(notices[1].contains("`Refund` and `refund`"), "{notices:?}");

    let names = ["cafe\u{301}", "Ja", "caf\u{e9}", "ｊａ\u{200b}", "jа", "①"];
    let labels = LabelMap::new(names.map(str::to_owned).to_vec()).unwrap();
    // A Cyrillic letter is another letter.
    assert_eq!(labels.alike(), [["cafe\u{301}", "caf\u{e9}"], ["Ja", "ｊａ\u{200b}"]]);
}

#[test]
fn a_map_is_stored_as_its_names() {
    let labels = LabelMap::new(vec!["é".to_owned(), "a".to_owned()]).unwrap();
    let json = serde_json::to_string(&labels).unwrap();
    assert_eq!(json, r#"["é","a"]"#);
    assert_eq!(serde_json::from_str::<LabelMap>(&json).unwrap(), labels);
    assert!(serde_json::from_str::<LabelMap>(r#"["a","a"]"#).is_err());
    assert!(serde_json::from_str::<LabelMap>("[]").is_err());
}
