//! The rows: what a model could not learn from, or would learn wrongly.

use std::collections::BTreeMap;

use retune_data::{Example, Examples, Keys, Label, ProblemType};

use super::{Examination, Finding, LISTED, percent, word_counts};
use crate::{Result, dataset};

/// From this share of rows on a fault is no accident.
const FEW: f64 = 0.01;

pub(super) fn examine(examination: &mut Examination<'_, '_>) -> Result<()> {
    let prepared = examination.prepared;
    let examples = &prepared.examples;
    let file = prepared.resolved.train_path().display().to_string();
    let asks = examples.train.iter().next().transpose()?;
    let with_questions = match asks.and_then(|example| example.label) {
        Some(Label::Answers(_)) => Some(Keys::with_questions(&examples.train)?),
        _ => None,
    };
    let keys = with_questions.as_ref().unwrap_or(&examples.train_keys);
    examination.check("conflicting-labels", conflicts(examples, keys, &file)?);
    examination.check("duplicates", duplicates(examples, keys, &file)?);
    if !examples.eval.is_empty() {
        examination.check("leak", leaks(examples)?);
    }
    examination.check("imbalance", imbalance(&examples.train, &file)?);
    examination.check("truncation", truncation(examination, &file));
    examination.check("unknown-tokens", unknown(examination, &file)?);
    examination.check("shuffled-labels", word_counts::shuffled(&examples.train, &file)?);
    Ok(())
}

/// How many rows `have` it, and the lines of the first of them.
pub(super) fn lines_where(
    rows: &Examples,
    mut have: impl FnMut(&Example) -> bool,
) -> Result<(usize, Vec<u64>)> {
    let (mut count, mut lines) = (0, Vec::new());
    for example in rows.iter() {
        let example = example?;
        if have(&example) {
            count += 1;
            lines.extend((count <= LISTED).then_some(example.line));
        }
    }
    Ok((count, lines))
}

/// The lines of the first of these rows, which rise.
fn lines(examples: &Examples, rows: &[u32]) -> Result<Vec<u64>> {
    let mut lines = Vec::new();
    for row in rows.iter().take(LISTED) {
        lines.extend(examples.get(*row as usize)?.map(|example| example.line));
    }
    Ok(lines)
}

fn conflicts(examples: &dataset::Examples, keys: &Keys, file: &str) -> Result<Vec<Finding>> {
    let mut rows = Vec::new();
    // Two people who give one text different numbers are no mistake.
    if examples.problem_type != ProblemType::Regression {
        keys.each_group(|group| {
            if group.iter().any(|row| !keys.same_label(group[0] as usize, *row as usize)) {
                rows.extend_from_slice(group);
            }
        });
    }
    rows.sort_unstable();
    if rows.is_empty() || (rows.len() as f64) < FEW * examples.train.len() as f64 {
        return Ok(Vec::new());
    }
    Ok(found(
        "conflicting-labels",
        format!("{} rows have the text of another row and another label than it", rows.len()),
        file,
        lines(&examples.train, &rows)?,
        "whatever is learnt is wrong for some of them, and no setting mends that",
        "decide which label is right, or remove these rows".into(),
    ))
}

fn duplicates(examples: &dataset::Examples, keys: &Keys, file: &str) -> Result<Vec<Finding>> {
    const MANY: f64 = 0.1;
    let mut again = Vec::new();
    keys.each_group(|group| again.extend_from_slice(&group[1..]));
    if (again.len() as f64) <= MANY * examples.train.len() as f64 {
        return Ok(Vec::new());
    }
    again.sort_unstable();
    Ok(found(
        "duplicates",
        format!(
            "{} of {} rows repeat the text of an earlier row",
            percent(again.len(), examples.train.len()),
            examples.train.len()
        ),
        file,
        lines(&examples.train, &again)?,
        "a repeated row is learnt by heart, and counts as many rows in every number",
        "remove the repeated rows".into(),
    ))
}

fn leaks(examples: &dataset::Examples) -> Result<Vec<Finding>> {
    let leaked = examples.train_keys.shared_with(&examples.eval_keys);
    if leaked.is_empty() || (leaked.len() as f64) < FEW * examples.eval.len() as f64 {
        return Ok(Vec::new());
    }
    let rows: Vec<u32> = leaked.iter().take(LISTED).filter_map(|row| u32::try_from(*row).ok()).collect();
    Ok(found(
        "leak",
        format!(
            "{} of the evaluation rows have a text that training sees too",
            percent(leaked.len(), examples.eval.len())
        ),
        &examples.eval_is,
        lines(&examples.eval, &rows)?,
        "the evaluation then tells what was learnt by heart, and chooses the wrong weights",
        "remove these rows from one of the two files, or leave --eval out: --eval-split keeps equal texts together".into(),
    ))
}

fn imbalance(train: &Examples, file: &str) -> Result<Vec<Finding>> {
    const UNEVEN: usize = 20;
    const LEAST: usize = 3;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for example in train.iter() {
        for label in example?.names() {
            match counts.get_mut(label) {
                Some(count) => *count += 1,
                None => drop(counts.insert(label.clone(), 1)),
            }
        }
    }
    let by_count = |(_, count): &(&String, &usize)| **count;
    let (Some((_, most)), Some((rare, least))) =
        (counts.iter().max_by_key(by_count), counts.iter().min_by_key(by_count))
    else {
        return Ok(Vec::new());
    };
    // One row beside two is no matter of balance but of few rows.
    let few = *least < LEAST && *most >= 5 * least;
    if *most < UNEVEN * least && !few {
        return Ok(Vec::new());
    }
    let (_, lines) = lines_where(train, |example| example.names().contains(rare))?;
    Ok(found(
        "imbalance",
        format!("rows of `{rare}`: {least}, of the largest class: {most}"),
        file,
        lines,
        "a model that never says the rare label loses almost nothing, and accuracy does not show it",
        "add rows of it, or give --class-weights balanced; watch the macro F1".into(),
    ))
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
    let wanted = sorted[(sorted.len() - 1) * 95 / 100] as usize;
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

fn unknown(examination: &Examination<'_, '_>, file: &str) -> Result<Vec<Finding>> {
    const MANY: f64 = 0.1;
    let prepared = examination.prepared;
    let names = ["[UNK]", "<unk>"];
    let Some(unknown) = names.iter().find_map(|name| prepared.model.tokenizer.token_to_id(name)) else {
        return Ok(Vec::new());
    };
    let tokens = &prepared.train_rows.tokens;
    let special = prepared.model.tokenizer.special_tokens(false);
    let (mut unknowns, mut all, mut rows) = (0, 0, Vec::new());
    for (row, ids) in tokens.ids().enumerate() {
        let ids = ids?;
        let here = ids.iter().filter(|id| **id == unknown).count();
        if 2 * here > ids.len().saturating_sub(special) {
            rows.push(tokens.line(row));
        }
        unknowns += here;
        all += ids.len().saturating_sub(special);
    }
    if (unknowns as f64) < MANY * all as f64 || all == 0 {
        return Ok(Vec::new());
    }
    rows.truncate(LISTED);
    Ok(found(
        "unknown-tokens",
        format!("{} of the tokens are unknown to the model's vocabulary", percent(unknowns, all)),
        file,
        rows,
        "all unknown words look the same to the model: it was made for another language or script",
        "start from a model of this language, or give --encoding if the letters look wrong".into(),
    ))
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
