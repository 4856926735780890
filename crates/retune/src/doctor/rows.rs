//! The rows: what a model could not learn from, or would learn wrongly.

use std::collections::{BTreeMap, HashMap};

use retune_data::{Example, Label};

use super::{Examination, Finding, LISTED, percent, word_counts};

/// From this share of rows on a fault is no accident.
const FEW: f64 = 0.01;

pub(super) fn examine(examination: &mut Examination<'_, '_>) {
    let prepared = examination.prepared;
    let (train, eval) = (&prepared.examples.train, &prepared.examples.eval);
    let file = prepared.resolved.train_path().display().to_string();
    examination.check("conflicting-labels", conflicts(train, &file));
    examination.check("duplicates", duplicates(train, &file));
    if !eval.is_empty() {
        let eval_file = &prepared.examples.eval_is;
        examination.check("leak", leaks(train, eval, eval_file));
    }
    examination.check("imbalance", imbalance(train, &file));
    examination.check("truncation", truncation(examination, &file));
    examination.check("unknown-tokens", unknown(examination, &file));
    examination.check("shuffled-labels", word_counts::shuffled(train, &file));
}

pub(super) fn lines<'a>(examples: impl IntoIterator<Item = &'a Example>) -> Vec<u64> {
    examples.into_iter().take(LISTED).map(|example| example.line).collect()
}

fn conflicts(train: &[Example], file: &str) -> Vec<Finding> {
    let mut labels: HashMap<(String, String), Vec<&Example>> = HashMap::new();
    for example in train {
        labels.entry(example.key()).or_default().push(example);
    }
    // Two people who give one text different numbers are no mistake.
    let number = |example: &Example| matches!(example.label, Some(Label::Number(_)));
    let contradicting =
        |same: &Vec<&Example>| same.iter().any(|example| example.label != same[0].label && !number(example));
    let mut rows: Vec<&Example> = labels.into_values().filter(contradicting).flatten().collect();
    rows.sort_by_key(|example| example.line);
    if (rows.len() as f64) < FEW * train.len() as f64 {
        return Vec::new();
    }
    found(
        "conflicting-labels",
        format!("{} rows have the text of another row and another label than it", rows.len()),
        file,
        lines(rows),
        "whatever is learnt is wrong for some of them, and no setting mends that",
        "decide which label is right, or remove these rows".into(),
    )
}

fn duplicates(train: &[Example], file: &str) -> Vec<Finding> {
    const MANY: f64 = 0.1;
    let mut seen = HashMap::new();
    let again: Vec<_> = train.iter().filter(|example| seen.insert(example.key(), ()).is_some()).collect();
    if (again.len() as f64) <= MANY * train.len() as f64 {
        return Vec::new();
    }
    found(
        "duplicates",
        format!(
            "{} of {} rows repeat the text of an earlier row",
            percent(again.len(), train.len()),
            train.len()
        ),
        file,
        lines(again),
        "a repeated row is learnt by heart, and counts as many rows in every number",
        "remove the repeated rows".into(),
    )
}

fn leaks(train: &[Example], eval: &[Example], file: &str) -> Vec<Finding> {
    let known: HashMap<_, ()> = train.iter().map(|example| (example.key(), ())).collect();
    let leaked: Vec<_> = eval.iter().filter(|example| known.contains_key(&example.key())).collect();
    if leaked.is_empty() || (leaked.len() as f64) < FEW * eval.len() as f64 {
        return Vec::new();
    }
    found(
        "leak",
        format!("{} of the evaluation rows have a text that training sees too", percent(leaked.len(), eval.len())),
        file,
        lines(leaked),
        "the evaluation then tells what was learnt by heart, and chooses the wrong weights",
        "remove these rows from one of the two files, or leave --eval out: --eval-split keeps equal texts together".into(),
    )
}

