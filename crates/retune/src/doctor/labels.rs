//! The labels' names: two that are one, one that is none, one that is several, and those that the model calls otherwise.

use std::collections::{BTreeMap, BTreeSet};

use retune_adapt::nearest;
use retune_adapt::tasks::Answer;
use retune_data::{Example, Examples, LabelMap, ProblemType, plain};

use super::rows::{found, lines_where};
use super::{Examination, Finding, LISTED};
use crate::Result;
use crate::recipe::Prepared;

pub(super) fn examine(examination: &mut Examination<'_, '_>) -> Result<()> {
    let prepared = examination.prepared;
    let (train, labels) = (&prepared.examples.train, &prepared.examples.labels);
    let file = prepared.resolved.train_path().display().to_string();
    let problem_type = prepared.model.form.spec().problem_type;
    let named = problem_type.is_some_and(|problem_type| problem_type != ProblemType::Regression);
    let names = if named {
        [alike(train, labels, &file)?, missing(train, labels, &file)?, joined(train, labels, &file)?].concat()
    } else {
        Vec::new()
    };
    examination.check("label-names", names);
    let decoded = if named {
        [misnumbered(train, labels, &file)?, called_otherwise(prepared, &file)?].concat()
    } else {
        Vec::new()
    };
    examination.check("labels-decode", decoded);
    examination.check("label-in-text", told(train, &file)?);
    Ok(())
}

/// How many rows have one of `names`, and the lines of the first of them.
fn rows_of(train: &Examples, names: &[&str]) -> Result<(usize, Vec<u64>)> {
    lines_where(train, |example| example.names().iter().any(|name| names.contains(&name.as_str())))
}

fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    // Debug shows what the eye does not see: white space and characters of no width.
    let mut shown: Vec<_> = names.iter().take(4).map(|name| format!("{:?}", name.as_ref())).collect();
    if names.len() > 4 {
        shown.push("...".into());
    }
    shown.join(", ")
}

/// Two spellings of one name are two classes.
fn alike(train: &Examples, labels: &LabelMap, file: &str) -> Result<Vec<Finding>> {
    let mut all = Vec::new();
    for group in labels.alike() {
        let counted = group.into_iter().map(|name| Ok((rows_of(train, &[name])?.0, name)));
        let mut counted = counted.collect::<Result<Vec<_>>>()?;
        counted.sort_by_key(|(count, _)| *count);
        let group: Vec<&str> = counted.into_iter().map(|(_, name)| name).collect();
        let (rarer, usual) = (&group[..group.len() - 1], group.last().copied().unwrap_or_default());
        all.extend(found(
            "label-names",
            format!("the labels {} differ only by case, white space or Unicode's form", quoted(&group)),
            file,
            rows_of(train, rarer)?.1,
            "they are learnt as different classes, and each takes rows from the other",
            format!("write {usual:?} in these rows, if they mean the same"),
        ));
    }
    Ok(all)
}

/// What a spreadsheet or a script writes where there is nothing.
fn missing(train: &Examples, labels: &LabelMap, file: &str) -> Result<Vec<Finding>> {
    const NOTHING: [&str; 6] = ["nan", "null", "<na>", "#n/a", "#value!", "#ref!"];
    let names: BTreeSet<&str> = labels
        .names()
        .iter()
        .map(String::as_str)
        .filter(|name| NOTHING.contains(&plain(name).as_str()))
        .collect();
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let (count, lines) = rows_of(train, &names)?;
    if count == 0 {
        return Ok(Vec::new());
    }
    Ok(found(
        "label-names",
        format!("{count} rows have the label {}, which is how a missing one is written", quoted(&names)),
        file,
        lines,
        "rows without a label become a class of their own",
        "remove these rows, or give them their labels".into(),
    ))
}

