//! Choosing columns and making examples.

use crate::files::table_of;
use retune_data::{
    Columns, DataError, Label, LabelReading, choose_columns, labelled_examples, unlabelled_examples,
};

fn found(text: &str) -> Result<Columns, DataError> {
    table_of(text).and_then(|table| choose_columns(&table, None, None, None))
}

fn names(columns: &Columns) -> (&str, Option<&str>, Option<&str>) {
    (
        &columns.text.name,
        columns.pair.as_ref().map(|choice| choice.name.as_str()),
        columns.label.as_ref().map(|choice| choice.name.as_str()),
    )
}

#[test]
fn usual_names_are_found_and_said() {
    let columns = found("id,Intent,Utterance\n1,a,hello there\n2,b,bye now\n3,a,x\n").unwrap();
    assert_eq!(names(&columns), ("Utterance", None, Some("Intent")));
    assert_eq!(
        columns.why().collect::<Vec<_>>(),
        ["text column `Utterance`: by its name", "label column `Intent`: by its name"]
    );
    let columns = found("标签,文本\n好,很好用\n差,不好\n").unwrap();
    assert_eq!(names(&columns), ("文本", None, Some("标签")));
    let columns = found("gold_label,premise,hypothesis\n0,a b,c\n1,d,e\n").unwrap();
    assert_eq!(names(&columns), ("premise", Some("hypothesis"), Some("gold_label")));
}

#[test]
fn values_decide_where_names_do_not() {
    let mut file = "key,what,kind\n".to_owned();
    for row in 0..60 {
        file +=
            &format!("{row:08x},customer {row} asks about their card,{}\n", ["fee", "card", "app"][row % 3]);
    }
    let columns = found(&file).unwrap();
    assert_eq!(names(&columns), ("what", None, Some("kind")));
    let why: Vec<&str> = columns.why().collect();
    assert!(why[0].contains("longest values") && why[1].contains("3 values, which repeat"), "{why:?}");

    // A long label is still a label when it is called one.
    let file =
        "foo,label\nab cd,a very long description of a class\nef,a very long description of a class\ng h,b\n";
    assert_eq!(names(&found(file).unwrap()), ("foo", None, Some("label")));
    assert_eq!(names(&found("anything\nhello\nbye\n").unwrap()), ("anything", None, None));
}

#[test]
fn what_cannot_be_decided_is_asked() {
    let table = table_of("a,b\nhello there,bye now then\nsome words,and others\nyes no,no yes\n").unwrap();
    let error = choose_columns(&table, None, None, None).unwrap_err();
    assert!(
        error.message.contains("give `--text-column` with one of `a` (such as: hello there), `b`"),
        "{error}"
    );

    let table = table_of("text,b,c\nx y,1,u\nz w,1,v\nq,2,u\nr,2,v\n").unwrap();
    let columns = choose_columns(&table, None, None, None).unwrap();
    assert_eq!(columns.label, None);
    assert_eq!(unlabelled_examples(&table, &columns).unwrap().len(), 4);
    let error = labelled_examples(&table, &columns, &LabelReading::default()).unwrap_err();
    assert!(
        error.message.contains("`--label-column`") && error.message.contains("`c` (such as: u)"),
        "{error}"
    );
}

#[test]
fn named_columns_must_be_there_and_differ() {
    let table = table_of("text,label,lang\na b,x,en\nc,y,de\n").unwrap();
    let error = choose_columns(&table, Some("txet"), None, None).unwrap_err();
    assert_eq!(
        error.message,
        "no column `txet` for the text (did you mean `text`?): the columns are `text`, `label`, `lang`"
    );
    assert!(
        choose_columns(&table, None, Some("Label"), None)
            .unwrap_err()
            .message
            .contains("did you mean `label`")
    );
    let error = choose_columns(&table, Some("text"), Some("text"), None).unwrap_err();
    assert!(error.message.contains("got `text` twice"), "{error}");
    let columns = choose_columns(&table, Some("lang"), Some("text"), Some("label")).unwrap();
    assert_eq!(names(&columns), ("lang", Some("label"), Some("text")));
    // A name given to one use is not found again for another.
    let columns = choose_columns(&table, None, Some("lang"), None).unwrap();
    assert_eq!(names(&columns), ("text", None, Some("lang")));
}

#[test]
fn examples_carry_rows_lines_and_trimmed_labels() {
    let table = table_of("text,label\n\" two\nlines \", x \nb,y\n").unwrap();
    let columns = choose_columns(&table, None, None, None).unwrap();
    let examples = labelled_examples(&table, &columns, &LabelReading::default()).unwrap();
    assert_eq!((examples[0].row, examples[0].line, examples[1].row, examples[1].line), (0, 2, 1, 4));
    assert_eq!(examples[0].text, " two\nlines ");
    assert_eq!(examples[0].label, Some(Label::Class("x".to_owned())));
}

#[test]
fn gaps_are_errors_for_training_and_nothing_for_prediction() {
    let mut file = "{\"text\": \"a\", \"label\": \"x\"}\n".to_owned();
    for _ in 0..7 {
        file += "{\"text\": \"a\", \"label\": null}\n";
    }
    file += "{\"text\": \" \", \"label\": \"x\"}\n{\"label\": \"y\"}\n";
    let table = table_of(&file).unwrap();
    let columns = choose_columns(&table, None, None, None).unwrap();
    let error = labelled_examples(&table, &columns, &LabelReading::default()).unwrap_err();
    assert!(
        error.message.contains("7 rows have nothing in column `label` (lines 2, 3, 4, 5, 6 and 2 more)")
            && error.message.contains("2 rows have nothing in column `text` (lines 9, 10)"),
        "{error}"
    );
    let examples = unlabelled_examples(&table, &columns).unwrap();
    assert_eq!(examples.len(), 10);
    assert_eq!((examples[9].text.as_str(), &examples[9].label), ("", &None));
}
