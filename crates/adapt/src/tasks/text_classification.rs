//! A text, or two: a linear layer over the pooled hidden state. What its outputs mean is the form: one of several
//! classes, several labels, a number.

use std::path::PathBuf;
use std::sync::Arc;

use retune_data::{
    Columns, DataError, Examples, FoundProblemType, LabelReading, ProblemType, Table, Wanted,
    choose_wanted_columns, read_tables,
};
use retune_model::families::HeadKind;

use super::reading::{ColumnNames, Corpus, Reading, WantedProblemType};
use super::table_file::TableFile;
use super::{Form, FormSettings, FormSpec, Task, multi_label, regression, single_label};
use crate::AdaptError;

#[derive(Debug)]
pub(super) struct TextClassification;

impl Task for TextClassification {
    fn name(&self) -> &'static str {
        "text-classification"
    }

    fn summary(&self) -> &'static str {
        "classes, labels or a number for each text or pair of texts: intents, topics, sentiment, similarity"
    }

    fn head(&self) -> HeadKind {
        HeadKind::Sequence
    }

    fn own_flags(&self) -> &'static [&'static str] {
        &["problem-type", "pair-column", "label-separator"]
    }

    fn forms(&self) -> &'static [&'static FormSpec] {
        static FORMS: [&FormSpec; 3] = [&single_label::SPEC, &multi_label::SPEC, &regression::SPEC];
        &FORMS
    }

    fn read(&self, named: &[PathBuf], reading: &Reading<'_>) -> Result<Corpus, AdaptError> {
        let table = Arc::new(read_tables(named, &reading.options)?);
        if reading.label_separator == Some("") {
            let message = "expected what stands between labels, such as ;, got nothing".into();
            return Err(AdaptError::Option { option: "label-separator".into(), message });
        }
        let columns = columns(&table, reading)?;
        let mut said: Vec<String> = table.notices().iter().map(ToString::to_string).collect();
        said.extend(
            [Some(&columns.text), columns.pair.as_ref()].into_iter().flatten().map(|c| c.why.clone()),
        );
        let (examples, problem_type) = if reading.labelled {
            said.extend(columns.label.as_ref().map(|choice| choice.why.clone()));
            let found = problem_type(&table, &columns, reading)?;
            let separator = reading.separator().map(str::to_string);
            let labels = LabelReading { problem_type: found.problem_type, separator };
            said.extend(found.why);
            (Examples::labelled(table.clone(), &columns, &labels)?, Some(found.problem_type))
        } else {
            (Examples::unlabelled(table.clone(), &columns), None)
        };
        let name = |choice: &retune_data::Choice| choice.name.clone();
        let names = ColumnNames {
            text: name(&columns.text),
            pair: columns.pair.as_ref().map(name),
            label: columns.label.as_ref().map(name),
            label_separator: reading.label_separator.map(str::to_string),
            tag_scheme: None,
        };
        let file = Box::new(TableFile { table, columns });
        Ok(Corpus { examples, columns: names, problem_type, said, file })
    }

    fn form(&self, settings: FormSettings) -> Result<Box<dyn Form>, AdaptError> {
        let FormSettings { problem_type, labels, thresholds, .. } = settings;
        Ok(match problem_type {
            ProblemType::SingleLabel => Box::new(single_label::SingleLabel::new(labels)),
            ProblemType::MultiLabel => Box::new(multi_label::MultiLabel::new(labels, thresholds)),
            ProblemType::Regression => Box::new(regression::Regression::new()),
        })
    }

    fn fits(&self, problem_type: ProblemType, outputs: usize) -> Result<(), String> {
        let fits = match problem_type {
            ProblemType::SingleLabel => outputs >= 2,
            ProblemType::MultiLabel => outputs >= 1,
            ProblemType::Regression => outputs == 1,
        };
        let noun = if outputs == 1 { "output" } else { "outputs" };
        let message =
            || format!("its head has {outputs} {noun}, which is no head of problem type {problem_type}");
        if fits { Ok(()) } else { Err(message()) }
    }
}

/// The columns of a file: as given, else those that a model was trained on, where the file has them.
fn columns(table: &Table, reading: &Reading<'_>) -> Result<Columns, DataError> {
    let has = |name: &str| table.columns().iter().any(|column| column == name);
    let wanted = Wanted {
        text: reading.column(reading.text, |trained| Some(&trained.text), has),
        label: reading.column(reading.label, |trained| trained.label.as_ref(), has),
        pair: reading.column(reading.pair, |trained| trained.pair.as_ref(), has),
        separator: reading.separator(),
    };
    choose_wanted_columns(table, &wanted)
}

/// What the labels of rows are: as asked, else by their column; whole numbers go on being amounts where the model's own
/// head gives a number. The sentence says why, where it is not the usual case.
fn problem_type(
    table: &Table,
    columns: &Columns,
    reading: &Reading<'_>,
) -> Result<FoundProblemType, AdaptError> {
    let separator = reading.separator();
    let (asked, head) = match reading.problem_type {
        WantedProblemType::Known(problem_type) => return Ok(FoundProblemType { problem_type, why: None }),
        WantedProblemType::Found { asked, head } => (asked, head),
    };
    if let Some(problem_type) = asked {
        if separator.is_some() && problem_type != ProblemType::MultiLabel {
            let message =
                format!("it parts several labels, and the problem type is {problem_type}; leave it out");
            return Err(AdaptError::Option { option: "label-separator".into(), message });
        }
        let why = Some(format!("problem type {problem_type}: as asked"));
        return Ok(FoundProblemType { problem_type, why });
    }
    let found = ProblemType::of_column(table, columns, separator)?;
    let numbers = || {
        let mut all = true;
        let column = columns.label.as_ref().map_or(0, |label| label.index);
        table.each_value(column, |value| all &= value.is_empty() || value.parse::<f64>().is_ok())?;
        Ok::<_, DataError>(all)
    };
    if found.problem_type == ProblemType::SingleLabel && head == Some(ProblemType::Regression) && numbers()? {
        let problem_type = ProblemType::Regression;
        let why = "problem type regression: the labels are numbers, and the model gives a number; --problem-type \
                   single-label takes them for classes";
        return Ok(FoundProblemType { problem_type, why: Some(why.into()) });
    }
    Ok(found)
}