/// `a;b` beside `a` and `b` is two labels, and is learnt as a third.
fn joined(train: &Examples, labels: &LabelMap, file: &str) -> Result<Vec<Finding>> {
    let names: BTreeSet<&str> = labels.names().iter().map(String::as_str).collect();
    for separator in [";", "|", ","] {
        let both = |name: &&str| {
            let mut parts = name.split(separator).map(str::trim);
            name.contains(separator) && parts.all(|part| names.contains(part))
        };
        let several: Vec<&str> = names.iter().copied().filter(both).collect();
        // Rows of several labels have each as itself.
        let (count, lines) = if several.is_empty() {
            (0, Vec::new())
        } else {
            lines_where(train, |example| example.class().is_some_and(|name| several.contains(&name)))?
        };
        if count == 0 {
            continue;
        }
        return Ok(found(
            "label-names",
            format!("the labels {} are several labels each, and are taken for one", quoted(&several)),
            file,
            lines,
            "each combination is learnt as a class of its own, that has nothing to do with its parts",
            format!("--label-separator {separator:?}"),
        ));
    }
    Ok(Vec::new())
}

/// `LABEL_3` is what the class of number 3 is called where nobody named it: as the name of another one it misleads.
fn misnumbered(train: &Examples, labels: &LabelMap, file: &str) -> Result<Vec<Finding>> {
    let number = |name: &str| plain(name).strip_prefix("label_")?.parse::<usize>().ok();
    let names = labels.names();
    if !names.iter().all(|name| number(name).is_some()) {
        return Ok(Vec::new());
    }
    let other = names.iter().enumerate().find(|(index, name)| number(name) != Some(*index));
    let Some((index, name)) = other else { return Ok(Vec::new()) };
    Ok(found(
        "labels-decode",
        format!("`{name}` gets the number {index}, as names are in the order of their bytes"),
        file,
        rows_of(train, &[name])?.1,
        "other tools call the class of number 1 LABEL_1: whoever goes by that takes one class for another",
        "write plain numbers from 0 on, or what the labels mean".into(),
    ))
}

/// The model has a head for these labels under slightly other names: it is thrown away, and nobody says so.
fn called_otherwise(prepared: &Prepared<'_>, file: &str) -> Result<Vec<Finding>> {
    let model = &prepared.model;
    let head = &model.parameters.get(model.network.classifier().weight).name;
    let Some(known) = model.source.sound_labels()? else { return Ok(Vec::new()) };
    if !(model.has_fresh_head() && model.unused.contains(head)) {
        return Ok(Vec::new());
    }
    let names = prepared.examples.labels.names();
    let is_known = |name: &&String| known.contains(name);
    let (same, other): (Vec<&String>, Vec<&String>) = names.iter().partition(is_known);
    let place = model.source.folder.join("config.json").display().to_string();
    let why = "a head that was trained is thrown away, and a new one starts from nothing";
    // Numbers from 0 on, where the model has names for these numbers.
    let numbers = names.iter().map(|name| name.parse::<usize>().ok().filter(|number| *number < known.len()));
    if same.is_empty() && names.len() == known.len() && numbers.clone().all(|number| number.is_some()) {
        return Ok(found(
            "labels-decode",
            format!(
                "the labels are the numbers {}, and the model calls them {}",
                quoted(names),
                quoted(&known)
            ),
            file,
            Vec::new(),
            why,
            format!("write the names in the file, or the numbers into the `id2label` of {place}"),
        ));
    }
    let meant = |name: &&String| {
        let alike = known.iter().find(|known| plain(known) == plain(name));
        let near = || nearest(name, known.iter().map(String::as_str)).filter(|_| !same.is_empty());
        alike.map(String::as_str).or_else(near)
    };
    let meant: Option<Vec<&str>> = other.iter().map(meant).collect();
    let Some(meant) = meant.filter(|meant| !meant.is_empty()) else { return Ok(Vec::new()) };
    let wrong: Vec<&str> = other.iter().map(|name| name.as_str()).collect();
    Ok(found(
        "labels-decode",
        format!("the labels {} are none of the model's, which has {}", quoted(&wrong), quoted(&meant)),
        file,
        rows_of(&prepared.examples.train, &wrong)?.1,
        why,
        format!("write {} in these rows, if they mean the same", quoted(&meant)),
    ))
}