fn imbalance(train: &[Example], file: &str) -> Vec<Finding> {
    const UNEVEN: usize = 20;
    const LEAST: usize = 3;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for label in train.iter().flat_map(Example::names) {
        *counts.entry(label).or_default() += 1;
    }
    let by_count = |(_, count): &(&&str, &usize)| **count;
    let (Some((_, most)), Some((rare, least))) =
        (counts.iter().max_by_key(by_count), counts.iter().min_by_key(by_count))
    else {
        return Vec::new();
    };
    // One row beside two is no matter of balance but of few rows.
    let few = *least < LEAST && *most >= 5 * least;
    if *most < UNEVEN * least && !few {
        return Vec::new();
    }
    let rows = train.iter().filter(|example| example.names().iter().any(|name| name == rare));
    found(
        "imbalance",
        format!("rows of `{rare}`: {least}, of the largest class: {most}"),
        file,
        lines(rows),
        "a model that never says the rare label loses almost nothing, and accuracy does not show it",
        "add rows of it, or give --class-weights balanced; watch the macro F1".into(),
    )
}

fn truncation(examination: &Examination<'_, '_>, file: &str) -> Vec<Finding> {
    const MANY: f64 = 0.2;
    let prepared = examination.prepared;
    let tokens = &prepared.train_rows.tokens;
    let cut: Vec<usize> = (0..tokens.len()).filter(|row| tokens.cut(*row) > 0).collect();
    if (cut.len() as f64) < MANY * tokens.len() as f64 || cut.is_empty() {
        return Vec::new();
    }
    let mut sorted = tokens.full_lengths();
    sorted.sort_unstable();
    let wanted = sorted[(sorted.len() - 1) * 95 / 100];
    let most = prepared.model.longest();
    let fix = if wanted <= most {
        format!("--max-length {wanted} keeps 95 of 100 rows whole")
    } else if prepared.max_length < most {
        format!("--max-length {most} is the most that this model can take; longer texts need splitting")
    } else {
        "the model cannot take more: split the texts, or put what matters first".into()
    };
    found(
        "truncation",
        format!("{} of the rows are cut at {} tokens", percent(cut.len(), tokens.len()), prepared.max_length),
        file,
        cut.iter().take(LISTED).map(|row| tokens.line(*row)).collect(),
        "what decides the label may stand in the part that the model never sees",
        fix,
    )
}

fn unknown(examination: &Examination<'_, '_>, file: &str) -> Vec<Finding> {
    const MANY: f64 = 0.1;
    let prepared = examination.prepared;
    let names = ["[UNK]", "<unk>"];
    let Some(unknown) = names.iter().find_map(|name| prepared.model.tokenizer.token_to_id(name)) else {
        return Vec::new();
    };
    let tokens = &prepared.train_rows.tokens;
    let special = prepared.model.tokenizer.special_tokens(false);
    let (mut unknowns, mut all, mut rows) = (0, 0, Vec::new());
    for row in 0..tokens.len() {
        let ids = tokens.batch(&[row]).input_ids;
        let here = ids.iter().filter(|id| **id == unknown).count();
        if 2 * here > ids.len().saturating_sub(special) {
            rows.push(tokens.line(row));
        }
        unknowns += here;
        all += ids.len().saturating_sub(special);
    }
    if (unknowns as f64) < MANY * all as f64 || all == 0 {
        return Vec::new();
    }
    rows.truncate(LISTED);
    found(
        "unknown-tokens",
        format!("{} of the tokens are unknown to the model's vocabulary", percent(unknowns, all)),
        file,
        rows,
        "all unknown words look the same to the model: it was made for another language or script",
        "start from a model of this language, or give --encoding if the letters look wrong".into(),
    )
}

pub(super) fn found(
    check: &'static str,
    what: String,
    place: &str,
    lines: Vec<u64>,
    why: &'static str,
    fix: String,
) -> Vec<Finding> {
    vec![Finding { check, what, place: place.into(), lines, why, fix }]
}
