//! What is wrong with a training before it costs anything: its rows, its settings, its start.
//!
//! Each check is one function that gives findings or none, and is silent on a healthy run: whoever reads a finding should
//! have something to do. The quick ones are also the first second of every training.

mod labels;
mod machine;
mod rows;
mod settings;
mod start;
mod word_counts;

pub use machine::Machine;
use retune_model::families::HeadKind;
use serde::Serialize;

use crate::recipe::{Prepared, prepare};
use crate::{Device, Error, Listener, Result, Source, TrainSettings};

/// Something that is wrong, or most likely is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The check that found it.
    pub check: &'static str,
    /// What it is.
    pub what: String,
    /// Where: a file, a setting, a layer.
    pub place: String,
    /// Lines of that file, the first few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<u64>,
    /// Why it matters.
    pub why: &'static str,
    /// What to type, or to do.
    pub fix: String,
}

impl Finding {
    /// In lines for a person.
    pub fn text(&self) -> String {
        let lines: Vec<_> = self.lines.iter().map(u64::to_string).collect();
        let lines = match lines.len() {
            0 => String::new(),
            1 => format!(", line {}", lines[0]),
            _ => format!(", lines {}", lines.join(", ")),
        };
        let Finding { check, what, place, why, fix, .. } = self;
        format!("warning: {check}: {what} ({place}{lines})\n  why: {why}\n  do: {fix}")
    }
}

/// All findings, and what was looked at: the JSON of `doctor`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// The checks that were made.
    pub checks: Vec<&'static str>,
    /// How much there was to learn from.
    pub counts: Counts,
    /// The mean loss of the first rows before any training.
    pub starting_loss: f64,
    /// What a model that answers 0 would have on the same rows; none where this one was trained for these labels.
    pub expected_loss: Option<f64>,
    /// A row of a language model, token by token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sample: Vec<SampleToken>,
}

/// A token of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleToken {
    /// As the tokenizer writes it.
    pub token: String,
    /// Whether it is learnt: told by those before it.
    pub learnt: bool,
}

/// The first row, where it is one of a language model.
fn sample(prepared: &Prepared<'_>) -> Result<Vec<SampleToken>> {
    let (tokens, model) = (&prepared.train_rows.tokens, &prepared.model);
    if model.task.head() != HeadKind::Language || tokens.is_empty() {
        return Ok(Vec::new());
    }
    let batch = tokens.batch(&[0])?;
    let token = |(place, (id, kind)): (usize, (&u32, &u32))| SampleToken {
        token: model.tokenizer.id_to_token(*id).unwrap_or_default(),
        // Nothing tells the first.
        learnt: *kind == 1 && place > 0,
    };
    let all = batch.input_ids.iter().zip(batch.token_type_ids.iter()).enumerate().map(token);
    Ok(all.collect())
}

/// What the training rows come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Rows with a label to learn.
    pub supervised_rows: usize,
    /// Of them, rows that are cut.
    pub truncated_rows: usize,
    /// Tokens that are cut off.
    pub truncated_tokens: usize,
    /// Tokens that are left.
    pub tokens: usize,
}

/// What a check is given, and where it puts what it finds.
pub(crate) struct Examination<'a, 's> {
    prepared: &'a Prepared<'s>,
    machine: Machine,
    findings: Vec<Finding>,
    checks: Vec<&'static str>,
}

impl<'a, 's> Examination<'a, 's> {
    fn new(prepared: &'a Prepared<'s>, machine: Machine) -> Self {
        Examination { prepared, machine, findings: Vec::new(), checks: Vec::new() }
    }

    fn check(&mut self, name: &'static str, found: Vec<Finding>) {
        self.checks.push(name);
        self.findings.extend(found);
    }

    fn quick(&mut self) -> Result<(f64, Option<f64>)> {
        rows::examine(self)?;
        labels::examine(self)?;
        settings::examine(self)?;
        start::examine(self)
    }
}

/// Looks for faults in the training of `settings`; nothing is written, and nothing kept of what is tried.
pub fn doctor(settings: &TrainSettings, listener: &mut dyn Listener) -> Result<Diagnosis> {
    doctor_on(Machine::here(settings.output.as_deref()), settings, listener)
}

/// The same for a training that another machine, or a part of this one, is meant for.
pub fn doctor_on(
    machine: Machine,
    settings: &TrainSettings,
    listener: &mut dyn Listener,
) -> Result<Diagnosis> {
    let mut prepared = prepare(settings, Source::fetch(&settings.model, listener)?, Device::Cpu, listener)?;
    let mut examination = Examination::new(&prepared, machine);
    let (starting_loss, expected_loss) = examination.quick()?;
    let Examination { mut findings, mut checks, .. } = examination;
    checks.push(start::OVERFIT);
    findings.extend(start::overfit(&mut prepared)?);
    let tokens = &prepared.train_rows.tokens;
    let counts = Counts {
        supervised_rows: prepared.examples.train.len(),
        truncated_rows: tokens.truncated(),
        truncated_tokens: (0..tokens.len()).map(|row| tokens.cut(row)).sum(),
        tokens: tokens.total(),
    };
    let sample = sample(&prepared)?;
    Ok(Diagnosis { findings, checks, counts, starting_loss, expected_loss, sample })
}

/// The quick checks, before a training: findings are told, or are an error where `strict`.
pub(crate) fn first_look(prepared: &Prepared<'_>, strict: bool, listener: &mut dyn Listener) -> Result<()> {
    let mut examination = Examination::new(prepared, Machine::here(prepared.resolved.output()));
    examination.quick()?;
    let findings = examination.findings;
    findings.iter().for_each(|finding| listener.say(&finding.text()));
    refuse(&findings, strict)
}

/// Errors if there are findings and they are to be errors.
pub fn refuse(findings: &[Finding], strict: bool) -> Result<()> {
    if !strict || findings.is_empty() {
        return Ok(());
    }
    let named: Vec<_> = findings.iter().map(|finding| finding.check).collect();
    let message = format!(
        "{} finding{} ({}); mend them, or leave --strict out",
        findings.len(),
        if findings.len() == 1 { "" } else { "s" },
        named.join(", ")
    );
    Err(Error::Setting { flag: "strict", message })
}

/// How many lines a finding names.
const LISTED: usize = 5;

/// A share in words.
fn percent(part: usize, whole: usize) -> String {
    format!("{:.1}%", 100.0 * part as f64 / whole.max(1) as f64)
}