/// Texts that say their own label.
fn told(train: &Examples, file: &str) -> Result<Vec<Finding>> {
    const ENOUGH: usize = 20;
    const NEARLY_ALL: f64 = 0.95;
    let words = |text: &str| {
        let plain = plain(text);
        let words = plain.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        format!(" {} ", words.collect::<Vec<_>>().join(" "))
    };
    let says = |example: &Example| {
        let name = words(example.class().unwrap_or_default());
        let texts = [Some(&example.text), example.pair.as_ref()];
        !name.trim().is_empty() && texts.into_iter().flatten().any(|text| words(text).contains(&name))
    };
    let (mut telling, mut silent, mut lines) = (0_usize, 0_usize, Vec::new());
    for example in train.iter() {
        let example = example?;
        if says(&example) {
            telling += 1;
            lines.extend((telling <= LISTED).then_some(example.line));
        } else {
            silent += 1;
        }
        // What comes can no longer change it, so most files are not read to their end.
        if ((train.len() - silent) as f64) < NEARLY_ALL * train.len() as f64 {
            return Ok(Vec::new());
        }
    }
    if telling < ENOUGH {
        return Ok(Vec::new());
    }
    Ok(found(
        "label-in-text",
        format!("{telling} of {} rows have their label in their text", train.len()),
        file,
        lines,
        "the model learns to read it off, and texts without it get any label",
        "take the label out of the texts; is it the right --text-column?".into(),
    ))
}

/// A trained head whose answers fit the labels well, but under other names.
pub(super) fn swapped(prepared: &Prepared<'_>, rows: &[usize], logits: &[f32]) -> Result<Vec<Finding>> {
    let labels = prepared.model.labels();
    // Several labels and numbers have no one name that could be another's.
    if prepared.model.form.spec().problem_type != Some(ProblemType::SingleLabel) {
        return Ok(Vec::new());
    }
    let tokens = &prepared.train_rows.tokens;
    let mut decode = prepared.model.form.decode(&prepared.examples.train, tokens)?;
    let answers = decode.add(rows, logits)?;
    let mut taken: BTreeMap<usize, BTreeMap<usize, usize>> = BTreeMap::new();
    let mut right = 0;
    for (row, answered) in rows.iter().zip(answers) {
        let Answer::Class { label, .. } = answered.answer else { return Ok(Vec::new()) };
        let example = prepared.examples.train.get(tokens.example(*row))?;
        let target = example.as_ref().and_then(Example::class).and_then(|name| labels.index(name));
        let (Some(target), Some(class)) = (target, labels.index(&label)) else {
            continue;
        };
        *taken.entry(target).or_default().entry(class).or_default() += 1;
        right += usize::from(class == target);
    }
    let majority =
        |by: &BTreeMap<usize, usize>| by.iter().max_by_key(|(_, count)| **count).map(|(c, n)| (*c, *n));
    let mapped: usize = taken.values().filter_map(majority).map(|(_, count)| count).sum();
    // With few rows a label, any answer is the most frequent one of its label.
    if rows.len() < 3 * taken.len() || mapped * 10 < rows.len() * 6 || right * 2 > mapped {
        return Ok(Vec::new());
    }
    let name = |class: usize| labels.name(class).unwrap_or_default();
    let pairs = taken.iter().filter_map(|(target, by)| Some((*target, majority(by)?.0)));
    let pairs: Vec<_> = pairs
        .filter(|(a, b)| a != b)
        .take(3)
        .map(|(a, b)| format!("`{}` is called `{}`", name(a), name(b)))
        .collect();
    Ok(found(
        "swapped-labels",
        format!("the model tells the labels apart, but under other names: {}", pairs.join(", ")),
        &prepared.model.source.folder.display().to_string(),
        Vec::new(),
        "its label names are in another order than its logits, so every prediction would carry a wrong name",
        "put the `id2label` of its config.json (and the labels of its retune.json) right".into(),
    ))
}
